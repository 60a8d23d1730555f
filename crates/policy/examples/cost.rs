//! What compiling costs: 10,000 policies, 1,000 endpoints, 10,000 identities; then one change after the other.
//!
//! `cargo run --release -p fief-policy --example cost [POLICIES]`
//!
//! The tenants are imagined: crates/policykit/src/shapes.rs.

use std::time::{Duration, Instant};

use fief_policy::verdict::Action;
use fief_policy::{Change, Compiler, Delta, Sizes, Tables};
use fief_policykit::scene::slot;
use fief_policykit::shapes::{APPS, BROAD, CROWD, ENDPOINTS, IDENTITIES, Shape, TWINS, identity, local, tcp};

fn main() {
    let policies = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(10_000);
    for (shape, rounds) in [(APPS, 500), (BROAD, 500), (CROWD, 10), (TWINS, 10)] {
        measure(shape, policies, rounds);
    }
}

fn measure(shape: Shape, policies: usize, rounds: usize) {
    let Shape { name, policy, workload } = shape;
    let tenant = slot();
    let changes = shape.changes(0..policies);
    let mut compiler = Compiler::new(Sizes::ENDLESS);
    let start = Instant::now();
    let delta = compiler.update(changes).expect("there is room for everything");
    println!("{name}: {policies} policies, {ENDPOINTS} endpoints, {IDENTITIES} identities");
    println!("  compile           {:>10.1} ms", millis(start.elapsed()));
    let sizes = compiler.sizes();
    let entries: usize = sizes.each().into_iter().map(|(_, size)| size).sum();
    println!("  entries           {entries:>10}    {:?}", sizes.each());
    let mut tables = Tables::default();
    tables.apply(&delta);
    drop(delta);

    // An endpoint's labels change: one identity comes, another one goes.
    let mut times = Vec::new();
    let mut changed = 0;
    for round in 0..rounds {
        let n = local(round * 7 % ENDPOINTS);
        let (old, new) = (identity(n), identity(IDENTITIES + round));
        let changes = [
            Change::Identity(tenant, new, workload(n, round + 1)),
            Change::Subject(tenant, new),
            Change::NoIdentity(tenant, old),
        ];
        changed += timed(&mut compiler, changes, &mut times, &mut tables);
        let back = [
            Change::Identity(tenant, old, workload(n, 0)),
            Change::Subject(tenant, old),
            Change::NoIdentity(tenant, new),
        ];
        changed += timed(&mut compiler, back, &mut times, &mut tables);
    }
    report("labels change", times, changed);

    // A policy gets another port.
    let (mut times, mut changed) = (Vec::new(), 0);
    for round in 0..rounds {
        let n = round * 13 % policies;
        let mut other = policy(n);
        for rule in other.rules.iter_mut().filter(|rule| rule.says.action == Action::Allow) {
            rule.says.ports = tcp(20_000);
        }
        changed += timed(&mut compiler, [Change::Policy(other)], &mut times, &mut tables);
        changed += timed(&mut compiler, [Change::Policy(policy(n))], &mut times, &mut tables);
    }
    report("policy changes", times, changed);
    assert_eq!(compiler.sizes(), tables.sizes());
    assert_eq!(compiler.sizes(), sizes, "everything is as it was");
}

fn timed(
    compiler: &mut Compiler,
    changes: impl IntoIterator<Item = Change>,
    times: &mut Vec<Duration>,
    tables: &mut Tables,
) -> usize {
    let start = Instant::now();
    let delta: Delta = compiler.update(changes).expect("there is room for everything");
    times.push(start.elapsed());
    tables.apply(&delta);
    delta.len()
}

fn report(what: &str, mut times: Vec<Duration>, changed: usize) {
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0.0, |time| millis(*time));
    let each = changed / times.len().max(1);
    println!("  {what:<15}   {:>10.3} ms, {:.3} ms at the 99th percentile, {each} entries", at(50), at(99));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
