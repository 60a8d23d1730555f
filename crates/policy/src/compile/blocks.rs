//! Blocks of addresses: groups of them, each with the longest prefixes that tell them apart.
//!
//! A group is made of the lists of blocks that the rules of a set name, one for each rule; sets with the same lists share
//! it. Addresses that lie in the same lists have the same number. Numbers for a whole tenant would need an entry in every
//! set with a wide block (`0.0.0.0/0` is in most) for every block that anybody writes, and a new block would touch all
//! those sets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fief_model::policy::IpBlock;
use ipnet::IpNet;

use crate::identity::Identity;
use crate::tables::{Delta, GroupId};

/// Lists of blocks, divided.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The longest prefix says which number an address has.
    pub(super) prefixes: Vec<(IpNet, Identity)>,
    /// For each number, in order, the lists that contain it.
    numbers: Vec<Vec<usize>>,
    lists: Lists,
    uses: usize,
    is_fresh: bool,
}

/// Each once, sorted.
type Lists = Vec<Vec<IpBlock>>;

/// Blocks by their numbers and the places of their lists.
type Inside = Vec<(usize, usize)>;

/// All groups.
#[derive(Debug, Default)]
pub(super) struct BlockGroups {
    groups: HashMap<GroupId, Blocks>,
    by_lists: HashMap<Lists, GroupId>,
    last: GroupId,
    /// Groups that came or lost a user since the last settlement.
    touched: BTreeSet<GroupId>,
    /// What the table holds.
    pub(super) size: usize,
    /// What groups have that were made since.
    pub(super) made: usize,
}

impl Blocks {
    fn new(lists: Lists) -> Blocks {
        // What begins and what ends at each prefix, by the number of the block and the place of its list.
        let mut nodes: BTreeMap<IpNet, (Inside, Inside)> = BTreeMap::new();
        let blocks =
            lists.iter().enumerate().flat_map(|(place, list)| list.iter().map(move |block| (place, block)));
        for (number, (place, block)) in blocks.enumerate() {
            nodes.entry(block.cidr.trunc()).or_default().0.push((number, place));
            block
                .except
                .iter()
                .for_each(|hole| nodes.entry(hole.trunc()).or_default().1.push((number, place)));
        }
        let mut divided =
            Blocks { prefixes: Vec::new(), numbers: Vec::new(), lists, uses: 0, is_fresh: true };
        let mut numbers: HashMap<Vec<usize>, Identity> = HashMap::new();
        // The prefixes around the one at hand, outermost first. Prefixes are sorted so that what is around comes before.
        let mut around: Vec<(IpNet, Inside)> = Vec::new();
        for (net, (begin, end)) in nodes {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                around.pop();
            }
            let outer = around.last().map(|(_, inside)| inside.clone()).unwrap_or_default();
            let inside: Inside =
                outer.iter().copied().filter(|block| !end.contains(block)).chain(begin).collect();
            let places = places(&inside);
            if places != self::places(&outer) {
                let identity = match (places.is_empty(), numbers.get(&places)) {
                    (true, _) => Identity::ANY,
                    (false, Some(identity)) => *identity,
                    (false, None) => {
                        let identity = Identity(Identity::FIRST_BLOCK.0 + divided.numbers.len() as u32);
                        divided.numbers.push(places.clone());
                        numbers.insert(places, identity);
                        identity
                    }
                };
                divided.prefixes.push((net, identity));
            }
            around.push((net, inside));
        }
        divided
    }

    /// For each number from the first on, the places of the lists that contain its addresses.
    pub(super) fn numbers(&self) -> &[Vec<usize>] {
        &self.numbers
    }

    /// The place of a list, if it is one.
    pub(super) fn place(&self, list: &[IpBlock]) -> Option<usize> {
        self.lists.binary_search_by(|other| other.as_slice().cmp(list)).ok()
    }
}

fn places(inside: &[(usize, usize)]) -> Vec<usize> {
    let places: BTreeSet<usize> = inside.iter().map(|(_, place)| *place).collect();
    places.into_iter().collect()
}

impl BlockGroups {
    /// The group for these lists, with one more user; group 0 for none.
    pub(super) fn acquire(&mut self, mut lists: Lists) -> GroupId {
        lists.sort();
        lists.dedup();
        if lists.is_empty() {
            return GroupId::default();
        }
        let id = match self.by_lists.get(&lists) {
            Some(id) => *id,
            None => {
                while self.last.0 == 0 || self.groups.contains_key(&self.last) {
                    self.last.0 = self.last.0.wrapping_add(1);
                }
                let group = Blocks::new(lists.clone());
                self.made += group.prefixes.len();
                self.groups.insert(self.last, group);
                self.by_lists.insert(lists, self.last);
                self.touched.insert(self.last);
                self.last
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.uses += 1;
        }
        id
    }

    /// One user less.
    pub(super) fn release(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.uses -= 1;
            self.touched.insert(id);
        }
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Blocks> {
        self.groups.get(&id)
    }

    /// How many entries come before any goes.
    pub(super) fn coming(&self) -> usize {
        let fresh = self.touched.iter().filter_map(|id| self.groups.get(id)).filter(|group| group.is_fresh);
        fresh.map(|group| group.prefixes.len()).sum()
    }

    /// Writes down what came, and takes out what nobody uses.
    pub(super) fn settle(&mut self, delta: &mut Delta) {
        self.made = 0;
        for id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let entries = group.prefixes.iter().map(|(net, identity)| ((id, *net), *identity));
            match (group.uses > 0, group.is_fresh) {
                (true, true) => {
                    self.size += group.prefixes.len();
                    delta.blocks.extend(entries);
                }
                (false, false) => {
                    self.size -= group.prefixes.len();
                    delta.gone.blocks.extend(entries.map(|(key, _)| key));
                }
                _ => {}
            }
            group.is_fresh = false;
            if group.uses == 0
                && let Some(group) = self.groups.remove(&id)
            {
                self.by_lists.remove(&group.lists);
            }
        }
    }
}
