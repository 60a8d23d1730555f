//! The same answers, slowly: from the documents and the pods themselves, without identities, sets, classes or tables.
//!
//! Nothing in here is shared with the compiler but the types that say what a document or a rule is. It is what the tables
//! are held against, and it is written so that one can read it beside the text of the Kubernetes API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fief_model::NetworkPolicy;
use fief_model::policy::{
    IpBlock, LabelOperator, LabelSelector, PolicyPeer, PolicyPort, PolicyType, PortName,
};

use crate::rule::{Direction, Peer, PolicyKey, PortSet, Ports, Rule, order};
use crate::selector::{Requirement, Selector, Test};
use crate::verdict::{Action, Tier};

/// A workload.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// The labels of its namespace, the name among them.
    pub namespace_labels: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its ports: name, protocol, port.
    pub ports: Vec<(String, u8, u16)>,
}

/// Everything that is in force for one tenant.
#[derive(Debug, Clone, Default)]
pub struct InForce<'a> {
    /// Network policies with their keys.
    pub policies: Vec<(PolicyKey, &'a NetworkPolicy)>,
    /// Rules of other documents, with the keys and their places in these.
    pub rules: Vec<(PolicyKey, usize, &'a Rule)>,
}

/// A packet.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Whom the verdict is about.
    pub subject: &'a Pod,
    /// Does it reach the subject, or leave it?
    pub direction: Direction,
    /// The other side, if it is a workload of the tenant.
    pub peer: Option<&'a Pod>,
    /// The other side's address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: u8,
    /// The destination port.
    pub port: u16,
}

/// What becomes of the packet, and which rule says so: by its policy and its place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the rule does.
    pub action: Action,
    /// Its policy.
    pub policy: PolicyKey,
    /// Its path in the document.
    pub path: String,
}

impl InForce<'_> {
    /// The rule that decides; `None` if none speaks of the packet.
    pub fn answer(&self, question: &Question<'_>) -> Option<Answer> {
        Tier::ALL.into_iter().filter_map(|tier| self.first(tier, question)).find(|a| a.action != Action::Pass)
    }

    /// The first rule of a tier that matches.
    fn first(&self, tier: Tier, question: &Question<'_>) -> Option<Answer> {
        let mut found: Vec<(u32, PolicyKey, usize, Answer)> = Vec::new();
        for (key, index, rule) in &self.rules {
            if rule.says.tier == tier && rule_matches(rule, question) {
                let path = rule.origin.path.to_string();
                let answer = Answer { action: rule.says.action, policy: key.clone(), path };
                found.push((rule.says.order, key.clone(), *index, answer));
            }
        }
        if tier == Tier::Namespace {
            found.extend(self.policies.iter().filter_map(|(key, policy)| document(key, policy, question)));
        }
        found.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
        found.into_iter().next().map(|(.., answer)| answer)
    }
}

/// What a network policy says of a packet, if it selects the subject.
fn document(
    key: &PolicyKey,
    policy: &NetworkPolicy,
    question: &Question<'_>,
) -> Option<(u32, PolicyKey, usize, Answer)> {
    let spec = &policy.spec;
    let (kind, peers_and_ports): (_, Vec<(&Vec<PolicyPeer>, &Vec<PolicyPort>)>) = match question.direction {
        Direction::Ingress => {
            (PolicyType::Ingress, spec.ingress.iter().map(|rule| (&rule.from, &rule.ports)).collect())
        }
        Direction::Egress => {
            (PolicyType::Egress, spec.egress.iter().map(|rule| (&rule.to, &rule.ports)).collect())
        }
    };
    let subject = question.subject;
    let is_about = subject.namespace == policy.metadata.namespace
        && selected(&spec.pod_selector, &subject.labels)
        && spec.isolates(kind);
    if !is_about {
        return None;
    }
    let says = |action, path| Answer { action, policy: key.clone(), path };
    for (index, (peers, ports)) in peers_and_ports.into_iter().enumerate() {
        let everybody = peers.is_empty() && ports_match(ports, question, true);
        let somebody = peers.iter().any(|peer| {
            peer_matches(&policy.metadata.namespace, peer, question)
                && ports_match(ports, question, peer.ip_block.is_none())
        });
        if everybody || somebody {
            let field = if kind == PolicyType::Ingress { "ingress" } else { "egress" };
            let answer = says(Action::Allow, format!("spec.{field}[{index}]"));
            return Some((order::ALLOW, key.clone(), index, answer));
        }
    }
    Some((order::DEFAULT, key.clone(), usize::MAX, says(Action::Deny, "spec.podSelector".to_owned())))
}

fn peer_matches(namespace: &str, peer: &PolicyPeer, question: &Question<'_>) -> bool {
    if let Some(block) = &peer.ip_block {
        return block_contains(block, question.address);
    }
    let Some(pod) = question.peer else { return false };
    let namespace_is_right = match &peer.namespace_selector {
        None => pod.namespace == namespace,
        Some(selector) => selected(selector, &pod.namespace_labels),
    };
    namespace_is_right && peer.pod_selector.as_ref().is_none_or(|selector| selected(selector, &pod.labels))
}

/// Does any of the ports match? What a name means, the destination says; as a mere address it says nothing.
fn ports_match(ports: &[PolicyPort], question: &Question<'_>, peer_has_names: bool) -> bool {
    ports.is_empty()
        || ports.iter().any(|port| {
            port.protocol.number() == question.protocol
                && match &port.port {
                    None => true,
                    Some(PortName::Number(first)) => {
                        question.port >= *first && question.port <= port.end_port.unwrap_or(*first)
                    }
                    Some(PortName::Name(name)) => is_called(name, question, peer_has_names),
                }
        })
}

fn is_called(name: &str, question: &Question<'_>, peer_has_names: bool) -> bool {
    let destination = match question.direction {
        Direction::Ingress => Some(question.subject),
        Direction::Egress => question.peer.filter(|_| peer_has_names),
    };
    let port = (name.to_owned(), question.protocol, question.port);
    destination.is_some_and(|pod| pod.ports.contains(&port))
}

fn selected(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && selector.match_expressions.iter().all(|expression| {
            let value = labels.get(&expression.key);
            let is_listed = value.is_some_and(|value| expression.values.contains(value));
            match expression.operator {
                LabelOperator::In => is_listed,
                LabelOperator::NotIn => !is_listed,
                LabelOperator::Exists => value.is_some(),
                LabelOperator::DoesNotExist => value.is_none(),
            }
        })
}

fn block_contains(block: &IpBlock, address: IpAddr) -> bool {
    block.cidr.contains(&address) && !block.except.iter().any(|hole| hole.contains(&address))
}

fn rule_matches(rule: &Rule, question: &Question<'_>) -> bool {
    let says = &rule.says;
    says.direction == question.direction
        && means(&says.subject, question.subject)
        && says.peers.iter().any(|peer| {
            let peer_is_right = match peer {
                Peer::Any => true,
                Peer::Labels(selector) => question.peer.is_some_and(|pod| means(selector, pod)),
                Peer::Block(block) => block_contains(block, question.address),
            };
            let has_names = !matches!(peer, Peer::Block(_));
            peer_is_right
                && match &says.ports {
                    Ports::All => true,
                    Ports::Only(ports) => ports.iter().any(|one| {
                        one.protocol == question.protocol
                            && match &one.ports {
                                PortSet::All => true,
                                PortSet::Range(first, last) => (*first..=*last).contains(&question.port),
                                PortSet::Named(name) => is_called(name, question, has_names),
                            }
                    }),
                }
        })
}

fn means(selector: &Selector, pod: &Pod) -> bool {
    let all = |requirements: &[Requirement], labels: &BTreeMap<String, String>| {
        requirements.iter().all(|requirement| match (&requirement.test, labels.get(&requirement.key)) {
            (Test::In(values), Some(value)) => values.contains(value),
            (Test::In(_), None) | (Test::Exists, None) | (Test::DoesNotExist, Some(_)) => false,
            (Test::NotIn(values), Some(value)) => !values.contains(value),
            (Test::NotIn(_) | Test::DoesNotExist, None) | (Test::Exists, Some(_)) => true,
        })
    };
    all(selector.namespace(), &pod.namespace_labels) && all(selector.labels(), &pod.labels)
}
