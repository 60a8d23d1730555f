//! What a host really does with the 32 bits of its marks: who reads and writes which, where, masked or not.
//!
//! ```text
//!   netlink, getsockopt, bpf ── one file a subsystem ── effects (bits read, bits written) ── sink ── report ── conflicts
//! ```
//!
//! Kernel objects are read, never the text of tools. Each subsystem's reader takes bytes and cannot fail: what it does
//! not understand it passes over, and `fuzz` of each file shows that nothing makes it panic. Memory is bounded: equal
//! uses are counted, not kept ([`uses::MOST`]).
//!
//! Architecture invariant: nothing here writes to the host or decides; the rooms above do.
#![forbid(unsafe_code)]

mod bpf;
pub mod conflicts;
mod connections;
mod devices;
pub mod fuzz;
mod generic;
mod holders;
mod legacy;
mod nft;
mod openvswitch;
pub mod owners;
mod routing;
mod sink;
mod tc;
pub mod uses;
pub mod watch;
mod word;
mod xfrm;
mod xtables;

use std::collections::BTreeMap;

use fief_host::namespaces::Namespace;
use serde::Serialize;

use sink::{Seen, Sink};
use uses::Uses;
pub use uses::{Found, Subsystem, Use};

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Rules of all kinds, devices, programs: who reads and writes.
    pub rules: bool,
    /// Sockets and tracked connections: what is carried now.
    pub flows: bool,
}

impl Scope {
    /// Everything.
    pub const ALL: Scope = Scope { rules: true, flows: true };
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Equal uses together.
    pub uses: Vec<Found>,
    /// Objects that were looked at.
    pub looked_at: u64,
    /// Uses that are not listed because there are too many different ones.
    pub left_out: u64,
    /// What could not be looked at, and why.
    pub failures: Vec<String>,
}

/// Looks at these namespaces, and at the bpf programs of the machine. `progress` hears how many objects were looked at
/// since it was last called.
pub fn scan(namespaces: &[Namespace], scope: Scope, progress: &mut (dyn FnMut(u64) + Send)) -> Report {
    let mut report = Report { uses: Vec::new(), looked_at: 0, left_out: 0, failures: Vec::new() };
    let mut uses = Uses::default();
    let mut attached = Vec::new();
    for namespace in namespaces {
        let looked = namespace.inside(|| {
            let mut sink = Sink::new(namespace.name.clone(), progress);
            look(scope, &mut sink);
            sink.finish()
        });
        match looked {
            Ok(seen) => {
                attached.push((namespace.name.as_str(), seen.attached.clone()));
                report.take(seen, &namespace.name, &mut uses);
            }
            Err(error) => report.failures.push(error.to_string()),
        }
    }
    if scope.rules {
        let mut sink = Sink::new(String::new(), progress);
        sink.look("bpf programs", |sink| bpf::scan(sink, &attached));
        report.take(sink.finish(), "", &mut uses);
    }
    report.left_out = uses.left_out;
    report.uses = uses.into_vec();
    report
}

impl Report {
    fn take(&mut self, seen: Seen, namespace: &str, uses: &mut Uses) {
        let of = if namespace.is_empty() { String::new() } else { format!("{namespace}: ") };
        uses.extend(seen.uses);
        self.looked_at += seen.looked_at;
        self.failures.extend(seen.failures.into_iter().map(|(what, why)| format!("{of}{what}: {why}")));
    }
}

fn look(scope: Scope, sink: &mut Sink<'_>) {
    if scope.rules {
        sink.look("nftables", nft::scan);
        sink.look("iptables", legacy::scan);
        sink.look("rules", routing::rules);
        sink.look("routes", routing::routes);
        sink.look("IPsec", xfrm::scan);
        let mut names = BTreeMap::new();
        sink.look("devices", |sink| devices::scan(sink).map(|found| names = found));
        sink.look("traffic control", |sink| tc::scan(sink, &names));
        sink.look("Open vSwitch", |sink| openvswitch::scan(sink, &names));
    }
    if scope.flows {
        sink.look("sockets", connections::open);
        sink.look("connections", connections::tracked);
    }
}
