//! Labels that make no identity.

use serde::{Deserialize, Serialize};

use crate::rule::{Peer, Policy, Rule};
use crate::selector::Selector;

/// Labels of workloads that make no identity: with a label that every workload has its own value of, each would need a
/// number of its own. What is left out cannot be selected by, so a policy that tries is to be refused: see
/// [`LabelFilter::hides`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelFilter {
    leave_out: Vec<String>,
}

impl LabelFilter {
    /// Leaves out labels of these names; a `*` at the end stands for anything.
    pub fn new(leave_out: impl IntoIterator<Item = String>) -> LabelFilter {
        LabelFilter { leave_out: leave_out.into_iter().collect() }
    }

    /// Does this label count?
    pub fn keeps(&self, key: &str) -> bool {
        !self.leave_out.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => key == pattern,
        })
    }

    /// The first rule of a policy that selects by a label that is left out, and the label.
    pub fn hides<'p>(&self, policy: &'p Policy) -> Option<(&'p Rule, &'p str)> {
        let hidden = |selector: &'p Selector| {
            selector.labels().iter().map(|requirement| requirement.key.as_str()).find(|key| !self.keeps(key))
        };
        policy.rules.iter().find_map(|rule| {
            let peers = rule.says.peers.iter().filter_map(|peer| match peer {
                Peer::Labels(selector) => Some(selector),
                _ => None,
            });
            let key = std::iter::once(&rule.says.subject).chain(peers).find_map(hidden)?;
            Some((rule, key))
        })
    }
}

impl Default for LabelFilter {
    /// What controllers give to each pod, or to each version of one.
    fn default() -> LabelFilter {
        let leave_out = [
            "apps.kubernetes.io/pod-index",
            "batch.kubernetes.io/controller-uid",
            "batch.kubernetes.io/job-completion-index",
            "batch.kubernetes.io/job-name",
            "controller-revision-hash",
            "controller-uid",
            "io.kubernetes.*",
            "job-name",
            "pod-template-generation",
            "pod-template-hash",
            "statefulset.kubernetes.io/pod-name",
            "uid",
        ];
        LabelFilter::new(leave_out.map(str::to_owned))
    }
}
