//! Switches: endpoints on a segment outside, with addresses from there.

use std::net::Ipv4Addr;

use fief_testkit::{Snapshot, eventually};

use crate::app::App;
use crate::flow::Flow;
use crate::machine::{Machine, in_namespace, tap};
use crate::node::{Node, http, tenant};
use crate::room::{NEVER, SOON, wait};
use crate::town::Town;
use crate::yard::{is_answered, member, node, place, ports, reasons, switch, wait_reasons, wait_same};

const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 61);
const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 62);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 99);

/// A node with a switch of tenant `ni6` on eth1, which is the host's no more.
#[track_caller]
fn one(name: &str) -> Option<Node> {
    let node = node(Town::open(name, 2)?, &[1]);
    node.apply(&[tenant("ni6"), switch("ni6", &["uplinks: [eth1]"])]);
    Some(node)
}

/// NI6 and app6 of the topology.
#[test]
fn switch_ni6_has_its_addresses_from_the_server_outside() {
    let Some(town) = Town::whole("ni6") else { return };
    let node = node(town, &[3]);
    let app = node.workload("ni6", "app6");
    node.apply(&[tenant("ni6"), switch("ni6", &["uplinks: [eth3]"]), member("ni6", "app6", &app.attach())]);
    let lease = app.udhcpc("eth0");
    let [.., third, last] = lease.address.octets();
    assert!(third == 3 && (50..=150).contains(&last), "{}", lease.address);
    assert_eq!((lease.said("mtu"), lease.said("ntpsrv")), (Some("1400"), Some("192.0.2.123")));
    // Nobody translates it.
    assert_eq!(app.reaches(&http(Town::SITE), "site"), lease.address);
    is_answered(&App::of(&node.town, node.town.gateways[3].clone()), lease.address);
    node.wait_phase("network", "ni6", "lan", "Ready");
    node.wait_phase("endpoint", "ni6", "app6", "Ready");
    assert_eq!(ports(&node, "ni6"), [("eth3".into(), "forwarding".into())]);
    let shown = node.daemon.cli(&["get", "networks"]).ok().stdout;
    let row: Vec<&str> = shown.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..4], ["ni6/lan", "switch", "-", "eth3"], "{shown}");
}

#[test]
fn switch_endpoints_are_namespaces_processes_and_machines() {
    let Some(node) = one("kinds") else { return };
    let neighbour = App::of(&node.town, node.town.neighbour(1, "neighbour", 99));
    let a = place(&node, "ni6", "a", A);
    let b = node.workload("ni6", "b");
    let sleeper = b.ns.spawn(&["sleep", "1000"]);
    let mac = "02:00:00:00:00:63";
    let machine = "{ network: lan, mac: \"02:00:00:00:00:63\" }".to_owned();
    node.apply(&[
        member("ni6", "b", &format!("attach: {{ pid: {} }}", sleeper.pid())),
        crate::node::endpoint("ni6", "c", &[machine], "attach: { tap: vm6 }"),
    ]);
    b.wait_for("eth0");
    b.ns.ip(&format!("addr add {B}/24 dev eth0\n"));
    let card = eventually(SOON, || {
        in_namespace(&node.inside("ni6"), || tap("vm6")).and_then(|tap| tap).map_err(|e| e.to_string())
    });
    let c = node.workload("ni6", "c");
    let _machine = Machine::start(card, &c.ns, mac);
    let third = Ipv4Addr::new(192, 168, 1, 63);
    c.ns.ip(&format!("addr add {third}/24 dev eth0\n"));
    for (from, to) in [(&a, B), (&a, third), (&b, third), (&a, NEIGHBOUR), (&b, NEIGHBOUR), (&c, NEIGHBOUR)] {
        is_answered(from, to);
    }
    for to in [A, B, third] {
        is_answered(&neighbour, to);
    }
}

#[test]
fn switch_does_not_take_a_device_that_has_the_hosts_addresses() {
    let Some(town) = Town::open("owned", 2) else { return };
    let node = node(town, &[]);
    let before = node.town.host.sh("ip addr show eth1").ok().stdout;
    node.apply(&[tenant("ni6"), switch("ni6", &["uplinks: [eth1]"])]);
    wait_reasons(&node, "network", "ni6", "lan", &["AddressesOnPort"]);
    let said = node.view("network", "ni6", "lan")["status"]["conditions"][0]["message"].to_string();
    assert!(said.contains("eth1 has address 192.168.1.2/24 of this host"), "{said}");
    let app = place(&node, "ni6", "a", A);
    wait(NEVER);
    assert_eq!(node.town.host.sh("ip addr show eth1").ok().stdout, before);
    let host = App::of(&node.town, node.town.host.clone());
    assert!(host.pings(Town::gateway_address(1)), "the host has lost its own segment");
    assert!(!app.pings(Town::gateway_address(1)));
    // A route alone will do.
    node.town.host.ip("addr flush dev eth1\nroute add 203.0.113.0/24 dev eth1\n");
    eventually(SOON, || {
        let said = node.view("network", "ni6", "lan")["status"]["conditions"][0]["message"].to_string();
        if said.contains("a route to 203.0.113.0/24") { Ok(()) } else { Err(said) }
    });
    // The positive control: it is taken when it is free, and stays when an address comes.
    node.town.host.ip("route del 203.0.113.0/24 dev eth1\n");
    is_answered(&app, Town::gateway_address(1));
    node.wait_phase("network", "ni6", "lan", "Ready");
    node.town.host.ip("addr add 192.168.1.2/24 dev eth1\n");
    wait_reasons(&node, "network", "ni6", "lan", &["AddressesOnPort"]);
    is_answered(&app, Town::gateway_address(1));
}

#[test]
fn switch_waits_while_bridged_frames_pass_the_hosts_iptables() {
    let Some(town) = Town::open("bridged", 2) else { return };
    let node = node(town, &[1]);
    node.town.host.set_sysctl("net.bridge.bridge-nf-call-iptables", 1);
    node.apply(&[tenant("ni6"), switch("ni6", &["uplinks: [eth1]"])]);
    wait_reasons(&node, "network", "ni6", "lan", &["BridgeNetfilter"]);
    assert_eq!(ports(&node, "ni6"), [("eth1".into(), "absent".into())]);
    node.town.host.set_sysctl("net.bridge.bridge-nf-call-iptables", 0);
    // Nothing tells of a sysctl; what is missing is looked for again after five seconds at the latest.
    node.wait_phase("network", "ni6", "lan", "Ready");
}

#[test]
fn switch_takes_a_device_when_it_comes_and_when_it_comes_again() {
    let Some(node) = one("plugged") else { return };
    let a = place(&node, "ni6", "a", A);
    is_answered(&a, Town::gateway_address(1));
    for _ in 0..2 {
        node.town.host.ip("link del eth1\n");
        wait_reasons(&node, "network", "ni6", "lan", &["DeviceMissing"]);
        assert!(!a.pings(Town::gateway_address(1)));
        node.town.segments[1].attach(&node.town.host, "eth1");
        is_answered(&a, Town::gateway_address(1));
        node.wait_phase("network", "ni6", "lan", "Ready");
    }
    // Somebody takes it out: it is put back.
    node.town.host.ip("link set eth1 nomaster\n");
    is_answered(&a, Town::gateway_address(1));
    // It takes shorter packets than the network has: that is said, and the others pass.
    node.town.host.ip("link set eth1 mtu 1400\n");
    wait_reasons(&node, "network", "ni6", "lan", &["MtuTooSmall"]);
    is_answered(&a, Town::gateway_address(1));
    node.apply(&[switch("ni6", &["uplinks: [eth1]", "mtu: 1400"])]);
    node.wait_phase("network", "ni6", "lan", "Ready");
    let cable = node.town.host.sh("ip -o link show group 241").ok().stdout;
    assert!(cable.lines().any(|line| line.contains("fiefc") && line.contains("mtu 1400")), "{cable}");
    node.town.host.ip("link set eth1 mtu 1500\n");
    // And somebody's own bridge keeps it.
    node.apply(&[switch("ni6", &["uplinks: []"])]);
    node.town.host.ip("link add other type bridge\nlink set eth1 master other\n");
    node.apply(&[switch("ni6", &["uplinks: [eth1]"])]);
    wait_reasons(&node, "network", "ni6", "lan", &["PortTaken"]);
    node.town.host.ip("link del other\n");
    is_answered(&a, Town::gateway_address(1));
    assert_eq!(reasons(&node, "network", "ni6", "lan"), [] as [String; 0]);
}

#[test]
fn switch_frames_flow_while_the_daemon_is_dead() {
    let Some(mut node) = one("outlives") else { return };
    let a = place(&node, "ni6", "a", A);
    let b = place(&node, "ni6", "b", B);
    let neighbour = App::of(&node.town, node.town.neighbour(1, "neighbour", 99));
    let _echoes = [b.echo(7000), neighbour.echo(7000)];
    let flows = [B, NEIGHBOUR].map(|to| Flow::start(&a.ns, (to, 7000).into()));
    let host = Snapshot::of(&node.town.host);
    for _ in 0..3 {
        node.daemon.kill9();
        is_answered(&neighbour, A);
        node.daemon.restart();
        node.wait_phase("network", "ni6", "lan", "Ready");
        is_answered(&neighbour, A);
    }
    // The same again, and another endpoint beside.
    node.apply(&[switch("ni6", &["uplinks: [eth1]"])]);
    host.assert_same(&Snapshot::of(&node.town.host));
    let c = place(&node, "ni6", "c", Ipv4Addr::new(192, 168, 1, 64));
    is_answered(&c, NEIGHBOUR);
    let tallies = flows.map(Flow::finish);
    // What arrived and was dropped because its reader was late, on a machine that does other things, is not lost.
    let late: u64 = [&a, &b, &neighbour].iter().map(|app| late(&app.ns)).sum();
    let lost: usize = tallies.iter().map(|tally| tally.lost.len()).sum();
    assert!(tallies.iter().all(|tally| tally.sent > 100), "{tallies:?}");
    assert!(lost as u64 <= late, "{lost} lost, and {late} only were late: {tallies:?}");
}

/// Datagrams that found the receiving socket's buffer full (UdpRcvbufErrors, snmp_counter.rst).
#[track_caller]
fn late(ns: &fief_testkit::Ns) -> u64 {
    let text = ns.sh("grep ^Udp: /proc/net/snmp").ok().stdout;
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.zip(values).find(|(name, _)| *name == "RcvbufErrors");
    found.and_then(|(_, value)| value.parse().ok()).expect("a counter is a number")
}

#[test]
fn switch_that_is_deleted_leaves_nothing() {
    let Some(town) = Town::open("gone", 3) else { return };
    let node = node(town, &[1, 2]);
    let before = Snapshot::of(&node.town.host);
    let app = node.workload("ni6", "a");
    let bare = Snapshot::of(&app.ns);
    for round in 0..2 {
        node.apply(&[
            tenant("ni6"),
            switch("ni6", &["uplinks: [eth1, eth2]", "stp: false"]),
            member("ni6", "a", &app.attach()),
        ]);
        node.wait_phase("network", "ni6", "lan", "Ready");
        assert_eq!(ports(&node, "ni6").len(), 2);
        // One port less, then none.
        node.apply(&[switch("ni6", &["uplinks: [eth2]"])]);
        let shown = node.town.host.sh("ip -d link show eth1").ok().stdout;
        assert!(!shown.contains("bridge_slave"), "round {round}: {shown}");
        node.daemon.cli(&["delete", "endpoint", "ni6/a"]).ok();
        node.daemon.cli(&["delete", "network", "ni6/lan"]).ok();
        node.daemon.cli(&["delete", "tenant", "ni6"]).ok();
        wait_same(&node, &before);
        bare.assert_same(&Snapshot::of(&app.ns));
    }
}

/// Some kernels, that of the machine that runs this test among them, have no VLANs; `make test-vm` has.
#[test]
fn switch_on_a_vlan_says_that_this_kernel_has_none() {
    let Some(town) = Town::open("no-vlan", 2) else { return };
    if town.host.sh("ip link add link eth1 name probe type vlan id 7 && ip link del probe").success() {
        return fief_testkit::skip("this kernel has 802.1q devices");
    }
    let node = node(town, &[]);
    node.apply(&[tenant("ni6"), switch("ni6", &["uplinks: [eth1]", "vlan: 20"])]);
    // The host's addresses on the device are no matter: they have no tag.
    wait_reasons(&node, "network", "ni6", "lan", &["VlanUnsupported"]);
}
