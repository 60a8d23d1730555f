//! What becomes of one packet at one of its ends, asked of the tables, and of the reference beside them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fief_model::policy::NAMESPACE_LABEL;
use fief_model::{Endpoint, NetworkPolicy};
use fief_policy::reference::{InForce, Pod, Question};
use fief_policy::rule::Origin;
use fief_policy::verdict::Action;
use fief_policy::{Direction, Identity, Packet, PolicyKey, Verdict, network_policy};

use super::{Facts, Policies};

/// One end of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The end that is asked.
    pub subject: &'a Endpoint,
    /// Does the packet reach it, or leave it?
    pub direction: Direction,
    /// The other end, if it is an endpoint of the same tenant.
    pub peer: Option<&'a Endpoint>,
    /// The other end's address.
    pub address: IpAddr,
    /// The protocol's number.
    pub protocol: u8,
    /// The destination port; 0 for protocols without.
    pub port: u16,
}

/// What was said of it.
#[derive(Debug)]
pub struct Said {
    /// Does it go on, by the tables?
    pub passes: bool,
    /// The rule that decided; `None` if no policy is about it.
    pub rule: Option<(PolicyKey, Origin)>,
    /// The identities of the end and of the other end.
    pub identities: (Identity, Identity),
    /// What the reference said, where it is not what the tables said.
    pub bug: Option<String>,
}

impl Policies {
    /// Asks one end, whose tenant has these policies. `None` if it is not known.
    pub fn ask<'a>(
        &self,
        side: &Side<'_>,
        documents: impl Iterator<Item = &'a NetworkPolicy>,
    ) -> Option<Said> {
        let metadata = &side.subject.metadata;
        let (tenant, subject) = self.endpoint(&metadata.tenant, &metadata.name)?;
        let facts = &self.tenants.get(&metadata.tenant)?.facts;
        let peer = side.peer.and_then(|peer| self.endpoint(&peer.metadata.tenant, &peer.metadata.name));
        let peer = peer.map_or(Identity::WORLD, |(_, identity)| identity);
        let Side { direction, address, protocol, port, .. } = *side;
        let verdict =
            self.tables.lookup(&Packet { tenant, subject, direction, peer, address, protocol, port });
        let in_force = InForce {
            policies: documents.map(|policy| (network_policy::key(tenant, policy), policy)).collect(),
            rules: Vec::new(),
        };
        let pods = (pod(facts, side.subject), side.peer.map(|peer| pod(facts, peer)));
        let answer = in_force.answer(&Question {
            subject: &pods.0,
            direction,
            peer: pods.1.as_ref(),
            address,
            protocol,
            port,
        });
        let (action, rule) = match verdict {
            Verdict::Decided(action, number) => (Some(action), self.rule(number)),
            Verdict::Open | Verdict::Unknown => (None, None),
        };
        let by_tables = rule.as_ref().zip(action).map(|(rule, action)| said(action, &rule.0, &rule.1.path));
        let by_reference = answer.map(|answer| said(answer.action, &answer.policy, &answer.path));
        let bug = (verdict == Verdict::Unknown || by_tables != by_reference).then(|| {
            let word = |said: Option<String>| said.unwrap_or_else(|| "no rule".into());
            format!(
                "the tables say {} ({verdict:?}), and the documents {}",
                word(by_tables),
                word(by_reference)
            )
        });
        Some(Said { passes: verdict.passes(), rule, identities: (subject, peer), bug })
    }
}

fn said(action: Action, policy: &PolicyKey, path: &str) -> String {
    format!("{action:?} by {policy} {path}")
}

fn pod(facts: &Facts, endpoint: &Endpoint) -> Pod {
    let namespace = &endpoint.metadata.namespace;
    let mut namespace_labels: BTreeMap<String, String> =
        facts.namespaces.get(namespace).map(|n| n.labels.clone()).unwrap_or_default();
    namespace_labels.insert(NAMESPACE_LABEL.to_owned(), namespace.clone());
    let ports = endpoint.spec.ports.iter().map(|p| (p.name.clone(), p.protocol.number(), p.port));
    let labels = endpoint.metadata.labels.clone();
    Pod { namespace: namespace.clone(), namespace_labels, labels, ports: ports.collect() }
}
