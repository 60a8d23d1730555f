//! Who has which number.
//!
//! A number stays with its workload while anybody uses it, and for a grace period after that: a workload that comes back
//! finds its number, and packets that are under way are not taken for another's. Only then may it be given again, and
//! numbers that were free for the longest time go first. Time is told by the caller, in seconds that never go back.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Identity, LabelFilter, LabelSet, Workload};

/// How numbers are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Which labels make no identity.
    pub filter: LabelFilter,
    /// How long a number that nobody uses stays with its workload, in seconds. With 30, and 1,000 new workloads per second
    /// that all go again, 30,000 of 65,280 numbers wait.
    pub grace: u64,
    /// From how many percent of the numbers on there is an alarm.
    pub alarm: u8,
}

/// The numbers of one tenant.
#[derive(Debug, Clone)]
pub struct Identities {
    settings: Settings,
    numbers: HashMap<Arc<Workload>, Identity>,
    holders: HashMap<Identity, Holder>,
    /// Numbers that nobody uses, by the second since when.
    waiting: BTreeSet<(u64, Identity)>,
    /// Numbers that were given and are free again, longest first.
    free: VecDeque<Identity>,
    /// The first number that was never given.
    fresh: Identity,
    /// The labels of namespaces, once each.
    namespaces: HashSet<LabelSet>,
}

#[derive(Debug, Clone)]
struct Holder {
    workload: Arc<Workload>,
    uses: u32,
    /// Since when nobody uses it; only while `uses` is 0.
    since: u64,
}

/// What must survive a restart. Uses are counted anew: who is still there acquires again, and the grace period of all
/// others begins with the restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Workloads with their numbers, ascending.
    pub numbers: Vec<(Identity, Workload)>,
    /// Free numbers, longest first.
    pub free: Vec<Identity>,
    /// The first number that was never given.
    pub fresh: Identity,
}

/// A number that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// The number.
    pub identity: Identity,
    /// What it stands for: the workload without the labels that do not count.
    pub workload: Arc<Workload>,
    /// Was it given just now? Then it is to be made durable before it is used.
    pub is_new: bool,
}

/// No number is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {most} identities of the tenant are given, {waiting} of them unused and waiting")]
pub struct Exhausted {
    /// How many there are.
    pub most: usize,
    /// How many of them nobody uses.
    pub waiting: usize,
}

/// How many numbers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Numbers that are used.
    pub used: usize,
    /// Numbers that nobody uses and that are not free yet.
    pub waiting: usize,
    /// How many there are.
    pub most: usize,
    /// Is it time for an alarm?
    pub alarm: bool,
}

/// How many numbers there are.
const MOST: usize = (Identity::LAST.0 - Identity::FIRST.0 + 1) as usize;

impl Identities {
    /// No number is given.
    pub fn new(settings: Settings) -> Identities {
        Identities {
            settings,
            numbers: HashMap::new(),
            holders: HashMap::new(),
            waiting: BTreeSet::new(),
            free: VecDeque::new(),
            fresh: Identity::FIRST,
            namespaces: HashSet::new(),
        }
    }

    /// As it was, with nobody using anything.
    pub fn restore(settings: Settings, snapshot: Snapshot, now: u64) -> Identities {
        let mut identities = Identities::new(settings);
        for (identity, workload) in snapshot.numbers {
            let workload = Arc::new(workload.beside(&mut identities.namespaces));
            identities.numbers.insert(workload.clone(), identity);
            identities.holders.insert(identity, Holder { workload, uses: 0, since: now });
            identities.waiting.insert((now, identity));
        }
        identities.free = snapshot.free.into();
        identities.fresh = snapshot.fresh;
        identities
    }

    /// What must survive a restart.
    pub fn snapshot(&self) -> Snapshot {
        let workload = |(identity, holder): (&Identity, &Holder)| (*identity, (*holder.workload).clone());
        let mut numbers: Vec<_> = self.holders.iter().map(workload).collect();
        numbers.sort();
        Snapshot { numbers, free: self.free.iter().copied().collect(), fresh: self.fresh }
    }

    /// One more user of a workload's number.
    pub fn acquire(&mut self, workload: Workload) -> Result<Acquired, Exhausted> {
        let workload = workload.filtered(&self.settings.filter);
        if let Some(identity) = self.numbers.get(&workload).copied()
            && let Some(holder) = self.holders.get_mut(&identity)
        {
            self.waiting.remove(&(holder.since, identity));
            holder.uses += 1;
            return Ok(Acquired { identity, workload: holder.workload.clone(), is_new: false });
        }
        let identity = self.next()?;
        let workload = Arc::new(workload.beside(&mut self.namespaces));
        self.numbers.insert(workload.clone(), identity);
        self.holders.insert(identity, Holder { workload: workload.clone(), uses: 1, since: 0 });
        Ok(Acquired { identity, workload, is_new: true })
    }

    /// One user less.
    pub fn release(&mut self, identity: Identity, now: u64) {
        let Some(holder) = self.holders.get_mut(&identity) else { return };
        let Some(uses) = holder.uses.checked_sub(1) else { return };
        holder.uses = uses;
        if uses == 0 {
            holder.since = now;
            self.waiting.insert((now, identity));
        }
    }

    /// Takes back a number that was given just now and that nobody was told of, as if it had never been given. Of several,
    /// the last first.
    pub fn revoke(&mut self, identity: Identity) {
        let Some(holder) = self.holders.remove(&identity) else { return };
        self.numbers.remove(&holder.workload);
        self.waiting.remove(&(holder.since, identity));
        match identity.0 + 1 == self.fresh.0 {
            true => self.fresh = identity,
            false => self.free.push_front(identity),
        }
    }

    /// When the next grace period is over.
    pub fn due(&self) -> Option<u64> {
        self.waiting.first().map(|(since, _)| since.saturating_add(self.settings.grace))
    }

    /// How numbers are given.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The first number that was never given.
    pub fn fresh(&self) -> Identity {
        self.fresh
    }

    /// Every number that was given, with what it stands for.
    pub fn numbers(&self) -> impl Iterator<Item = (Identity, &Arc<Workload>)> {
        self.holders.iter().map(|(identity, holder)| (*identity, &holder.workload))
    }

    /// Numbers whose grace period is over: they stand for nothing any more, and may be given again.
    pub fn collect(&mut self, now: u64) -> Vec<Identity> {
        let over = self.over(now);
        for identity in &over {
            if let Some(holder) = self.holders.remove(identity) {
                self.waiting.remove(&(holder.since, *identity));
                self.numbers.remove(&holder.workload);
            }
            self.free.push_back(*identity);
        }
        if !over.is_empty() {
            self.namespaces.retain(|labels| !labels.is_alone());
        }
        over
    }

    /// What [`Identities::collect`] would take now.
    pub fn over(&self, now: u64) -> Vec<Identity> {
        let is_over = |(since, _): &&(u64, Identity)| now.saturating_sub(*since) >= self.settings.grace;
        self.waiting.iter().take_while(is_over).map(|(_, identity)| *identity).collect()
    }

    /// What a number stands for.
    pub fn workload(&self, identity: Identity) -> Option<&Arc<Workload>> {
        self.holders.get(&identity).map(|holder| &holder.workload)
    }

    /// How many numbers are given.
    pub fn usage(&self) -> Usage {
        let (given, waiting) = (self.holders.len(), self.waiting.len());
        let alarm = given * 100 >= MOST * usize::from(self.settings.alarm);
        Usage { used: given - waiting, waiting, most: MOST, alarm }
    }

    fn next(&mut self) -> Result<Identity, Exhausted> {
        if self.fresh <= Identity::LAST {
            let identity = self.fresh;
            self.fresh = Identity(identity.0 + 1);
            return Ok(identity);
        }
        self.free.pop_front().ok_or(Exhausted { most: MOST, waiting: self.waiting.len() })
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { filter: LabelFilter::default(), grace: 30, alarm: 80 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Labels;

    fn workload(app: &str, more: &[(&str, &str)]) -> Workload {
        let mut labels = Labels::from([("app".to_owned(), app.to_owned())]);
        labels.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Workload::new("shop", Labels::new(), labels, [])
    }

    #[test]
    fn the_same_labels_have_the_same_number_and_others_another_one() {
        let mut identities = Identities::new(Settings::default());
        let a = identities.acquire(workload("a", &[])).unwrap();
        assert_eq!((a.identity, a.is_new), (Identity::FIRST, true));
        let again = identities.acquire(workload("a", &[("pod-template-hash", "7f"), ("uid", "1")])).unwrap();
        assert_eq!((again.identity, again.is_new), (a.identity, false), "labels that do not count");
        assert!(identities.acquire(workload("a", &[("tier", "1")])).unwrap().is_new, "one that does");
        let elsewhere = Workload::new("bank", Labels::new(), a.workload.labels().clone().into(), []);
        assert!(identities.acquire(elsewhere).unwrap().is_new, "another namespace");
        let port = crate::identity::NamedPort { name: "http".into(), protocol: 6, port: 80 };
        let named = Workload::new("shop", Labels::new(), a.workload.labels().clone().into(), [port]);
        assert!(identities.acquire(named).unwrap().is_new, "another port");
    }

    #[test]
    fn a_number_waits_before_it_is_given_again() {
        let mut identities = Identities::new(Settings { grace: 10, ..Settings::default() });
        let a = identities.acquire(workload("a", &[])).unwrap().identity;
        identities.acquire(workload("a", &[])).unwrap();
        identities.release(a, 100);
        assert_eq!(identities.collect(1000), [], "one use is left");
        identities.release(a, 1000);
        identities.release(a, 1000);
        assert_eq!(identities.collect(1009), []);
        assert_eq!(identities.acquire(workload("a", &[])).unwrap().identity, a, "it comes back in time");
        assert_eq!(identities.collect(2000), []);
        identities.release(a, 2000);
        assert_eq!(identities.collect(2010), [a]);
        assert_eq!(identities.workload(a), None);
        assert_ne!(
            identities.acquire(workload("a", &[])).unwrap().identity,
            a,
            "others were free for longer"
        );
    }

    #[test]
    fn a_restart_changes_no_number() {
        let mut before = Identities::new(Settings { grace: 10, ..Settings::default() });
        let given: Vec<_> =
            (0..100).map(|n| before.acquire(workload(&n.to_string(), &[])).unwrap().identity).collect();
        given.iter().take(50).for_each(|identity| before.release(*identity, 0));
        assert_eq!(before.collect(10).len(), 50);
        let snapshot = before.snapshot();
        let mut after = Identities::restore(before.settings.clone(), snapshot.clone(), 500);
        assert_eq!(after.snapshot(), snapshot);
        for (n, identity) in given.iter().enumerate().take(80).skip(50) {
            let acquired = after.acquire(workload(&n.to_string(), &[])).unwrap();
            assert_eq!((acquired.identity, acquired.is_new), (*identity, false));
        }
        assert_eq!(after.collect(509), []);
        assert_eq!(after.collect(510), given[80..], "nobody came for these");
        assert_eq!(after.usage().used, 30);
    }

    #[test]
    fn what_nobody_was_told_of_was_never_given() {
        let mut identities = Identities::new(Settings { grace: 10, ..Settings::default() });
        let [a, b] = ["a", "b"].map(|app| identities.acquire(workload(app, &[])).unwrap().identity);
        assert_eq!(identities.due(), None);
        identities.release(a, 5);
        assert_eq!(identities.due(), Some(15));
        assert_eq!(identities.collect(15), [a]);
        // As if no number had ever been left but the free one.
        identities.fresh = Identity(Identity::LAST.0 + 1);
        let before = identities.snapshot();
        assert_eq!(identities.acquire(workload("c", &[])).unwrap().identity, a);
        identities.revoke(a);
        assert_eq!(identities.snapshot(), before);
        assert!(identities.acquire(workload("d", &[])).unwrap().is_new, "its number is there for another");
        assert_eq!(identities.numbers().count(), 2);
        assert!(identities.workload(b).is_some());
    }

    #[test]
    fn a_thousand_new_label_sets_per_second_are_kept_up_with() {
        let mut identities = Identities::new(Settings::default());
        let mut living = VecDeque::new();
        let mut most = 0;
        for second in 0..60 {
            for n in 0..1000 {
                let acquired = identities.acquire(workload(&format!("{second}-{n}"), &[])).unwrap();
                assert!(acquired.is_new);
                living.push_back(acquired.identity);
            }
            // Each lives for five seconds.
            while living.len() > 5000 {
                living.pop_front().into_iter().for_each(|identity| identities.release(identity, second));
            }
            identities.collect(second);
            most = most.max(identities.usage().used + identities.usage().waiting);
            assert!(!identities.usage().alarm, "{:?}", identities.usage());
        }
        assert_eq!(most, 35_000, "what lives, and what waits for the grace period");
    }

    #[test]
    fn there_is_an_alarm_long_before_the_end_and_an_error_at_it() {
        let mut identities = Identities::new(Settings::default());
        let mut alarm_at = None;
        for n in 0..MOST {
            identities.acquire(workload(&n.to_string(), &[])).unwrap();
            if alarm_at.is_none() && identities.usage().alarm {
                alarm_at = Some(n + 1);
            }
        }
        assert_eq!(alarm_at, Some(MOST * 80 / 100));
        let exhausted = identities.acquire(workload("one more", &[])).unwrap_err();
        assert_eq!(exhausted, Exhausted { most: 65_280, waiting: 0 });
        assert!(identities.acquire(workload("7", &[])).is_ok(), "who has a number keeps it");
    }
}
