//! The one rule model: every kind of policy document becomes rules of this shape.
//!
//! A rule says of some workloads (`subject`), in one `direction`, what happens to packets of some `peers` at some
//! `ports`. Rules lie in tiers, and in a tier in an order; the first that matches in a tier decides, see
//! [`crate::verdict`]. That a selected workload gets nothing else is a rule too: the last of its tier, for anybody.

use std::fmt;
use std::sync::Arc;

use fief_model::Slot;
use fief_model::policy::IpBlock;

use crate::selector::Selector;
use crate::verdict::{Action, Tier};

/// Orders within a tier, for documents without an order of their own: deny beats allow, wherever it stands.
pub mod order {
    /// What is forbidden whatever else allows it.
    pub const DENY: u32 = 0;
    /// What a proxy looks at, although some other rule lets it pass unseen.
    pub const REDIRECT: u32 = 1;
    /// What is allowed.
    pub const ALLOW: u32 = 2;
    /// What no rule of the tier speaks of.
    pub const DEFAULT: u32 = u32::MAX;
}

/// The rules of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which document.
    pub key: PolicyKey,
    /// Its rules, as they stand in it.
    pub rules: Vec<Rule>,
}

/// Which document a rule is from. Among rules of the same tier and order the first key is named as the one that decided.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// The tenant.
    pub tenant: Slot,
    /// The kind, as documents write it.
    pub kind: &'static str,
    /// The namespace; empty for kinds that have none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it is written.
    pub origin: Origin,
    /// What it says.
    pub says: Statement,
}

/// Where a rule is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file.
    pub source: Arc<str>,
    /// The line in it.
    pub line: u32,
    /// The rule's path in its document, as `spec.ingress[0]`.
    pub path: Arc<str>,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Which tier it lies in.
    pub tier: Tier,
    /// Where in the tier; lower is asked first.
    pub order: u32,
    /// Whom it is about.
    pub subject: Selector,
    /// Which way the packets go.
    pub direction: Direction,
    /// The other side: any of these.
    pub peers: Vec<Peer>,
    /// Where they go to.
    pub ports: Ports,
    /// What happens to them.
    pub action: Action,
}

/// Which way packets go, as the subject sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To the subject.
    Ingress,
    /// From the subject.
    Egress,
}

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Anybody at all.
    Any,
    /// Workloads of the same tenant.
    Labels(Selector),
    /// Whoever has such an address, workloads included.
    Block(IpBlock),
}

/// Where packets go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Anywhere, with any protocol.
    All,
    /// Any of these.
    Only(Vec<PortMatch>),
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMatch {
    /// The protocol's number (IANA).
    pub protocol: u8,
    /// Which ports.
    pub ports: PortSet,
}

/// Ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSet {
    /// All of them.
    All,
    /// From the first to the last.
    Range(u16, u16),
    /// The one that the destination calls so. A block of addresses has no names: by its address alone nobody has one.
    Named(String),
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];
}

impl Ports {
    pub(crate) fn only(&self) -> &[PortMatch] {
        match self {
            Ports::All => &[],
            Ports::Only(matches) => matches,
        }
    }

    /// Names with their protocols.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, u8)> {
        self.only().iter().filter_map(|one| match &one.ports {
            PortSet::Named(name) => Some((name.as_str(), one.protocol)),
            _ => None,
        })
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PolicyKey { kind, namespace, name, .. } = self;
        match namespace.is_empty() {
            true => write!(f, "{kind} {name}"),
            false => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({})", self.source, self.line, self.path)
    }
}
