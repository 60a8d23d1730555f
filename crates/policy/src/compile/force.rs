//! Rules that come into force and go, and what that means for subjects.

use std::collections::BTreeSet;

use fief_model::Slot;

use super::Work;
use super::rules::{Named, PeerRef, Rules};
use super::set::Member;
use super::world::{SelectorId, World};
use crate::identity::{Identity, NamedPort, Workload};
use crate::rule::{Direction, Peer, Ports, Statement};
use crate::tables::RuleNumber;

/// Puts a rule into force.
pub(super) fn enforce(
    number: RuleNumber,
    world: &mut World,
    rules: &mut Rules,
    tenant: Slot,
    work: &mut Work,
) {
    let Some(rule) = rules.get_mut(number) else { return };
    let says = rule.says.clone();
    let subject = world.intern(&says.subject);
    if let Some(selecting) = world.selecting_mut(subject) {
        selecting.subject_of.insert(number);
    }
    let peers = says.peers.iter().map(|peer| match peer {
        Peer::Any => PeerRef::Any,
        Peer::Block(block) => PeerRef::Block(block.clone()),
        Peer::Labels(selector) if selector.is_everybody() => PeerRef::Workloads,
        Peer::Labels(selector) => {
            let id = world.intern(selector);
            if let Some(selecting) = world.selecting_mut(id) {
                selecting.peer_of += 1;
            }
            PeerRef::Labels(id)
        }
    });
    let peers = peers.collect();
    for (name, protocol) in names_of_peers(&says) {
        world.names.rules_mut(name, protocol).insert(number);
    }
    rule.named = Some(Named { subject, peers });
    work.dirty.extend(world.subjects_of(subject).into_iter().map(|identity| (tenant, identity)));
}

/// Takes a rule out of force.
pub(super) fn dismiss(
    number: RuleNumber,
    world: &mut World,
    rules: &mut Rules,
    tenant: Slot,
    work: &mut Work,
) {
    let Some(rule) = rules.get_mut(number) else { return };
    let Some(Named { subject, peers }) = rule.named.take() else { return };
    work.dirty.extend(world.subjects_of(subject).into_iter().map(|identity| (tenant, identity)));
    if let Some(selecting) = world.selecting_mut(subject) {
        selecting.subject_of.remove(&number);
    }
    world.left(subject);
    for peer in &*peers {
        if let PeerRef::Labels(id) = peer {
            if let Some(selecting) = world.selecting_mut(*id) {
                selecting.peer_of -= 1;
            }
            world.left(*id);
        }
    }
    for (name, protocol) in names_of_peers(&rule.says) {
        world.names.rules_mut(name, protocol).remove(&number);
    }
}

/// The names of ports that are the peers' to explain.
fn names_of_peers(says: &Statement) -> impl Iterator<Item = (&str, u8)> {
    says.ports.names().filter(|_| says.direction == Direction::Egress)
}

/// For each name that a workload has for a port: the ports that anybody means by it.
pub(super) fn meanings(world: &World, workload: &Workload) -> Vec<Vec<u16>> {
    workload.ports().iter().map(|port| world.names.rules(&port.name, port.protocol).0).collect()
}

/// Where a name means other ports than before, the subjects of rules that use it need other sets.
pub(super) fn notice_meanings(
    before: Vec<Vec<u16>>,
    world: &World,
    rules: &Rules,
    workload: &Workload,
    (tenant, work): (Slot, &mut Work),
) {
    for (port, before) in workload.ports().iter().zip(before) {
        let (ports, users) = world.names.rules(&port.name, port.protocol);
        if ports == before {
            continue;
        }
        let named = users.into_iter().filter_map(|number| rules.get(number)?.named.as_ref());
        for subject in named.map(|named| named.subject).collect::<BTreeSet<_>>() {
            work.dirty.extend(world.subjects_of(subject).into_iter().map(|identity| (tenant, identity)));
        }
    }
}

/// What the rules for a subject depend on: subjects that have it in common have the same [`members`].
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Alike {
    tenant: Slot,
    direction: Direction,
    /// The selectors by which rules mean it.
    selectors: Vec<SelectorId>,
    /// What it calls its ports, which counts for what reaches it.
    ports: BTreeSet<NamedPort>,
}

/// What a subject has in common with others.
pub(super) fn alike_in(tenant: Slot, world: &World, identity: Identity, direction: Direction) -> Alike {
    let known = world.identities.get(&identity);
    let is_meant = |id: &SelectorId| world.selecting(*id).is_some_and(|s| !s.subject_of.is_empty());
    let selectors = known.into_iter().flat_map(|known| &known.selectors).copied().filter(is_meant).collect();
    let ports = match direction {
        Direction::Ingress => known.map(|known| known.workload.ports().clone()).unwrap_or_default(),
        Direction::Egress => BTreeSet::new(),
    };
    Alike { tenant, direction, selectors, ports }
}

/// The rules for a subject in one direction, in their order.
pub(super) fn members(world: &World, rules: &Rules, identity: Identity, direction: Direction) -> Vec<Member> {
    let Some(known) = world.identities.get(&identity) else { return Vec::new() };
    let selecting = known.selectors.iter().filter_map(|id| world.selecting(*id));
    let numbers = selecting.flat_map(|selecting| selecting.subject_of.iter().copied());
    let mut found: Vec<_> = numbers
        .filter_map(|number| Some((number, rules.get(number)?)))
        .filter(|(_, rule)| rule.says.direction == direction)
        .collect();
    found.sort_by(|(_, one), (_, other)| one.order(other));
    let named = |ports: &Ports| match direction {
        _ if ports.names().next().is_none() => Vec::new(),
        Direction::Egress => world.names.meanings(ports.names()),
        Direction::Ingress => {
            let own = |(name, protocol)| Some((protocol, known.workload.port(name, protocol)?));
            ports.names().filter_map(own).collect()
        }
    };
    found.into_iter().map(|(rule, of)| Member { rule, named: named(&of.says.ports) }).collect()
}
