//! Scenes, policies and trips drawn from a seed.

use std::net::IpAddr;
use std::sync::Arc;

use fief_model::policy::IpBlock;
use fief_policy::identity::Labels;
use fief_policy::rule::{Origin, Peer, PortMatch, PortSet, Ports, Rule, Statement, order};
use fief_policy::selector::{Requirement, Selector, Test};
use fief_policy::verdict::{Action, Tier};
use fief_policy::{Direction, Policy, PolicyKey};
use serde_json::{Map, Value, json};

use crate::scene::{End, Scene, ScenePod, Trip, documents, slot};

/// Draws; the same seed draws the same (SplitMix64).
pub struct Draw(pub u64);

const NAMESPACES: [(&str, &[(&str, &str)]); 4] = [
    ("one", &[("team", "a")]),
    ("two", &[("team", "b")]),
    ("three", &[("team", "a"), ("env", "live")]),
    ("four", &[]),
];
const LABELS: [(&str, &[&str]); 3] = [("app", &["a", "b", "c"]), ("tier", &["x", "y"]), ("beta", &["yes"])];
const PORTS: [u16; 12] = [0, 1, 53, 79, 80, 81, 443, 1023, 1024, 8080, 9000, 65535];
const BLOCKS: [&str; 9] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/30",
    "10.0.1.0/24",
    "10.0.1.128/25",
    "10.0.2.3/32",
    "192.0.2.0/24",
    "::/0",
    "fd00::/112",
];

impl Draw {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub fn in_a_hundred(&mut self, cases: usize) -> bool {
        self.below(100) < cases
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub fn scene(&mut self) -> Scene {
        let pods = (0..20).map(|n| self.pod(n)).collect();
        let mut scene = Scene { pods, ..Scene::default() };
        for n in 0..self.below(6) {
            scene.documents.extend(self.document(n));
        }
        for n in 0..self.below(7) {
            scene.rules.push(self.policy(n));
        }
        scene
    }

    /// Another scene that has much in common with this one.
    pub fn neighbour(&mut self, scene: &Scene) -> Scene {
        let mut next = scene.clone();
        for _ in 0..self.below(3) {
            let n = self.below(next.pods.len());
            next.pods[n] = self.pod(n);
        }
        self.change_policies(&mut next);
        next
    }

    pub fn change_policies(&mut self, scene: &mut Scene) {
        for _ in 0..=self.below(3) {
            let n = self.below(8);
            match self.below(4) {
                0 => scene.documents.retain(|l| l.policy.metadata.name != format!("p{n}")),
                1 => scene.rules.retain(|policy| policy.key.name != format!("r{n}")),
                2 => {
                    scene.documents.retain(|l| l.policy.metadata.name != format!("p{n}"));
                    scene.documents.extend(self.document(n));
                }
                _ => {
                    scene.rules.retain(|policy| policy.key.name != format!("r{n}"));
                    scene.rules.push(self.policy(n));
                }
            }
        }
    }

    pub fn pod(&mut self, n: usize) -> ScenePod {
        let (namespace, labels) = *self.one_of(&NAMESPACES);
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect::<Labels>();
        let address = match n % 5 {
            4 => format!("fd00::{n:x}"),
            _ => format!("10.0.{}.{}", n % 3, n),
        };
        let mut pod = ScenePod::new(namespace, &labels, &format!("pod{n}"), &address);
        for (key, values) in LABELS {
            if self.in_a_hundred(70) {
                pod = pod.label(key, self.one_of::<&str>(values));
            }
        }
        if self.in_a_hundred(60) {
            pod = pod.port("http", 6, *self.one_of(&[80, 8080]));
        }
        if self.in_a_hundred(40) {
            pod = pod.port("dns", 17, *self.one_of(&[53, 9000])).port("dns", 6, 53);
        }
        pod
    }

    /// A network policy.
    pub fn document(&mut self, n: usize) -> Vec<crate::scene::Written> {
        let mut spec = Map::new();
        spec.insert("podSelector".into(), self.label_selector(55));
        for (field, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules: Vec<Value> = (0..self.below(4)).map(|_| self.document_rule(peers)).collect();
            if !rules.is_empty() {
                spec.insert(field.into(), rules.into());
            }
        }
        match self.below(4) {
            0 => drop(spec.insert("policyTypes".into(), json!(["Ingress"]))),
            1 => drop(spec.insert("policyTypes".into(), json!(["Egress"]))),
            2 => drop(spec.insert("policyTypes".into(), json!(["Ingress", "Egress"]))),
            _ => {}
        }
        let namespace = self.one_of(&NAMESPACES).0;
        let document = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": { "name": format!("p{n}"), "namespace": namespace },
            "spec": spec,
        });
        documents("drawn.yaml", &format!("{document}\n"))
    }

    fn document_rule(&mut self, field: &str) -> Value {
        let mut rule = Map::new();
        if self.in_a_hundred(80) {
            let peers: Vec<Value> = (0..=self.below(2)).map(|_| self.document_peer()).collect();
            rule.insert(field.into(), peers.into());
        }
        if self.in_a_hundred(65) {
            let ports: Vec<Value> = (0..=self.below(2)).map(|_| self.document_port()).collect();
            rule.insert("ports".into(), ports.into());
        }
        rule.into()
    }

    fn document_peer(&mut self) -> Value {
        match self.below(4) {
            0 => json!({ "podSelector": self.label_selector(30) }),
            1 => json!({ "namespaceSelector": self.namespace_selector() }),
            2 => {
                json!({ "namespaceSelector": self.namespace_selector(), "podSelector": self.label_selector(30) })
            }
            _ => {
                let block = self.block();
                let except: Vec<String> = block.except.iter().map(ToString::to_string).collect();
                json!({ "ipBlock": { "cidr": block.cidr.to_string(), "except": except } })
            }
        }
    }

    fn document_port(&mut self) -> Value {
        let protocol = *self.one_of(&["TCP", "TCP", "UDP", "SCTP"]);
        match self.below(5) {
            0 => json!({ "protocol": protocol }),
            1 => {
                let (protocol, name) =
                    *self.one_of(&[("TCP", "http"), ("UDP", "dns"), ("TCP", "dns"), ("UDP", "http")]);
                json!({ "protocol": protocol, "port": name })
            }
            2 => {
                let (first, last) = self.range();
                json!({ "protocol": protocol, "port": first, "endPort": last })
            }
            _ => json!({ "protocol": protocol, "port": (*self.one_of(&PORTS)).max(1) }),
        }
    }

    fn range(&mut self) -> (u16, u16) {
        let (one, other) = (*self.one_of(&PORTS), *self.one_of(&PORTS));
        (one.min(other).max(1), one.max(other).max(1))
    }

    /// Labels of pods; empty in so many of a hundred cases.
    fn label_selector(&mut self, empty: usize) -> Value {
        if self.in_a_hundred(empty) {
            return json!({});
        }
        let (key, values) = *self.one_of(&LABELS);
        let value = *self.one_of(values);
        match self.below(4) {
            0 => json!({ "matchLabels": { key: value } }),
            1 => json!({ "matchExpressions": [{ "key": key, "operator": "In", "values": ["0", value] }] }),
            2 => json!({ "matchExpressions": [{ "key": key, "operator": "NotIn", "values": [value] }] }),
            _ => {
                let operator = *self.one_of(&["Exists", "DoesNotExist"]);
                json!({ "matchExpressions": [{ "key": key, "operator": operator }] })
            }
        }
    }

    fn namespace_selector(&mut self) -> Value {
        match self.below(5) {
            0 => json!({}),
            1 => json!({ "matchLabels": { "team": *self.one_of(&["a", "b"]) } }),
            2 => json!({ "matchLabels": { "kubernetes.io/metadata.name": self.one_of(&NAMESPACES).0 } }),
            3 => json!({ "matchExpressions": [{ "key": "team", "operator": "NotIn", "values": ["a"] }] }),
            _ => json!({ "matchExpressions": [{ "key": "env", "operator": "DoesNotExist" }] }),
        }
    }

    fn block(&mut self) -> IpBlock {
        let cidr: ipnet::IpNet = self.one_of(&BLOCKS).parse().unwrap();
        let inside = BLOCKS.iter().map(|text| text.parse::<ipnet::IpNet>().unwrap());
        let inside = inside.filter(|net| cidr.contains(net) && net.prefix_len() > cidr.prefix_len());
        let inside: Vec<ipnet::IpNet> = inside.collect();
        let except = inside.into_iter().filter(|_| self.in_a_hundred(35)).collect();
        IpBlock { cidr, except }
    }

    /// Rules that no document makes yet, all of one tier.
    pub fn policy(&mut self, n: usize) -> Policy {
        let tier = *self.one_of(&[Tier::Admin, Tier::Admin, Tier::Endpoint, Tier::Namespace, Tier::Baseline]);
        let subject = self.selector(40);
        let mut rules: Vec<Rule> = Vec::new();
        for index in 0..=self.below(4) {
            let action = match tier {
                Tier::Namespace => *self.one_of(&[Action::Deny, Action::Redirect]),
                _ => *self.one_of(&[Action::Allow, Action::Deny, Action::Pass, Action::Pass]),
            };
            let order = match (tier, action) {
                (Tier::Namespace, Action::Deny) => order::DENY,
                (Tier::Namespace, _) => order::REDIRECT,
                (Tier::Endpoint, _) => index as u32,
                _ => self.below(3) as u32,
            };
            rules.push(self.rule(index, (tier, order), subject.clone(), action));
        }
        if tier == Tier::Endpoint && self.in_a_hundred(50) {
            let mut last = self.rule(rules.len(), (tier, order::DEFAULT), subject, Action::Deny);
            last.says.peers = vec![Peer::Any];
            last.says.ports = Ports::All;
            rules.push(last);
        }
        let key =
            PolicyKey { tenant: slot(), kind: "Drawn", namespace: String::new(), name: format!("r{n}") };
        Policy { key, rules }
    }

    fn rule(&mut self, index: usize, (tier, order): (Tier, u32), subject: Selector, action: Action) -> Rule {
        let peers = match self.below(5) {
            0 => vec![Peer::Any],
            _ => (0..=self.below(2)).map(|_| self.peer()).collect(),
        };
        let ports = match self.in_a_hundred(45) {
            true => Ports::All,
            false => Ports::Only((0..=self.below(2)).map(|_| self.port_match()).collect()),
        };
        let direction = *self.one_of(&Direction::BOTH);
        let path: Arc<str> = format!("rules[{index}]").into();
        Rule {
            origin: Origin { source: "drawn".into(), line: index as u32 + 1, path },
            says: Statement { tier, order, subject, direction, peers, ports, action },
        }
    }

    fn peer(&mut self) -> Peer {
        match self.below(3) {
            0 => Peer::Block(self.block()),
            _ => Peer::Labels(self.selector(15)),
        }
    }

    fn port_match(&mut self) -> PortMatch {
        let protocol = *self.one_of(&[6, 6, 17, 132, 1]);
        let ports = match self.below(5) {
            0 => PortSet::All,
            1 => PortSet::Named((*self.one_of(&["http", "dns"])).into()),
            2 => {
                let (first, last) = self.range();
                PortSet::Range(first, last)
            }
            _ => {
                let port = *self.one_of(&PORTS);
                PortSet::Range(port, port)
            }
        };
        PortMatch { protocol, ports }
    }

    fn selector(&mut self, empty: usize) -> Selector {
        if self.in_a_hundred(empty) {
            return Selector::default();
        }
        let mut requirement = |labels: &[(&str, &[&str])]| {
            let (key, values) = *self.one_of(labels);
            let value = (*self.one_of::<&str>(values)).to_owned();
            let test = match self.below(4) {
                0 => Test::NotIn(vec![value]),
                1 => Test::Exists,
                2 => Test::DoesNotExist,
                _ => Test::In(vec![value]),
            };
            Requirement { key: key.into(), test }
        };
        let own = requirement(&LABELS);
        let namespace =
            requirement(&[("team", &["a", "b"]), ("kubernetes.io/metadata.name", &["one", "four"])]);
        match self.below(3) {
            0 => Selector::new(vec![namespace], vec![own]),
            1 => Selector::new(vec![namespace], Vec::new()),
            _ => Selector::new(Vec::new(), vec![own]),
        }
    }

    /// A trip, and the end whose verdict is asked for.
    pub fn trip(&mut self, scene: &Scene) -> (Trip, Direction) {
        let direction = *self.one_of(&Direction::BOTH);
        let subject = End::Pod(self.below(scene.pods.len()));
        let peer = match self.in_a_hundred(75) {
            true => End::Pod(self.below(scene.pods.len())),
            false => End::World(self.stranger()),
        };
        let (from, to) = match direction {
            Direction::Ingress => (peer, subject),
            Direction::Egress => (subject, peer),
        };
        let protocol = *self.one_of(&[6, 6, 6, 17, 17, 132, 1, 58]);
        let port = match protocol {
            1 | 58 => 0,
            _ if self.in_a_hundred(90) => *self.one_of(&PORTS),
            _ => self.number() as u16,
        };
        (Trip { from, to, protocol, port }, direction)
    }

    /// An address of nobody, most often one that a block is about.
    fn stranger(&mut self) -> IpAddr {
        let last = 128 + self.below(64);
        let text = match self.below(6) {
            0 => format!("10.0.0.{last}"),
            1 => format!("10.0.1.{last}"),
            2 => format!("192.0.2.{last}"),
            3 => format!("198.51.100.{last}"),
            4 => format!("fd00::{last:x}"),
            _ => format!("2001:db8::{last:x}"),
        };
        text.parse().unwrap()
    }
}
