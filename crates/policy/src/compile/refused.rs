//! What does not fit.

use fief_model::Slot;

use crate::identity::Identity;
use crate::tables::Written;

/// Why a change is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A table would be too full.
    #[error("table `{table}` would hold {needed} entries, {most} at most; most of what is new is for {}", blame(.rule))]
    Full {
        /// The table.
        table: &'static str,
        /// How many entries it would have, before what is old is taken out.
        needed: usize,
        /// How many it can have.
        most: usize,
        /// The tenant that most of the new entries are for.
        tenant: Option<Slot>,
        /// The rule that most of them are for.
        rule: Option<Written>,
    },
    /// The rules for one workload tell too many ports apart.
    #[error("the rules for one workload name more than 65535 different lists of ports, {} among them", blame(.rule))]
    Classes {
        /// The tenant.
        tenant: Slot,
        /// One of the rules.
        rule: Option<Written>,
    },
    /// An identity that the compiler was not told of.
    #[error("identity {1} of slot {0} is not known")]
    Unknown(Slot, Identity),
    /// An identity that stands for another workload.
    #[error("identity {1} of slot {0} stands for another workload")]
    Taken(Slot, Identity),
}

fn blame(rule: &Option<Written>) -> String {
    rule.as_ref().map_or_else(|| "no rule".into(), |rule| format!("{} at {}", rule.policy, rule.origin))
}
