//! The only room that speaks to the kernel's configuration interfaces: rtnetlink, inet_diag, sysctl,
//! cgroup v2, network namespaces.
//!
//! It offers verbs and plain values, never messages. What it writes carries fief's mark of origin
//! ([`PROTOCOL`] on routes, rules and addresses), and what it lists is told apart by the same.
//!
//! Architecture invariant: nothing here knows what a tenant is, or decides anything.

pub mod born;
pub mod bound;
pub mod cgroup;
pub mod conntrack;
pub mod devices;
pub mod error;
pub mod fake;
pub mod kernel;
pub mod memory;
pub mod namespaces;
pub mod netlink;
pub mod nft;
pub mod open;
pub mod packet;
pub mod peer;
pub mod probe;
pub mod programs;
pub mod sockets;
pub mod sysctl;
pub mod tap;
pub mod tasks;
pub mod teeth;
pub mod verbs;
pub mod xtables;

pub use error::HostError;
pub use netlink::address::Address;
pub use netlink::detour::{Detour, Programs};
pub use netlink::link::Link;
pub use netlink::monitor::{Event, Monitor};
pub use netlink::route::{Route, RouteKey, RouteKind};
pub use netlink::rule::{Rule, RuleAction};
pub use verbs::{Change, Family, GROUP, Host, LinuxHost, Listing, Vrf};

/// The mark of origin on our routes (`rtm_protocol`), rules (FRA_PROTOCOL) and addresses (IFA_PROTO):
/// a number that /etc/iproute2/rt_protos gives to nobody.
pub const PROTOCOL: u8 = 241;
