//! What changes in the tables.

use std::collections::{BTreeMap, HashMap};

use fief_model::Slot;
use ipnet::IpNet;

use super::{
    Class, GroupId, Header, PeerClass, PeersId, PortKey, RuleNumber, SetId, Sets, Subject, Tables,
    VerdictKey, Written,
};
use crate::identity::Identity;
use crate::verdict::Hits;

/// What changes in the tables: first everything that is put beside what is in use, then the switch, then what goes.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// Sets that come.
    pub sets: Vec<(SetId, Header)>,
    /// Their ports.
    pub ports: Vec<(PortKey, Class)>,
    /// Peers of groups that come, and identities that come to groups that are in use.
    pub peers: Vec<((PeersId, Identity), PeerClass)>,
    /// Blocks of groups that come.
    pub blocks: Vec<((GroupId, IpNet), Identity)>,
    /// Verdicts of sets that come, and of peers of a new kind in sets that are in use.
    pub verdicts: Vec<(VerdictKey, Hits)>,
    /// Rules of sets that come.
    pub ranks: Vec<((SetId, u32), RuleNumber)>,
    /// Where rules are written that come or were moved.
    pub written: Vec<(RuleNumber, Written)>,
    /// What subjects have afterwards; `None` for those that go.
    pub subjects: BTreeMap<(Slot, Identity), Option<Sets>>,
    /// What goes.
    pub gone: Gone,
}

/// Entries that go after the switch.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the tables' names")]
pub struct Gone {
    pub sets: Vec<SetId>,
    pub ports: Vec<PortKey>,
    pub peers: Vec<(PeersId, Identity)>,
    pub blocks: Vec<(GroupId, IpNet)>,
    pub verdicts: Vec<VerdictKey>,
    pub ranks: Vec<(SetId, u32)>,
    pub written: Vec<RuleNumber>,
}

/// Numbers of entries, of each table that the datapath has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the tables' names")]
pub struct Sizes {
    pub subjects: usize,
    pub sets: usize,
    pub ports: usize,
    pub peers: usize,
    pub blocks: usize,
    pub verdicts: usize,
    pub ranks: usize,
}

impl Delta {
    /// What leads from empty tables to these.
    pub fn whole(tables: &Tables) -> Delta {
        fn all<K: Clone, V: Clone>(table: &HashMap<K, V>) -> Vec<(K, V)> {
            table.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        let subject =
            |(key, subject): (&(Slot, Identity), &Subject)| (*key, Some(subject.at(tables.generation)));
        Delta {
            sets: all(&tables.sets),
            ports: all(&tables.ports),
            peers: all(&tables.peers),
            blocks: all(&tables.blocks),
            verdicts: all(&tables.verdicts),
            ranks: all(&tables.ranks),
            written: all(&tables.written),
            subjects: tables.subjects.iter().map(subject).collect(),
            gone: Gone::default(),
        }
    }

    /// How many entries change.
    pub fn len(&self) -> usize {
        let put = [self.sets.len(), self.ports.len(), self.peers.len(), self.blocks.len()];
        let put = put.into_iter().sum::<usize>() + self.verdicts.len() + self.ranks.len();
        put + self.subjects.len() + self.gone.len()
    }

    /// Does nothing change?
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.written.is_empty() && self.gone.written.is_empty()
    }
}

impl Gone {
    /// How many entries go.
    pub fn len(&self) -> usize {
        let some = [self.sets.len(), self.ports.len(), self.peers.len(), self.blocks.len()];
        some.into_iter().sum::<usize>() + self.verdicts.len() + self.ranks.len()
    }

    /// Does nothing go?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Sizes {
    /// No table has an end.
    pub const ENDLESS: Sizes = Sizes {
        subjects: usize::MAX,
        sets: usize::MAX,
        ports: usize::MAX,
        peers: usize::MAX,
        blocks: usize::MAX,
        verdicts: usize::MAX,
        ranks: usize::MAX,
    };

    /// Each table with its name.
    pub fn each(&self) -> [(&'static str, usize); 7] {
        [
            ("subjects", self.subjects),
            ("sets", self.sets),
            ("ports", self.ports),
            ("peers", self.peers),
            ("blocks", self.blocks),
            ("verdicts", self.verdicts),
            ("ranks", self.ranks),
        ]
    }
}

impl Tables {
    /// Carries out a change.
    pub fn apply(&mut self, delta: &Delta) {
        self.apply_watched(delta, |_| {});
    }

    /// Carries out a change, one entry after the other, and shows every state on the way.
    pub fn apply_watched(&mut self, delta: &Delta, mut watch: impl FnMut(&Tables)) {
        macro_rules! put {
            ($table:ident) => {
                for (key, value) in &delta.$table {
                    self.$table.insert(key.clone(), value.clone());
                    watch(self);
                }
            };
        }
        macro_rules! remove {
            ($table:ident) => {
                for key in &delta.gone.$table {
                    self.$table.remove(key);
                    watch(self);
                }
            };
        }
        put!(written);
        put!(ranks);
        put!(sets);
        put!(ports);
        put!(blocks);
        put!(verdicts);
        put!(peers);
        self.switch(delta, &mut watch);
        remove!(peers);
        remove!(verdicts);
        remove!(blocks);
        remove!(ports);
        remove!(sets);
        remove!(ranks);
        remove!(written);
    }

    fn switch(&mut self, delta: &Delta, watch: &mut impl FnMut(&Tables)) {
        if delta.subjects.is_empty() {
            return;
        }
        let coming = self.generation + 1;
        for (key, sets) in &delta.subjects {
            let Some(after) = *sets else { continue };
            let before = self.subjects.get(key).map_or(after, |subject| subject.at(self.generation));
            self.subjects.insert(*key, Subject { since: coming, before, after });
            watch(self);
        }
        self.generation = coming;
        watch(self);
        for key in delta.subjects.iter().filter(|(_, sets)| sets.is_none()).map(|(key, _)| key) {
            self.subjects.remove(key);
            watch(self);
        }
    }

    /// How many entries there are.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            subjects: self.subjects.len(),
            sets: self.sets.len(),
            ports: self.ports.len(),
            peers: self.peers.len(),
            blocks: self.blocks.len(),
            verdicts: self.verdicts.len(),
            ranks: self.ranks.len(),
        }
    }
}
