//! What compiling costs: 10,000 policies, 1,000 endpoints, 10,000 identities; then one change after the other.
//!
//! `cargo run --release -p fief-policy --example cost [POLICIES]`
//!
//! Four tenants are imagined. In `apps` each policy is about one application, and names another one. In `broad` some are
//! about whole namespaces and name the namespaces of a team, blocks with holes, ranges and names of ports. In `crowd` all
//! are about one application, and in `twins` about one that every endpoint is, each with a label of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fief_model::Slot;
use fief_model::policy::{IpBlock, LabelSelector};
use fief_policy::identity::{Labels, NamedPort};
use fief_policy::rule::{Origin, Peer, PortMatch, PortSet, Ports, Rule, Statement, order};
use fief_policy::selector::{Requirement, Selector, Test};
use fief_policy::verdict::{Action, Tier};
use fief_policy::{Change, Compiler, Delta, Direction, Identity, Policy, PolicyKey, Sizes, Tables, Workload};

const IDENTITIES: usize = 10_000;
const ENDPOINTS: usize = 1_000;
const NAMESPACES: usize = 100;

fn main() {
    let policies = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(10_000);
    let tenants: [(&str, Workloads, Policies, usize); 4] = [
        ("apps", workload, apps, 500),
        ("broad", workload, broad, 500),
        ("crowd", workload, crowd, 10),
        ("twins", twin, twins, 10),
    ];
    for (name, workload, policy, rounds) in tenants {
        measure(name, policies, workload, policy, rounds);
    }
}

/// The `n`th workload; other labels in another version.
type Workloads = fn(usize, usize) -> Arc<Workload>;
/// The `n`th policy.
type Policies = fn(usize) -> Policy;

fn measure(name: &str, policies: usize, workload: Workloads, policy: Policies, rounds: usize) {
    let tenant = slot();
    let identity = |n: usize| Identity(Identity::FIRST.0 + n as u32);
    let identities = (0..IDENTITIES).map(|n| Change::Identity(tenant, identity(n), workload(n, 0)));
    let subjects = (0..ENDPOINTS).map(|n| Change::Subject(tenant, identity(local(n))));
    let all = (0..policies).map(|n| Change::Policy(policy(n)));
    let changes: Vec<Change> = identities.chain(all).chain(subjects).collect();
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

fn slot() -> Slot {
    Slot::new(1).expect("a slot")
}

fn workload(n: usize, version: usize) -> Arc<Workload> {
    let namespace = format!("ns{}", n % NAMESPACES);
    let team = ("team".to_owned(), format!("team{}", n % NAMESPACES / 10));
    let labels = [
        ("app", format!("app{n}")),
        ("tier", format!("tier{}", n / NAMESPACES % 3)),
        ("version", format!("v{version}")),
    ];
    let labels: Labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let http =
        NamedPort { name: "http".into(), protocol: 6, port: if n.is_multiple_of(3) { 8080 } else { 80 } };
    Arc::new(Workload::new(&namespace, Labels::from([team]), labels, [http]))
}

/// One of those that are the same application.
fn twin(n: usize, version: usize) -> Arc<Workload> {
    let labels = [("app", "app0".to_owned()), ("n", n.to_string()), ("version", format!("v{version}"))];
    let labels: Labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Arc::new(Workload::new("ns0", Labels::new(), labels, []))
}

/// The `n`th workload that has an endpoint here.
fn local(n: usize) -> usize {
    n * 7919 % IDENTITIES
}

/// About one application that has an endpoint here, which another one of its namespace may call.
fn apps(n: usize) -> Policy {
    let app = local(n % ENDPOINTS);
    let namespace = format!("ns{}", app % NAMESPACES);
    let subject = in_namespace(&namespace, &[("app", format!("app{app}"))]);
    let caller = (app + n.wrapping_mul(31) * NAMESPACES) % IDENTITIES;
    let caller = in_namespace(&namespace, &[("app", format!("app{caller}"))]);
    policy(n, &namespace, subject, vec![(vec![Peer::Labels(caller)], tcp(80 + (n % 7) as u16))])
}

/// About one application, whatever the number.
fn crowd(n: usize) -> Policy {
    let subject = in_namespace("ns0", &[("app", "app0".to_owned())]);
    let caller = Requirement { key: "app".into(), test: Test::In(vec![format!("app{}", n % IDENTITIES)]) };
    let caller = Selector::new(Vec::new(), vec![caller]);
    policy(n, "ns0", subject, vec![(vec![Peer::Labels(caller)], tcp(1000 + (n % 50_000) as u16))])
}

/// About all of the twins, of whom one may call.
fn twins(n: usize) -> Policy {
    let subject = in_namespace("ns0", &[("app", "app0".to_owned())]);
    let caller = in_namespace("ns0", &[("n", (n % IDENTITIES).to_string())]);
    policy(n, "ns0", subject, vec![(vec![Peer::Labels(caller)], tcp(1000 + (n % 50_000) as u16))])
}

/// About an application, a tier or a namespace.
fn broad(n: usize) -> Policy {
    let namespace = format!("ns{}", local(n % ENDPOINTS) % NAMESPACES);
    let subject = match n / ENDPOINTS % 10 {
        0 | 1 => in_namespace(&namespace, &[]),
        2..=4 => in_namespace(&namespace, &[("tier", format!("tier{}", n % 3))]),
        _ => in_namespace(&namespace, &[("app", format!("app{}", local(n % ENDPOINTS)))]),
    };
    let team = Requirement { key: "team".into(), test: Test::In(vec![format!("team{}", n % 10)]) };
    let tier = in_namespace(&namespace, &[("tier", format!("tier{}", n % 3))]);
    let peers = match n % 5 {
        0 => vec![Peer::Labels(Selector::new(vec![team], Vec::new()))],
        1 => vec![Peer::Labels(tier)],
        2 => vec![Peer::Labels(in_namespace(&namespace, &[]))],
        3 => vec![Peer::Block(IpBlock {
            cidr: "0.0.0.0/0".parse().expect("a prefix"),
            except: vec![format!("10.{}.0.0/16", n % 250).parse().expect("a prefix")],
        })],
        _ => vec![Peer::Labels(Selector::default())],
    };
    let ports = match n % 4 {
        0 => Ports::Only(vec![PortMatch { protocol: 6, ports: PortSet::Range(8000, 8999) }]),
        1 => Ports::Only(vec![PortMatch { protocol: 6, ports: PortSet::Named("http".into()) }]),
        2 => Ports::All,
        _ => tcp(443),
    };
    policy(n, &namespace, subject, vec![(peers, ports)])
}

fn policy(n: usize, namespace: &str, subject: Selector, rules: Vec<(Vec<Peer>, Ports)>) -> Policy {
    let path: Arc<str> = "spec".into();
    let rule = |direction, order, peers, ports, action| Rule {
        origin: Origin { source: path.clone(), line: n as u32, path: path.clone() },
        says: Statement {
            tier: Tier::Namespace,
            order,
            subject: subject.clone(),
            direction,
            peers,
            ports,
            action,
        },
    };
    let mut all = Vec::new();
    for direction in Direction::BOTH {
        for (peers, ports) in &rules {
            all.push(rule(direction, order::ALLOW, peers.clone(), ports.clone(), Action::Allow));
        }
        all.push(rule(direction, order::DEFAULT, vec![Peer::Any], Ports::All, Action::Deny));
    }
    let key = PolicyKey {
        tenant: slot(),
        kind: "NetworkPolicy",
        namespace: namespace.to_owned(),
        name: format!("p{n}"),
    };
    Policy { key, rules: all }
}

fn in_namespace(namespace: &str, labels: &[(&str, String)]) -> Selector {
    let match_labels = labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Selector::in_namespace(namespace, &LabelSelector { match_labels, match_expressions: Vec::new() })
}

fn tcp(port: u16) -> Ports {
    Ports::Only(vec![PortMatch { protocol: 6, ports: PortSet::Range(port, port) }])
}
