use std::collections::{BTreeMap, VecDeque};

use fief_model::{Document, Places, Source, parse};
use fief_policy::{Direction, Packet, Verdict};

use super::question::Said;
use super::*;
use crate::store::{StoredIdentity, StoredPolicy};

/// Documents of tenant `blue`, in slot 1.
struct World {
    policies: Policies,
    tenant: Tenant,
    endpoints: BTreeMap<String, Endpoint>,
    documents: BTreeMap<String, StoredPolicy>,
    rows: BTreeMap<String, StoredIdentity>,
    now: Now,
}

fn slot() -> Slot {
    Slot::new(1).unwrap()
}

fn tenant(spec: &str) -> Tenant {
    let text = format!("apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: blue }}\nspec: {spec}\n");
    match read(&text).0 {
        Document::Tenant(tenant) => tenant,
        other => panic!("{other:?}"),
    }
}

fn endpoint(name: &str, labels: &str) -> Endpoint {
    let text = format!(
        "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: {name}, tenant: blue, namespace: shop, \
         labels: {{ {labels} }} }}\nspec: {{ networks: [{{ network: web, address: 10.0.0.1 }}], attach: {{ netns: a }}, \
         ports: [{{ name: http, port: 8080 }}] }}\n"
    );
    match read(&text).0 {
        Document::Endpoint(endpoint) => endpoint,
        other => panic!("{other:?}"),
    }
}

fn policy(name: &str, spec: &str) -> StoredPolicy {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{ name: {name}, namespace: shop, \
         labels: {{ fief/tenant: blue }} }}\nspec: {spec}\n"
    );
    let (document, places) = read(&text);
    match document {
        Document::NetworkPolicy(policy) => StoredPolicy { policy, set: "s".into(), places },
        other => panic!("{other:?}"),
    }
}

fn read(text: &str) -> (Document, Places) {
    let located = parse(&[Source { name: "t.yaml".into(), text: text.into() }]).unwrap().remove(0);
    let places = match &located.document {
        Document::NetworkPolicy(policy) => Places::of(policy, &located),
        _ => Places::default(),
    };
    (located.document, places)
}

impl World {
    fn new(room: Sizes) -> World {
        let mut world = World {
            policies: Policies::new(room),
            tenant: tenant("{}"),
            endpoints: BTreeMap::new(),
            documents: BTreeMap::new(),
            rows: BTreeMap::new(),
            now: Now { seconds: 0, unix: 1_000 },
        };
        let tenant = world.tenant.clone();
        world.commit(Request { tenants: vec![(&tenant, slot())], ..Request::default() }).unwrap();
        world
    }

    /// As the engine does it: planned, written down, in force.
    fn commit(&mut self, request: Request<'_>) -> Result<Delta, Refused> {
        let planned = self.policies.plan(&request, self.now)?;
        for (tenant, identity) in self.policies.old_numbers(&planned) {
            self.rows.remove(&format!("{tenant}/{identity}"));
        }
        for (tenant, identity, stored) in self.policies.new_numbers(&planned) {
            self.rows.insert(format!("{tenant}/{identity}"), stored);
        }
        Ok(self.policies.commit(planned))
    }

    fn put(&mut self, endpoint: Endpoint) -> Result<Delta, Refused> {
        let delta = self.commit(Request { endpoints: vec![&endpoint], ..Request::default() })?;
        self.endpoints.insert(endpoint.metadata.key(), endpoint);
        Ok(delta)
    }

    fn remove(&mut self, name: &str) {
        let key = format!("blue/{name}");
        self.commit(Request { no_endpoints: vec![&key], ..Request::default() }).unwrap();
        self.endpoints.remove(&key);
    }

    fn enforce(&mut self, stored: StoredPolicy) -> Result<Delta, Refused> {
        let delta = self.commit(Request { policies: vec![&stored], ..Request::default() })?;
        self.documents.insert(stored.policy.key(), stored);
        Ok(delta)
    }

    fn collect(&mut self) -> usize {
        let collected = self.policies.collect(self.now);
        let count = collected.numbers.len();
        for (tenant, identity, stored) in collected.numbers {
            self.rows.insert(format!("{tenant}/{identity}"), stored);
        }
        count
    }

    /// The daemon ends without a word and comes again.
    fn restart(&mut self, room: Sizes) {
        let mut policies = Policies::new(room);
        self.now.seconds = 0;
        policies.remember([(&self.tenant, slot())].into_iter(), self.rows.clone(), self.now);
        let request = Request {
            endpoints: self.endpoints.values().collect(),
            policies: self.documents.values().collect(),
            ..Request::default()
        };
        let planned = policies.plan(&request, self.now).unwrap();
        assert_eq!(policies.new_numbers(&planned).count(), 0, "everything was written down");
        policies.commit(planned);
        self.policies = policies;
    }

    fn identity(&self, name: &str) -> Identity {
        self.policies.endpoint("blue", name).unwrap().1
    }

    /// What tables and documents say of a packet from one endpoint to another, at the latter.
    fn arrives(&self, from: &str, to: &str, port: u16) -> Said {
        let [from, to] = [from, to].map(|name| &self.endpoints[&format!("blue/{name}")]);
        let side = Side {
            subject: to,
            direction: Direction::Ingress,
            peer: Some(from),
            address: "10.0.0.1".parse().unwrap(),
            protocol: 6,
            port,
        };
        let said = self.policies.ask(&side, self.documents.values().map(|s| &s.policy)).unwrap();
        assert_eq!(said.bug, None);
        said
    }
}

const FRONT: &str = "{ podSelector: { matchLabels: { app: back } }, \
                     ingress: [{ from: [{ podSelector: { matchLabels: { app: front } } }], ports: [{ port: http }] }] }";

fn shop(room: Sizes) -> World {
    let mut world = World::new(room);
    for (name, app) in [("front", "front"), ("back", "back"), ("again", "front"), ("other", "other")] {
        world.put(endpoint(name, &format!("app: {app}"))).unwrap();
    }
    world.enforce(policy("web", FRONT)).unwrap();
    world
}

#[test]
fn a_policy_is_asked_by_the_labels_of_both_ends_and_names_its_line() {
    let world = shop(Sizes::ENDLESS);
    assert_eq!(world.identity("front"), world.identity("again"), "the same labels");
    assert_eq!(world.policies.endpoint("blue", "nobody"), None);
    let said = world.arrives("front", "back", 8080);
    let (key, origin) = said.rule.unwrap();
    assert!(said.passes);
    assert_eq!(
        (key.to_string(), origin.to_string()),
        ("NetworkPolicy shop/web".into(), "t.yaml:4 (spec.ingress[0])".into())
    );
    for (from, port) in [("front", 80), ("other", 8080)] {
        let said = world.arrives(from, "back", port);
        assert!(!said.passes && *said.rule.unwrap().1.path == *"spec.podSelector", "{from} {port}");
    }
    let open = world.arrives("other", "front", 80);
    assert!(open.passes && open.rule.is_none());
    assert_eq!(world.policies.selects(&world.documents["blue/shop/web"].policy), 1);
    assert!(world.policies.has_policies(slot()) && !world.policies.has_policies(Slot::new(2).unwrap()));
}

#[test]
fn what_is_abandoned_was_never_there() {
    let mut world = shop(Sizes::ENDLESS);
    let (fresh, rules) = (endpoint("fresh", "app: fresh"), world.policies.rules);
    let audited = tenant("{ policyMode: audit }");
    let stored = policy("more", "{ podSelector: {} }");
    let request = || Request {
        tenants: vec![(&audited, slot())],
        endpoints: vec![&fresh],
        policies: vec![&stored],
        ..Request::default()
    };
    let next = world.policies.tenants["blue"].identities.fresh();
    for _ in 0..2 {
        let planned = world.policies.plan(&request(), world.now).unwrap();
        assert_eq!(
            world.policies.new_numbers(&planned).map(|(_, identity, _)| identity).collect::<Vec<_>>(),
            [next]
        );
        assert!(planned.subjects() > 0);
        world.policies.abandon(planned);
    }
    assert_eq!(world.policies.endpoint("blue", "fresh"), None);
    assert!(!world.policies.audits(slot()) && world.arrives("front", "other", 80).passes);
    assert_eq!(world.policies.rules, rules);
    // The positive control.
    let planned = world.policies.plan(&request(), world.now).unwrap();
    world.policies.commit(planned);
    assert_eq!(world.policies.endpoint("blue", "fresh"), Some((slot(), next)));
    assert!(world.policies.audits(slot()));
    assert_eq!(world.policies.rules, rules + 1);
}

#[test]
fn numbers_survive_a_restart_and_are_given_again_after_their_time_only() {
    let mut world = shop(Sizes::ENDLESS);
    let numbers = |world: &World| ["front", "back", "again", "other"].map(|name| world.identity(name));
    let before = numbers(&world);
    // Another order of arrival would have given other numbers.
    world.restart(Sizes::ENDLESS);
    assert_eq!(numbers(&world), before);
    world.remove("other");
    let other = before[3];
    world.now.seconds = 29;
    assert_eq!((world.policies.due(), world.collect()), (Some(30), 0));
    world.put(endpoint("other", "app: other")).unwrap();
    assert_eq!((world.identity("other"), world.policies.due()), (other, None), "it came back in time");
    world.remove("other");
    world.restart(Sizes::ENDLESS);
    assert_eq!(world.policies.due(), Some(30), "the time begins anew");
    let known = |world: &World| {
        world.policies.known(Some("blue")).map(|k| (k.identity, k.endpoints.len())).collect::<Vec<_>>()
    };
    assert!(
        known(&world).contains(&(other, 0)) && known(&world).contains(&(before[0], 2)),
        "{:?}",
        known(&world)
    );
    world.now.seconds = 30;
    assert_eq!(world.collect(), 1);
    assert!(!known(&world).iter().any(|(identity, _)| *identity == other));
    assert_eq!(world.rows[&format!("blue/{other}")], StoredIdentity::Free { place: 0 });
    world.restart(Sizes::ENDLESS);
    world.put(endpoint("other", "app: other")).unwrap();
    assert_ne!(world.identity("other"), other, "numbers that were never given come first");
}

#[test]
fn an_endpoint_that_gets_other_labels_is_known_by_both_numbers_until_its_address_follows() {
    let mut world = shop(Sizes::ENDLESS);
    let old = world.identity("other");
    world.put(endpoint("other", "app: front")).unwrap();
    assert_eq!(world.identity("other"), world.identity("front"));
    let at = |world: &World, subject| {
        let (tenant, direction, peer) = (slot(), Direction::Ingress, world.identity("front"));
        let address = "10.0.0.1".parse().unwrap();
        world.policies.tables.lookup(&Packet {
            tenant,
            subject,
            direction,
            peer,
            address,
            protocol: 6,
            port: 1,
        })
    };
    assert_eq!(at(&world, old), Verdict::Open, "packets that still carry the old number are judged");
    world.now.seconds = 30;
    assert_eq!(world.collect(), 1);
    assert_eq!(at(&world, old), Verdict::Unknown);
    assert_eq!(at(&world, world.identity("other")), Verdict::Open);
}

#[test]
fn labels_of_a_namespace_are_its_endpoints() {
    let mut world = shop(Sizes::ENDLESS);
    let before = world.identity("front");
    let labelled = tenant("{ namespaces: { shop: { labels: { team: a } } } }");
    let endpoints: Vec<Endpoint> = world.endpoints.values().cloned().collect();
    let request = Request {
        tenants: vec![(&labelled, slot())],
        endpoints: endpoints.iter().collect(),
        ..Request::default()
    };
    world.commit(request).unwrap();
    assert_ne!(world.identity("front"), before);
    assert!(world.arrives("front", "back", 8080).passes);
}

#[test]
fn what_does_not_fit_is_refused_and_names_tenant_and_line() {
    let mut probe = shop(Sizes::ENDLESS);
    // A new set stands beside the old one until the switch.
    let verdicts = probe.policies.compiler.sizes().verdicts;
    let wide = || {
        let ports: Vec<String> = (0..50).map(|n| format!("{{ port: {} }}", 1000 + 2 * n)).collect();
        let rule = |app: &str, ports: &[String]| {
            format!(
                "{{ from: [{{ podSelector: {{ matchLabels: {{ app: {app} }} }} }}], ports: [{}] }}",
                ports.join(", ")
            )
        };
        let rules: Vec<String> = ports.chunks(1).map(|one| rule("front", one)).collect();
        policy(
            "wide",
            &format!(
                "{{ podSelector: {{ matchLabels: {{ app: back }} }}, ingress: [{}] }}",
                rules.join(", ")
            ),
        )
    };
    assert!(probe.enforce(wide()).is_ok(), "the control");
    let mut world = shop(Sizes { verdicts: verdicts + 20, ..Sizes::ENDLESS });
    let (sizes, rules) = (world.policies.compiler.sizes(), world.policies.rules);
    let refused = world.enforce(wide()).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("table `verdicts` would need"), "{text}");
    assert!(text.contains("tenant blue, NetworkPolicy shop/wide at t.yaml:4 (spec.ingress["), "{text}");
    assert!(refused.help.contains("fewer peers"));
    assert_eq!((world.policies.compiler.sizes(), world.policies.rules), (sizes, rules));
    assert!(world.arrives("front", "back", 8080).passes && !world.arrives("front", "back", 1000).passes);
    assert!(
        world
            .enforce(policy("less", "{ podSelector: { matchLabels: { app: back } }, ingress: [{}] }"))
            .is_ok()
    );
    assert!(world.arrives("front", "back", 1000).passes);
}

#[test]
fn more_policies_than_a_host_holds_are_one_refusal() {
    let mut world = World::new(Sizes::ENDLESS);
    let one = policy("p", "{ podSelector: {} }");
    let named = |n: usize| {
        let mut stored = one.clone();
        stored.policy.metadata.name = format!("p{n}");
        stored
    };
    let all: Vec<StoredPolicy> = (0..=MOST_POLICIES).map(named).collect();
    let refused = world.commit(Request { policies: all.iter().collect(), ..Request::default() }).unwrap_err();
    assert_eq!(refused.to_string(), "65537 policies; this host holds 65536 at most");
    assert!(world.policies.is_empty());
    let fitting = Request { policies: all.iter().skip(1).collect(), ..Request::default() };
    world.commit(fitting).unwrap();
    assert_eq!(world.policies.rules, MOST_POLICIES);
    // One of them may change, and one may go.
    world.enforce(policy("p7", "{ podSelector: {}, ingress: [{}] }")).unwrap();
    world.commit(Request { no_policies: vec!["blue/shop/p8"], ..Request::default() }).unwrap();
    assert_eq!(world.policies.rules, MOST_POLICIES);
}

#[test]
fn one_policy_among_a_thousand_costs_what_it_changes() {
    let mut world = World::new(Sizes::ENDLESS);
    for n in 0..50 {
        world.put(endpoint(&format!("e{n}"), &format!("app: a{n}"))).unwrap();
    }
    let of = |n: usize, app: usize, port: usize| {
        let selector = format!("podSelector: {{ matchLabels: {{ app: a{app} }} }}");
        policy(&format!("p{n}"), &format!("{{ {selector}, ingress: [{{ ports: [{{ port: {port} }}] }}] }}"))
    };
    let all: Vec<StoredPolicy> = (0..1000).map(|n| of(n, n % 50, 1 + n)).collect();
    let whole = world.commit(Request { policies: all.iter().collect(), ..Request::default() }).unwrap();
    let delta = world.enforce(of(7, 7, 9999)).unwrap();
    assert_eq!(delta.subjects.len(), 1, "the others are not looked at");
    assert!(delta.len() * 10 < whole.len(), "{} of {}", delta.len(), whole.len());
    let nobody = world.enforce(policy("none", "{ podSelector: { matchLabels: { app: nobody } } }")).unwrap();
    assert_eq!(nobody.len(), 0);
}

/// The count is the whole second's, for so many seconds.
#[test]
fn a_thousand_new_label_sets_per_second_are_kept_up_with() {
    let soak = std::env::var("FIEF_SOAK").is_ok_and(|value| value == "1");
    let seconds = if soak { 120 } else { 5 };
    let mut world = shop(Sizes::ENDLESS);
    // Shorter than it is, so that a short run sees numbers come back.
    world.policies.settings.grace = if soak { 30 } else { 2 };
    let settings = world.policies.settings.clone();
    for member in world.policies.tenants.values_mut() {
        member.identities = Identities::restore(settings.clone(), member.identities.snapshot(), 0);
    }
    let mut living = VecDeque::new();
    let begin = std::time::Instant::now();
    for second in 0..seconds {
        world.now.seconds = second;
        for n in 0..1000 {
            let name = format!("s{second}-{n}");
            world.put(endpoint(&name, &format!("app: front, n: \"{name}\""))).unwrap();
            living.push_back(name);
        }
        while living.len() > 1000 {
            world.remove(&living.pop_front().unwrap());
        }
        world.collect();
        assert_eq!(world.policies.alarms().count(), 0, "second {second}");
    }
    let (took, known) = (begin.elapsed(), world.policies.known(None).count());
    println!(
        "{seconds} seconds of 1,000 new label sets each in {took:?}; {known} numbers are given at the end"
    );
    assert!(known < 1000 * (world.policies.settings.grace as usize + 3), "{known}");
    assert!(took.as_secs() < seconds.max(60), "{took:?}");
}

#[test]
fn there_is_one_word_of_alarm() {
    let mut world = World::new(Sizes::ENDLESS);
    let any = endpoint("any", "");
    let endpoints: Vec<Endpoint> = (0..52_224)
        .map(|n| {
            let mut endpoint = any.clone();
            endpoint.metadata.name = format!("e{n}");
            endpoint.metadata.labels = [("n".to_owned(), n.to_string())].into();
            endpoint
        })
        .collect();
    let (last, most) = endpoints.split_last().unwrap();
    world.commit(Request { endpoints: most.iter().collect(), ..Request::default() }).unwrap();
    assert!(world.policies.fresh_alarms().is_empty(), "79.99 %");
    world.put(last.clone()).unwrap();
    let [(tenant, usage)] = &world.policies.fresh_alarms()[..] else { panic!("an alarm") };
    assert_eq!((tenant.as_str(), usage.used, usage.most), ("blue", 52_224, 65_280));
    assert!(world.policies.fresh_alarms().is_empty(), "once");
    assert_eq!(world.policies.alarms().count(), 1, "and it goes on");
}
