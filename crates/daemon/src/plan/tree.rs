//! The rule tree: from a mark to a table in a number of rules that grows with the logarithm of the tenants, not with
//! their number.
//!
//! # Theory of operation
//!
//! `ip rule` is a list walked from the top; one rule a tenant would make the last of 16,384 tenants pay for 16,383
//! comparisons on every packet. A `goto` skips forward, so the list can hold a binary tree over the high bits of the
//! slot, with buckets of sixteen slots for leaves:
//!
//! ```text
//!   ENTRY      not fwmark 0/MASK          goto ROOT        behind the host's own first rule
//!   ENTRY+2    lookup the table of aliases               slot 0's: answers of sockets that are nobody's
//!   ...        (the host's rules, main, default: only packets without a slot come here)
//!   node       fwmark BIT/MASKBIT         goto its right subtree; else fall into the left one
//!   bucket     fwmark SLOT/MASK           lookup TABLE     up to sixteen, all at one preference
//!   guard      unreachable                                 behind every bucket
//!   END        unreachable                                 behind everything
//! ```
//!
//! A node stands only where both its subtrees have tenants (a Patricia tree), so one tenant costs two rules. Every
//! possible node and bucket has a preference of its own, whatever else exists, so a change touches one bucket and at
//! most two nodes. The tree lies behind `default` (32767), where nobody's rules are: packets without a slot never
//! get there, and no rule of the host's is jumped over by them.
//!
//! Leaves compare the whole field. Whatever way a packet falls through the tree, it meets its own leaf or a guard,
//! never a neighbour's table; so a tree that is being changed is never wrong, and with the order of [`changes`] it
//! never misses either.
//!
//! # Without marks
//!
//! There are uplinks only, and what leaves by one has a source that stands for it ([`Links`]): a rule each, behind one that
//! everybody else's packets pass by.
//!
//! ```text
//!   ENTRY      from LINKS                 goto SOURCES
//!   ENTRY+2    lookup the table of links                 what comes from outside finds its way to a tenant
//!   SOURCES    from UPLINK                lookup TABLE     up to fifteen, all at one preference
//!   SOURCES+1  unreachable
//! ```

use std::collections::{BTreeMap, BTreeSet};

use fief_datapath::aliases::Ranges;
use fief_host::teeth::is_off;
use fief_host::{Change, Detour, Family, Rule, RuleAction};
use fief_marks::MarkLayout;
use fief_model::Slot;
use ipnet::Ipv4Net;

use crate::networks::links::Links;

/// Slots in a bucket, as bits.
const BUCKET_BITS: u32 = 4;
/// Preference of the first possible node of the first tree, and how much further that of the second is.
const ROOT: u32 = 0x1_0000;
const LANE: u32 = 0x4000;
/// Where sources are told apart: behind both trees.
const SOURCES: u32 = ROOT + 2 * LANE;

/// Where the tree is, for which field, and which tables it leads to.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    /// The field in the mark, and which of the two places its tree has; `None` where fief writes no marks.
    pub field: Option<(MarkLayout, u8)>,
    /// While the field moves: the other one, which has a tree as well.
    pub also: Option<(MarkLayout, u8)>,
    /// Where addresses of links are taken from.
    pub links: Links,
    /// Preference of the entry rule, below `main`.
    pub entry: u32,
    /// Table of slot n is `table_base + n`.
    pub table_base: u32,
    /// Does the host's `local` rule move behind the entry?
    pub move_local: bool,
    /// Did the kernel make its rule for VRFs because of a VRF of ours?
    pub vrf_rule_is_ours: bool,
    /// Where aliases of UDP senders are taken from.
    pub aliases: Ranges,
    /// The programs that answers to aliases go through.
    pub detour: Detour,
    /// Do tenants' packets take a short way past the host's connection tracking?
    pub short_way: bool,
}

impl Tree {
    /// Every rule that these slots need; empty if there is no slot. `uplinks` are those that uplinks have, with their
    /// indexes: without marks there is nobody else.
    pub fn rules(&self, family: Family, slots: &BTreeSet<Slot>, uplinks: &BTreeMap<Slot, u8>) -> Vec<Rule> {
        if slots.is_empty() {
            return Vec::new();
        }
        match self.field {
            Some(field) => self.rules_by_mark(field, slots),
            None => self.rules_by_source(family, uplinks),
        }
    }

    fn rules_by_mark(&self, field: (MarkLayout, u8), slots: &BTreeSet<Slot>) -> Vec<Rule> {
        let slots: Vec<u16> = slots.iter().map(|s| s.number()).collect();
        let mut rules = Vec::with_capacity(slots.len() + slots.len() / 4 + 4);
        for (layout, lane) in std::iter::once(field).chain(self.also) {
            let branches = Branches { layout, table_base: self.table_base };
            branches.grow(&slots, self.entry, ROOT + u32::from(lane) * LANE, &mut rules);
        }
        if self.move_local {
            rules.push(self.moved_local());
        }
        rules.push(Rule::everything(self.entry + 2, RuleAction::Lookup(self.table_base)));
        if is_off("tree-ends") {
            rules.retain(|rule| rule.action != RuleAction::Unreachable);
        }
        rules
    }

    fn rules_by_source(&self, family: Family, uplinks: &BTreeMap<Slot, u8>) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.move_local {
            rules.push(self.moved_local());
        }
        // Links have IPv4 addresses only.
        if family == Family::V6 {
            return rules;
        }
        let lookup = |source: Ipv4Net, table| Rule {
            source: Some(source),
            ..Rule::everything(SOURCES, RuleAction::Lookup(table))
        };
        let table = |slot: &Slot| self.table_base + u32::from(slot.number());
        rules.extend(uplinks.iter().map(|(slot, index)| lookup(self.links.of_uplink(*index), table(slot))));
        rules.push(lookup(self.links.of_host(), self.table_base));
        rules.push(Rule::everything(SOURCES + 1, RuleAction::Unreachable));
        rules.push(self.entry_by_source());
        rules.push(Rule::everything(self.entry + 2, RuleAction::Lookup(self.table_base)));
        rules
    }

    /// What leads everything that comes from a link to its uplink, or nowhere.
    pub fn entry_by_source(&self) -> Rule {
        let goto = Rule::everything(self.entry, RuleAction::Goto(SOURCES));
        Rule { source: Some(self.links.0), ..goto }
    }

    /// What comes before everything else where there are VRFs of ours: a packet in a VRF is looked up in that one's table,
    /// or it would meet the host's own addresses first. `local` is next, before the tree or, if it is to move, behind it.
    pub fn rules_of_vrfs(&self, has_slots: bool) -> Vec<Rule> {
        let mut rules = vec![Rule::everything(self.entry.saturating_sub(2), RuleAction::Vrf)];
        if !(self.move_local && has_slots) {
            let local = RuleAction::Lookup(u32::from(libc::RT_TABLE_LOCAL));
            rules.push(Rule::everything(self.entry.saturating_sub(1), local));
        }
        rules
    }

    /// Where `local` stands in the mode `localRule: move`: next behind the entry, for packets without a slot.
    fn moved_local(&self) -> Rule {
        Rule::everything(self.entry + 1, RuleAction::Lookup(u32::from(libc::RT_TABLE_LOCAL)))
    }
}

/// One tree.
struct Branches {
    layout: MarkLayout,
    table_base: u32,
}

impl Branches {
    /// Writes the tree whose first possible node is at `root`, the rule that sends marked packets into it, and its end.
    fn grow(&self, slots: &[u16], entry: u32, root: u32, rules: &mut Vec<Rule>) {
        let height = self.layout.width() - BUCKET_BITS.min(self.layout.width());
        let first = self.subtree(slots, height, root, rules);
        rules.push(Rule {
            mask: self.layout.mask(),
            invert: true,
            ..Rule::everything(entry, RuleAction::Goto(first))
        });
        rules.push(Rule::everything(root + size(height), RuleAction::Unreachable));
    }

    /// Writes the rules of a non-empty subtree of `height` levels whose preferences begin at `at`; returns the
    /// preference of its first rule.
    fn subtree(&self, slots: &[u16], height: u32, at: u32, rules: &mut Vec<Rule>) -> u32 {
        if height == 0 {
            rules.extend(slots.iter().map(|slot| self.leaf(at, *slot)));
            rules.push(Rule::everything(at + 1, RuleAction::Unreachable));
            return at;
        }
        let bit = 1u16 << (height - 1 + BUCKET_BITS);
        let right_at = at + 1 + size(height - 1);
        let (left, right) = slots.split_at(slots.partition_point(|slot| slot & bit == 0));
        match (left.is_empty(), right.is_empty()) {
            (false, true) => self.subtree(left, height - 1, at + 1, rules),
            (true, false) => self.subtree(right, height - 1, right_at, rules),
            _ => {
                self.subtree(left, height - 1, at + 1, rules);
                let target = self.subtree(right, height - 1, right_at, rules);
                let mark = u32::from(bit) << self.layout.shift();
                rules.push(Rule { mark, mask: mark, ..Rule::everything(at, RuleAction::Goto(target)) });
                at
            }
        }
    }

    fn leaf(&self, preference: u32, slot: u16) -> Rule {
        let mark = u32::from(slot) << self.layout.shift();
        let action = RuleAction::Lookup(self.table_base + u32::from(slot));
        Rule { mark, mask: self.layout.mask(), ..Rule::everything(preference, action) }
    }
}

/// The changes that lead from the rules that are there to the wanted ones, in an order in which no tenant that is in
/// both loses a packet: what is jumped to before what jumps, and the other way round when things go.
pub fn changes(family: Family, there: &[Rule], wanted: &[Rule]) -> (Vec<Change>, Vec<Change>) {
    let mut missing = subtract(wanted, there);
    let mut surplus = subtract(there, wanted);
    // Descending: the kernel then finds each place, and each goto its target, near the head of the list.
    missing.sort_by_key(|r| (rank(r), std::cmp::Reverse(r.preference)));
    surplus.sort_by_key(|r| (std::cmp::Reverse(rank(r)), r.preference));
    let add = missing.into_iter().map(|r| Change::AddRule(family, r)).collect();
    let remove = surplus.into_iter().map(|r| Change::DeleteRule(family, r)).collect();
    (add, remove)
}

/// Adding goes up this scale, removing goes down: ends, then tables, then jumps.
fn rank(rule: &Rule) -> u8 {
    match rule.action {
        RuleAction::Unreachable => 0,
        RuleAction::Lookup(_) | RuleAction::Vrf => 1,
        RuleAction::Goto(_) if rule.invert || rule.source.is_some() => 3,
        RuleAction::Goto(_) => 2,
    }
}

/// `from` without `less`, counting duplicates.
fn subtract(from: &[Rule], less: &[Rule]) -> Vec<Rule> {
    let mut counts = std::collections::HashMap::<Rule, usize>::new();
    for rule in less {
        *counts.entry(*rule).or_default() += 1;
    }
    let is_left = |rule: &&Rule| match counts.get_mut(*rule) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    from.iter().filter(is_left).copied().collect()
}

/// Preferences that a subtree of `height` levels takes: two a bucket, one a node.
fn size(height: u32) -> u32 {
    3 * (1 << height) - 1
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
