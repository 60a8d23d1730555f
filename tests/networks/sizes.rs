//! How long a packet may be: on both ends of a port, and of TCP on the way out.

use std::net::Ipv4Addr;
use std::time::Duration;

use fief_testkit::{Capture, Captured, Dial, Ns, eventually};

use crate::flow::Flow;
use crate::node::{Node, network, network_named, tenant};
use crate::room::{SOON, wait};
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const ECHO: u16 = 7000;

#[track_caller]
fn mtu(ns: &Ns, device: &str) -> u64 {
    let shown = ns.run(&["ip", "-j", "link", "show", device]).ok().json();
    shown[0]["mtu"].as_u64().unwrap_or_else(|| panic!("no MTU in {shown}"))
}

#[track_caller]
fn mtu_inside(node: &Node, device: &str) -> u64 {
    let shown = node.run_inside("ni1", &["ip", "-j", "link", "show", device]).ok().json();
    shown[0]["mtu"].as_u64().unwrap_or_else(|| panic!("no MTU in {shown}"))
}

#[test]
fn another_mtu_is_set_on_both_ends_of_ports_that_stand() {
    let Some(mut node) = Node::open("mtu", 1) else { return };
    let net = |mtu: u32| network("ni1", "10.10.1.0/24", &["uplinks: [eth0]", &format!("mtu: {mtu}")]);
    node.apply(&[tenant("ni1"), net(1500)]);
    let (a, b) = (node.place("ni1", "a", A), node.place("ni1", "b", B));
    let _echo = b.echo(ECHO);
    let all = |node: &Node| {
        [
            mtu(&a.ns, "eth0"),
            mtu(&b.ns, "eth0"),
            mtu_inside(node, "e-a"),
            mtu_inside(node, "e-b"),
            mtu_inside(node, "n-net"),
        ]
    };
    assert_eq!(all(&node), [1500; 5]);
    let flow = Flow::start(&a.ns, (B, ECHO).into());
    for size in [1400, 1500, 1300] {
        node.apply(&[net(size)]);
        assert_eq!(all(&node), [u64::from(size); 5]);
        wait(Duration::from_millis(50));
    }
    flow.lost_nothing();
    // What a workload sets itself is its own affair, until the network is another.
    a.ns.ip("link set eth0 mtu 1280\n");
    let card = format!("{{ network: net, interface: eth0, address: {B} }}");
    let labelled = crate::node::endpoint("ni1", "b", &[card], &b.attach())
        .replace("name: b,", "name: b, labels: { x: y },");
    node.apply(&[labelled]);
    assert_eq!(mtu(&a.ns, "eth0"), 1280);
    // By another name it is the same interface; and a daemon that was dead meanwhile knows no less.
    a.ns.ip("link set eth0 down\nlink set eth0 name lan0\nlink set lan0 up\n");
    node.daemon.kill9();
    node.daemon.restart();
    assert_eq!((mtu(&a.ns, "lan0"), mtu_inside(&node, "e-a")), (1280, 1300));
    node.apply(&[net(1400)]);
    assert_eq!((mtu(&a.ns, "lan0"), mtu_inside(&node, "e-a")), (1400, 1400));
}

/// The largest segment that the opening packets of connections with this port name, there and back.
fn sizes(frames: &[Captured], port: u16) -> Vec<u16> {
    let size = |frame: &Captured| {
        // An IPv4 header without options; SYN is the second bit; Linux puts the size in front of all options.
        let tcp = frame.bytes.get(34..58).filter(|_| frame.bytes.get(23) == Some(&6))?;
        let word = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let is_open = tcp[13] & 2 != 0 && [word(0), word(2)].contains(&port);
        (is_open && tcp[20..22] == [2, 4]).then(|| word(22))
    };
    frames.iter().filter_map(size).collect()
}

#[test]
fn segments_are_lowered_to_what_the_way_takes_or_to_less() {
    let Some(node) = Node::open("mss", 1) else { return };
    let net =
        |name: &str, subnet: &str, more: &str| network_named("ni1", name, subnet, &["uplinks: [eth0]", more]);
    node.apply(&[tenant("ni1"), net("net", "10.10.1.0/24", ""), net("low", "10.10.2.0/24", "mss: 1200")]);
    let a = node.place("ni1", "a", A);
    let b = node.workload("ni1", "b");
    let card = "{ network: low, interface: eth0, address: 10.10.2.12 }".to_owned();
    node.apply(&[crate::node::endpoint("ni1", "b", &[card], &b.attach())]);
    node.wait_phase("endpoint", "ni1", "b", "Ready");
    let _beyond = crate::app::App::of(&node.town, node.town.site.clone()).echo(ECHO);
    // What the gateway is asked for, and what the workload is answered.
    let opened = |ns: &Ns| {
        let captures = [Capture::on(&node.town.gateways[0], "eth0"), Capture::on(ns, "eth0")];
        let dial = Dial::to((Town::SITE, ECHO).into());
        eventually(SOON, || ns.enter(|| dial.tcp(b"hello")).map_err(|error| error.to_string()));
        let [outside, inside] = captures.map(|capture| sizes(&capture.stop(), ECHO));
        assert!(!outside.is_empty() && inside.len() >= 2, "{outside:?} {inside:?}");
        (outside[0], inside[1])
    };
    let wide = 1460;
    assert_eq!(opened(&a.ns), (wide, wide));
    assert_eq!(opened(&b.ns), (1200, 1200), "the network's own number");
    // An uplink that takes less than its wire: neither end hears of it by itself.
    node.town.host.ip("link set eth0 mtu 1400\n");
    assert_eq!(opened(&a.ns), (1360, 1360));
    assert_eq!(opened(&b.ns), (1200, 1200));
    // A number never raises what the way takes.
    node.apply(&[net("low", "10.10.2.0/24", "mss: 1400")]);
    assert_eq!(opened(&b.ns), (1360, 1360));
    // Nor what the network itself takes.
    node.town.host.ip("link set eth0 mtu 1500\n");
    node.apply(&[net("net", "10.10.1.0/24", "mtu: 1300")]);
    assert_eq!(opened(&a.ns), (1260, 1260));
    node.apply(&[net("low", "10.10.2.0/24", "mss: auto")]);
    assert_eq!(opened(&b.ns), (wide, wide));
}
