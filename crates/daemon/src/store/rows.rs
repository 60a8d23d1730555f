//! What is in the store, row by row.

use fief_marks::MarkLayout;
use fief_model::{Endpoint, Network, NetworkPolicy, Places, Slot, Tenant};
use fief_policy::Workload;
use serde::{Deserialize, Serialize};

/// A tenant as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The document.
    pub tenant: Tenant,
    /// The set that made it.
    pub set: String,
    /// Its number, kept as long as it lives.
    pub slot: Slot,
    /// Members as numbers, resolved when it was applied.
    #[serde(default)]
    pub members: MemberIds,
    /// Users and groups that it selects, resolved like members.
    #[serde(default)]
    pub selected: MemberIds,
}

/// Members as the kernel knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberIds {
    /// User ids.
    pub users: Vec<u32>,
    /// Group ids.
    pub groups: Vec<u32>,
}

/// What a switch was before fief set it, and what fief set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The value found.
    pub before: String,
    /// The value set.
    pub set: String,
    /// The index of the device whose switch it is.
    #[serde(default)]
    pub device: Option<u32>,
}

/// Where the slot stands in marks, and why there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The field that counts.
    pub mask: MarkLayout,
    /// Which of the two places for a rule tree its tree has.
    pub lane: u8,
    /// Why it stands there, in a line.
    pub reason: String,
    /// On its way to another place.
    #[serde(default)]
    pub moving: Option<Moving>,
}

/// A field on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The next place.
    pub to: MarkLayout,
    /// The last place: another one than the next where those two would share bits.
    pub goal: MarkLayout,
    /// Why it moves, in a line.
    pub reason: String,
    /// How far it has come.
    pub phase: Phase,
}

/// How far a field has come. Every step leaves what is written true for the one before and the one behind it, so that
/// programs may be replaced one by one, and a daemon may be killed anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The slot is written to both places, and the old one counts.
    Both,
    /// The slot is written to both places, and the new one counts.
    Read,
    /// The new place is the only one; the old bits are taken off sockets and connections.
    Clean,
}

/// A network as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredNetwork {
    /// The document.
    pub network: Network,
    /// The set that made it.
    pub set: String,
}

/// An endpoint as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEndpoint {
    /// The document.
    pub endpoint: Endpoint,
    /// The set that made it.
    pub set: String,
}

/// A network policy as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPolicy {
    /// The document.
    pub policy: NetworkPolicy,
    /// The set that made it.
    pub set: String,
    /// Where it is written.
    pub places: Places,
}

/// A number of a tenant that stands for labels, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoredIdentity {
    /// It was given.
    Given {
        /// What it stands for.
        workload: Workload,
        /// When it was given, in seconds of the Unix epoch.
        since: u64,
    },
    /// It is free again.
    Free {
        /// Its place among the free ones; the lowest is given first.
        place: u64,
    },
}

/// A device by which networks leave: an address space of its own, like a tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Its number, kept as long as a network names it.
    pub slot: Slot,
    /// Which of the addresses of a tenant's link belongs to it, 0..=15.
    pub index: u8,
}
