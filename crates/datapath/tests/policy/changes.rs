//! Changes in the maps: what does not fit is refused beforehand, and one address in two tenants is two worlds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fief_datapath::DatapathError;
use fief_datapath::policy::Policy;
use fief_model::Slot;
use fief_policy::identity::Labels;
use fief_policy::{Change, Compiler, Delta, Direction, Identity, Sizes, Tables, Workload, network_policy};
use fief_policykit::draw::Draw;
use fief_policykit::histogram::seed;
use fief_policykit::host::Host;
use fief_policykit::scene::{Scene, document, slot};

use crate::machine::{DEVICE, Machine, address, from_to, load};

/// How many entries there are at most while the maps carry a change out.
fn peak(before: &Tables, delta: &Delta) -> Sizes {
    let mut tables = before.clone();
    let mut most = tables.sizes();
    tables.apply_watched(delta, |tables| {
        let now = tables.sizes();
        most.subjects = most.subjects.max(now.subjects);
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
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let seed = seed();
    let mut draw = Draw(seed ^ 3);
    let before = draw.scene();
    let mut host = Host::of(&before);
    let (after, delta, needed) = std::iter::repeat_with(|| draw.scene())
        .find_map(|after| {
            let mut host = Host::of(&before);
            let delta = host.plan(&after).unwrap();
            let needed = peak(&host.tables, &delta);
            let grows = needed
                .each()
                .iter()
                .zip(host.tables.sizes().each())
                .all(|((_, more), (_, less))| *more > less);
            grows.then_some((after, delta, needed))
        })
        .unwrap();
    let first = Host::new().plan(&before).unwrap();
    let tables: [(&str, fn(&mut Sizes) -> &mut usize); 7] = [
        ("policy_subject", |s| &mut s.subjects),
        ("policy_set", |s| &mut s.sets),
        ("policy_port", |s| &mut s.ports),
        ("policy_peer", |s| &mut s.peers),
        ("policy_block", |s| &mut s.blocks),
        ("policy_verdict", |s| &mut s.verdicts),
        ("policy_rank", |s| &mut s.ranks),
    ];
    for (name, table) in tables {
        let mut room = needed;
        *table(&mut room) -= 1;
        let Some(mut policy) = load(&room) else { return };
        policy.apply(&first).unwrap();
        let sizes = policy.sizes();
        match policy.apply(&delta) {
            Err(DatapathError::Full { map, needed, most }) => assert_eq!((map, needed), (name, most + 1)),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(policy.sizes(), sizes, "nothing was written");
        assert_eq!(sizes, host.tables.sizes());
    }
    // The control: exactly as much room as it needs, and the kernel takes every entry.
    let Some(mut policy) = load(&needed) else { return };
    policy.apply(&first).unwrap();
    policy.apply(&delta).unwrap();
    host.reach(&after);
    assert_eq!(policy.sizes(), host.tables.sizes());
}

#[test]
fn a_packet_meets_the_old_policy_until_the_moment() {
    let Some(mut machine) = Machine::new() else { return };
    let mut draw = Draw(seed() ^ 4);
    let mut differing = 0;
    for _ in 0..20 {
        let mut scene = draw.scene();
        machine.reach(&scene);
        let trips: Vec<_> = (0..60)
            .map(|_| draw.trip(&scene))
            .filter(|(trip, _)| address(&scene, trip.from).is_ipv4() == address(&scene, trip.to).is_ipv4())
            .collect();
        let ask = |machine: &mut Machine, scene: &Scene| -> Vec<bool> {
            trips.iter().map(|(trip, way)| machine.judge(scene, trip, *way).passes).collect()
        };
        let old = ask(&mut machine, &scene);
        draw.change_policies(&mut scene);
        let delta = machine.host.plan(&scene).unwrap();
        // Everything up to the moment, in the maps, and not the moment.
        machine.policy.prepare(&delta).unwrap();
        assert_eq!(ask(&mut machine, &scene), old, "nothing has changed yet");
        machine.policy.finish(&delta).unwrap();
        machine.host.tables.apply(&delta);
        differing += usize::from(ask(&mut machine, &scene) != old);
        assert_eq!(machine.policy.sizes(), machine.host.tables.sizes());
    }
    assert!(differing >= 5, "{differing} of 20 changed a verdict");
}

#[test]
fn one_address_in_two_tenants_is_two_worlds() {
    let Some(mut policy) = load(&Policy::ROOM) else { return };
    let [blue, red] = [1, 2].map(|number| Slot::new(number).unwrap());
    assert_eq!(blue, slot());
    let mut compiler = Compiler::new(Policy::ROOM);
    let [client, server] = [Identity::FIRST, Identity(Identity::FIRST.0 + 1)];
    let workload = |app: &str| {
        let labels: BTreeMap<String, String> = [("app".to_owned(), app.to_owned())].into();
        Arc::new(Workload::new("shop", Labels::new(), labels, []))
    };
    let [from, to]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    let allow = document("shop", "web", "{ podSelector: {}, ingress: [{ from: [{ podSelector: {} }] }] }");
    let deny = document("shop", "web", "{ podSelector: {} }");
    for (tenant, document) in [(blue, &allow), (red, &deny)] {
        let delta = compiler.update([
            Change::Identity(tenant, client, workload("client")),
            Change::Identity(tenant, server, workload("server")),
            Change::Subject(tenant, server),
            Change::Policy(network_policy::rules(tenant, document)),
        ]);
        policy.apply(&delta.unwrap()).unwrap();
        policy.add_address(tenant.into(), from, client).unwrap();
        policy.add_address(tenant.into(), to, server).unwrap();
    }
    let frame = from_to(from, to).tcp_syn(40_000, 80);
    for (tenant, passes) in [(blue, true), (red, false)] {
        policy.add_device(DEVICE, tenant.into()).unwrap();
        let judged = policy.try_frame(Direction::Ingress, &frame).unwrap();
        assert_eq!((judged.passes, judged.subject, judged.peer), (passes, server, client));
    }
}
