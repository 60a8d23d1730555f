//! Changes in the maps: what does not fit is refused beforehand, and one address in two tenants is two worlds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fief_datapath::DatapathError;
use fief_datapath::policy::Policy;
use fief_model::Slot;
use fief_policy::identity::Labels;
use fief_policy::{Change, Compiler, Delta, Direction, Identity, Sizes, Tables, Workload};
use fief_policykit::draw::Draw;
use fief_policykit::histogram::seed;
use fief_policykit::host::Host;
use fief_policykit::scene::{Scene, ScenePod, document, slot};

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
    type Table = fn(&mut Sizes) -> &mut usize;
    let tables: [(&str, Table); 7] = [
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

/// BPF_PROG_TEST_RUN's part of `union bpf_attr` (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    answer: u32,
    data_size: u32,
    out_size: u32,
    data: u64,
    out: u64,
    repeat: u32,
    nanoseconds: u32,
}

/// What the program answers; beside whoever changes its tables.
fn run(program: &OwnedFd, frame: &[u8]) -> u32 {
    let mut attr = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_size: frame.len() as u32,
        data: frame.as_ptr() as u64,
        ..TestRun::default()
    };
    const BPF_PROG_TEST_RUN: libc::c_int = 10;
    // SAFETY: the kernel reads the frame and writes into `attr`; both outlive the call.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    attr.answer
}

/// Says that it is over, whatever has gone wrong.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn packets_that_pass_before_and_afterwards_pass_throughout() {
    let Some(mut machine) = Machine::new() else { return };
    let pods = |n: usize| {
        ScenePod::new("shop", &Labels::new(), &format!("pod{n}"), &format!("10.0.0.{n}"))
            .label("app", if n == 1 { "client" } else { "server" })
            .label("pod", &n.to_string())
    };
    // Port 80 for the client and nobody else, now by its label and now by its address, in sets that share nothing.
    let scene = |peer: &str, port: usize| {
        let spec = format!(
            "{{ podSelector: {{ matchLabels: {{ app: server }} }}, ingress: [\
             {{ from: [{peer}], ports: [{{ port: 80 }}, {{ port: {port} }}] }}] }}"
        );
        Scene {
            pods: (1..40).map(pods).collect(),
            documents: vec![document("shop", "web", &spec)],
            rules: Vec::new(),
        }
    };
    let peers = ["{ podSelector: { matchLabels: { app: client } } }", "{ ipBlock: { cidr: 10.0.0.1/32 } }"];
    machine.reach(&scene(peers[0], 1000));
    let program = machine.policy.program(Direction::Ingress).unwrap();
    let over = AtomicBool::new(false);
    let [client, server, other] = [1, 9, 3].map(|n| IpAddr::from([10, 0, 0, n]));
    let (asked, wrong) = std::thread::scope(|scope| {
        let end = AtEnd(&over);
        let asking = scope.spawn(|| {
            let good = from_to(client, server).tcp_syn(40_000, 80);
            let bad =
                [from_to(other, server).tcp_syn(40_000, 80), from_to(client, server).tcp_syn(40_000, 81)];
            let (mut asked, mut wrong) = (0_u64, 0_u64);
            while !over.load(Ordering::Relaxed) {
                wrong += u64::from(run(&program, &good) != u32::MAX);
                wrong += bad.iter().filter(|bad| run(&program, bad) == u32::MAX).count() as u64;
                asked += 3;
            }
            (asked, wrong)
        });
        for n in 0..60 {
            machine.reach(&scene(peers[n % 2], 1000 + n));
        }
        drop(end);
        asking.join().unwrap()
    });
    println!("{asked} packets while policies changed 60 times, {wrong} judged wrongly");
    assert!(wrong == 0 && asked > 10_000);
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
            Change::Policy(document.rules(tenant)),
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
