//! Where a policy is written: what is kept of it when the text is gone.

use serde::{Deserialize, Serialize};

use super::NetworkPolicy;
use crate::Located;

/// The file that a policy was read from, and the lines of its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Places {
    /// The file, as whoever applied it called it.
    pub file: String,
    /// Of `spec.podSelector`, which stands for what the policy denies by default.
    pub pod_selector: u32,
    /// Of each entry of `spec.ingress`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<u32>,
    /// Of each entry of `spec.egress`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<u32>,
}

impl Places {
    /// Those of a policy, in the document that it was read from.
    pub fn of(policy: &NetworkPolicy, located: &Located) -> Places {
        let line = |path: &str| located.positions.at(path).0;
        let lines =
            |field: &str, count: usize| (0..count).map(|n| line(&format!("spec.{field}[{n}]"))).collect();
        Places {
            file: located.source.to_string(),
            pod_selector: line("spec.podSelector"),
            ingress: lines("ingress", policy.spec.ingress.len()),
            egress: lines("egress", policy.spec.egress.len()),
        }
    }
}
