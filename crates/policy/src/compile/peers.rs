//! Groups of peers: what the rules of a set ask of labels, and which identities answer alike.
//!
//! A group is the list of selectors, and of names of ports that are the peers' to explain, that the rules of a set ask for;
//! sets with the same list share it. Identities that give the same answers have one class, so that a set needs an entry
//! for each class instead of one for each identity, and a rule that gets another port or action touches no identity.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fief_model::Slot;

use super::world::{Known, SelectorId, World};
use crate::identity::Identity;
use crate::tables::{Delta, PeerClass, PeersId, SetId};

/// A list of questions, and who answers how.
#[derive(Debug)]
pub(super) struct Peers {
    questions: Questions,
    classes: HashMap<Answers, PeerClass>,
    answers: BTreeMap<PeerClass, (Answers, usize)>,
    of: HashMap<Identity, PeerClass>,
    /// Sets that use it.
    pub(super) sets: BTreeSet<SetId>,
    last: PeerClass,
    is_fresh: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Questions {
    pub(super) tenant: Slot,
    /// Does it match, sorted?
    pub(super) selectors: Vec<SelectorId>,
    /// What does it mean, sorted?
    pub(super) names: Vec<(String, u8)>,
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Answers {
    /// Selectors that match.
    pub(super) selectors: Vec<SelectorId>,
    /// Places of names, and the ports that are meant.
    pub(super) ports: Vec<(usize, u16)>,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct PeerGroups {
    groups: HashMap<PeersId, Peers>,
    numbers: HashMap<Questions, PeersId>,
    last: PeersId,
    fresh: BTreeSet<PeersId>,
    idle: BTreeSet<PeersId>,
    /// Classes that lost an identity.
    hollow: BTreeSet<(PeersId, PeerClass)>,
    /// Entries of groups in use that changed: before and after.
    edits: HashMap<(PeersId, Identity), (Option<PeerClass>, Option<PeerClass>)>,
    /// What the table holds.
    pub(super) size: usize,
    /// What groups have that were made since.
    pub(super) made: usize,
}

impl Questions {
    fn is_empty(&self) -> bool {
        self.selectors.is_empty() && self.names.is_empty()
    }

    fn answers(&self, known: &Known) -> Answers {
        let matches = |id: &&SelectorId| known.selectors.binary_search(id).is_ok();
        let port = |(place, (name, protocol)): (usize, &(String, u8))| {
            known.workload.port(name, *protocol).map(|port| (place, port))
        };
        Answers {
            selectors: self.selectors.iter().filter(matches).copied().collect(),
            ports: self.names.iter().enumerate().filter_map(port).collect(),
        }
    }
}

impl Peers {
    fn new(questions: Questions, world: &World) -> Peers {
        let mut peers = Peers {
            classes: HashMap::new(),
            answers: BTreeMap::new(),
            of: HashMap::new(),
            sets: BTreeSet::new(),
            last: PeerClass::WORKLOAD,
            is_fresh: true,
            questions,
        };
        // Those who answer nothing are not looked at: there are far more of them.
        let mut found: BTreeMap<Identity, Answers> = BTreeMap::new();
        for id in &peers.questions.selectors {
            let matched = world.selecting(*id).into_iter().flat_map(|selecting| &selecting.matched);
            matched.for_each(|identity| found.entry(*identity).or_default().selectors.push(*id));
        }
        for (place, (name, protocol)) in peers.questions.names.iter().enumerate() {
            for identity in world.names.holders(name, *protocol) {
                let known = world.identities.get(identity);
                if let Some(port) = known.and_then(|known| known.workload.port(name, *protocol)) {
                    found.entry(*identity).or_default().ports.push((place, port));
                }
            }
        }
        for (identity, answers) in found {
            peers.put(identity, answers);
        }
        peers
    }

    /// Gives an identity its class; says whether the class is new.
    fn put(&mut self, identity: Identity, answers: Answers) -> (PeerClass, bool) {
        let (class, is_new) = match self.classes.get(&answers) {
            Some(class) => (*class, false),
            None => {
                // Blocks have the numbers above. There are fewer identities, so one is free.
                loop {
                    self.last.0 += 1;
                    if self.last.0 >= Identity::FIRST_BLOCK.0 {
                        self.last = PeerClass::FIRST;
                    }
                    if !self.answers.contains_key(&self.last) {
                        break;
                    }
                }
                self.classes.insert(answers.clone(), self.last);
                self.answers.insert(self.last, (answers, 0));
                (self.last, true)
            }
        };
        if let Some((_, count)) = self.answers.get_mut(&class) {
            *count += 1;
        }
        self.of.insert(identity, class);
        (class, is_new)
    }

    /// The classes with what they answer.
    pub(super) fn classes(&self) -> impl Iterator<Item = (PeerClass, &Answers)> {
        self.answers.iter().map(|(class, (answers, _))| (*class, answers))
    }

    pub(super) fn answers(&self, class: PeerClass) -> Option<&Answers> {
        self.answers.get(&class).map(|(answers, _)| answers)
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }
}

impl PeerGroups {
    pub(super) fn get(&self, id: PeersId) -> Option<&Peers> {
        self.groups.get(&id)
    }

    /// The group for these questions; group 0 for none. It stays while a set is noted with [`PeerGroups::use_in`].
    pub(super) fn find(&mut self, questions: Questions, world: &mut World) -> PeersId {
        if questions.is_empty() {
            return PeersId::default();
        }
        if let Some(id) = self.numbers.get(&questions) {
            return *id;
        }
        while self.last.0 == 0 || self.groups.contains_key(&self.last) {
            self.last.0 = self.last.0.wrapping_add(1);
        }
        let id = self.last;
        for selector in &questions.selectors {
            if let Some(selecting) = world.selecting_mut(*selector) {
                selecting.peer_in.insert(id);
            }
        }
        for (name, protocol) in &questions.names {
            world.names.groups_mut(name, *protocol).insert(id);
        }
        let group = Peers::new(questions.clone(), world);
        self.made += group.of.len();
        self.groups.insert(id, group);
        self.numbers.insert(questions, id);
        self.fresh.insert(id);
        self.idle.insert(id);
        id
    }

    /// A set uses it.
    pub(super) fn use_in(&mut self, id: PeersId, set: SetId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.sets.insert(set);
        }
    }

    /// A set that used it goes.
    pub(super) fn leave(&mut self, id: PeersId, set: SetId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.sets.remove(&set);
            self.idle.insert(id);
        }
    }

    /// A new identity. Says which groups have a new class by it.
    pub(super) fn add(
        &mut self,
        identity: Identity,
        known: &Known,
        world: &World,
    ) -> Vec<(PeersId, PeerClass)> {
        let mut new = Vec::new();
        for id in groups_of(known, world) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let answers = group.questions.answers(known);
            if answers == Answers::default() {
                continue;
            }
            let (class, is_new) = group.put(identity, answers);
            self.edits.entry((id, identity)).or_insert((None, None)).1 = Some(class);
            if is_new {
                new.push((id, class));
            }
        }
        new
    }

    /// An identity goes.
    pub(super) fn remove(&mut self, identity: Identity, known: &Known, world: &World) {
        for id in groups_of(known, world) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let Some(class) = group.of.remove(&identity) else { continue };
            self.edits.entry((id, identity)).or_insert((Some(class), None)).1 = None;
            if let Some((_, count)) = group.answers.get_mut(&class) {
                *count -= 1;
            }
            self.hollow.insert((id, class));
        }
    }

    /// Forgets classes that nobody has any more, and says which, with the sets that have entries for them. They are kept until
    /// a change is certain, so that it can be undone with the same numbers.
    pub(super) fn collapse(&mut self) -> Vec<(SetId, PeerClass)> {
        let mut gone = Vec::new();
        for (id, class) in std::mem::take(&mut self.hollow) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.answers.get(&class).is_none_or(|(_, count)| *count > 0) {
                continue;
            }
            if let Some((answers, _)) = group.answers.remove(&class) {
                group.classes.remove(&answers);
            }
            gone.extend(group.sets.iter().map(|set| (*set, class)));
        }
        gone
    }

    /// How many entries come before any goes.
    pub(super) fn coming(&self) -> usize {
        let fresh = self.fresh.iter().filter_map(|id| self.groups.get(id));
        let edited = self.edits.values().filter(|(old, new)| old.is_none() && new.is_some()).count();
        fresh.map(|group| group.of.len()).sum::<usize>() + edited
    }

    /// Writes down what came, and takes out what nobody uses.
    pub(super) fn settle(&mut self, delta: &mut Delta, worlds: &mut HashMap<Slot, World>) {
        self.made = 0;
        for ((id, identity), (old, new)) in std::mem::take(&mut self.edits) {
            let Some(group) = self.groups.get_mut(&id).filter(|group| !group.is_fresh) else { continue };
            match (group.sets.is_empty(), old, new) {
                // A group that goes does so as the table has it.
                (true, Some(class), _) => drop(group.of.insert(identity, class)),
                (true, None, _) => drop(group.of.remove(&identity)),
                (false, _, Some(class)) if old != new => {
                    self.size += usize::from(old.is_none());
                    delta.peers.push(((id, identity), class));
                }
                (false, Some(_), None) => {
                    self.size -= 1;
                    delta.gone.peers.push((id, identity));
                }
                _ => {}
            }
        }
        for id in std::mem::take(&mut self.fresh) {
            let Some(group) = self.groups.get_mut(&id).filter(|group| !group.sets.is_empty()) else {
                continue;
            };
            group.is_fresh = false;
            self.size += group.of.len();
            delta.peers.extend(group.of.iter().map(|(identity, class)| ((id, *identity), *class)));
        }
        for id in std::mem::take(&mut self.idle) {
            if self.groups.get(&id).is_none_or(|group| !group.sets.is_empty()) {
                continue;
            }
            let Some(group) = self.groups.remove(&id) else { continue };
            self.numbers.remove(&group.questions);
            if let Some(world) = worlds.get_mut(&group.questions.tenant) {
                forget(id, &group.questions, world);
            }
            if !group.is_fresh {
                self.size -= group.of.len();
                delta.gone.peers.extend(group.of.keys().map(|identity| (id, *identity)));
            }
        }
    }
}

fn forget(id: PeersId, questions: &Questions, world: &mut World) {
    for selector in &questions.selectors {
        if let Some(selecting) = world.selecting_mut(*selector) {
            selecting.peer_in.remove(&id);
        }
        world.left(*selector);
    }
    for (name, protocol) in &questions.names {
        world.names.groups_mut(name, *protocol).remove(&id);
    }
}

/// The groups that an identity has an answer for.
fn groups_of(known: &Known, world: &World) -> BTreeSet<PeersId> {
    let selecting = known.selectors.iter().filter_map(|id| world.selecting(*id));
    let mut groups: BTreeSet<PeersId> =
        selecting.flat_map(|selecting| selecting.peer_in.iter().copied()).collect();
    groups.append(&mut world.names.groups_of(&known.workload));
    groups
}
