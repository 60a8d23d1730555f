//! Deny, order, Pass and redirects: what no document makes yet, in the tables and in the reference.

use std::sync::Arc;

use fief_model::policy::{LabelSelector, PolicyPeer};
use fief_policy::identity::Labels;
use fief_policy::rule::{Origin, Peer, PortMatch, PortSet, Ports, Rule, Statement, order};
use fief_policy::selector::Selector;
use fief_policy::verdict::{Action, Tier};
use fief_policy::{Direction, Policy, PolicyKey};

use fief_policykit::host::Host;
use fief_policykit::scene::{End, Scene, ScenePod, Trip, document, slot};

/// Two workloads of one namespace; `a` calls `b`.
fn pair() -> Scene {
    let pod = |name: &str, address| ScenePod::new("shop", &Labels::new(), name, address).label("app", name);
    Scene { pods: vec![pod("a", "10.0.0.1"), pod("b", "10.0.0.2")], ..Scene::default() }
}

/// Rules about what reaches `b`, in one document.
fn about_b(name: &str, rules: &[(Tier, u32, Peer, Ports, Action)]) -> Policy {
    let rules = rules.iter().enumerate().map(|(index, (tier, order, peer, ports, action))| Rule {
        origin: Origin {
            source: "rules.yaml".into(),
            line: 10 + index as u32,
            path: Arc::from(format!("rules[{index}]")),
        },
        says: Statement {
            tier: *tier,
            order: *order,
            subject: app("b"),
            direction: Direction::Ingress,
            peers: vec![peer.clone()],
            ports: ports.clone(),
            action: *action,
        },
    });
    let key = PolicyKey { tenant: slot(), kind: "Drawn", namespace: String::new(), name: name.into() };
    Policy { key, rules: rules.collect() }
}

fn app(name: &str) -> Selector {
    let labels = [("app".to_owned(), name.to_owned())].into();
    Selector::in_namespace("shop", &LabelSelector { match_labels: labels, match_expressions: Vec::new() })
}

fn from_a() -> Peer {
    Peer::Labels(app("a"))
}

fn block(cidr: &str) -> Peer {
    let peer: PolicyPeer = serde_json::from_str(&format!("{{\"ipBlock\":{{\"cidr\":\"{cidr}\"}}}}")).unwrap();
    Peer::Block(peer.ip_block.unwrap())
}

fn tcp(port: u16) -> Ports {
    Ports::Only(vec![PortMatch { protocol: 6, ports: PortSet::Range(port, port) }])
}

/// What becomes of TCP 81, TCP 80 and ping from `a` to `b`, and by which rules.
fn outcome(scene: &Scene) -> [String; 3] {
    let host = Host::of(scene);
    [(6, 81), (6, 80), (1, 0)].map(|(protocol, port)| {
        let trip = Trip { from: End::Pod(0), to: End::Pod(1), protocol, port };
        match host.agree(scene, &trip, Direction::Ingress) {
            None => "nobody".into(),
            Some(answer) => format!("{:?} {} {}", answer.action, answer.policy.name, answer.path),
        }
    })
}

#[test]
fn the_deny_table() {
    let mut scene = pair();
    let deny = |ports| about_b("deny", &[(Tier::Namespace, order::DENY, from_a(), ports, Action::Deny)]);
    let allow = "{ podSelector: { matchLabels: { app: b } }, ingress: [{ from: [{ podSelector: {} }] }] }";
    scene.documents = vec![document("shop", "allow", allow)];
    assert_eq!(outcome(&scene), ["Allow allow spec.ingress[0]"; 3], "the control");
    scene.rules = vec![deny(tcp(80))];
    assert_eq!(
        outcome(&scene),
        ["Allow allow spec.ingress[0]", "Deny deny rules[0]", "Allow allow spec.ingress[0]"]
    );
    scene.rules = vec![deny(Ports::All)];
    assert_eq!(outcome(&scene), ["Deny deny rules[0]"; 3]);
    scene.documents = Vec::new();
    scene.rules = vec![deny(tcp(80))];
    assert_eq!(outcome(&scene), ["nobody", "Deny deny rules[0]", "nobody"], "no default deny of its own");
}

#[test]
fn a_list_is_read_from_its_beginning() {
    use Action::{Allow, Deny};
    let mut scene = pair();
    let list = |first, second| {
        let rule = |index, (peer, ports, action)| (Tier::Endpoint, index, peer, ports, action);
        let last = (Tier::Endpoint, order::DEFAULT, Peer::Any, Ports::All, Deny);
        about_b("list", &[rule(0, first), rule(1, second), last])
    };
    let (port, all) = ((from_a(), tcp(80), Deny), (from_a(), Ports::All, Allow));
    scene.rules = vec![list(port.clone(), all.clone())];
    assert_eq!(outcome(&scene), ["Allow list rules[1]", "Deny list rules[0]", "Allow list rules[1]"]);
    scene.rules = vec![list(all, port.clone())];
    assert_eq!(outcome(&scene), ["Allow list rules[0]"; 3]);
    // A block that contains the peer is a match like any other, and its place counts.
    scene.rules = vec![list((block("10.0.0.0/24"), tcp(80), Allow), port.clone())];
    assert_eq!(outcome(&scene), ["Deny list rules[2]", "Allow list rules[0]", "Deny list rules[2]"]);
    scene.rules = vec![list(port, (block("10.0.0.0/24"), tcp(80), Allow))];
    assert_eq!(outcome(&scene), ["Deny list rules[2]", "Deny list rules[0]", "Deny list rules[2]"]);
}

#[test]
fn pass_leaves_it_to_the_next_tier() {
    use Action::{Allow, Deny, Pass};
    let mut scene = pair();
    let admin = |first, second| {
        let (one, other): ((Peer, Ports, Action), (Peer, Ports, Action)) = (first, second);
        about_b(
            "admin",
            &[(Tier::Admin, 1, one.0, one.1, one.2), (Tier::Admin, 2, other.0, other.1, other.2)],
        )
    };
    let base = about_b("base", &[(Tier::Baseline, 0, Peer::Any, Ports::All, Deny)]);
    let deny_all = (Peer::Any, Ports::All, Deny);
    scene.rules = vec![admin((from_a(), tcp(80), Allow), deny_all.clone()), base.clone()];
    assert_eq!(outcome(&scene), ["Deny admin rules[1]", "Allow admin rules[0]", "Deny admin rules[1]"]);
    scene.rules = vec![admin((from_a(), tcp(80), Pass), deny_all.clone()), base.clone()];
    assert_eq!(outcome(&scene), ["Deny admin rules[1]", "Deny base rules[0]", "Deny admin rules[1]"]);
    scene.rules = vec![admin((from_a(), tcp(80), Pass), deny_all.clone())];
    assert_eq!(
        outcome(&scene),
        ["Deny admin rules[1]", "nobody", "Deny admin rules[1]"],
        "no tier denies it"
    );
    // What passes by its address is not denied by its labels, in the same tier.
    scene.rules = vec![admin((block("10.0.0.1/32"), tcp(80), Pass), (from_a(), Ports::All, Deny))];
    assert_eq!(outcome(&scene), ["Deny admin rules[1]", "nobody", "Deny admin rules[1]"]);
    // And the other way round.
    scene.rules = vec![admin((from_a(), tcp(80), Pass), (block("10.0.0.1/32"), Ports::All, Deny))];
    assert_eq!(outcome(&scene), ["Deny admin rules[1]", "nobody", "Deny admin rules[1]"]);
    // Policies of namespaces are a tier of their own: what they do not allow never comes to the baseline.
    let spec = "{ podSelector: {}, ingress: [{ ports: [{ port: 80 }] }] }";
    scene.documents = vec![document("shop", "web", spec)];
    scene.rules = vec![admin((from_a(), Ports::All, Pass), deny_all)];
    assert_eq!(
        outcome(&scene),
        ["Deny web spec.podSelector", "Allow web spec.ingress[0]", "Deny web spec.podSelector"]
    );
}

#[test]
fn a_proxy_sees_what_is_allowed_and_nothing_that_is_denied() {
    let mut scene = pair();
    let allow = "{ podSelector: { matchLabels: { app: b } }, ingress: [{ from: [{ podSelector: {} }] }] }";
    scene.documents = vec![document("shop", "allow", allow)];
    let redirect = about_b("l7", &[(Tier::Namespace, order::REDIRECT, from_a(), tcp(80), Action::Redirect)]);
    scene.rules = vec![redirect.clone()];
    assert_eq!(
        outcome(&scene),
        ["Allow allow spec.ingress[0]", "Redirect l7 rules[0]", "Allow allow spec.ingress[0]"]
    );
    let deny = about_b("deny", &[(Tier::Namespace, order::DENY, Peer::Any, tcp(80), Action::Deny)]);
    scene.rules = vec![redirect, deny];
    assert_eq!(
        outcome(&scene),
        ["Allow allow spec.ingress[0]", "Deny deny rules[0]", "Allow allow spec.ingress[0]"]
    );
}
