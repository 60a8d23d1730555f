//! What must not pass, each beside what does. Every wall has a name that scripts/test-teeth.sh knows.

use std::net::Ipv4Addr;

use fief_testkit::{Capture, Captured, Frame, eventually, inject, is_markless, skip};

use crate::app::App;
use crate::node::{Node, endpoint, http, network, network_named, tenant};
use crate::room::{NEVER, SOON, wait};
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
/// Of the host, on every link.
const HOST: Ipv4Addr = Ipv4Addr::new(248, 0, 0, 1);

/// The address of a tenant's link that stands for the first uplink.
fn link(node: &Node, tenant: &str) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(248, 1, 0, 0)) | node.slot(tenant))
}

/// Two tenants with the same subnet and the same uplink, an endpoint each.
fn two(name: &str) -> Option<(Node, App, App)> {
    let node = Node::open(name, 2)?;
    let map = "portMaps: [{ uplink: eth0, port: 8080, to: \"b:80\" }]";
    node.apply(&[
        tenant("ni1"),
        tenant("ni2"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"]),
        network("ni2", "10.10.1.0/24", &["uplinks: [eth0]", map]),
    ]);
    let (a, b) = (node.place("ni1", "a", A), node.place("ni2", "b", B));
    Some((node, a, b))
}

fn is_ping_to(address: Ipv4Addr) -> impl Fn(&Captured) -> bool {
    move |frame| {
        let bytes = frame.bytes.as_slice();
        bytes.len() >= 35 && bytes[12..14] == [8, 0] && bytes[23] == 1 && bytes[30..34] == address.octets()
    }
}

/// Packets that a rule of a tenant's namespace has counted.
fn counted(node: &Node, tenant: &str, comment: &str) -> u64 {
    let listed = node.run_inside(tenant, &["nft", "list", "ruleset"]).ok().stdout;
    let line =
        listed.lines().find(|line| line.contains(comment)).unwrap_or_else(|| panic!("{comment}: {listed}"));
    let (_, packets) = line.split_once("packets ").expect("the rule counts");
    packets.split(' ').next().and_then(|number| number.parse().ok()).expect("a number of packets")
}

#[test]
fn a_source_that_is_another_tenants_does_not_leave_a_namespace() {
    let Some((node, a, _b)) = two("net-source") else { return };
    assert!(a.pings(Town::SITE));
    let stolen = link(&node, "ni2");
    node.run_inside("ni1", &["ip", "addr", "add", &format!("{stolen}/32"), "dev", "transit"]).ok();
    let wire = Capture::on(&node.town.gateways[0], "eth0");
    let ping = |from: Ipv4Addr| {
        node.run_inside("ni1", &["ping", "-c1", "-W1", "-I", &from.to_string(), &Town::SITE.to_string()])
    };
    ping(stolen).fails();
    wait(NEVER);
    assert_eq!(wire.count(is_ping_to(Town::SITE)), 0, "it left as {stolen}");
    ping(link(&node, "ni1")).ok();
    eventually(SOON, || match wire.count(is_ping_to(Town::SITE)) {
        0 => Err("its own does".to_owned()),
        _ => Ok(()),
    });
}

#[test]
fn nothing_leads_from_an_endpoint_to_the_host() {
    let Some((node, a, _b)) = two("net-host") else { return };
    let _server = node.town.serve(&node.town.host, "the host");
    let gateway = App::of(&node.town, node.town.gateways[0].clone());
    gateway.reaches(&http(Town::host_address(0)), "the host");
    for address in [Town::host_address(0), Town::host_address(1), HOST] {
        a.is_refused(&http(address));
        assert!(!a.pings(address), "{address}");
    }
    // The host itself gets answers over the same link.
    a.reaches(&http(Town::SITE), "site");
}

#[test]
fn one_tenants_packets_do_not_reach_anothers_link() {
    let Some((node, a, b)) = two("net-through") else { return };
    let _server = node.town.serve(&b.ns, "b");
    let refused = "services are for endpoints";
    let before = counted(&node, "ni2", refused);
    a.is_refused(&http(link(&node, "ni2")));
    wait(NEVER);
    assert_eq!(counted(&node, "ni2", refused), before, "it came as far as the other's namespace");
    // By the port map it does, and the count counts.
    a.reaches(&format!("http://{}:8080/", Town::host_address(0)), "b");
    App::of(&node.town, node.town.host.clone()).is_refused(&http(link(&node, "ni2")));
    assert!(counted(&node, "ni2", refused) > before);
}

#[test]
fn a_server_in_a_namespace_is_not_there_for_the_host() {
    let Some((node, a, b)) = two("net-gateway") else { return };
    let node_inside = node.inside("ni2").display().to_string();
    let peer = fief_testkit::peer().display().to_string();
    let mut server =
        node.town.host.spawn(&["nsenter", &format!("--net={node_inside}"), &peer, "serve", "[::]:7070"]);
    server.wait_for_output("ready", SOON);
    let called = |from: &App, address: Ipv4Addr| from.hears((address, 7070).into(), SOON);
    let host = App::of(&node.town, node.town.host.clone());
    assert!(host.hears((link(&node, "ni2"), 7070).into(), NEVER).is_err());
    called(&b, Ipv4Addr::new(10, 10, 1, 1)).unwrap_or_else(|error| panic!("its endpoints call it: {error}"));
    drop(a);
}

#[test]
fn an_endpoint_is_reached_by_port_maps_only() {
    let Some((node, _a, b)) = two("net-inwards") else { return };
    let _server = node.town.serve(&b.ns, "b");
    let host = &node.town.host;
    let (via, slot) = (link(&node, "ni2"), node.slot("ni2"));
    host.ip(&format!("route add 10.10.1.0/24 via {via} dev fief{slot} onlink\n"));
    let caller = App::of(&node.town, host.clone());
    // Not even one way: an answer would be stopped by the wall at the other end of the link.
    let wire = Capture::on(&b.ns, "eth0");
    assert!(!caller.pings(B));
    wait(NEVER);
    assert_eq!(wire.count(is_ping_to(B)), 0, "it came in");
    node.run_inside("ni2", &["ping", "-c1", "-W1", &B.to_string()]).ok();
    eventually(SOON, || match wire.count(is_ping_to(B)) {
        1 => Ok(()),
        seen => Err(format!("from inside it does: {seen} seen")),
    });
    caller.reaches(&format!("http://{}:8080/", Town::host_address(0)), "b");
}

#[test]
fn a_device_that_forwarded_nothing_forwards_tenants_packets_only() {
    for was in ["0", "1"] {
        let Some(town) = Town::open("net-closed", 2) else { return };
        town.host.set_sysctl("net.ipv4.conf.eth0.forwarding", was);
        let node = Node::in_town(town, "");
        node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"])]);
        let a = node.place("ni1", "a", A);
        assert!(a.pings(Town::SITE));
        assert_eq!(node.town.host.sysctl("net.ipv4.conf.eth0.forwarding"), "1");
        let stranger = App::of(&node.town, node.town.neighbour(0, "stranger", 9));
        let beyond = Town::gateway_address(1);
        let by_its_router = || if stranger.pings(beyond) { Ok(()) } else { Err("no answer".to_owned()) };
        eventually(SOON, by_its_router);
        stranger.ns.ip(&format!("route add {beyond}/32 via {}\n", Town::host_address(0)));
        // What the host did before fief it does still.
        assert_eq!(stranger.pings(beyond), was == "1", "through the host, where forwarding was {was}");
        node.daemon.cli(&["delete", "tenant", "ni1"]).ok();
        assert_eq!(node.town.host.sysctl("net.ipv4.conf.eth0.forwarding"), was);
    }
}

#[test]
fn a_network_without_a_way_out_is_told_so_beside_one_that_has_one() {
    let Some(node) = Node::open("net-exit", 1) else { return };
    node.apply(&[
        tenant("ni1"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"]),
        network_named("ni1", "shut", "10.10.2.0/24", &[]),
    ]);
    let open = node.place("ni1", "open", A);
    let shut = node.workload("ni1", "shut");
    let card = "{ network: shut, interface: eth0, address: 10.10.2.11 }";
    node.apply(&[endpoint("ni1", "shut", &[card.into()], &shut.attach())]);
    shut.wait_for("eth0");
    assert!(open.pings(Town::SITE));
    assert!(shut.pings(A), "they are one tenant's");
    let told = shut.ns.run(&["ping", "-c1", "-W1", &Town::SITE.to_string()]).fails().stdout;
    assert!(told.contains("Unreachable"), "silence: {told}");
    // With its neighbour's address it gets no further.
    shut.ns.ip("addr add 10.10.1.77/32 dev lo\n");
    let wire = Capture::on(&node.town.gateways[0], "eth0");
    shut.ns.run(&["ping", "-c1", "-W1", "-I", "10.10.1.77", &Town::SITE.to_string()]).fails();
    wait(NEVER);
    assert_eq!(wire.count(is_ping_to(Town::SITE)), 0, "it left as its neighbour");
}

#[test]
fn a_source_of_a_link_does_not_come_from_a_wire() {
    let Some(town) = Town::open("net-wire", 2) else { return };
    // A host that forwards anyway.
    town.host.set_sysctl("net.ipv4.ip_forward", 1);
    let node = Node::in_town(town, "");
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"])]);
    let a = node.place("ni1", "a", A);
    assert!(a.pings(Town::SITE));
    let town = &node.town;
    let wire = Capture::on(&town.gateways[0], "eth0");
    let head = || Frame::new(town.gateways[1].mac("eth0"), town.host.mac("eth1"));
    for (source, text) in [(link(&node, "ni1"), "forged"), (Town::gateway_address(1), "honest")] {
        let frame = head().ip(source, Town::SITE).udp(4000, 9, text.as_bytes());
        inject(&town.gateways[1], "eth0", &frame);
    }
    assert!(wire.wait_for(b"honest", SOON), "the host forwards");
    wait(NEVER);
    assert!(!wire.contains(b"forged"), "it left as a tenant's does");
}

#[test]
fn the_rules_of_networks_are_known_as_fiefs() {
    if is_markless() {
        return skip("where fief writes no marks there is nothing to tell apart");
    }
    let Some((node, _a, _b)) = two("net-marks") else { return };
    node.daemon.cli(&["marks", "check"]).ok();
    let foreign = "table inet else {
 chain c {
  type filter hook forward priority 0
  meta mark set 3
 }
}
";
    node.town.host.nft(foreign);
    let told = node.daemon.cli(&["marks", "check"]).fails();
    assert!(told.stdout.contains("inet else c") && !told.stdout.contains("inet fief"), "{told}");
}
