//! Who may be on a network, and as whom.

use std::net::Ipv4Addr;

use fief_testkit::{Ns, eventually};

use crate::app::App;
use crate::flow::Flow;
use crate::node::{Node, at, by_dhcp, endpoint, network, tenant};
use crate::room::{NEVER, SOON, wait};

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const C: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 13);

/// The Ethernet address of a workload's `eth0`.
#[track_caller]
fn mac(ns: &Ns) -> String {
    ns.mac("eth0").map(|byte| format!("{byte:02x}")).join(":")
}

#[track_caller]
fn set_mac(app: &App, mac: &str) {
    app.ns.ip(&format!("link set eth0 address {mac}\n"));
}

#[track_caller]
fn is_answered(app: &App, address: Ipv4Addr) {
    eventually(SOON, || if app.pings(address) { Ok(()) } else { Err(format!("{address} does not answer")) });
}

#[test]
fn an_endpoint_with_another_ethernet_address_loses_its_own_traffic_only() {
    let Some(node) = Node::open("locked", 1) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"])]);
    let [a, b, c] = [("a", A), ("b", B), ("c", C)].map(|(name, address)| node.place("ni1", name, address));
    let _echo = c.echo(7000);
    is_answered(&b, C);
    is_answered(&a, B);
    let own = mac(&b.ns);
    let flow = Flow::start(&a.ns, (C, 7000).into());
    for other in ["02:00:00:00:99:99".to_owned(), mac(&a.ns), mac(&c.ns)] {
        set_mac(&b, &other);
        assert!(!b.pings(C), "b speaks as {other}");
        // What it was before comes back with its address.
        set_mac(&b, &own);
        is_answered(&b, C);
    }
    println!("{:?}", flow.lost_nothing());
}

#[test]
fn only_tenants_that_a_network_names_attach_to_it() {
    let Some(node) = Node::open("allowed", 1) else { return };
    let net = |allowed: &str| network("ni2", "10.10.1.0/24", &["uplinks: [eth0]", allowed]);
    node.apply(&[tenant("ni1"), tenant("ni2"), tenant("ni3"), net("allowEndpoints: [ni1]")]);
    let home = node.place("ni2", "home", A);
    let [guest, stranger] = [("ni1", "guest", B), ("ni3", "stranger", C)].map(|(tenant, name, address)| {
        let app = node.workload(tenant, name);
        let there = format!("{{ network: ni2/net, interface: eth0, address: {address} }}");
        node.apply(&[endpoint(tenant, name, &[there], &app.attach())]);
        app
    });
    guest.wait_for("eth0");
    is_answered(&guest, A);
    node.wait_phase("endpoint", "ni1", "guest", "Ready");
    node.wait_phase("endpoint", "ni3", "stranger", "Pending");
    wait(NEVER);
    assert!(!stranger.has("eth0") && !home.pings(C));

    node.apply(&[net("allowEndpoints: [ni1, ni3]")]);
    node.wait_phase("endpoint", "ni3", "stranger", "Ready");
    is_answered(&stranger, A);
    node.apply(&[net("allowEndpoints: [ni1]")]);
    node.wait_phase("endpoint", "ni3", "stranger", "Pending");
    eventually(SOON, || if stranger.has("eth0") { Err("still attached".into()) } else { Ok(()) });
    is_answered(&guest, A);
}

#[test]
fn a_namespace_that_comes_later_is_attached_when_it_comes() {
    let Some(node) = Node::open("later", 1) else { return };
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"])]);
    let first = node.place("ni1", "first", A);
    let nowhere = format!("attach: {{ netns: /run/netns/fief-{}-ni1-late }}", std::process::id());
    node.apply(&[endpoint("ni1", "late", &[at(B)], &nowhere)]);
    node.wait_phase("endpoint", "ni1", "late", "Pending");
    let late = node.workload("ni1", "late");
    node.wait_phase("endpoint", "ni1", "late", "Ready");
    is_answered(&first, B);
    is_answered(&late, A);
}

#[test]
fn a_namespace_that_is_made_again_is_attached_again() {
    let Some(node) = Node::open("again", 1) else { return };
    let host = &node.town.host;
    let make = || {
        host.run(&["ip", "netns", "add", "again"]).ok();
        host.run(&["ip", "-n", "again", "link", "set", "lo", "up"]).ok();
    };
    make();
    // One without a link to the host is listened to as well.
    for (name, uplinks) in [("ni1", "uplinks: [eth0]"), ("ni2", "uplinks: []")] {
        node.apply(&[tenant(name), network(name, "10.10.1.0/24", &[uplinks])]);
        let first = node.place(name, "first", A);
        node.apply(&[endpoint(name, "again", &[at(B)], "attach: { netns: again }")]);
        node.wait_phase("endpoint", name, "again", "Ready");
        is_answered(&first, B);
        for _ in 0..2 {
            host.run(&["ip", "netns", "del", "again"]).ok();
            node.wait_phase("endpoint", name, "again", "Pending");
            make();
            node.wait_phase("endpoint", name, "again", "Ready");
            is_answered(&first, B);
        }
        // Somebody deletes what fief made, inside.
        node.run_inside(name, &["ip", "link", "del", "e-again"]).ok();
        eventually(SOON, || if first.pings(B) { Ok(()) } else { Err("not attached again".to_owned()) });
        node.daemon.cli(&["delete", "endpoint", &format!("{name}/again")]).ok();
    }
}

#[test]
fn leases_are_what_the_document_says() {
    let Some(node) = Node::open("leases", 1) else { return };
    let reserved = "02:00:00:00:00:07";
    let dhcp = format!(
        "dhcp: {{ range: 10.10.1.50-10.10.1.51, lease: 30m, reservations: [{{ mac: \"{reserved}\", address: 10.10.1.7 }}] }}"
    );
    let spec = ["uplinks: [eth0]", &dhcp, "ntp: [192.0.2.123]", "mtu: 1400"];
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &spec)]);
    let apps = ["known", "isc", "last", "late"].map(|name| node.workload("ni1", name));
    let [known, isc, last, late] = &apps;
    let card = format!("{{ network: net, interface: eth0, mac: \"{reserved}\" }}");
    let any = by_dhcp("net", "eth0");
    node.apply(&[
        endpoint("ni1", "known", &[card], &known.attach()),
        endpoint("ni1", "isc", std::slice::from_ref(&any), &isc.attach()),
        endpoint("ni1", "last", std::slice::from_ref(&any), &last.attach()),
        endpoint("ni1", "late", &[any], &late.attach()),
    ]);
    let lease = known.udhcpc("eth0");
    assert_eq!((lease.address, mac(&known.ns).as_str()), (Ipv4Addr::new(10, 10, 1, 7), reserved));
    let said = ["router", "dns", "lease", "mtu", "ntpsrv"].map(|name| lease.said(name));
    let wanted = ["10.10.1.1", "10.10.1.1", "1800", "1400", "192.0.2.123"].map(Some);
    assert_eq!(said, wanted);
    // Two addresses for whoever comes, one client each; a third finds none, and its neighbours keep theirs.
    let mut taken = [isc.dhclient("eth0"), last.udhcpc("eth0").address].map(|address| address.octets()[3]);
    taken.sort_unstable();
    assert_eq!(taken, [50, 51]);
    late.wait_for("eth0");
    let busybox = node.town.tools.busybox.display().to_string();
    let once = ["udhcpc", "-f", "-q", "-n", "-t", "2", "-T", "1", "-i", "eth0", "-s", "/bin/true"];
    late.ns.ip("link set eth0 up\n");
    late.ns.run(&[&[busybox.as_str()], &once[..]].concat()).fails();
    is_answered(known, Ipv4Addr::new(10, 10, 1, 1));
}

#[test]
fn the_hosts_namespace_and_a_tenants_are_no_workloads() {
    let Some(node) = Node::open("joined", 1) else { return };
    node.apply(&[
        tenant("ni1"),
        tenant("ni2"),
        network("ni1", "10.10.1.0/24", &[]),
        network("ni2", "10.10.1.0/24", &[]),
    ]);
    let host = format!("attach: {{ netns: {} }}", node.town.host.path().display());
    let other = format!("attach: {{ netns: {} }}", node.inside("ni2").display());
    let app = node.workload("ni1", "own");
    let attaches = [("host", host, "Pending"), ("other", other, "Pending"), ("own", app.attach(), "Ready")];
    for (last, (name, attach, phase)) in (21..).zip(attaches) {
        let card = format!("{{ network: net, interface: fief-in, address: 10.10.1.{last} }}");
        node.apply(&[endpoint("ni1", name, &[card], &attach)]);
        let view = node.wait_phase("endpoint", "ni1", name, phase);
        let reason = view["conditions"][0]["reason"].as_str();
        assert_eq!(reason, (phase == "Pending").then_some("WorkloadRefused"), "{view}");
    }
    assert!(app.has("fief-in"));
    assert!(!node.town.host.run(&["ip", "link", "show", "fief-in"]).success());
    assert!(!node.run_inside("ni2", &["ip", "link", "show", "fief-in"]).success());
}

#[test]
fn services_follow_their_network() {
    let Some(node) = Node::open("follow", 1) else { return };
    let net = |more: &[&str]| network("ni1", "10.10.1.0/24", more);
    node.apply(&[tenant("ni1"), net(&[])]);
    let [a, b] = [node.place("ni1", "app1", A), node.workload("ni1", "b")];
    let first = Ipv4Addr::new(10, 10, 1, 1);
    is_answered(&a, first);
    assert_eq!(a.dig(first, "app1"), [A]);
    // DHCP comes to a network that is served already; names and metadata stay.
    node.apply(&[net(&["dhcp: { range: 10.10.1.60-10.10.1.60 }"])]);
    node.apply(&[endpoint("ni1", "b", &[by_dhcp("net", "eth0")], &b.attach())]);
    assert_eq!(b.udhcpc("eth0").address, Ipv4Addr::new(10, 10, 1, 60));
    assert_eq!(a.dig(first, "b"), [Ipv4Addr::new(10, 10, 1, 60)]);
    assert!(a.fetch("http://169.254.169.254/latest/meta-data/local-ipv4").is_ok());
    // The gateway moves, and with it whoever listens there.
    let moved = Ipv4Addr::new(10, 10, 1, 254);
    node.apply(&[net(&["dhcp: {}", "gateways: [10.10.1.254]"])]);
    assert_eq!(a.dig(moved, "b"), [Ipv4Addr::new(10, 10, 1, 60)]);
    assert_eq!(a.dig(first, "b"), [] as [Ipv4Addr; 0]);
    assert_eq!(b.udhcpc("eth0").said("router"), Some("10.10.1.254"));
    a.ns.ip(&format!("route replace default via {moved}\n"));
    assert!(a.fetch("http://169.254.169.254/latest/meta-data/local-ipv4").is_ok());
}

#[test]
fn a_namespace_that_cannot_be_made_is_tried_again_and_not_without_pause() {
    let Some(node) = Node::open("nowhere", 1) else { return };
    let names = node.daemon.root().join("run/netns");
    std::fs::create_dir_all(names.parent().expect("a directory above"))
        .expect("the lab's directory is writable");
    std::fs::write(&names, "").expect("the lab's directory is writable");
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &[])]);
    let view = node.wait_phase("network", "ni1", "net", "Pending");
    assert_eq!(view["conditions"][0]["reason"], "NamespaceIncomplete", "{view}");
    // How often the daemon's threads went to sleep (proc(5), voluntary_ctxt_switches).
    let sleeps = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", node.daemon.pid())).expect("it runs");
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        };
        tasks.filter_map(of_task).sum()
    };
    let before = sleeps();
    wait(NEVER * 8);
    let more = sleeps() - before;
    assert!(more < 20, "it slept {more} times in two seconds");
    std::fs::remove_file(&names).expect("the lab's directory is writable");
    node.wait_phase("network", "ni1", "net", "Ready");
}
