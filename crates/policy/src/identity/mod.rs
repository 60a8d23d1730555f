//! Numbers for what policies can tell apart.
//!
//! Everything a rule can ask of a workload is in a [`Workload`]; workloads that are the same to every rule share one
//! number, so that tables and packets carry numbers instead of labels. The ranges are those of the field:
//!
//! | numbers | whose |
//! |---|---|
//! | 0 | nobody in particular |
//! | 1..=255 | reserved: the host, the world, ... |
//! | 256..=65535 | workloads, by their labels |
//! | 65536..=0xffffff | workloads of other clusters |
//! | from 0x1000000 | addresses, by the written blocks that contain them; they never travel |
//! | from 0x2000000 | nodes |
//!
//! Numbers belong to a tenant: the same labels in two tenants are two different worlds, and every table that holds an
//! identity is reached by a key with the tenant in it. One space for the whole host would let one tenant's churn use up
//! everybody's 65,280 numbers, and would buy nothing, for no rule reaches into another tenant.

mod allocator;
mod filter;
mod labels;
mod workload;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use allocator::{Acquired, Exhausted, Identities, Settings, Snapshot, Usage};
pub use filter::LabelFilter;
pub use labels::{LabelSet, Labels};
pub use workload::{NamedPort, Workload};

/// The number of an identity, in its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// Nobody in particular.
    pub const ANY: Identity = Identity(0);
    /// The host itself.
    pub const HOST: Identity = Identity(1);
    /// Whoever is not known.
    pub const WORLD: Identity = Identity(2);
    /// The first of a workload.
    pub const FIRST: Identity = Identity(256);
    /// The last of a workload of this cluster.
    pub const LAST: Identity = Identity(65_535);
    /// The first of a block of addresses.
    pub const FIRST_BLOCK: Identity = Identity(0x0100_0000);

    /// Does it stand for labels?
    pub fn is_workload(self) -> bool {
        self >= Identity::FIRST && self < Identity::FIRST_BLOCK
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
