//! The rules that are in force, by their numbers.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use fief_model::policy::IpBlock;

use super::world::SelectorId;
use crate::rule::{Origin, PolicyKey, Rule, Statement};
use crate::tables::{RuleNumber, Written};

/// A rule with a number.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) policy: Arc<PolicyKey>,
    pub(super) index: usize,
    pub(super) origin: Origin,
    pub(super) says: Arc<Statement>,
    /// Whom it names, while it is in force.
    pub(super) named: Option<Named>,
    /// Do the tables hold its place?
    pub(super) is_written: bool,
}

/// Whom a rule names, by the numbers of its selectors.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) subject: SelectorId,
    pub(super) peers: Arc<[PeerRef]>,
}

/// A peer.
#[derive(Debug, Clone)]
pub(super) enum PeerRef {
    Any,
    /// All workloads.
    Workloads,
    Labels(SelectorId),
    Block(IpBlock),
}

/// All rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: HashMap<RuleNumber, Numbered>,
    pub(super) policies: HashMap<Arc<PolicyKey>, Vec<RuleNumber>>,
    last: u32,
}

impl Numbered {
    /// Which of two rules is asked first.
    pub(super) fn order(&self, other: &Numbered) -> Ordering {
        let place = |rule: &Numbered| (rule.says.tier, rule.says.order);
        place(self)
            .cmp(&place(other))
            .then_with(|| self.policy.cmp(&other.policy))
            .then_with(|| self.index.cmp(&other.index))
    }

    pub(super) fn written(&self) -> Written {
        Written { policy: self.policy.clone(), origin: self.origin.clone() }
    }
}

impl Rules {
    pub(super) fn get(&self, number: RuleNumber) -> Option<&Numbered> {
        self.rules.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: RuleNumber) -> Option<&mut Numbered> {
        self.rules.get_mut(&number)
    }

    /// A number for a rule. Numbers go round, so that a record of a rule that is gone does not name another one.
    pub(super) fn add(&mut self, policy: Arc<PolicyKey>, index: usize, rule: Rule) -> RuleNumber {
        loop {
            self.last = self.last.wrapping_add(1).max(1);
            if !self.rules.contains_key(&RuleNumber(self.last)) {
                break;
            }
        }
        let says = Arc::new(rule.says);
        let numbered = Numbered { policy, index, origin: rule.origin, says, named: None, is_written: false };
        self.rules.insert(RuleNumber(self.last), numbered);
        RuleNumber(self.last)
    }

    pub(super) fn remove(&mut self, number: RuleNumber) -> Option<Numbered> {
        self.rules.remove(&number)
    }
}
