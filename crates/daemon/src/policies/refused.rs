//! Why a request would not fit, in words.

use fief_model::Slot;
use fief_policy::identity::Exhausted;
use fief_policy::tables::Written;

use super::{MOST_POLICIES, MOST_RULES, Policies};

/// A request that is not granted; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    text: String,
    /// What to do about it.
    pub help: &'static str,
}

impl Refused {
    pub(super) fn exhausted(tenant: &str, error: Exhausted) -> Refused {
        let text = format!("tenant {tenant}: {error}");
        Refused {
            text,
            help: "give fewer endpoints labels of their own; unused numbers are free after 30 seconds",
        }
    }

    pub(super) fn too_many_policies(count: usize) -> Refused {
        let text = format!("{count} policies; this host holds {MOST_POLICIES} at most");
        Refused {
            text,
            help: "let one policy select more endpoints, or spread the tenants over several hosts",
        }
    }

    pub(super) fn too_many_rules(count: usize) -> Refused {
        let text = format!("the policies would have {count} rules; this host holds {MOST_RULES} at most");
        Refused {
            text,
            help: "let one rule name more peers and ports, or spread the tenants over several hosts",
        }
    }
}

impl Policies {
    /// What the compiler refused, with names for its numbers.
    pub(super) fn refused(&self, refused: &fief_policy::Refused) -> Refused {
        use fief_policy::Refused as Why;
        let tenant = |slot: &Slot| self.names.get(slot).map_or("?", String::as_str);
        let at = |rule: &Option<Written>| match rule {
            Some(rule) => format!(", {} at {}", rule.policy, rule.origin),
            None => String::new(),
        };
        let narrower = "let that policy select less, or name fewer peers, blocks and ports";
        match refused {
            Why::Full { table, needed, most, tenant: of, rule } => {
                let whose = of.as_ref().map_or_else(String::new, |of| {
                    format!("; most of what is new is for tenant {}{}", tenant(of), at(rule))
                });
                let text =
                    format!("table `{table}` would need {needed} entries and has room for {most}{whose}");
                Refused { text, help: narrower }
            }
            Why::Classes { tenant: of, rule } => {
                let whose = format!("tenant {}{}", tenant(of), at(rule));
                let text =
                    format!("the rules for one endpoint tell more than 65535 lists of ports apart: {whose}");
                Refused { text, help: narrower }
            }
            Why::Unknown(..) | Why::Taken(..) => {
                Refused { text: refused.to_string(), help: "this is a mistake of fief's: please report it" }
            }
        }
    }
}
