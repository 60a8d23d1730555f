//! `NetworkPolicy` becomes rules.
//!
//! Each entry of `ingress` and `egress` is a rule that allows, in the tier of namespaces. For each direction that the
//! policy isolates there is one more, the last of the tier, that denies everything to those it selects.

use std::sync::Arc;

use fief_model::policy::{PolicyPeer, PolicyPort, PolicyType, PortName};
use fief_model::{NetworkPolicy, Places, Slot};

use crate::rule::{
    Direction, Origin, Peer, Policy, PolicyKey, PortMatch, PortSet, Ports, Rule, Statement, order,
};
use crate::selector::Selector;
use crate::verdict::{Action, Tier};

/// The kind of these documents.
pub const KIND: &str = "NetworkPolicy";

/// The key of a network policy of a tenant.
pub fn key(tenant: Slot, policy: &NetworkPolicy) -> PolicyKey {
    let (namespace, name) = (policy.metadata.namespace.clone(), policy.metadata.name.clone());
    PolicyKey { tenant, kind: KIND, namespace, name }
}

/// The rules of a network policy of a tenant, which is written there.
pub fn rules(tenant: Slot, policy: &NetworkPolicy, places: &Places) -> Policy {
    let source: Arc<str> = places.file.as_str().into();
    let spec = &policy.spec;
    let subject = Selector::in_namespace(&policy.metadata.namespace, &spec.pod_selector);
    let line = |lines: &[u32], index: usize| lines.get(index).copied().unwrap_or(places.pod_selector);
    let rule = |path: String, line, direction, order, peers, ports, action| Rule {
        origin: Origin { source: source.clone(), line, path: Arc::from(path) },
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
    let namespace = &policy.metadata.namespace;
    let mut rules = Vec::new();
    if spec.isolates(PolicyType::Ingress) {
        for (index, written) in spec.ingress.iter().enumerate() {
            let (peers, ports) = (peers(namespace, &written.from), ports(&written.ports));
            let path = format!("spec.ingress[{index}]");
            let line = line(&places.ingress, index);
            rules.push(rule(path, line, Direction::Ingress, order::ALLOW, peers, ports, Action::Allow));
        }
    }
    if spec.isolates(PolicyType::Egress) {
        for (index, written) in spec.egress.iter().enumerate() {
            let (peers, ports) = (peers(namespace, &written.to), ports(&written.ports));
            let path = format!("spec.egress[{index}]");
            let line = line(&places.egress, index);
            rules.push(rule(path, line, Direction::Egress, order::ALLOW, peers, ports, Action::Allow));
        }
    }
    for (kind, direction) in
        [(PolicyType::Ingress, Direction::Ingress), (PolicyType::Egress, Direction::Egress)]
    {
        if spec.isolates(kind) {
            let path = "spec.podSelector".to_owned();
            let (order, peers) = (order::DEFAULT, vec![Peer::Any]);
            rules.push(rule(path, places.pod_selector, direction, order, peers, Ports::All, Action::Deny));
        }
    }
    Policy { key: key(tenant, policy), rules }
}

fn peers(namespace: &str, written: &[PolicyPeer]) -> Vec<Peer> {
    if written.is_empty() {
        return vec![Peer::Any];
    }
    written.iter().map(|written| peer(namespace, written)).collect()
}

fn peer(namespace: &str, written: &PolicyPeer) -> Peer {
    if let Some(block) = &written.ip_block {
        return Peer::Block(block.clone());
    }
    let pods = written.pod_selector.clone().unwrap_or_default();
    Peer::Labels(match &written.namespace_selector {
        Some(namespaces) => Selector::in_namespaces(namespaces, &pods),
        None => Selector::in_namespace(namespace, &pods),
    })
}

fn ports(written: &[PolicyPort]) -> Ports {
    if written.is_empty() {
        return Ports::All;
    }
    let one = |written: &PolicyPort| PortMatch {
        protocol: written.protocol.number(),
        ports: match &written.port {
            None => PortSet::All,
            Some(PortName::Number(first)) => PortSet::Range(*first, written.end_port.unwrap_or(*first)),
            Some(PortName::Name(name)) => PortSet::Named(name.clone()),
        },
    };
    Ports::Only(written.iter().map(one).collect())
}
