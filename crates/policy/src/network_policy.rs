//! `NetworkPolicy` becomes rules.
//!
//! Each entry of `ingress` and `egress` is a rule that allows, in the tier of namespaces. For each direction that the
//! policy isolates there is one more, the last of the tier, that denies everything to those it selects.

use std::sync::Arc;

use fief_model::policy::{PolicyPeer, PolicyPort, PolicyType, PortName};
use fief_model::{Located, NetworkPolicy, Slot};

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

/// The rules of a network policy of a tenant.
pub fn rules(tenant: Slot, located: &Located<NetworkPolicy>) -> Policy {
    let policy = &located.document;
    let spec = &policy.spec;
    let subject = Selector::in_namespace(&policy.metadata.namespace, &spec.pod_selector);
    let rule = |path: String, direction, order, peers, ports, action| Rule {
        origin: Origin {
            source: located.source.clone(),
            line: located.positions.at(&path).0,
            path: Arc::from(path),
        },
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
            rules.push(rule(path, Direction::Ingress, order::ALLOW, peers, ports, Action::Allow));
        }
    }
    if spec.isolates(PolicyType::Egress) {
        for (index, written) in spec.egress.iter().enumerate() {
            let (peers, ports) = (peers(namespace, &written.to), ports(&written.ports));
            let path = format!("spec.egress[{index}]");
            rules.push(rule(path, Direction::Egress, order::ALLOW, peers, ports, Action::Allow));
        }
    }
    for (kind, direction) in
        [(PolicyType::Ingress, Direction::Ingress), (PolicyType::Egress, Direction::Egress)]
    {
        if spec.isolates(kind) {
            let path = "spec.podSelector".to_owned();
            rules.push(rule(path, direction, order::DEFAULT, vec![Peer::Any], Ports::All, Action::Deny));
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
