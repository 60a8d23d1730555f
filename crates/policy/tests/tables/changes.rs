//! What a change costs, when it is refused, and that no packet meets half of one.

use std::sync::Arc;

use fief_model::Slot;
use fief_policy::identity::{LabelFilter, Labels};
use fief_policy::tables::Delta;
use fief_policy::{
    Change, Compiler, Direction, Identity, Packet, Refused, Sizes, Tables, Verdict, Workload, network_policy,
};

use fief_policykit::draw::Draw;
use fief_policykit::histogram::seed;
use fief_policykit::host::Host;
use fief_policykit::scene::{End, Scene, ScenePod, Trip, document, slot};

fn workload(app: &str) -> Arc<Workload> {
    Arc::new(Workload::new("shop", Labels::new(), [("app".to_owned(), app.to_owned())].into(), []))
}

fn shop(pods: usize) -> Scene {
    let pod = |n: usize| {
        let (high, low) = (n / 250, n % 250 + 1);
        let app = ["front", "back", "db"][n % 3];
        ScenePod::new("shop", &Labels::new(), &format!("p{n}"), &format!("10.1.{high}.{low}"))
            .label("app", app)
    };
    let spec = "{ podSelector: { matchLabels: { app: db } }, policyTypes: [Ingress, Egress], \
                ingress: [{ from: [{ podSelector: { matchLabels: { app: back } } }], ports: [{ port: 5432 }] }] }";
    Scene {
        pods: (0..pods).map(pod).collect(),
        documents: vec![document("shop", "db", spec)],
        rules: Vec::new(),
    }
}

#[test]
fn a_thousand_more_workloads_with_known_labels_add_nothing() {
    let mut host = Host::of(&shop(6));
    let before = host.tables.sizes();
    let delta = host.plan(&shop(1006)).unwrap();
    assert!(delta.is_empty(), "{delta:#?}");
    assert_eq!(host.compiler.sizes(), before);
    // The control: labels that are new.
    let mut scene = shop(1006);
    scene.pods[7] = scene.pods[7].clone().label("app", "new");
    let delta = host.plan(&scene).unwrap();
    assert_eq!((delta.subjects.len(), delta.len()), (1, 1), "nobody selects it, no rule names it");
    scene.pods[8] = scene.pods[8].clone().label("tier", "new").label("app", "back");
    let delta = host.plan(&scene).unwrap();
    assert_eq!((delta.subjects.len(), delta.peers.len(), delta.len()), (1, 1, 2), "a peer of a known kind");
}

#[test]
fn a_change_touches_what_it_is_about() {
    let mut scene = shop(300);
    let mut host = Host::of(&scene);
    assert_eq!(host.tables.sets.len(), 2, "a hundred subjects share two sets");
    let spec = "{ podSelector: { matchLabels: { app: front } }, ingress: [{ ports: [{ port: 80 }] }] }";
    scene.documents.push(document("shop", "front", spec));
    let delta = host.plan(&scene).unwrap();
    assert_eq!((delta.sets.len(), delta.subjects.len(), delta.gone.sets.len()), (1, 1, 0));
    host.tables.apply(&delta);
    // The same text three lines further down: only the places of its rules change.
    let moved = format!(
        "\n\n\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{ name: front, namespace: shop }}\nspec: {spec}\n"
    );
    scene.documents[1] = fief_policykit::scene::documents("front.yaml", &moved).remove(0);
    let delta = host.plan(&scene).unwrap();
    assert_eq!((delta.len(), delta.written.len()), (0, 2));
    host.tables.apply(&delta);
    assert_eq!(host.content(), Host::of(&scene).content());
}

#[test]
fn rules_do_not_multiply() {
    let mut draw = Draw(seed());
    let mut scene = Scene::default();
    for n in 0..600 {
        let pod = ScenePod::new(
            "shop",
            &Labels::new(),
            &format!("p{n}"),
            &format!("10.1.{}.{}", n / 250, n % 250 + 1),
        );
        scene.pods.push(pod.label("app", &format!("a{n}")));
    }
    for n in 0..600 {
        let (peer, port) = ((n * 7) % 600, 1000 + n);
        let spec = format!(
            "{{ podSelector: {{ matchLabels: {{ app: a0 }} }}, ingress: [\
             {{ from: [{{ podSelector: {{ matchLabels: {{ app: a{peer} }} }} }}], ports: [{{ port: {port} }}] }}] }}"
        );
        scene.documents.push(document("shop", &format!("d{n}"), &spec));
    }
    let blocks: String =
        (0..600).map(|n| format!("{{ ipBlock: {{ cidr: 10.2.{}.{}/32 }} }},", n / 250, n % 250)).collect();
    let spec =
        format!("{{ podSelector: {{ matchLabels: {{ app: a0 }} }}, ingress: [{{ from: [{blocks}] }}] }}");
    scene.documents.push(document("shop", "blocks", &spec));
    let host = Host::of(&scene);
    let sizes = host.tables.sizes();
    assert!(sizes.ports <= 601 && sizes.peers <= 600 && sizes.blocks <= 600, "{sizes:?}");
    assert!(sizes.verdicts <= 4 * 601, "{sizes:?}");
    for _ in 0..200 {
        let from = match draw.below(2) {
            0 => End::Pod(draw.below(600)),
            _ => End::World(format!("10.2.{}.{}", draw.below(3), draw.below(255)).parse().unwrap()),
        };
        let trip = Trip { from, to: End::Pod(0), protocol: 6, port: 1000 + draw.below(610) as u16 };
        host.agree(&scene, &trip, Direction::Ingress);
    }
}

#[test]
fn no_packet_meets_half_a_change() {
    let seed = seed();
    let mut draw = Draw(seed);
    let (mut states, mut differing) = (0, 0);
    let soak = std::env::var("FIEF_SOAK").is_ok_and(|soak| soak == "1");
    let (changes, asked) = if soak { (60, 60) } else { (14, 20) };
    for _ in 0..changes {
        let before = draw.scene();
        let mut after = before.clone();
        draw.change_policies(&mut after);
        let mut host = Host::of(&before);
        let trips: Vec<(Trip, Direction)> = (0..asked).map(|_| draw.trip(&before)).collect();
        let ask = |host: &Host, tables: &Tables| -> Vec<bool> {
            let passes =
                |(trip, way): &(Trip, Direction)| host.verdict_in(tables, &before, trip, *way).passes();
            trips.iter().map(passes).collect()
        };
        let old = ask(&host, &host.tables);
        let delta = host.plan(&after).unwrap();
        let mut tables = host.tables.clone();
        let mut seen = vec![old.clone()];
        tables.apply_watched(&delta, |tables| {
            states += 1;
            seen.push(ask(&host, tables));
        });
        let new = ask(&host, &tables);
        host.tables = tables;
        assert_eq!(host.content(), Host::of(&after).content(), "seed {seed}");
        seen.dedup();
        let expected = if old == new { vec![old] } else { vec![old, new] };
        assert_eq!(seen, expected, "seed {seed}: everything changes at once");
        differing += usize::from(expected.len() == 2);
    }
    println!("seed {seed}: {states} states on the way, {differing} changes of verdicts");
    assert!(differing * 4 >= changes);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let small = shop(30);
    let mut large = small.clone();
    let wide = "{ podSelector: { matchLabels: { app: front } }, ingress: [\n\
                { from: [{ podSelector: {} }], ports: [{ port: 1, endPort: 65534 }] },\n\
                { from: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16] } }] }] }";
    large.documents.push(document("shop", "wide", wide));
    large.documents.push(document("shop", "db", "{ podSelector: {} }"));
    large.documents.remove(0);
    let needed = {
        let mut host = Host::of(&small);
        let delta = host.plan(&large).unwrap();
        peak(&host, &delta)
    };
    let tables: [fn(&mut Sizes) -> &mut usize; 6] = [
        |s| &mut s.sets,
        |s| &mut s.ports,
        |s| &mut s.peers,
        |s| &mut s.blocks,
        |s| &mut s.verdicts,
        |s| &mut s.ranks,
    ];
    for table in tables {
        let (mut enough, mut exact) = (Sizes::ENDLESS, needed);
        *table(&mut enough) = *table(&mut exact);
        let mut host = Host::with(slot(), enough);
        host.reach(&small);
        host.reach(&large);
        let mut scarce = enough;
        *table(&mut scarce) -= 1;
        let mut host = Host::with(slot(), scarce);
        host.reach(&small);
        let before = host.compiler.sizes();
        let Err(Refused::Full { tenant, rule, needed, most, .. }) = host.plan(&large) else {
            panic!("it fits into {scarce:?}")
        };
        assert_eq!((needed, tenant), (most + 1, Some(slot())));
        let rule = rule.unwrap();
        assert_eq!((rule.policy.name.as_str(), &*rule.origin.source), ("wide", "wide.yaml"));
        // As if nothing had been asked: the same scene changes nothing, and others are reached as ever.
        assert_eq!(host.compiler.sizes(), before);
        assert!(host.plan(&small).unwrap().is_empty());
        assert_eq!(host.content(), Host::of(&small).content());
        let mut other = small.clone();
        other.documents.clear();
        host.reach(&other);
        assert_eq!(host.content(), Host::of(&other).content());
    }
}

/// How many entries there are at most while a change is carried out.
fn peak(host: &Host, delta: &Delta) -> Sizes {
    let mut tables = host.tables.clone();
    let mut most = tables.sizes();
    tables.apply_watched(delta, |tables| {
        let now = tables.sizes();
        most.sets = most.sets.max(now.sets);
        most.ports = most.ports.max(now.ports);
        most.peers = most.peers.max(now.peers);
        most.blocks = most.blocks.max(now.blocks);
        most.verdicts = most.verdicts.max(now.verdicts);
        most.ranks = most.ranks.max(now.ranks);
    });
    most
}

#[test]
fn refusals_in_the_midst_of_drawn_changes_leave_no_trace() {
    let seed = seed();
    let mut draw = Draw(seed ^ 1);
    let (mut refused, mut reached) = (0, 0);
    for _ in 0..30 {
        let mut scene = draw.scene();
        let mut host = Host::of(&scene);
        let room = host.tables.sizes();
        let most = Sizes { verdicts: room.verdicts * 3 / 2, ..Sizes::ENDLESS };
        host = Host::with(slot(), most);
        host.reach(&scene);
        for _ in 0..10 {
            let mut next = scene.clone();
            draw.change_policies(&mut next);
            match host.plan(&next) {
                Ok(delta) => {
                    host.tables.apply(&delta);
                    scene = next;
                    reached += 1;
                }
                Err(_) => refused += 1,
            }
            assert_eq!(host.compiler.sizes(), host.tables.sizes());
            assert_eq!(host.content(), Host::of(&scene).content(), "seed {seed}");
        }
    }
    println!("seed {seed}: {reached} changes, {refused} refused between them");
    assert!(refused >= 20 && reached >= 20);
}

#[test]
fn contradictory_changes_are_refused() {
    let mut compiler = Compiler::new(Sizes::ENDLESS);
    let id = Identity::FIRST;
    let known = |app| Change::Identity(slot(), id, workload(app));
    assert_eq!(
        compiler.update([Change::Subject(slot(), id)]).unwrap_err(),
        Refused::Unknown(slot(), id),
        "who is it?"
    );
    assert!(compiler.update([known("a"), Change::Subject(slot(), id)]).is_ok(), "the control");
    assert!(compiler.update([known("a")]).unwrap().is_empty(), "nothing new");
    assert_eq!(compiler.update([known("b")]).unwrap_err(), Refused::Taken(slot(), id));
    let gone = compiler.update([Change::NoIdentity(slot(), id), known("b")]).unwrap();
    assert_eq!(gone.subjects.len(), 1, "it is no subject any more");
    assert_eq!(compiler.sizes(), Sizes::default());
}

#[test]
fn one_address_in_two_tenants_is_two_worlds() {
    let [blue, red] = [1, 2].map(|number| Slot::new(number).unwrap());
    let mut compiler = Compiler::new(Sizes::ENDLESS);
    let mut tables = Tables::default();
    let [client, server] = [Identity::FIRST, Identity(Identity::FIRST.0 + 1)];
    let allow = document("shop", "web", "{ podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] }");
    let deny = document("shop", "web", "{ podSelector: {} }");
    for (tenant, policy) in [(blue, &allow), (red, &deny)] {
        let delta = compiler.update([
            Change::Identity(tenant, client, workload("client")),
            Change::Identity(tenant, server, workload("server")),
            Change::Subject(tenant, server),
            Change::Policy(policy.rules(tenant)),
        ]);
        tables.apply(&delta.unwrap());
    }
    let verdict = |tables: &Tables, tenant| {
        let address = "10.0.0.1".parse().unwrap();
        let (subject, peer, direction) = (server, client, Direction::Ingress);
        tables.lookup(&Packet { tenant, subject, direction, peer, address, protocol: 6, port: 80 })
    };
    assert!(verdict(&tables, blue).passes() && !verdict(&tables, red).passes());
    assert_eq!(verdict(&tables, Slot::new(3).unwrap()), Verdict::Unknown, "nobody there");
    tables.apply(&compiler.update([Change::NoPolicy(network_policy::key(red, &deny.policy))]).unwrap());
    assert!(verdict(&tables, blue).passes() && verdict(&tables, red).passes());
}

#[test]
fn what_does_not_fit_is_not_made_to_the_end() {
    let pod = |n: usize| {
        let (high, low) = (n / 250, n % 250 + 1);
        ScenePod::new("shop", &Labels::new(), &format!("p{n}"), &format!("10.1.{high}.{low}"))
            .label("app", "a")
            .label("n", &n.to_string())
    };
    // Each of 150 callers may call each of 150 ports by a rule of its own: 22,500 verdicts.
    let by_caller = |n: usize| {
        format!(
            "{{ from: [{{ podSelector: {{ matchLabels: {{ n: \"{n}\" }} }} }}], ports: [{{ port: 9999 }}] }}"
        )
    };
    let by_port = |n: usize| {
        format!(
            "{{ from: [{{ podSelector: {{ matchExpressions: [{{ key: n, operator: NotIn, values: [x{n}] }}] }} }}], ports: [{{ port: {} }}] }}",
            n + 1
        )
    };
    let rules: Vec<String> = (0..150).map(by_caller).chain((0..150).map(by_port)).collect();
    let spec =
        format!("{{ podSelector: {{ matchLabels: {{ n: \"0\" }} }}, ingress: [{}] }}", rules.join(", "));
    let with = |documents: Vec<_>| Scene { pods: (0..150).map(pod).collect(), documents, ..Scene::default() };
    let mut host = Host::with(slot(), Sizes { verdicts: 2_000, ..Sizes::ENDLESS });
    host.reach(&with(Vec::new()));
    let before = host.compiler.sizes();
    let documents = vec![document("shop", "web", &spec)];
    let Err(Refused::Full { table: "verdicts", needed, .. }) = host.plan(&with(documents.clone())) else {
        panic!("it fits")
    };
    assert!(needed > 2_000 && needed < 3_000, "{needed}");
    assert_eq!(host.compiler.sizes(), before);
    let mut roomy = Host::new();
    roomy.reach(&with(documents));
    assert!(roomy.compiler.sizes().verdicts > 20_000, "the control: {:?}", roomy.compiler.sizes());
}

#[test]
fn what_is_planned_and_abandoned_leaves_no_trace() {
    let seed = seed();
    let mut draw = Draw(seed ^ 3);
    for _ in 0..20 {
        let mut host = Host::of(&draw.scene());
        let (sizes, policies) = (host.compiler.sizes(), draw.scene().policies(slot()));
        let changes = || policies.iter().cloned().map(Change::Policy);
        let planned = host.compiler.plan(changes()).unwrap();
        host.compiler.abandon(planned);
        assert_eq!(host.compiler.sizes(), sizes, "seed {seed}");
        let planned = host.compiler.plan(changes()).unwrap();
        let delta = host.compiler.commit(planned);
        host.tables.apply(&delta);
        assert_eq!(host.tables.sizes(), host.compiler.sizes(), "seed {seed}");
        let mut copy = Tables::default();
        copy.apply(&Delta::whole(&host.tables));
        let whole = std::mem::replace(&mut host.tables, copy);
        assert_eq!(host.tables.sizes(), whole.sizes(), "seed {seed}");
        assert_eq!(host.tables.verdicts, whole.verdicts, "seed {seed}");
        assert!(whole.subjects.iter().all(|(key, subject)| {
            host.tables.subjects[key].at(host.tables.generation) == subject.at(whole.generation)
        }));
    }
}

#[test]
fn nothing_is_left_when_everything_goes() {
    let seed = seed();
    let mut draw = Draw(seed ^ 2);
    let mut host = Host::new();
    for _ in 0..20 {
        host.reach(&draw.scene());
        assert_ne!(host.tables.sizes(), Sizes::default());
        host.reach(&Scene::default());
        assert_eq!(host.tables.sizes(), Sizes::default(), "seed {seed}");
        assert_eq!((host.tables.written.len(), host.compiler.policies().count()), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_label_that_makes_no_identity_cannot_be_selected_by() {
    let filter = LabelFilter::default();
    let rules = |spec: &str| document("shop", "web", spec).rules(slot());
    let hidden = rules(
        "{ podSelector: {}, ingress: [{}, { from: [{ podSelector: { matchLabels: { pod-template-hash: a } } }] }] }",
    );
    let (rule, key) = filter.hides(&hidden).unwrap();
    assert_eq!((rule.origin.path.as_ref(), key), ("spec.ingress[1]", "pod-template-hash"));
    let seen =
        rules("{ podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { app: a } } }] }] }");
    assert!(filter.hides(&seen).is_none());
    let by_namespace = rules(
        "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { uid: a } } }] }] }",
    );
    assert!(filter.hides(&by_namespace).is_none(), "labels of namespaces all count");
}

#[test]
fn a_name_follows_what_workloads_mean_by_it() {
    let pod = |name: &str, address, port| {
        ScenePod::new("shop", &Labels::new(), name, address).label("app", name).port("http", 6, port)
    };
    let mut scene = Scene {
        pods: vec![pod("a", "10.0.0.1", 80), pod("b", "10.0.0.2", 8080)],
        documents: vec![document(
            "shop",
            "web",
            "{ podSelector: {}, egress: [{ ports: [{ port: http }] }] }",
        )],
        ..Scene::default()
    };
    let mut host = Host::of(&scene);
    let allowed = |host: &Host, scene: &Scene, to, port| {
        let trip = Trip { from: End::Pod(0), to, protocol: 6, port };
        host.agree(scene, &trip, Direction::Egress).is_some_and(|answer| answer.path.contains("egress"))
    };
    let world = End::World("10.0.0.9".parse().unwrap());
    assert!(allowed(&host, &scene, End::Pod(1), 8080) && !allowed(&host, &scene, End::Pod(1), 80));
    assert!(!allowed(&host, &scene, world, 8080), "nobody says what it means there");
    // A third one gives the name a third meaning: the sets are others, also for those who were there.
    scene.pods.push(pod("c", "10.0.0.3", 9000));
    host.reach(&scene);
    assert_eq!(host.content(), Host::of(&scene).content());
    assert!(allowed(&host, &scene, End::Pod(2), 9000) && !allowed(&host, &scene, End::Pod(1), 9000));
    scene.pods.pop();
    host.reach(&scene);
    assert_eq!(host.content(), Host::of(&scene).content());
}
