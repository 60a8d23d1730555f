//! The port map, from every side of the box.

use std::net::Ipv4Addr;

use fief_testkit::{Capture, Captured};

use super::{Evenet, NI1_GATEWAY, NI2_GATEWAY, PORT_MAP};
use crate::app::App;
use crate::conntrack::{Entry, all_in, opened};
use crate::room::MOVE;
use crate::town::Town;

/// A port of the same address that nothing is mapped from.
const UNMAPPED: &str = "http://192.168.0.2:8081/";

/// Connections that app2's web server answers.
fn answered(entries: &[Entry], app2: Ipv4Addr) -> Vec<&Entry> {
    entries.iter().filter(|entry| entry.back.from == app2 && entry.back.from_port == 80).collect()
}

/// What was called is in the zone of the uplink, and what it became is in NI2's.
#[track_caller]
fn is_mapped(scene: &Evenet) {
    let host = scene.node.host_entries();
    all_in("uplink", &opened(&host, Town::host_address(0), 8080), 0);
    let entries = scene.node.entries("ni2");
    all_in("NI2", &answered(&entries, scene.second.address), scene.node.slot("ni2"));
}

/// Is this a frame of TCP to the port map?
fn is_call(frame: &Captured) -> bool {
    let bytes = frame.bytes.as_slice();
    bytes.len() >= 38
        && bytes[12..14] == [0x08, 0x00]
        && bytes[23] == 6
        && bytes[30..34] == Town::host_address(0).octets()
        && bytes[36..38] == 8080_u16.to_be_bytes()
}

#[test]
pub fn evenet_e05() {
    let Some(scene) = Evenet::open("e05", "") else { return };
    scene.route_app1("eth0", NI1_GATEWAY);
    let wire = Capture::on(&scene.node.town.gateways[0], "eth0");
    scene.app1.reaches(PORT_MAP, "app2");
    is_mapped(&scene);
    let entries = scene.node.entries("ni1");
    let ours = opened(&entries, Town::host_address(0), 8080);
    all_in("NI1", &ours, scene.node.slot("ni1"));
    assert!(ours.iter().all(|entry| entry.there.from == scene.one.address), "{ours:#?}");
    assert_eq!(wire.count(is_call), 0, "it stays in the box");
    scene.app1.is_refused(UNMAPPED);
}

/// Decided so: a port map is there for everybody who can reach the uplink's address, the network that it leads into
/// among them.
#[test]
pub fn evenet_e06() {
    let Some(scene) = Evenet::open("e06", "") else { return };
    scene.route_app1("eth1", NI2_GATEWAY);
    scene.app1.reaches(PORT_MAP, "app2");
    // And app2 itself, by the same way.
    scene.app2.reaches(PORT_MAP, "app2");
    is_mapped(&scene);
    let entries = scene.node.entries("ni1");
    assert!(opened(&entries, Town::host_address(0), 8080).is_empty(), "not by NI1: {entries:#?}");
    scene.app1.is_refused(UNMAPPED);
    scene.route_app1("eth0", NI1_GATEWAY);
    scene.app1.reaches(PORT_MAP, "app2");
    let entries = scene.node.entries("ni1");
    all_in("by NI1", &opened(&entries, Town::host_address(0), 8080), scene.node.slot("ni1"));
}

#[test]
pub fn evenet_e10() {
    let Some(scene) = Evenet::open("e10", MOVE) else { return };
    let (app3, lease, _machine) = scene.app3();
    let out = Capture::on(&scene.node.town.gateways[1], "eth0");
    let back = Capture::on(&scene.node.town.gateways[0], "eth0");
    let seen = app3.reaches(PORT_MAP, "app2");
    // Its source was eth1's address, which is one of NI2's subnet: app2 would look for it on its own segment.
    for taken in [[192, 168, 1], [10, 10, 1]] {
        assert_ne!(seen.octets()[..3], taken, "app2 sees {seen}");
    }
    assert!(out.count(is_call) > 0, "it leaves the box");
    assert!(back.count(is_call) > 0, "and comes back");
    assert_eq!(app3.address("eth0"), Some(lease.address));
    is_mapped(&scene);
    let entries = scene.node.entries("ni3");
    all_in("NI3", &opened(&entries, Town::host_address(0), 8080), scene.node.slot("ni3"));
    app3.is_refused(UNMAPPED);
}

#[test]
pub fn evenet_e19() {
    let Some(scene) = Evenet::open("e19", "") else { return };
    let [gateway, other] = [0, 1].map(|i| App::of(&scene.node.town, scene.node.town.gateways[i].clone()));
    gateway.reaches(PORT_MAP, "app2");
    is_mapped(&scene);
    gateway.is_refused(UNMAPPED);
    // The map is eth0's.
    assert!(other.pings(Town::host_address(1)));
    other.is_refused("http://192.168.1.2:8080/");
}
