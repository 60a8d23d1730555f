//! Keys and values of the maps. The C side is bpf/lib/verdict.h; both change together.

use aya::Pod;
use aya::maps::lpm_trie::Key;
use fief_policy::tables::{self, GroupId, Header, PeersId, Sets};
use fief_policy::verdict::Hits;
use fief_policy::{Direction, Identity};
use ipnet::IpNet;

use crate::ports::entries::family;

/// `struct policy_subject_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SubjectKey {
    pub(super) slot: u32,
    pub(super) identity: u32,
}

/// `struct policy_subject`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    /// The key once more: see the C side.
    pub(super) whose: SubjectKey,
    pub(super) since: u32,
    pub(super) before: [u32; 2],
    pub(super) after: [u32; 2],
}

/// `struct policy_set`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Set {
    lengths: [u32; 4],
    peers: u32,
    blocks: u32,
}

/// `struct policy_port`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PortKey {
    set: u32,
    protocol: u8,
    length: u8,
    port: u16,
}

/// `struct policy_peer`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerKey {
    group: u32,
    identity: u32,
}

/// `struct policy_block` without its length, which is the trie's own.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    group: u32,
    family: u32,
    address: [u8; 16],
}

/// `struct policy_verdict_key`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VerdictKey {
    set: u32,
    peer: u32,
    ports: u32,
}

/// `struct policy_rank`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RankKey {
    pub(super) set: u32,
    pub(super) rank: u32,
}

/// `struct last`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) judged: u64,
    pub(super) outcome: u32,
    pub(super) action: u32,
    pub(super) rule: u32,
    pub(super) set: u32,
    pub(super) subject: u32,
    pub(super) peer: u32,
}

// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for SubjectKey {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Subject {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Set {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for PortKey {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for PeerKey {}
// SAFETY: numbers and bytes, nothing between or behind them.
unsafe impl Pod for Block {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for VerdictKey {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for RankKey {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Last {}

impl Subject {
    /// What holds in a generation.
    pub(super) fn at(&self, generation: u32) -> [u32; 2] {
        if self.since <= generation { self.after } else { self.before }
    }
}

/// By direction, as `enum policy_direction` numbers them.
pub(super) fn sets(sets: Sets) -> [u32; 2] {
    [Direction::Ingress, Direction::Egress].map(|direction| sets.of(direction).0)
}

impl From<&Header> for Set {
    fn from(header: &Header) -> Set {
        Set { lengths: header.lengths, peers: header.peers.0, blocks: header.group.0 }
    }
}

impl From<&tables::PortKey> for PortKey {
    fn from(key: &tables::PortKey) -> PortKey {
        PortKey { set: key.set.0, protocol: key.protocol, length: key.length, port: key.port }
    }
}

impl From<&(PeersId, Identity)> for PeerKey {
    fn from((group, identity): &(PeersId, Identity)) -> PeerKey {
        PeerKey { group: group.0, identity: identity.0 }
    }
}

impl From<&tables::VerdictKey> for VerdictKey {
    fn from(key: &tables::VerdictKey) -> VerdictKey {
        VerdictKey { set: key.set.0, peer: key.peer.0, ports: key.class.into() }
    }
}

/// The trie's key. Group and family are whole in front of each prefix.
pub(super) fn block((group, net): &(GroupId, IpNet)) -> Key<Block> {
    let (family, address) = family(net.network());
    Key::new(64 + u32::from(net.prefix_len()), Block { group: group.0, family, address })
}

/// `struct policy_hits`.
pub(super) fn hits(Hits(found): &Hits) -> [u32; 4] {
    found.map(fief_policy::verdict::Hit::number)
}
