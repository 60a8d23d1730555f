//! Who may talk to whom: rules about labels go in, tables of numbers come out, and two look-ups in them decide a packet.
//!
//! Architecture invariant: this room is pure. It asks no kernel, no clock and no disk; whatever it must know it is told,
//! and what must survive a restart it hands out ([`identity::Snapshot`]).
//!
//! - [`rule`] is the one model that every policy document becomes; [`network_policy`] does that for Kubernetes' own kind.
//! - [`identity`] gives numbers to workloads that no rule can tell apart.
//! - [`compile`] turns rules and identities into [`tables`], change by change; [`verdict`] is how rules that match the
//!   same packet are weighed, in both.
//! - [`reference`] answers the same questions slowly, from the documents, and shares no code with the compiler: it is what
//!   the tables are held against.
//!
//! How documents that nobody reads yet will become rules:
//!
//! | document | rules |
//! |---|---|
//! | an endpoint's list of rules (first match, then drop) | [`Tier::Endpoint`](verdict::Tier), the index as order, a last rule that denies; `allow` is a `Pass`, so that policies of namespaces have their say |
//! | ClusterNetworkPolicy | [`Tier::Admin`](verdict::Tier) and `Baseline`, the priority as order; Accept, Deny and Pass are the actions |
//! | CiliumNetworkPolicy, deny rules | [`Tier::Namespace`](verdict::Tier) with [`rule::order::DENY`], beside rules that allow: denied first |
//! | rules with a proxy | `Redirect` with [`rule::order::REDIRECT`]: before what allows the same, behind what denies it; the rule's number says which listener |
#![forbid(unsafe_code)]

pub mod compile;
pub mod identity;
pub mod network_policy;
pub mod reference;
pub mod rule;
pub mod selector;
pub mod tables;
pub mod verdict;

pub use compile::{Change, Compiler, Planned, Refused};
pub use identity::{Identities, Identity, Workload};
pub use rule::{Direction, Policy, PolicyKey, Rule};
pub use tables::{Delta, Packet, Sizes, Tables, Verdict};
