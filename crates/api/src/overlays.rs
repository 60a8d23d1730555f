//! Interfaces of namespaces on the segments of groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The interface that somebody's namespace has, if he does not name another.
pub const DEVICE: &str = "eth0";

/// Asks for an interface in the caller's network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The group, by name or number; the caller's effective one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Which of the group's networks; 0, the first, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<u8>,
    /// The interface's name; `eth0` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Its MTU; what passes the underlay in one piece if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// An interface that a namespace has on a group's segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverlayView {
    /// The group.
    pub group: u32,
    /// Which of its networks.
    pub network: u8,
    /// The number on the wire.
    pub vni: u32,
    /// Who asked for it.
    pub user: u32,
    /// What it was called then.
    pub device: String,
    /// The network namespace it was made in, by inode number, as in `readlink /proc/self/ns/net`.
    pub namespace: u64,
    /// Its MTU.
    pub mtu: u32,
    /// Ethernet addresses that are remembered behind it; of a list only.
    pub addresses: u32,
    /// Frames that it sent to everybody.
    pub flooded: u64,
    /// Frames to everybody that were above the rate, and dropped.
    pub limited: u64,
}

/// What was counted for all segments of a host together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverlayCounters {
    /// Frames that the interfaces there are have sent to everybody.
    pub flooded: u64,
    /// Those that were above the rate, and dropped.
    pub limited: u64,
    /// Datagrams and frames without sense, or of no segment of this host.
    pub malformed: u64,
    /// Ethernet addresses that were forgotten for new ones of the same owner.
    pub evicted: u64,
    /// Goodbyes of peers that were believed.
    pub goodbyes: u64,
    /// Goodbyes of peers that had just said one, and were not.
    pub goodbyes_ignored: u64,
    /// Ethernet addresses of other hosts that are remembered.
    pub remote_addresses: u32,
    /// What guarded sockets that this daemon has made were refused, by kind.
    pub refused: BTreeMap<String, u64>,
}
