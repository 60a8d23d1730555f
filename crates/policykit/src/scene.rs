//! What is in force for one tenant, as a test writes it down, and what the reference says of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fief_model::{Document, Kept, NetworkPolicy, Places, Slot, Source, claim, parse, validate};
use fief_policy::identity::{Labels, NamedPort};
use fief_policy::reference::{Answer, InForce, Pod, Question};
use fief_policy::{Direction, Policy, Workload, network_policy};

/// The tenant of tests that need only one.
pub fn slot() -> Slot {
    Slot::new(1).unwrap()
}

/// Workloads and policies of one tenant.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    pub pods: Vec<ScenePod>,
    pub documents: Vec<Written>,
    /// Rules that no document makes yet.
    pub rules: Vec<Policy>,
}

/// A policy, and where it is written.
#[derive(Debug, Clone)]
pub struct Written {
    pub policy: NetworkPolicy,
    pub places: Places,
}

/// A workload with an address.
#[derive(Debug, Clone)]
pub struct ScenePod {
    pub name: String,
    pub address: IpAddr,
    pub pod: Pod,
}

/// A packet from one end to the other.
#[derive(Debug, Clone, Copy)]
pub struct Trip {
    pub from: End,
    pub to: End,
    pub protocol: u8,
    pub port: u16,
}

/// A workload by its place in the scene, or an address of nobody.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Pod(usize),
    World(IpAddr),
}

impl Scene {
    /// The documents as rules, and the other rules.
    pub fn policies(&self, tenant: Slot) -> Vec<Policy> {
        let documents = self.documents.iter().map(|one| one.rules(tenant));
        documents.chain(self.rules.iter().cloned()).collect()
    }

    /// Everything that is in force, for the reference.
    pub fn in_force(&self) -> InForce<'_> {
        let rules = self.rules.iter().flat_map(|policy| {
            policy.rules.iter().enumerate().map(|(index, rule)| (policy.key.clone(), index, rule))
        });
        let policies =
            self.documents.iter().map(|one| (network_policy::key(slot(), &one.policy), &one.policy));
        InForce { policies: policies.collect(), rules: rules.collect() }
    }

    /// What the reference says of one end of a trip.
    pub fn reference(&self, trip: &Trip, direction: Direction) -> Option<Answer> {
        self.ask(&self.in_force(), trip, direction)
    }

    /// The same, with what is in force at hand.
    pub fn ask(&self, in_force: &InForce<'_>, trip: &Trip, direction: Direction) -> Option<Answer> {
        let (subject, peer) = trip.seen(direction);
        let End::Pod(subject) = subject else { panic!("the world is no subject") };
        let (peer, address) = match peer {
            End::Pod(peer) => (Some(&self.pods[peer].pod), self.pods[peer].address),
            End::World(address) => (None, address),
        };
        let Trip { protocol, port, .. } = *trip;
        in_force.answer(&Question {
            subject: &self.pods[subject].pod,
            direction,
            peer,
            address,
            protocol,
            port,
        })
    }
}

impl Written {
    /// Its rules, in a tenant.
    pub fn rules(&self, tenant: Slot) -> Policy {
        network_policy::rules(tenant, &self.policy, &self.places)
    }
}

impl Trip {
    /// The subject and the peer, for a direction.
    pub fn seen(&self, direction: Direction) -> (End, End) {
        match direction {
            Direction::Ingress => (self.to, self.from),
            Direction::Egress => (self.from, self.to),
        }
    }
}

impl ScenePod {
    pub fn new(namespace: &str, namespace_labels: &Labels, name: &str, address: &str) -> ScenePod {
        let mut namespace_labels = namespace_labels.clone();
        namespace_labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
        let pod =
            Pod { namespace: namespace.into(), namespace_labels, labels: BTreeMap::new(), ports: Vec::new() };
        ScenePod { name: name.into(), address: address.parse().unwrap(), pod }
    }

    pub fn label(mut self, key: &str, value: &str) -> ScenePod {
        self.pod.labels.insert(key.into(), value.into());
        self
    }

    pub fn port(mut self, name: &str, protocol: u8, port: u16) -> ScenePod {
        self.pod.ports.push((name.into(), protocol, port));
        self
    }

    pub fn workload(&self) -> Workload {
        let ports = self.pod.ports.iter().map(|(name, protocol, port)| NamedPort {
            name: name.clone(),
            protocol: *protocol,
            port: *port,
        });
        let Pod { namespace, namespace_labels, labels, .. } = &self.pod;
        Workload::new(namespace, namespace_labels.clone(), labels.clone(), ports)
    }
}

/// Documents from a text, all of one tenant.
pub fn documents(name: &str, text: &str) -> Vec<Written> {
    let mut located = parse(&[Source { name: name.into(), text: text.into() }])
        .unwrap_or_else(|diagnostics| panic!("{diagnostics:#?}\n{text}"));
    assert_eq!(claim(&mut located, "matrix"), []);
    assert_eq!(validate(&located, &Kept { unknown: true, ..Kept::default() }), [], "{text}");
    let written = located.into_iter().map(|one| match &one.document {
        Document::NetworkPolicy(policy) => {
            Written { places: Places::of(policy, &one), policy: policy.clone() }
        }
        other => panic!("{other:?}"),
    });
    written.collect()
}

/// A document with this name and spec.
pub fn document(namespace: &str, name: &str, spec: &str) -> Written {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{ name: {name}, namespace: {namespace} }}\nspec: {spec}\n"
    );
    documents(&format!("{name}.yaml"), &text).remove(0)
}
