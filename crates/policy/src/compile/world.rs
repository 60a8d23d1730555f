//! The workloads of one tenant, and who selects them.
//!
//! Selectors are kept with the identities that they match. A new identity is held against those selectors only that want
//! a label it has; a new selector is held against those identities only that have the rarest label it wants.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::labels::{ByLabel, labels_of, wanted};
use super::layout::Point;
use crate::identity::{Identity, Workload};
use crate::selector::Selector;
use crate::tables::{PeersId, RuleNumber, Sets};

/// The number of a selector in its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SelectorId(u32);

impl SelectorId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// The workloads of one tenant, and who selects them.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) identities: HashMap<Identity, Known>,
    pub(super) subjects: BTreeSet<Identity>,
    pub(super) names: Names,
    by_label: ByLabel<Holders>,
    selectors: Vec<Option<Selecting>>,
    vacant: Vec<SelectorId>,
    numbers: HashMap<Selector, SelectorId>,
    /// Selectors by one label that they want.
    anchored: ByLabel<Vec<SelectorId>>,
    /// Selectors that want none.
    loose: Vec<SelectorId>,
    /// Selectors that lost a user.
    idle: Vec<SelectorId>,
}

/// An identity.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) workload: Arc<Workload>,
    pub(super) selectors: Vec<SelectorId>,
    pub(super) sets: Sets,
}

/// Identities that have a label, ascending. Most labels have one, for which the node of a tree is four times as large.
#[derive(Debug, Default)]
struct Holders(Vec<Identity>);

impl Holders {
    fn insert(&mut self, identity: Identity) {
        if let Err(place) = self.0.binary_search(&identity) {
            self.0.insert(place, identity);
        }
    }

    fn remove(&mut self, identity: Identity) {
        if let Ok(place) = self.0.binary_search(&identity) {
            self.0.remove(place);
        }
    }
}

/// A selector that somebody uses.
#[derive(Debug, Default)]
pub(super) struct Selecting {
    selector: Selector,
    pub(super) matched: BTreeSet<Identity>,
    /// Rules about whom it selects.
    pub(super) subject_of: BTreeSet<RuleNumber>,
    /// Rules that name whom it selects as peers.
    pub(super) peer_of: usize,
    /// Groups of peers that ask for it.
    pub(super) peer_in: BTreeSet<PeersId>,
}

/// What workloads call their ports.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: BTreeMap<(String, u8), Named>,
}

#[derive(Debug, Default)]
struct Named {
    /// How many identities mean which port.
    ports: BTreeMap<u16, usize>,
    holders: BTreeSet<Identity>,
    /// Rules for what leaves their subjects, by name.
    rules: BTreeSet<RuleNumber>,
    /// Groups of peers that ask for it.
    groups: BTreeSet<PeersId>,
}

impl World {
    pub(super) fn selecting(&self, id: SelectorId) -> Option<&Selecting> {
        self.selectors.get(id.index()).and_then(Option::as_ref)
    }

    pub(super) fn selecting_mut(&mut self, id: SelectorId) -> Option<&mut Selecting> {
        self.selectors.get_mut(id.index()).and_then(Option::as_mut)
    }

    /// The subjects that a selector matches.
    pub(super) fn subjects_of(&self, id: SelectorId) -> Vec<Identity> {
        let Some(selecting) = self.selecting(id) else { return Vec::new() };
        match selecting.matched.len() < self.subjects.len() {
            true => selecting.matched.intersection(&self.subjects).copied().collect(),
            false => self.subjects.iter().filter(|id| selecting.matched.contains(id)).copied().collect(),
        }
    }

    /// A new identity.
    pub(super) fn add(&mut self, identity: Identity, workload: Arc<Workload>) {
        let mut candidates: Vec<SelectorId> = self.loose.clone();
        for (scope, key, value) in labels_of(&workload) {
            self.by_label.entry(scope, key, value).insert(identity);
            candidates.extend(self.anchored.get(scope, key, value).into_iter().flatten());
        }
        let mut selectors = Vec::new();
        for id in candidates {
            let Some(selecting) = self.selecting_mut(id) else { continue };
            if selecting.selector.selects(&workload) {
                selecting.matched.insert(identity);
                selectors.push(id);
            }
        }
        selectors.sort_unstable();
        selectors.shrink_to_fit();
        self.names.add(identity, &workload);
        self.identities.insert(identity, Known { workload, selectors, sets: Sets::default() });
    }

    /// An identity goes.
    pub(super) fn remove(&mut self, identity: Identity) -> Option<Known> {
        let known = self.identities.remove(&identity)?;
        for (scope, key, value) in labels_of(&known.workload) {
            self.by_label.entry(scope, key, value).remove(identity);
            self.by_label.tidy(scope, key, value, |holders| holders.0.is_empty());
        }
        for id in &known.selectors {
            if let Some(selecting) = self.selecting_mut(*id) {
                selecting.matched.remove(&identity);
            }
        }
        self.names.remove(identity, &known.workload);
        Some(known)
    }

    /// The number of a selector, which is looked up for the first time if need be.
    pub(super) fn intern(&mut self, selector: &Selector) -> SelectorId {
        if let Some(id) = self.numbers.get(selector) {
            return *id;
        }
        let id = self.vacant.pop().unwrap_or(SelectorId(self.selectors.len() as u32));
        let matched: BTreeSet<Identity> = self.candidates(selector).collect();
        for identity in &matched {
            if let Some(known) = self.identities.get_mut(identity)
                && let Err(place) = known.selectors.binary_search(&id)
            {
                known.selectors.insert(place, id);
            }
        }
        match anchor(selector) {
            None => self.loose.push(id),
            Some((scope, key, values)) => {
                values.iter().for_each(|value| self.anchored.entry(scope, key, value).push(id));
            }
        }
        self.numbers.insert(selector.clone(), id);
        let selecting = Selecting { selector: selector.clone(), matched, ..Selecting::default() };
        match self.selectors.get_mut(id.index()) {
            Some(vacant) => *vacant = Some(selecting),
            None => self.selectors.push(Some(selecting)),
        }
        id
    }

    /// A selector that lost a user; it goes with [`World::tidy`] if that was the last.
    pub(super) fn left(&mut self, id: SelectorId) {
        self.idle.push(id);
    }

    /// Forgets selectors that nobody uses.
    pub(super) fn tidy(&mut self) {
        for id in std::mem::take(&mut self.idle) {
            let is_used = |s: &Selecting| !s.subject_of.is_empty() || s.peer_of > 0 || !s.peer_in.is_empty();
            if self.selecting(id).is_none_or(is_used) {
                continue;
            }
            let Some(gone) = self.selectors.get_mut(id.index()).and_then(Option::take) else { continue };
            self.vacant.push(id);
            self.numbers.remove(&gone.selector);
            for identity in &gone.matched {
                if let Some(known) = self.identities.get_mut(identity) {
                    known.selectors.retain(|other| *other != id);
                }
            }
            match anchor(&gone.selector) {
                None => self.loose.retain(|other| *other != id),
                Some((scope, key, values)) => {
                    for value in values {
                        self.anchored.entry(scope, key, value).retain(|other| *other != id);
                        self.anchored.tidy(scope, key, value, Vec::is_empty);
                    }
                }
            }
        }
        self.names.tidy();
    }

    /// Is there nothing in it?
    pub(super) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.numbers.is_empty()
    }

    fn candidates<'a>(&'a self, selector: &'a Selector) -> Box<dyn Iterator<Item = Identity> + 'a> {
        let having = |(scope, key, values): (_, &'a str, &'a [String])| {
            values
                .iter()
                .filter_map(move |value| self.by_label.get(scope, key, value))
                .map(|holders| &holders.0)
        };
        let rarest = wanted(selector).min_by_key(|label| having(*label).map(Vec::len).sum::<usize>());
        let selects = |identity: &Identity| {
            self.identities.get(identity).is_some_and(|known| selector.selects(&known.workload))
        };
        match rarest {
            Some(label) => Box::new(having(label).flatten().copied().filter(selects)),
            None => Box::new(self.identities.keys().copied().filter(selects)),
        }
    }
}

/// The label by which a selector is found: one for which it wants the fewest values.
fn anchor(selector: &Selector) -> Option<(super::labels::Scope, &str, &[String])> {
    wanted(selector).min_by_key(|(.., values)| values.len())
}

impl Names {
    fn add(&mut self, identity: Identity, workload: &Workload) {
        for port in workload.ports() {
            let named = self.names.entry((port.name.clone(), port.protocol)).or_default();
            *named.ports.entry(port.port).or_default() += 1;
            named.holders.insert(identity);
        }
    }

    fn remove(&mut self, identity: Identity, workload: &Workload) {
        for port in workload.ports() {
            let Some(named) = self.names.get_mut(&(port.name.clone(), port.protocol)) else { continue };
            named.holders.remove(&identity);
            if let Some(count) = named.ports.get_mut(&port.port) {
                *count -= 1;
                if *count == 0 {
                    named.ports.remove(&port.port);
                }
            }
        }
    }

    /// The ports that anybody means by these names.
    pub(super) fn meanings<'a>(&self, names: impl Iterator<Item = (&'a str, u8)>) -> Vec<Point> {
        let mut points: Vec<Point> = names
            .filter_map(|(name, protocol)| Some((protocol, self.names.get(&(name.to_owned(), protocol))?)))
            .flat_map(|(protocol, named)| named.ports.keys().map(move |port| (protocol, *port)))
            .collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Who has this name.
    pub(super) fn holders(&self, name: &str, protocol: u8) -> impl Iterator<Item = &Identity> {
        self.names.get(&(name.to_owned(), protocol)).into_iter().flat_map(|named| &named.holders)
    }

    /// The ports and rules of one name: the rules are to be looked at again when its ports change.
    pub(super) fn rules(&self, name: &str, protocol: u8) -> (Vec<u16>, Vec<RuleNumber>) {
        self.names.get(&(name.to_owned(), protocol)).map_or_else(Default::default, |named| {
            (named.ports.keys().copied().collect(), named.rules.iter().copied().collect())
        })
    }

    /// The groups that ask for a name that this workload has.
    pub(super) fn groups_of(&self, workload: &Workload) -> BTreeSet<PeersId> {
        let named = |(name, protocol): (&String, u8)| self.names.get(&(name.clone(), protocol));
        let ports = workload.ports().iter().filter_map(|port| named((&port.name, port.protocol)));
        ports.flat_map(|named| named.groups.iter().copied()).collect()
    }

    pub(super) fn rules_mut(&mut self, name: &str, protocol: u8) -> &mut BTreeSet<RuleNumber> {
        &mut self.names.entry((name.to_owned(), protocol)).or_default().rules
    }

    pub(super) fn groups_mut(&mut self, name: &str, protocol: u8) -> &mut BTreeSet<PeersId> {
        &mut self.names.entry((name.to_owned(), protocol)).or_default().groups
    }

    fn tidy(&mut self) {
        self.names.retain(|_, named| {
            !(named.ports.is_empty() && named.rules.is_empty() && named.groups.is_empty())
        });
    }
}
