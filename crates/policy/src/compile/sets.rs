//! All sets, shared by the subjects that the same rules select.

use std::collections::{BTreeSet, HashMap};

use fief_model::Slot;

use super::blocks::BlockGroups;
use super::layout::TooMany;
use super::peers::PeerGroups;
use super::rules::Rules;
use super::set::{Member, Set};
use super::world::World;
use crate::identity::Identity;
use crate::rule::Direction;
use crate::tables::{Class, Delta, PeerClass, PortKey, SetId, Sizes, VerdictKey};
use crate::verdict::Hits;

/// All sets.
#[derive(Debug, Default)]
pub(super) struct Store {
    sets: HashMap<SetId, Set>,
    numbers: HashMap<Key, SetId>,
    last: SetId,
    peers: PeerGroups,
    blocks: BlockGroups,
    /// Sets that no table holds yet.
    fresh: BTreeSet<SetId>,
    /// Sets that lost a user.
    idle: BTreeSet<SetId>,
    /// Entries of sets in use that changed: before and after.
    edits: Edits,
    /// What the tables hold.
    sizes: Sizes,
    /// What sets that came since have.
    coming: Sizes,
}

/// What makes two sets the same.
type Key = (Slot, Direction, Vec<Member>);

type Edits = HashMap<VerdictKey, (Option<Hits>, Option<Hits>)>;

/// What a set is made from.
pub(super) struct Material<'a> {
    pub(super) rules: &'a Rules,
    pub(super) world: &'a mut World,
    /// How many verdicts the table holds.
    pub(super) most: usize,
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
        Ok(self.share(id))
    }

    /// A set that somebody has, with one more user.
    pub(super) fn share(&mut self, id: SetId) -> SetId {
        if let Some(set) = self.sets.get_mut(&id) {
            set.uses += 1;
        }
        id
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
        let (mut set, questions) = Set::new(tenant, direction, members, from.rules)?;
        // Numbers go round, so that a record of a set that is gone does not mean another one.
        while self.last.0 == 0 || self.sets.contains_key(&self.last) {
            self.last.0 = self.last.0.wrapping_add(1);
        }
        let id = self.last;
        set.peers = self.peers.find(questions, from.world);
        self.peers.use_in(set.peers, id);
        set.group = self.blocks.acquire(set.blocks().collect());
        let room = from.most.saturating_sub(self.sizes.verdicts + self.coming.verdicts);
        set.fill(self.peers.get(set.peers), self.blocks.get(set.group), room);
        self.coming.sets += 1;
        self.coming.ports += set.layout.prefixes.len();
        self.coming.verdicts += set.verdicts.len();
        self.coming.ranks += set.members.len();
        self.sets.insert(id, set);
        self.numbers.insert(key, id);
        self.fresh.insert(id);
        self.idle.insert(id);
        Ok(id)
    }

    /// A new identity. If nobody answered like it before, the sets that ask get entries for its kind.
    pub(super) fn add_identity(&mut self, identity: Identity, world: &World) {
        let Some(known) = world.identities.get(&identity) else { return };
        for (group, class) in self.peers.add(identity, known, world) {
            let Some(group) = self.peers.get(group) else { continue };
            let Some(answers) = group.answers(class) else { continue };
            for id in &group.sets {
                let Some(set) = self.sets.get_mut(id) else { continue };
                for ((peer, class), hits) in set.of_peers(class, answers) {
                    let old = set.verdicts.insert((peer, class), hits);
                    edit(&mut self.edits, VerdictKey { set: *id, peer, class }, old, Some(hits));
                }
            }
        }
    }

    /// An identity goes. To be called while the world still knows it.
    pub(super) fn remove_identity(&mut self, identity: Identity, world: &World) {
        if let Some(known) = world.identities.get(&identity) {
            self.peers.remove(identity, known, world);
        }
    }

    /// A table that is too full already, while more is coming: how many entries it would have, and how many it can.
    pub(super) fn overflow(&self, most: &Sizes) -> Option<(&'static str, usize, usize)> {
        let (sizes, coming) = (&self.sizes, &self.coming);
        let needed = Sizes {
            subjects: 0,
            sets: sizes.sets + coming.sets,
            ports: sizes.ports + coming.ports,
            peers: self.peers.size + self.peers.made,
            blocks: self.blocks.size + self.blocks.made,
            verdicts: sizes.verdicts + coming.verdicts,
            ranks: sizes.ranks + coming.ranks,
        };
        let each = most.each().into_iter().zip(needed.each());
        each.map(|((table, most), (_, needed))| (table, needed, most)).find(|(_, needed, most)| needed > most)
    }

    /// How many entries there are before what is old goes.
    pub(super) fn peak(&self) -> Sizes {
        let mut sizes = self.sizes();
        sizes.peers += self.peers.coming();
        sizes.blocks += self.blocks.coming();
        for set in self.fresh.iter().filter_map(|id| self.sets.get(id)).filter(|set| set.uses > 0) {
            sizes.sets += 1;
            sizes.ports += set.layout.prefixes.len();
            sizes.verdicts += set.verdicts.len();
            sizes.ranks += set.members.len();
        }
        sizes.verdicts += self.edits.values().filter(|(old, new)| old.is_none() && new.is_some()).count();
        sizes
    }

    /// How many entries the tables have, those of subjects aside.
    pub(super) fn sizes(&self) -> Sizes {
        Sizes { peers: self.peers.size, blocks: self.blocks.size, ..self.sizes }
    }

    /// The set that most of what comes into a table is for.
    pub(super) fn largest(&self, table: &str) -> Option<&Set> {
        let size = |set: &&Set| match table {
            "ports" => set.layout.prefixes.len(),
            "peers" => self.peers.get(set.peers).map_or(0, super::peers::Peers::len),
            "blocks" => set.blocks().flatten().map(|block| 1 + block.except.len()).sum(),
            "ranks" => set.members.len(),
            _ => set.verdicts.len(),
        };
        let fresh = self.fresh.iter().filter_map(|id| self.sets.get(id)).filter(|set| set.uses > 0);
        let edited = || self.edits.keys().filter_map(|key| self.sets.get(&key.set));
        fresh.max_by_key(size).or_else(|| edited().max_by_key(size))
    }

    /// Writes down what came, and takes out what nobody uses.
    pub(super) fn settle(&mut self, delta: &mut Delta, worlds: &mut HashMap<Slot, World>) {
        for (id, peer) in self.peers.collapse() {
            let Some(set) = self.sets.get_mut(&id) else { continue };
            for class in set.layout.classes() {
                if let Some(old) = set.verdicts.remove(&(peer, class)) {
                    edit(&mut self.edits, VerdictKey { set: id, peer, class }, Some(old), None);
                }
            }
        }
        self.coming = Sizes::default();
        self.settle_edits(delta);
        for id in std::mem::take(&mut self.fresh) {
            let Some(set) = self.sets.get_mut(&id).filter(|set| set.uses > 0) else { continue };
            set.is_fresh = false;
            self.sizes.sets += 1;
            self.sizes.ports += set.layout.prefixes.len();
            self.sizes.verdicts += set.verdicts.len();
            self.sizes.ranks += set.members.len();
            write(id, set, delta);
        }
        for id in std::mem::take(&mut self.idle) {
            if self.sets.get(&id).is_none_or(|set| set.uses > 0) {
                continue;
            }
            let Some(set) = self.sets.remove(&id) else { continue };
            self.peers.leave(set.peers, id);
            self.blocks.release(set.group);
            self.numbers.remove(&(set.tenant, set.direction, set.members.clone()));
            if !set.is_fresh {
                self.sizes.sets -= 1;
                self.sizes.ports -= set.layout.prefixes.len();
                self.sizes.verdicts -= set.verdicts.len();
                self.sizes.ranks -= set.members.len();
                erase(id, &set, delta);
            }
        }
        self.peers.settle(delta, worlds);
        self.blocks.settle(delta);
    }

    fn settle_edits(&mut self, delta: &mut Delta) {
        for (key, (old, new)) in std::mem::take(&mut self.edits) {
            let Some(set) = self.sets.get_mut(&key.set).filter(|set| !set.is_fresh) else { continue };
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
    }
}

fn edit(edits: &mut Edits, key: VerdictKey, old: Option<Hits>, new: Option<Hits>) {
    edits.entry(key).or_insert((old, None)).1 = new;
}

fn port_keys(id: SetId, set: &Set) -> impl Iterator<Item = (PortKey, Class)> {
    set.layout.prefixes.iter().map(move |(protocol, length, port, class)| {
        (PortKey { set: id, protocol: *protocol, length: *length, port: *port }, *class)
    })
}

fn write(id: SetId, set: &Set, delta: &mut Delta) {
    delta.sets.push((id, set.header()));
    delta.ports.extend(port_keys(id, set));
    let verdict = |((peer, class), hits): (&(PeerClass, Class), &Hits)| {
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
