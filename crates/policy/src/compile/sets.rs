//! All sets, shared by the subjects that the same rules select.

use std::collections::{BTreeSet, HashMap};

use fief_model::Slot;

use super::groups::Groups;
use super::layout::TooMany;
use super::rules::Rules;
use super::set::{Member, Set};
use super::world::World;
use crate::identity::Identity;
use crate::rule::Direction;
use crate::tables::{Class, Delta, PortKey, SetId, Sizes, VerdictKey};
use crate::verdict::Hits;

/// All sets.
#[derive(Debug, Default)]
pub(super) struct Store {
    sets: HashMap<SetId, Set>,
    numbers: HashMap<Key, SetId>,
    last: SetId,
    pub(super) groups: Groups,
    /// Sets that no table holds yet.
    fresh: BTreeSet<SetId>,
    /// Sets that lost a user.
    idle: BTreeSet<SetId>,
    /// Entries of sets in use that changed: before and after.
    edits: Edits,
    /// What the tables hold.
    pub(super) sizes: Sizes,
}

/// What makes two sets the same.
type Key = (Slot, Direction, Vec<Member>);

/// What a set is made from.
pub(super) struct Material<'a> {
    pub(super) rules: &'a Rules,
    pub(super) world: &'a mut World,
}

impl Store {
    /// The set of these rules, with one more user; set 0 for no rules.
    pub(super) fn acquire(&mut self, key: Key, from: &mut Material<'_>) -> Result<SetId, TooMany> {
        if key.2.is_empty() {
            return Ok(SetId::default());
        }
        let id = match self.numbers.get(&key) {
            Some(id) => *id,
            None => self.make(key, from)?,
        };
        if let Some(set) = self.sets.get_mut(&id) {
            set.uses += 1;
        }
        Ok(id)
    }

    /// One user less.
    pub(super) fn release(&mut self, id: SetId) {
        if let Some(set) = self.sets.get_mut(&id) {
            set.uses -= 1;
            self.idle.insert(id);
        }
    }

    fn make(&mut self, key: Key, from: &mut Material<'_>) -> Result<SetId, TooMany> {
        let (tenant, direction, members) = key.clone();
        let mut set = Set::new(tenant, direction, members, from.rules)?;
        set.group = self.groups.acquire(set.blocks().to_vec());
        set.fill(from.world, self.groups.get(set.group).map_or(&[], |group| &group.numbers));
        // Numbers go round, so that a record of a set that is gone does not mean another one.
        while self.last.0 == 0 || self.sets.contains_key(&self.last) {
            self.last.0 = self.last.0.wrapping_add(1);
        }
        let id = self.last;
        for selector in &set.selectors {
            if let Some(selecting) = from.world.selecting_mut(*selector) {
                selecting.peer_in.insert(id);
            }
        }
        for (name, protocol) in &set.names {
            from.world.names.sets_mut(name, *protocol).insert(id);
        }
        self.sets.insert(id, set);
        self.numbers.insert(key, id);
        self.fresh.insert(id);
        self.idle.insert(id);
        Ok(id)
    }

    /// A new identity, in every set that names it.
    pub(super) fn add_identity(&mut self, identity: Identity, world: &World) {
        let Some(known) = world.identities.get(&identity) else { return };
        for id in sets_of(known, world) {
            let Some(set) = self.sets.get_mut(&id).filter(|set| !set.is_fresh) else { continue };
            for (class, hits) in set.of_identity(known) {
                let old = set.verdicts.insert((identity, class), hits);
                edit(&mut self.edits, VerdictKey { set: id, peer: identity, class }, old, Some(hits));
            }
        }
    }

    /// An identity goes from every set that names it. To be called while the world still knows it.
    pub(super) fn remove_identity(&mut self, identity: Identity, world: &World) {
        let Some(known) = world.identities.get(&identity) else { return };
        for id in sets_of(known, world) {
            let Some(set) = self.sets.get_mut(&id).filter(|set| !set.is_fresh) else { continue };
            for class in set.layout.classes() {
                if let Some(old) = set.verdicts.remove(&(identity, class)) {
                    edit(&mut self.edits, VerdictKey { set: id, peer: identity, class }, Some(old), None);
                }
            }
        }
    }

    /// How many entries come before any goes.
    pub(super) fn coming(&self) -> Sizes {
        let mut sizes = Sizes { blocks: self.groups.coming(), ..Sizes::default() };
        for set in self.fresh.iter().filter_map(|id| self.sets.get(id)).filter(|set| set.uses > 0) {
            sizes.sets += 1;
            sizes.ports += set.layout.prefixes.len();
            sizes.verdicts += set.verdicts.len();
            sizes.ranks += set.members.len();
        }
        sizes.verdicts += self.edits.values().filter(|(old, new)| old.is_none() && new.is_some()).count();
        sizes
    }

    /// The set that most of what comes into a table is for.
    pub(super) fn largest(&self, size: impl Fn(&Set) -> usize) -> Option<&Set> {
        let fresh = self.fresh.iter().filter_map(|id| self.sets.get(id)).filter(|set| set.uses > 0);
        let edited = || self.edits.keys().filter_map(|key| self.sets.get(&key.set));
        fresh.max_by_key(|set| size(set)).or_else(|| edited().max_by_key(|set| size(set)))
    }

    /// Writes down what came, and takes out what nobody uses.
    pub(super) fn settle(&mut self, delta: &mut Delta, worlds: &mut HashMap<Slot, World>) {
        for (key, (old, new)) in std::mem::take(&mut self.edits) {
            let Some(set) = self.sets.get_mut(&key.set) else { continue };
            let entry = (key.peer, key.class);
            match (set.uses, old, new) {
                // A set that goes does so as the tables have it.
                (0, Some(hits), _) => drop(set.verdicts.insert(entry, hits)),
                (0, None, _) => drop(set.verdicts.remove(&entry)),
                (_, _, Some(hits)) if old != new => {
                    self.sizes.verdicts += usize::from(old.is_none());
                    delta.verdicts.push((key, hits));
                }
                (_, Some(_), None) => {
                    self.sizes.verdicts -= 1;
                    delta.gone.verdicts.push(key);
                }
                _ => {}
            }
        }
        for id in std::mem::take(&mut self.fresh) {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            if set.uses > 0 {
                set.is_fresh = false;
                self.sizes.sets += 1;
                self.sizes.ports += set.layout.prefixes.len();
                self.sizes.verdicts += set.verdicts.len();
                self.sizes.ranks += set.members.len();
                write(id, set, delta);
            }
        }
        for id in std::mem::take(&mut self.idle) {
            if self.sets.get(&id).is_none_or(|set| set.uses > 0) {
                continue;
            }
            let Some(set) = self.sets.remove(&id) else { continue };
            self.forget(id, &set, worlds);
            if !set.is_fresh {
                self.sizes.sets -= 1;
                self.sizes.ports -= set.layout.prefixes.len();
                self.sizes.verdicts -= set.verdicts.len();
                self.sizes.ranks -= set.members.len();
                erase(id, &set, delta);
            }
        }
        self.groups.settle(delta);
        self.sizes.blocks = self.sizes.blocks + delta.blocks.len() - delta.gone.blocks.len();
    }

    fn forget(&mut self, id: SetId, set: &Set, worlds: &mut HashMap<Slot, World>) {
        self.groups.release(set.group);
        self.numbers.remove(&(set.tenant, set.direction, set.members.clone()));
        let Some(world) = worlds.get_mut(&set.tenant) else { return };
        for selector in &set.selectors {
            if let Some(selecting) = world.selecting_mut(*selector) {
                selecting.peer_in.remove(&id);
            }
            world.left(*selector);
        }
        for (name, protocol) in &set.names {
            world.names.sets_mut(name, *protocol).remove(&id);
        }
    }
}

type Edits = HashMap<VerdictKey, (Option<Hits>, Option<Hits>)>;

fn edit(edits: &mut Edits, key: VerdictKey, old: Option<Hits>, new: Option<Hits>) {
    edits.entry(key).or_insert((old, None)).1 = new;
}

/// The sets that may have an entry for an identity.
fn sets_of(known: &super::world::Known, world: &World) -> BTreeSet<SetId> {
    let selecting = known.selectors.iter().filter_map(|id| world.selecting(*id));
    let mut sets: BTreeSet<SetId> =
        selecting.flat_map(|selecting| selecting.peer_in.iter().copied()).collect();
    sets.append(&mut world.names.sets_of(&known.workload));
    sets
}

fn port_keys(id: SetId, set: &Set) -> impl Iterator<Item = (PortKey, Class)> {
    set.layout.prefixes.iter().map(move |(protocol, length, port, class)| {
        (PortKey { set: id, protocol: *protocol, length: *length, port: *port }, *class)
    })
}

fn write(id: SetId, set: &Set, delta: &mut Delta) {
    delta.sets.push((id, set.header()));
    delta.ports.extend(port_keys(id, set));
    let verdict = |((peer, class), hits): (&(Identity, Class), &Hits)| {
        (VerdictKey { set: id, peer: *peer, class: *class }, *hits)
    };
    delta.verdicts.extend(set.verdicts.iter().map(verdict));
    delta.ranks.extend((0..).zip(&set.members).map(|(rank, member)| ((id, rank), member.rule)));
}

fn erase(id: SetId, set: &Set, delta: &mut Delta) {
    delta.gone.sets.push(id);
    delta.gone.ports.extend(port_keys(id, set).map(|(key, _)| key));
    let keys = set.verdicts.keys().map(|(peer, class)| VerdictKey { set: id, peer: *peer, class: *class });
    delta.gone.verdicts.extend(keys);
    delta.gone.ranks.extend((0..).zip(&set.members).map(|(rank, _)| (id, rank)));
}
