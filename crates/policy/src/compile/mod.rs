//! From rules and identities to verdict tables, in as much time as the change is large.
//!
//! The compiler remembers what it compiled. A change of policy makes new sets for the subjects that its rules select, and
//! for no others; a new identity gets an entry in the lists of peers that it answers to; an endpoint whose labels are known changes nothing
//! but who its set is. What comes out is the difference ([`Delta`]), whose size is known before anything is carried out: if
//! a table would be too full, the change is refused and the compiler is as it was.
//!
//! - `world`: identities, selectors, and which match; `labels` is its index.
//! - `rules`: numbers for rules. `force`: what a rule that comes or goes means for subjects.
//! - `set`, `sets`: the rules that hold for a subject in one direction, and their entries; shared.
//! - `layout`: classes of ports. `peers`: classes of peers. `blocks`: classes of addresses.

mod blocks;
mod force;
mod labels;
mod layout;
mod peers;
mod refused;
mod rules;
mod set;
mod sets;
mod world;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fief_model::Slot;

use crate::identity::{Identity, Workload};
use crate::rule::{Direction, Origin, Policy, PolicyKey};
use crate::tables::{Delta, RuleNumber, SetId, Sets, Sizes, Written};
use force::{Alike, alike_in, dismiss, enforce, meanings, members, notice_meanings};
use layout::TooMany;
pub use refused::Refused;
use rules::Rules;
use sets::{Material, Store};
use world::World;

/// One thing that changes.
#[derive(Debug, Clone)]
pub enum Change {
    /// A policy comes, or is another one now.
    Policy(Policy),
    /// A policy goes.
    NoPolicy(PolicyKey),
    /// An identity stands for a workload.
    Identity(Slot, Identity, Arc<Workload>),
    /// An identity stands for nothing any more, here or elsewhere. No packet carries it since.
    NoIdentity(Slot, Identity),
    /// An endpoint of this host has an identity.
    Subject(Slot, Identity),
    /// No endpoint of this host has it any more.
    NoSubject(Slot, Identity),
}

/// From rules and identities to verdict tables.
#[derive(Debug)]
pub struct Compiler {
    most: Sizes,
    worlds: HashMap<Slot, World>,
    rules: Rules,
    sets: Store,
    subjects: usize,
}

/// A change that was compiled and is not in force yet. It is to be committed or abandoned before the compiler is asked
/// anything else.
#[derive(Debug)]
#[must_use]
pub struct Planned(Work);

/// A change that is under way.
#[derive(Debug, Default)]
struct Work {
    /// How to undo it, last first.
    inverse: Vec<Inverse>,
    /// Subjects whose rules changed.
    dirty: BTreeSet<(Slot, Identity)>,
    /// What subjects had before.
    before: BTreeMap<(Slot, Identity), Option<Sets>>,
    /// Rules that came, went or moved.
    rules: BTreeSet<RuleNumber>,
    tenants: BTreeSet<Slot>,
}

#[derive(Debug)]
enum Inverse {
    Policy(Arc<PolicyKey>, Vec<RuleNumber>),
    Moved(RuleNumber, Origin, bool),
    Identity(Slot, Identity, Option<Arc<Workload>>),
    Subject(Slot, Identity, bool),
}

impl Planned {
    /// How many subjects get other rules.
    pub fn subjects(&self) -> usize {
        self.0.before.len()
    }
}

impl Compiler {
    /// Nothing is known, and tables have room for so many entries.
    pub fn new(most: Sizes) -> Compiler {
        Compiler {
            most,
            worlds: HashMap::new(),
            rules: Rules::default(),
            sets: Store::default(),
            subjects: 0,
        }
    }

    /// Compiles changes, all or none of them, and says what becomes of the tables.
    pub fn update(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<Delta, Refused> {
        self.plan(changes).map(|planned| self.commit(planned))
    }

    /// Compiles changes for whoever has yet to decide: is there room for all of them?
    pub fn plan(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<Planned, Refused> {
        let mut work = Work::default();
        let mut changes = changes.into_iter();
        let done = changes
            .try_for_each(|change| self.change(change, &mut work))
            .and_then(|()| self.rebuild(&mut work, Some(self.most)))
            .and_then(|()| self.check(&work));
        let planned = Planned(work);
        match done {
            Ok(()) => Ok(planned),
            Err(refused) => {
                self.abandon(planned);
                Err(refused)
            }
        }
    }

    /// Puts into force what was planned, and says what becomes of the tables.
    pub fn commit(&mut self, planned: Planned) -> Delta {
        self.settle(&planned.0)
    }

    /// Is again as before the plan.
    pub fn abandon(&mut self, planned: Planned) {
        let Planned(mut work) = planned;
        self.undo(&mut work);
        let delta = self.settle(&work);
        debug_assert!(delta.is_empty(), "{delta:?}");
    }

    /// How many entries the tables have.
    pub fn sizes(&self) -> Sizes {
        Sizes { subjects: self.subjects, ..self.sets.sizes() }
    }

    /// Where a rule is written.
    pub fn written(&self, rule: RuleNumber) -> Option<Written> {
        self.rules.get(rule).map(rules::Numbered::written)
    }

    /// The policies that are in force.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyKey> {
        self.rules.policies.keys().map(|key| &**key)
    }

    fn change(&mut self, change: Change, work: &mut Work) -> Result<(), Refused> {
        match change {
            Change::Policy(policy) => self.put_policy(policy, work),
            Change::NoPolicy(key) => self.replace(&Arc::new(key), Vec::new(), work),
            Change::Identity(tenant, identity, workload) => {
                match self.worlds.get(&tenant).and_then(|world| world.identities.get(&identity)) {
                    Some(known) if known.workload == workload => return Ok(()),
                    Some(_) => return Err(Refused::Taken(tenant, identity)),
                    None => self.put_identity(tenant, identity, workload, work),
                }
            }
            Change::NoIdentity(tenant, identity) => {
                self.set_subject(tenant, identity, false, work);
                self.take_identity(tenant, identity, work);
            }
            Change::Subject(tenant, identity) => {
                let known = self.worlds.get(&tenant).is_some_and(|w| w.identities.contains_key(&identity));
                if !known {
                    return Err(Refused::Unknown(tenant, identity));
                }
                self.set_subject(tenant, identity, true, work);
            }
            Change::NoSubject(tenant, identity) => self.set_subject(tenant, identity, false, work),
        }
        Ok(())
    }

    fn put_policy(&mut self, policy: Policy, work: &mut Work) {
        let key = Arc::new(policy.key);
        let old = self.rules.policies.get(&key).cloned().unwrap_or_default();
        let mut numbers = Vec::with_capacity(policy.rules.len());
        for (index, rule) in policy.rules.into_iter().enumerate() {
            let same = old.get(index).and_then(|number| Some((*number, self.rules.get_mut(*number)?)));
            match same.filter(|(_, old)| *old.says == rule.says) {
                // A rule that was only moved is the same rule.
                Some((number, old)) => {
                    if old.origin != rule.origin {
                        let before = std::mem::replace(&mut old.origin, rule.origin);
                        let was_written = std::mem::replace(&mut old.is_written, false);
                        work.inverse.push(Inverse::Moved(number, before, was_written));
                        work.rules.insert(number);
                    }
                    numbers.push(number);
                }
                None => numbers.push(self.rules.add(key.clone(), index, rule)),
            }
        }
        self.replace(&key, numbers, work);
    }

    /// Gives a policy these rules.
    fn replace(&mut self, key: &Arc<PolicyKey>, numbers: Vec<RuleNumber>, work: &mut Work) {
        let old = self.rules.policies.remove(key).unwrap_or_default();
        if old == numbers {
            if !numbers.is_empty() {
                self.rules.policies.insert(key.clone(), numbers);
            }
            return;
        }
        let (before, after): (BTreeSet<_>, BTreeSet<_>) =
            (old.iter().copied().collect(), numbers.iter().copied().collect());
        work.tenants.insert(key.tenant);
        let world = self.worlds.entry(key.tenant).or_default();
        for number in before.difference(&after) {
            dismiss(*number, world, &mut self.rules, key.tenant, work);
        }
        for number in after.difference(&before) {
            enforce(*number, world, &mut self.rules, key.tenant, work);
        }
        work.rules.extend(before.symmetric_difference(&after));
        if !numbers.is_empty() {
            self.rules.policies.insert(key.clone(), numbers);
        }
        work.inverse.push(Inverse::Policy(key.clone(), old));
    }

    fn put_identity(&mut self, tenant: Slot, identity: Identity, workload: Arc<Workload>, work: &mut Work) {
        let world = self.worlds.entry(tenant).or_default();
        work.tenants.insert(tenant);
        let before = meanings(world, &workload);
        world.add(identity, workload.clone());
        self.sets.add_identity(identity, world);
        notice_meanings(before, world, &self.rules, &workload, (tenant, work));
        work.inverse.push(Inverse::Identity(tenant, identity, None));
    }

    fn take_identity(&mut self, tenant: Slot, identity: Identity, work: &mut Work) {
        let Some(world) = self.worlds.get_mut(&tenant) else { return };
        let Some(workload) = world.identities.get(&identity).map(|known| known.workload.clone()) else {
            return;
        };
        work.tenants.insert(tenant);
        let before = meanings(world, &workload);
        self.sets.remove_identity(identity, world);
        world.remove(identity);
        notice_meanings(before, world, &self.rules, &workload, (tenant, work));
        work.inverse.push(Inverse::Identity(tenant, identity, Some(workload)));
    }

    fn set_subject(&mut self, tenant: Slot, identity: Identity, is: bool, work: &mut Work) {
        let Some(world) = self.worlds.get_mut(&tenant) else { return };
        if world.subjects.contains(&identity) == is {
            return;
        }
        let Some(known) = world.identities.get_mut(&identity) else { return };
        work.tenants.insert(tenant);
        work.before.entry((tenant, identity)).or_insert((!is).then_some(known.sets));
        if is {
            self.subjects += 1;
            world.subjects.insert(identity);
            work.dirty.insert((tenant, identity));
        } else {
            self.subjects -= 1;
            world.subjects.remove(&identity);
            let sets = std::mem::take(&mut known.sets);
            Direction::BOTH.into_iter().for_each(|direction| self.sets.release(sets.of(direction)));
        }
        work.inverse.push(Inverse::Subject(tenant, identity, !is));
    }

    /// Gives subjects whose rules changed the set of these rules, and stops where there is no room for more.
    fn rebuild(&mut self, work: &mut Work, most: Option<Sizes>) -> Result<(), Refused> {
        // Thousands of subjects may be selected by the same thousands of rules, which are looked at once for all of them.
        let mut alike: HashMap<Alike, SetId> = HashMap::new();
        for (tenant, identity) in std::mem::take(&mut work.dirty) {
            let Some(world) = self.worlds.get_mut(&tenant).filter(|w| w.subjects.contains(&identity)) else {
                continue;
            };
            let mut sets = Sets::default();
            for direction in Direction::BOTH {
                let alike = alike.entry(alike_in(tenant, world, identity, direction));
                let (acquired, one) = match &alike {
                    Entry::Occupied(known) => (Ok(self.sets.share(*known.get())), None),
                    Entry::Vacant(_) => {
                        let members = members(world, &self.rules, identity, direction);
                        let one = members.first().map(|member| member.rule);
                        let most = most.map_or(usize::MAX, |most| most.verdicts);
                        let mut from = Material { rules: &self.rules, world, most };
                        (self.sets.acquire((tenant, direction, members), &mut from), one)
                    }
                };
                if let Ok(id) = acquired {
                    alike.or_insert(id);
                }
                match acquired {
                    Ok(id) if direction == Direction::Ingress => sets.ingress = id,
                    Ok(id) => sets.egress = id,
                    Err(TooMany) => {
                        self.sets.release(sets.ingress);
                        let rule = one.and_then(|number| self.written(number));
                        return Err(Refused::Classes { tenant, rule });
                    }
                }
            }
            let Some(known) = world.identities.get_mut(&identity) else { continue };
            let old = std::mem::replace(&mut known.sets, sets);
            work.before.entry((tenant, identity)).or_insert(Some(old));
            Direction::BOTH.into_iter().for_each(|direction| self.sets.release(old.of(direction)));
            if let Some((table, needed, most)) = most.and_then(|most| self.sets.overflow(&most)) {
                return Err(self.full(table, needed, most));
            }
        }
        Ok(())
    }

    /// Is there room for everything, before what is old is taken out?
    fn check(&self, work: &Work) -> Result<(), Refused> {
        let gone = work.before.iter().filter(|((tenant, identity), before)| {
            let is = self.worlds.get(tenant).is_some_and(|world| world.subjects.contains(identity));
            before.is_some() && !is
        });
        let needed = Sizes { subjects: self.subjects + gone.count(), ..self.sets.peak() };
        for ((table, most), (_, needed)) in self.most.each().into_iter().zip(needed.each()) {
            if needed > most {
                return Err(self.full(table, needed, most));
            }
        }
        Ok(())
    }

    fn full(&self, table: &'static str, needed: usize, most: usize) -> Refused {
        let set = self.sets.largest(table);
        let world = set.and_then(|set| self.worlds.get(&set.tenant));
        let rule = set.zip(world).and_then(|(set, world)| {
            let widest = (0..set.members.len()).max_by_key(|rank| set.breadth(*rank, world))?;
            self.written(set.members.get(widest)?.rule)
        });
        Refused::Full { table, needed, most, tenant: set.map(|set| set.tenant), rule }
    }

    fn undo(&mut self, work: &mut Work) {
        for inverse in std::mem::take(&mut work.inverse).into_iter().rev() {
            match inverse {
                Inverse::Policy(key, numbers) => self.replace(&key, numbers, work),
                Inverse::Moved(number, origin, was_written) => {
                    if let Some(rule) = self.rules.get_mut(number) {
                        rule.origin = origin;
                        rule.is_written = was_written;
                    }
                }
                Inverse::Identity(tenant, identity, None) => self.take_identity(tenant, identity, work),
                Inverse::Identity(tenant, identity, Some(workload)) => {
                    self.put_identity(tenant, identity, workload, work);
                }
                Inverse::Subject(tenant, identity, is) => self.set_subject(tenant, identity, is, work),
            }
        }
        // Every set that was there still is: none is made, so nothing can be refused. Subjects that were not looked at
        // before have what they had.
        work.dirty.extend(work.before.keys().copied());
        let rebuilt = self.rebuild(work, None);
        debug_assert!(rebuilt.is_ok(), "{rebuilt:?}");
    }

    /// Forgets what nobody uses, and writes down what changed.
    fn settle(&mut self, work: &Work) -> Delta {
        let mut delta = Delta::default();
        self.sets.settle(&mut delta, &mut self.worlds);
        for (key, before) in &work.before {
            let world = self.worlds.get(&key.0).filter(|world| world.subjects.contains(&key.1));
            let now = world.and_then(|world| world.identities.get(&key.1)).map(|known| known.sets);
            if now != *before {
                delta.subjects.insert(*key, now);
            }
        }
        for number in &work.rules {
            let Some(rule) = self.rules.get_mut(*number) else { continue };
            if rule.named.is_some() {
                if !std::mem::replace(&mut rule.is_written, true) {
                    delta.written.push((*number, rule.written()));
                }
            } else if self.rules.remove(*number).is_some_and(|rule| rule.is_written) {
                delta.gone.written.push(*number);
            }
        }
        for tenant in &work.tenants {
            if let Some(world) = self.worlds.get_mut(tenant) {
                world.tidy();
                if world.is_empty() {
                    self.worlds.remove(tenant);
                }
            }
        }
        delta
    }
}
