//! DHCPv4, DHCPv6, router advertisements, DNS and the metadata service at 169.254.169.254, for every network of the host, in one thread.
//!
//! A network costs its sockets and a few kilobytes: it has no thread, no process and no buffer of its own. The daemon
//! opens the sockets inside the network's namespace and hands them over; from then on the thread reads them from where it
//! is. What a service answers is decided by pure functions (`dhcp::answer`, `ra::advertisement`,
//! `dns::answer`, `metadata::answer`) that know nothing of sockets; the files in `serve` carry out.
//!
//! ```text
//!   Services ── commands ──> room ── one Network each ──┬─ serve/dhcp ─── dhcp::answer ──> saver ──> LeaseStore
//!                                                       ├─ serve/dhcp6 ── dhcp6::answer
//!                                                       ├─ serve/ra ───── ra::advertisement
//!                                                       ├─ serve/dns ──── dns::answer ───> upstream
//!                                                       └─ serve/metadata metadata::answer
//! ```
//!
//! What is deliberately absent: a DNS cache, names that clients choose, answers to relays, and any name that one network
//! has in the view of another.
#![forbid(unsafe_code)]

mod config;
mod counters;
mod dhcp;
mod dhcp6;
mod dns;
pub mod fuzz;
mod lease;
mod metadata;
mod quota;
mod ra;
mod room;
mod saver;
mod serve;
mod services;
mod sockets;
mod teeth;

pub use config::{Dhcp, EndpointConfig, NetworkConfig, ROUTER};
pub use counters::Counters;
pub use lease::{Lease, LeaseStore};
pub use services::Services;
pub use sockets::{ConnectUdp, OpenTcp, Sockets};
