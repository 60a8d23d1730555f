//! Blocks of addresses: groups of them, each with the longest prefixes that tell them apart.
//!
//! A group is the list of all blocks that the rules of a set name; sets with the same list share it. Addresses that lie in
//! the same blocks of the list have the same number. One list for a whole tenant would need an entry in every set with a
//! wide block (`0.0.0.0/0` is in most) for every block that anybody writes, and a new block would touch all those sets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fief_model::policy::IpBlock;
use ipnet::IpNet;

use crate::identity::Identity;
use crate::tables::{Delta, GroupId};

/// A list of blocks, divided.
#[derive(Debug)]
pub(super) struct Blocks {
    /// The longest prefix says which number an address has.
    pub(super) prefixes: Vec<(IpNet, Identity)>,
    /// For each number, in order, the blocks that contain it.
    numbers: Vec<Vec<usize>>,
    blocks: Vec<IpBlock>,
    uses: usize,
    is_fresh: bool,
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct BlockGroups {
    groups: HashMap<GroupId, Blocks>,
    by_blocks: HashMap<Vec<IpBlock>, GroupId>,
    last: GroupId,
    /// Groups that came or lost a user since the last settlement.
    touched: BTreeSet<GroupId>,
    /// What the table holds.
    pub(super) size: usize,
}

impl Blocks {
    fn new(blocks: Vec<IpBlock>) -> Blocks {
        let mut nodes: BTreeMap<IpNet, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (index, block) in blocks.iter().enumerate() {
            nodes.entry(block.cidr.trunc()).or_default().0.push(index);
            block.except.iter().for_each(|hole| nodes.entry(hole.trunc()).or_default().1.push(index));
        }
        let mut group = Blocks { prefixes: Vec::new(), numbers: Vec::new(), blocks, uses: 0, is_fresh: true };
        let mut numbers: HashMap<Vec<usize>, Identity> = HashMap::new();
        // The prefixes around the one at hand, outermost first. Prefixes are sorted so that what is around comes before.
        let mut around: Vec<(IpNet, Vec<usize>)> = Vec::new();
        for (net, (begin, end)) in nodes {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                around.pop();
            }
            let outer = around.last().map(|(_, inside)| inside.clone()).unwrap_or_default();
            let mut inside: Vec<usize> =
                outer.iter().copied().filter(|index| !end.contains(index)).chain(begin).collect();
            inside.sort_unstable();
            inside.dedup();
            if inside != outer {
                let identity = match (inside.is_empty(), numbers.get(&inside)) {
                    (true, _) => Identity::ANY,
                    (false, Some(identity)) => *identity,
                    (false, None) => {
                        let identity = Identity(Identity::FIRST_BLOCK.0 + group.numbers.len() as u32);
                        group.numbers.push(inside.clone());
                        numbers.insert(inside.clone(), identity);
                        identity
                    }
                };
                group.prefixes.push((net, identity));
            }
            around.push((net, inside));
        }
        group
    }
}

impl Blocks {
    /// For each number from the first on, the places of the blocks that contain its addresses.
    pub(super) fn numbers(&self) -> &[Vec<usize>] {
        &self.numbers
    }

    /// The place of a block among all of them.
    pub(super) fn place(&self, block: &IpBlock) -> Option<usize> {
        self.blocks.binary_search(block).ok()
    }
}

impl BlockGroups {
    /// The group for these blocks, with one more user; group 0 for none.
    pub(super) fn acquire(&mut self, mut blocks: Vec<IpBlock>) -> GroupId {
        blocks.sort();
        blocks.dedup();
        if blocks.is_empty() {
            return GroupId::default();
        }
        let id = match self.by_blocks.get(&blocks) {
            Some(id) => *id,
            None => {
                while self.last.0 == 0 || self.groups.contains_key(&self.last) {
                    self.last.0 = self.last.0.wrapping_add(1);
                }
                self.groups.insert(self.last, Blocks::new(blocks.clone()));
                self.by_blocks.insert(blocks, self.last);
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
                self.by_blocks.remove(&group.blocks);
            }
        }
    }
}
