//! Which kinds of rule decided, counted: a drawn test that never meets a kind says nothing about it.

use std::collections::BTreeMap;

use fief_policy::reference::{Answer, InForce};
use fief_policy::rule::{Peer, PortSet, Ports, Rule};
use fief_policy::verdict::{Action, Tier};
use fief_policy::{Direction, network_policy};

use crate::scene::{Scene, Trip, slot};

/// What `FIEF_SEED` says, or always the same.
pub fn seed() -> u64 {
    std::env::var("FIEF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_127)
}

/// All kinds.
pub const KINDS: [&str; 19] = [
    "nobody spoke",
    "default deny",
    "any peer",
    "labels",
    "namespaces",
    "block",
    "hole in a block",
    "all ports",
    "one port",
    "range of ports",
    "named port",
    "all ports of a protocol",
    "deny",
    "pass",
    "redirect",
    "admin",
    "list of an endpoint",
    "baseline",
    "later in the order",
];

/// What kinds of rule there are in a scene, and the scene without some of them.
pub struct Kinds<'a> {
    rules: BTreeMap<(String, String), Vec<&'static str>>,
    without_pass: InForce<'a>,

    holes_filled: Scene,
}

impl<'a> Kinds<'a> {
    pub fn of(scene: &'a Scene) -> Kinds<'a> {
        let policies = scene.policies(slot());
        let rules = policies.iter().flat_map(|policy| {
            policy.rules.iter().map(|rule| {
                let key = (policy.key.to_string(), rule.origin.path.to_string());
                (key, kinds(rule, policy.key.kind))
            })
        });
        let mut without_pass = scene.in_force();
        without_pass.rules.retain(|(.., rule)| rule.says.action != Action::Pass);
        let mut holes_filled = scene.clone();
        for written in &mut holes_filled.documents {
            let spec = &mut written.policy.spec;
            let peers = spec.ingress.iter_mut().map(|rule| &mut rule.from);
            let peers = peers.chain(spec.egress.iter_mut().map(|rule| &mut rule.to)).flatten();
            peers.filter_map(|peer| peer.ip_block.as_mut()).for_each(|block| block.except.clear());
        }
        for rule in holes_filled.rules.iter_mut().flat_map(|policy| &mut policy.rules) {
            for peer in &mut rule.says.peers {
                if let Peer::Block(block) = peer {
                    block.except.clear();
                }
            }
        }
        Kinds { rules: rules.collect(), without_pass, holes_filled }
    }
}

fn kinds(rule: &Rule, kind: &str) -> Vec<&'static str> {
    let says = &rule.says;
    let mut found = Vec::new();
    if kind == network_policy::KIND && says.action == Action::Deny {
        return vec!["default deny"];
    }
    for peer in &says.peers {
        found.push(match peer {
            Peer::Any => "any peer",
            Peer::Block(_) => "block",
            Peer::Labels(selector) if selector.labels().is_empty() => "namespaces",
            Peer::Labels(_) => "labels",
        });
    }
    match &says.ports {
        Ports::All => found.push("all ports"),
        Ports::Only(ports) => found.extend(ports.iter().map(|one| match &one.ports {
            PortSet::All => "all ports of a protocol",
            PortSet::Named(_) => "named port",
            PortSet::Range(first, last) if first == last => "one port",
            PortSet::Range(..) => "range of ports",
        })),
    }
    match says.tier {
        Tier::Admin => found.push("admin"),
        Tier::Endpoint => found.push("list of an endpoint"),
        Tier::Baseline => found.push("baseline"),
        Tier::Namespace => {}
    }
    match says.action {
        Action::Deny => found.push("deny"),
        Action::Redirect => found.push("redirect"),
        Action::Allow | Action::Pass => {}
    }
    if says.tier == Tier::Endpoint && says.order > 0 {
        found.push("later in the order");
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[derive(Default)]
pub struct Histogram {
    pub allowed: usize,
    pub asked: usize,
    pub kinds: BTreeMap<&'static str, usize>,
}

impl Histogram {
    pub fn add(
        &mut self,
        kinds: &Kinds<'_>,
        scene: &Scene,
        (trip, direction): (&Trip, Direction),
        answer: Option<&Answer>,
    ) {
        self.asked += 1;
        let allows = |answer: &Answer| matches!(answer.action, Action::Allow | Action::Redirect);
        self.allowed += usize::from(answer.is_none_or(allows));
        let mut note = |kind| *self.kinds.entry(kind).or_default() += 1;
        match answer {
            None => note("nobody spoke"),
            Some(answer) => {
                let key = (answer.policy.to_string(), answer.path.clone());
                kinds.rules[&key].iter().for_each(|kind| note(kind));
            }
        }
        if self.asked.is_multiple_of(4) {
            // Rules that decide by their absence: would the answer be another one without them?
            if scene.ask(&kinds.without_pass, trip, direction).as_ref() != answer {
                note("pass");
            }
            let filled = kinds.holes_filled.reference(trip, direction);
            if filled.as_ref() != answer {
                note("hole in a block");
            }
        }
    }

    /// Prints it, and insists that a fifth is allowed and that each kind decided once in a thousand times.
    pub fn check(&self, seed: u64) {
        println!("seed {seed}: {} asked, {} allowed; decided by", self.asked, self.allowed);
        self.kinds.iter().for_each(|(kind, count)| println!("{count:>9} {kind}"));
        assert!(self.allowed * 5 >= self.asked, "less than a fifth is allowed");
        for kind in KINDS {
            let decided = self.kinds.get(kind).copied().unwrap_or_default();
            assert!(
                decided * 1000 >= self.asked,
                "`{kind}` decided {decided} of {}: less than one in a thousand",
                self.asked
            );
        }
    }
}
