//! The verdict tables, as hash maps in memory: what the datapath will hold, and what it will do with it.
//!
//! ## The lookup
//!
//! A packet has a tenant, a subject (the endpoint it leaves or reaches), a direction, a peer with an identity and an
//! address, a protocol and a destination port (0 without one).
//!
//! 1. `subjects[tenant, subject]`: the set of rules for this direction; `after` if the generation of the entry has come,
//!    `before` otherwise. No entry: drop. Set 0: no policy selects it, pass.
//! 2. `sets[set]`: for each protocol a mask of the prefix lengths that its ports have here, a group of peers, and one of
//!    blocks.
//! 3. The class of the port: for each bit of the mask, longest prefix first, `ports[set, protocol, length, port & prefix]`;
//!    the first that is there. Otherwise class 0.
//! 4. The class of the peer: `peers[group, identity]`, if there is a group and it is there. Otherwise 1 for the identity of
//!    a workload, and 0 for others.
//! 5. `verdicts[set, class of the peer, class of the port]`. If it is not there, and the class of the peer came from `peers`:
//!    the one with 0 for the class of the port and the one with 1 for the class of the peer, merged.
//! 6. If there is a group of blocks: `blocks[group, address]`, the longest prefix; if it gives a block's identity, the
//!    verdict with that for the class of the peer, or if it is not there, the one with 0 for the class of the port too.
//! 7. What 5 and 6 found is merged: for each tier the smaller number. The first tier with a rule that is no `Pass` decides;
//!    without one the packet passes.
//!
//! An endpoint that is asked about as a peer too is looked up with the roles exchanged; both sides must let it pass.
//!
//! ## The switch
//!
//! A set that is in use changes in one way only: identities come and go, and no packet carries one before its entries are
//! there or until they are gone. Whatever else changes makes new sets. They are written beside the old ones, then each
//! subject gets `before`, `after` and the coming generation, which nothing looks at yet, and then one number, the
//! generation, changes: that is the moment, for all subjects at once. Then the old sets go.

mod delta;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use fief_model::Slot;
use ipnet::IpNet;

use crate::identity::Identity;
use crate::rule::{Direction, Origin, PolicyKey};
use crate::verdict::{Action, Hits};

pub use delta::{Delta, Sizes};

/// The number of a set of rules; 0 is no set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u32);

/// The number of a group of peers; 0 is no group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeersId(pub u32);

/// Peers that are the same to every rule of a set. Blocks of addresses have the numbers of their identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerClass(pub u32);

/// The number of a group of blocks; 0 is no group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// The number of a rule on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleNumber(pub u32);

/// The sets of a subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Sets {
    /// For what reaches it.
    pub ingress: SetId,
    /// For what leaves it.
    pub egress: SetId,
}

/// A subject's sets, now and from a generation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The generation that `after` holds from.
    pub since: u32,
    /// Until then.
    pub before: Sets,
    /// From then on.
    pub after: Sets,
}

/// What a lookup must know of a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Prefix lengths of ports, as bits, for TCP, UDP, SCTP and everything else.
    pub lengths: [u32; 4],
    /// The labels that its rules ask of peers.
    pub peers: PeersId,
    /// The blocks that its rules name.
    pub group: GroupId,
}

/// A class of ports in a set: packets to them are the same to each of its rules.
pub type Class = u16;

/// Ports of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// The set.
    pub set: SetId,
    /// The protocol's number.
    pub protocol: u8,
    /// How many leading bits of the port count.
    pub length: u8,
    /// Those bits, the others zero.
    pub port: u16,
}

/// Peers and ports, to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VerdictKey {
    /// The set.
    pub set: SetId,
    /// The class of the peers.
    pub peer: PeerClass,
    /// The class of the ports.
    pub class: Class,
}

/// Which rule, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The document.
    pub policy: Arc<PolicyKey>,
    /// The place in it.
    pub origin: Origin,
}

/// The tables.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// How often the switch was thrown.
    pub generation: u32,
    /// By tenant and identity.
    pub subjects: HashMap<(Slot, Identity), Subject>,
    /// What a lookup must know of each set.
    pub sets: HashMap<SetId, Header>,
    /// Classes of ports.
    pub ports: HashMap<PortKey, Class>,
    /// Classes of peers.
    pub peers: HashMap<(PeersId, Identity), PeerClass>,
    /// Longest prefixes; identity 0 is a hole.
    pub blocks: HashMap<(GroupId, IpNet), Identity>,
    /// The first rules that match.
    pub verdicts: HashMap<VerdictKey, Hits>,
    /// A set's rules by their rank.
    pub ranks: HashMap<(SetId, u32), RuleNumber>,
    /// Where rules are written. For persons; the datapath does not need it.
    pub written: HashMap<RuleNumber, Written>,
}

/// What a verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The tenant.
    pub tenant: Slot,
    /// The endpoint that the verdict is about.
    pub subject: Identity,
    /// Does the packet reach it, or leave it?
    pub direction: Direction,
    /// The other side; [`Identity::WORLD`] if it is not known.
    pub peer: Identity,
    /// The other side's address.
    pub address: IpAddr,
    /// The protocol's number.
    pub protocol: u8,
    /// The destination port; 0 for protocols without.
    pub port: u16,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A rule decided.
    Decided(Action, RuleNumber),
    /// No rule spoke of it: it passes.
    Open,
    /// The subject is not known: it is dropped.
    Unknown,
}

impl Tables {
    /// What becomes of a packet; the module's text in code.
    pub fn lookup(&self, packet: &Packet) -> Verdict {
        let Some(subject) = self.subjects.get(&(packet.tenant, packet.subject)) else {
            return Verdict::Unknown;
        };
        let set = subject.at(self.generation).of(packet.direction);
        let Some(header) = self.sets.get(&set) else {
            // Set 0 has no header; no other set that a subject names is ever without.
            return if set == SetId::default() { Verdict::Open } else { Verdict::Unknown };
        };
        let class = self.class(set, header, packet);
        let find = |peer, class| self.verdicts.get(&VerdictKey { set, peer, class }).copied();
        let by = |peer, class| find(peer, class).unwrap_or(Hits::NONE);
        let by_identity = match self.peer_class(header.peers, packet.peer) {
            usual @ (PeerClass::ANY | PeerClass::WORKLOAD) => by(usual, class),
            named => find(named, class).unwrap_or_else(|| by(named, 0).merge(by(PeerClass::WORKLOAD, class))),
        };
        let by_address = match header.group {
            GroupId(0) => Hits::NONE,
            group => self
                .block(group, packet.address)
                .map_or(Hits::NONE, |block| find(block, class).unwrap_or_else(|| by(block, 0))),
        };
        match by_identity.merge(by_address).decide() {
            None => Verdict::Open,
            Some((rank, action)) => match self.ranks.get(&(set, rank)) {
                Some(rule) => Verdict::Decided(action, *rule),
                None => Verdict::Unknown,
            },
        }
    }

    fn class(&self, set: SetId, header: &Header, packet: &Packet) -> Class {
        let mut lengths = header.lengths_of(packet.protocol);
        while lengths != 0 {
            let length = 31 - lengths.leading_zeros();
            lengths &= !(1 << length);
            let port = packet.port & prefix_mask(length);
            let key = PortKey { set, protocol: packet.protocol, length: length as u8, port };
            if let Some(class) = self.ports.get(&key) {
                return *class;
            }
        }
        0
    }

    fn peer_class(&self, group: PeersId, peer: Identity) -> PeerClass {
        let named = match group {
            PeersId(0) => None,
            group => self.peers.get(&(group, peer)).copied(),
        };
        named.unwrap_or(if peer.is_workload() { PeerClass::WORKLOAD } else { PeerClass::ANY })
    }

    /// The longest prefix; the datapath has a trie for it.
    fn block(&self, group: GroupId, address: IpAddr) -> Option<PeerClass> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefixes = (0..=longest).rev().filter_map(|length| IpNet::new(address, length).ok());
        let found = prefixes.filter_map(|net| self.blocks.get(&(group, net.trunc()))).next();
        found.filter(|identity| **identity != Identity::ANY).map(|identity| PeerClass(identity.0))
    }
}

impl PeerClass {
    /// Whoever no rule of the set names.
    pub const ANY: PeerClass = PeerClass(0);
    /// Workloads that no rule of the set names.
    pub const WORKLOAD: PeerClass = PeerClass(1);
    /// The first of others.
    pub const FIRST: PeerClass = PeerClass(2);
}

impl Verdict {
    /// Does the packet go on?
    pub fn passes(self) -> bool {
        matches!(self, Verdict::Open | Verdict::Decided(Action::Allow | Action::Redirect, _))
    }
}

impl Subject {
    /// The sets in this generation.
    pub fn at(&self, generation: u32) -> Sets {
        if self.since <= generation { self.after } else { self.before }
    }
}

impl Sets {
    /// The set for a direction.
    pub fn of(&self, direction: Direction) -> SetId {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

impl Header {
    /// The prefix lengths of a protocol's ports.
    pub fn lengths_of(&self, protocol: u8) -> u32 {
        let [tcp, udp, sctp, others] = self.lengths;
        match protocol {
            6 => tcp,
            17 => udp,
            132 => sctp,
            _ => others,
        }
    }

    pub(crate) fn add_length(&mut self, protocol: u8, length: u8) {
        let [tcp, udp, sctp, others] = &mut self.lengths;
        let lengths = match protocol {
            6 => tcp,
            17 => udp,
            132 => sctp,
            _ => others,
        };
        *lengths |= 1 << length;
    }
}

/// The leading bits of a port.
pub(crate) fn prefix_mask(length: u32) -> u16 {
    u16::MAX.checked_shl(16_u32.saturating_sub(length)).unwrap_or(0)
}
