//! What an identity holds: endpoints that all have the same labels, and the same endpoints with labels of their own.

use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Lab};

use crate::daemon::Memory;

/// Endpoints, and in the end identities. They are documents that wait for their network, which is all that an identity needs.
const IDENTITIES: usize = 10_000;
/// Policies; each selects all of them and names all of them.
const POLICIES: usize = 10;
/// The daemon gives memory back when it has been quiet for ten seconds.
const QUIET: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(600);

/// KiB an identity: the daemon's process, and its bpf maps.
#[derive(Debug, Clone, Copy)]
pub struct Each {
    /// The daemon's proportional set.
    pub process: f64,
    /// Its bpf maps.
    pub maps: f64,
}

/// KiB an identity of one tenant.
pub fn measure() -> Each {
    std::thread::spawn(built).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn built() -> Each {
    let lab = Lab::new("bench-identities").expect("the benchmarks need root");
    let host = lab.ns("host");
    let daemon = Daemon::start(&lab, &host, DaemonOptions::default());
    let held = |documents: String| {
        daemon.cli_command(&["apply", "-f", "-"]).input(documents).timeout(PATIENCE).run().ok();
        fief_testkit::attempt(QUIET, || Err::<(), String>(String::new())).ok();
        Memory::of(daemon.pid())
    };
    let mut base = "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: many }\n".to_owned();
    (0..POLICIES).for_each(|n| base += &policy(n));
    (0..IDENTITIES).for_each(|n| base += &endpoint(n, 0));
    let before = held(base);
    let after = held((0..IDENTITIES).map(|n| endpoint(n, n)).collect());
    let listed = daemon.cli(&["get", "identities", "-o", "json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(IDENTITIES), "each has one of its own");
    let each = |after: f64, before: f64| (after - before) * 1024.0 / (IDENTITIES - 1) as f64;
    Each { process: each(after.process, before.process), maps: each(after.maps, before.maps) }
}

/// The label's length is the same for all.
fn endpoint(n: usize, label: usize) -> String {
    format!(
        "---\napiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: e{n}, tenant: many, labels: {{ app: app-{label:06} \
         }} }}\nspec: {{ networks: [{{ network: later }}], attach: {{ netns: nowhere-{n} }} }}\n"
    )
}

fn policy(n: usize) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: p{n}, labels: {{ fief/tenant: many }} \
         }}\nspec: {{ podSelector: {{}}, ingress: [{{ from: [{{ podSelector: {{ matchExpressions: [{{ key: app, operator: \
         Exists }}] }} }}], ports: [{{ port: {} }}] }}] }}\n",
        1000 + n
    )
}
