//! What a switch keeps apart: other switches, the host, the tenant's other networks, the trees and VLANs outside.
//!
//! Who is sent a frame is seen on the wire: an uplink's segment is a bridge that hides nothing.

use std::net::Ipv4Addr;

use fief_testkit::frame::{BROADCAST, Frame};
use fief_testkit::{Capture, eventually, inject};

use crate::app::App;
use crate::node::{Node, network_named, tenant};
use crate::room::{NEVER, SOON, wait};
use crate::town::Town;
use crate::yard::{is_answered, member, node, place, reasons, switch};

const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 61);
const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 62);
/// EtherType for experiments (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;
/// The spanning tree's group address, and the shortest message there is: a change of the topology (IEEE 802.1D,
/// 9.3.2), behind the header of IEEE 802.2.
const TREE: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
const CHANGE: [u8; 7] = [0x42, 0x42, 0x03, 0, 0, 0, 0x80];

/// Two tenants with a switch each, on eth1 and eth2, and a third network beside the first one.
#[track_caller]
fn two(name: &str) -> Option<(Node, [App; 3])> {
    let node = node(Town::open(name, 3)?, &[1, 2]);
    node.apply(&[
        tenant("ni6"),
        tenant("ni7"),
        switch("ni6", &["uplinks: [eth1]"]),
        switch("ni7", &["uplinks: [eth2]"]),
        network_named("ni6", "net", "10.10.1.0/24", &["uplinks: [eth0]"]),
    ]);
    let a = place(&node, "ni6", "a", A);
    let b = place(&node, "ni6", "b", B);
    let other = place(&node, "ni7", "a", Ipv4Addr::new(192, 168, 2, 61));
    is_answered(&a, Town::gateway_address(1));
    is_answered(&other, Town::gateway_address(2));
    Some((node, [a, b, other]))
}

/// A frame that nobody understands, with a word in it.
fn said(from: [u8; 6], to: [u8; 6], word: &str) -> Vec<u8> {
    Frame::new(from, to).payload(EXPERIMENT, format!("{word:-<60}").as_bytes())
}

#[test]
fn switch_frames_reach_no_other_switch_and_not_the_host() {
    let Some((node, [a, b, other])) = two("apart") else { return };
    let host = &node.town.host;
    let own = Capture::on(&node.town.segments[1].ns, "p0");
    let beside = Capture::on(&b.ns, "eth0");
    let foreign = ["p0"].map(|port| Capture::on(&node.town.segments[2].ns, port));
    let others = Capture::on(&other.ns, "eth0");
    inject(&a.ns, "eth0", &said(a.ns.mac("eth0"), BROADCAST, "everybody"));
    assert!(own.wait_for(b"everybody", SOON) && beside.wait_for(b"everybody", SOON));
    wait(NEVER);
    assert!(!foreign[0].contains(b"everybody") && !others.contains(b"everybody"));

    // The host has these addresses, on other devices. It would answer for them on any (ip-sysctl.rst, arp_ignore).
    let asks = |app: &App, address: Ipv4Addr| {
        let busybox = node.town.tools.busybox.display().to_string();
        let words = [&busybox, "arping", "-c", "2", "-w", "2", "-I", "eth0"];
        app.ns.run(&[&words[..], &[&address.to_string()]].concat()).success()
    };
    assert!(asks(&a, Town::gateway_address(1)), "the positive control: the router answers");
    assert!(!asks(&a, Town::host_address(0)), "the host answers an endpoint");
    let outside = App::of(&node.town, node.town.gateways[1].clone());
    assert!(!asks(&outside, Town::host_address(0)), "the host answers from a switch's port");
    // Nor does the tenant's namespace, for its other network's gateway. Asked by somebody without an address (RFC 5227)
    // the kernel does not look whether he may be there.
    let probed = |app: &App, address: Ipv4Addr| {
        let ear = Capture::on(&app.ns, "eth0");
        let probe = Frame::new(app.ns.mac("eth0"), BROADCAST).arp_request(Ipv4Addr::UNSPECIFIED, address);
        inject(&app.ns, "eth0", &probe);
        wait(NEVER);
        // RFC 826: EtherType, operation, and whose address it is.
        let is_answer = |bytes: &[u8]| {
            bytes.get(12..14) == Some(&[8, 6])
                && bytes.get(20..22) == Some(&[0, 2])
                && bytes.get(28..32) == Some(&address.octets())
        };
        ear.count(|frame| is_answer(&frame.bytes)) > 0
    };
    assert!(probed(&a, Town::gateway_address(1)), "the positive control: the router answers");
    for app in [&a, &outside] {
        assert!(!probed(app, Ipv4Addr::new(10, 10, 1, 1)), "the gateway of another network answers");
    }
    // Packets to the bridges' own Ethernet addresses.
    let bridge =
        node.view("network", "ni6", "lan")["status"]["trunk"].as_str().unwrap_or_default().to_owned();
    let heard = host.enter(|| std::net::UdpSocket::bind("0.0.0.0:7777")).expect("a port is free");
    heard.set_read_timeout(Some(NEVER)).expect("a socket has a time-out");
    for mac in [host.mac(&bridge), host.mac("eth1")] {
        let frame =
            Frame::new(outside.ns.mac("eth0"), mac).ip(Town::gateway_address(1), Town::host_address(0));
        inject(&outside.ns, "eth0", &frame.udp(1, 7777, b"to the host"));
    }
    let everybody =
        Frame::new(outside.ns.mac("eth0"), BROADCAST).ip(Town::gateway_address(1), "255.255.255.255");
    inject(&outside.ns, "eth0", &everybody.udp(1, 7777, b"to everybody"));
    let mut buffer = [0; 64];
    let got = heard.recv(&mut buffer).map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
    assert!(got.is_err(), "the host heard {got:?} from a switch's port");
    // The positive control: on its own uplink it hears.
    let neighbour = node.town.neighbour(0, "neighbour", 99);
    let frame = Frame::new(neighbour.mac("eth0"), host.mac("eth0")).ip("192.168.0.99", Town::host_address(0));
    heard.set_read_timeout(Some(SOON)).expect("a socket has a time-out");
    inject(&neighbour, "eth0", &frame.udp(1, 7777, b"to the host"));
    let got = heard.recv(&mut buffer).map(|length| buffer[..length].to_vec());
    assert_eq!(got.ok().as_deref(), Some(&b"to the host"[..]));
}

#[test]
fn switch_endpoints_send_no_tags() {
    let Some((node, [a, b, _])) = two("tags") else { return };
    let wire = Capture::on(&node.town.segments[1].ns, "p0");
    let beside = Capture::on(&b.ns, "eth0");
    let mac = a.ns.mac("eth0");
    let tagged = |from, word: &str| {
        Frame::new(from, BROADCAST).vlan(20).payload(EXPERIMENT, format!("{word:-<60}").as_bytes())
    };
    inject(&a.ns, "eth0", &tagged(mac, "hopping"));
    inject(&a.ns, "eth0", &said(mac, BROADCAST, "control"));
    assert!(wire.wait_for(b"control", SOON) && beside.wait_for(b"control", SOON));
    assert!(!wire.contains(b"hopping") && !beside.contains(b"hopping"), "a tag came out");
    // Nor do they hear other VLANs of the wire.
    let gateway = &node.town.gateways[1];
    inject(gateway, "eth0", &tagged(gateway.mac("eth0"), "another"));
    inject(gateway, "eth0", &said(gateway.mac("eth0"), BROADCAST, "untagged"));
    assert!(beside.wait_for(b"untagged", SOON));
    assert!(!beside.contains(b"another"), "a frame of another VLAN reached an endpoint");
}

#[test]
fn switch_endpoint_that_speaks_as_somebody_else_harms_itself_only() {
    let Some((node, [a, b, _])) = two("spoofed") else { return };
    let gateway = App::of(&node.town, node.town.gateways[1].clone());
    let wire = Capture::on(&node.town.segments[1].ns, "p0");
    inject(&b.ns, "eth0", &said(a.ns.mac("eth0"), BROADCAST, "spoofed"));
    inject(&b.ns, "eth0", &said(gateway.ns.mac("eth0"), BROADCAST, "spoofed"));
    inject(&b.ns, "eth0", &said(b.ns.mac("eth0"), BROADCAST, "control"));
    assert!(wire.wait_for(b"control", SOON));
    assert!(!wire.contains(b"spoofed"));
    is_answered(&a, Town::gateway_address(1));
    // Somebody outside with an endpoint's address does not take its frames from its neighbours here.
    let beside = Capture::on(&a.ns, "eth0");
    for _ in 0..20 {
        inject(&gateway.ns, "eth0", &said(a.ns.mac("eth0"), BROADCAST, "it is me"));
        inject(&b.ns, "eth0", &said(b.ns.mac("eth0"), a.ns.mac("eth0"), "for a only"));
    }
    assert!(beside.wait_for(b"for a only", SOON));
    wait(NEVER);
    assert_eq!(beside.count(|frame| frame.contains(b"for a only")), 20);
    assert!(!wire.contains(b"for a only"), "a frame between endpoints left by the uplink");
}

#[test]
fn switch_endpoint_that_speaks_the_trees_language_loses_its_port() {
    let Some((node, [a, b, _])) = two("guard") else { return };
    let wire = Capture::on(&node.town.segments[1].ns, "p0");
    // LLDP and the like stay where they are, and cost nobody his port.
    let near = [0x01, 0x80, 0xc2, 0, 0, 0x0e];
    inject(&a.ns, "eth0", &said(a.ns.mac("eth0"), near, "neighbour"));
    is_answered(&a, B);
    assert!(!wire.contains(b"neighbour"));
    assert_eq!(reasons(&node, "endpoint", "ni6", "a"), [] as [String; 0]);

    let message = [&CHANGE[..], b"a change of the tree", &[0; 26]].concat();
    inject(&a.ns, "eth0", &Frame::new(a.ns.mac("eth0"), TREE).payload(CHANGE.len() as u16, &message));
    eventually(SOON, || {
        let found = reasons(&node, "endpoint", "ni6", "a");
        if found == ["BpduSeen"] { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert!(!a.pings(B) && !b.pings(A) && !a.pings(Town::gateway_address(1)), "its port is open");
    let ear = Capture::on(&a.ns, "eth0");
    inject(&b.ns, "eth0", &said(b.ns.mac("eth0"), BROADCAST, "news"));
    assert!(wire.wait_for(b"news", SOON));
    assert!(!ear.contains(b"news") && !wire.contains(b"a change of the tree"));
    // The others have noticed nothing.
    is_answered(&b, Town::gateway_address(1));
    assert_eq!(reasons(&node, "endpoint", "ni6", "b"), [] as [String; 0]);
    node.wait_phase("network", "ni6", "lan", "Ready");
    // The pause is the kernel's own.
    let frames = node.run_inside("ni6", &["nft", "list", "set", "bridge", "fief", "guarded"]).ok().stdout;
    assert!(frames.contains("timeout 5m") && frames.contains("expires"), "{frames}");
    // Made again, it is open again.
    drop(ear);
    node.daemon.cli(&["delete", "endpoint", "ni6/a"]).ok();
    node.apply(&[member("ni6", "a", &a.attach())]);
    a.wait_for("eth0");
    a.ns.ip(&format!("addr add {A}/24 dev eth0\n"));
    is_answered(&a, B);
    is_answered(&a, Town::gateway_address(1));
    assert_eq!(reasons(&node, "endpoint", "ni6", "a"), [] as [String; 0]);
    // And so it is when the pause is over.
    inject(&a.ns, "eth0", &Frame::new(a.ns.mac("eth0"), TREE).payload(CHANGE.len() as u16, &message));
    assert!(!a.pings(B));
    node.run_inside("ni6", &["nft", "flush", "set", "bridge", "fief", "guarded"]).ok();
    is_answered(&a, B);
}
