//! Large tenants, imagined: what compiling, judging and changing cost is measured in these.
//!
//! In `apps` each policy is about one application, and names another one. In `broad` some are about whole namespaces and
//! name the namespaces of a team, blocks with holes, ranges and names of ports. In `crowd` all are about one application,
//! and in `twins` about one that every endpoint is, each with a label of its own.

use std::sync::Arc;

use fief_model::policy::{IpBlock, LabelSelector};
use fief_policy::identity::{Labels, NamedPort};
use fief_policy::rule::{Origin, Peer, PortMatch, PortSet, Ports, Rule, Statement, order};
use fief_policy::selector::{Requirement, Selector, Test};
use fief_policy::verdict::{Action, Tier};
use fief_policy::{Change, Direction, Identity, Policy, PolicyKey, Workload};

use crate::scene::slot;

pub const IDENTITIES: usize = 10_000;
pub const ENDPOINTS: usize = 1_000;
const NAMESPACES: usize = 100;

/// What the policies of a tenant are like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    /// The `n`th of them.
    pub policy: fn(usize) -> Policy,
    /// The `n`th workload; other labels in another version.
    pub workload: fn(usize, usize) -> Arc<Workload>,
}

pub const APPS: Shape = Shape { name: "apps", policy: apps, workload };
pub const BROAD: Shape = Shape { name: "broad", policy: broad, workload };
pub const CROWD: Shape = Shape { name: "crowd", policy: crowd, workload };
pub const TWINS: Shape = Shape { name: "twins", policy: twins, workload: twin };
pub const SHAPES: [Shape; 4] = [APPS, BROAD, CROWD, TWINS];

impl Shape {
    /// All identities and endpoints come, and these policies.
    pub fn changes(&self, policies: impl Iterator<Item = usize>) -> Vec<Change> {
        let tenant = slot();
        let identities =
            (0..IDENTITIES).map(|n| Change::Identity(tenant, identity(n), (self.workload)(n, 0)));
        let subjects = (0..ENDPOINTS).map(|n| Change::Subject(tenant, identity(local(n))));
        let policies = policies.map(|n| Change::Policy((self.policy)(n)));
        identities.chain(policies).chain(subjects).collect()
    }
}

/// The number of the `n`th workload.
pub fn identity(n: usize) -> Identity {
    Identity(Identity::FIRST.0 + n as u32)
}

/// The `n`th workload; other labels in another version.
pub fn workload(n: usize, version: usize) -> Arc<Workload> {
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
pub fn local(n: usize) -> usize {
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

pub fn tcp(port: u16) -> Ports {
    Ports::Only(vec![PortMatch { protocol: 6, ports: PortSet::Range(port, port) }])
}
