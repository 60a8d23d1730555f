//! What leaves a tenant's place, or comes for it, as the wires see it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use fief_testkit::{Capture, Frame, eventually, inject};
use nix::sys::socket::SockType;

use super::{NAMES, Table, end, gateway};
use crate::node::in_vrfs;
use crate::odd::{DOORS, Datagram};
use crate::room::{NEVER, PORT, SOON, outcome, wait};
use crate::town::Town;

pub fn bound_elsewhere(table: &Table) {
    let wires = [0, 1].map(|i| Capture::on(&table.node.town.gateways[i], "eth0"));
    let to = SocketAddr::new(Town::SITE.into(), 9);
    for i in [0, 1] {
        let other = 1 - i;
        let foreign: [IpAddr; 4] = [
            gateway(other, false),
            table.link(other).into(),
            Town::host_address(other).into(),
            Ipv4Addr::new(203, 0, 113, 9).into(),
        ];
        for source in foreign {
            let dial = table.dial(i, to).bind(SocketAddr::new(source, 0));
            let bound = table.as_tenant(i, || outcome(&dial.socket(SockType::Datagram)));
            assert_eq!(bound, "EADDRNOTAVAIL", "{} binds {source}", NAMES[i]);
            let text = format!("foreign {source} of {}", NAMES[i]);
            let datagram = table.datagram(i, to).from(source);
            table.as_tenant(i, || drop(datagram.send(text.as_bytes())));
        }
        let own = format!("own source of {}", NAMES[i]);
        let datagram = table.datagram(i, to).from(gateway(i, false));
        table.as_tenant(i, || datagram.send(own.as_bytes())).expect("its own address");
        assert!(wires[i].wait_for(own.as_bytes(), SOON), "{own}");
        assert!(!wires[other].contains(own.as_bytes()), "{own} by the other's uplink");
    }
    wait(NEVER);
    for wire in &wires {
        assert!(!wire.contains(b"foreign "), "a foreign source left");
    }
}

impl Table {
    fn datagram(&self, i: usize, to: SocketAddr) -> Datagram {
        let datagram = Datagram::to(to, 0);
        let device = self.binding(i);
        device.iter().fold(datagram, |datagram, device| {
            datagram.by("SO_BINDTODEVICE", device, 0).expect("every destination has this door")
        })
    }
}

/// Devices of the host and of the other, by every door. A socket in a VRF, which is root's, becomes one of the host's by
/// another SO_BINDTODEVICE, and for one datagram by IP_PKTINFO (udp_sendmsg): these are not asked there.
pub fn foreign_devices(table: &Table) {
    let town = &table.node.town;
    let wires = [0, 1].map(|i| Capture::on(&town.gateways[i], "eth0"));
    let inner = Capture::on(&table.apps[1].ns, "eth0");
    let devices = ["eth0".to_owned(), "eth1".to_owned(), format!("fief{}", table.slots[1])];
    let targets: [SocketAddr; 4] = [
        (Town::SITE, 9).into(),
        (Town::gateway_address(1), 9).into(),
        (Ipv4Addr::new(239, 1, 2, 3), 9).into(),
        (end(1, true), 9).into(),
    ];
    for device in &devices {
        let index = town.host.ifindex(device);
        for to in targets {
            let of_host = |door: &str| door == "SO_BINDTODEVICE" || (door == "PKTINFO" && to.is_ipv4());
            for door in DOORS.into_iter().filter(|door| !in_vrfs() || !of_host(door)) {
                let text = format!("door {door} {device} {to}");
                let Some(datagram) = table.datagram(0, to).by(door, device, index) else { continue };
                let tried = table.as_tenant(0, || outcome(&datagram.send(text.as_bytes())));
                println!("{text}: {tried}");
                let by_own = tried == "works" && door == "UNICAST_IF";
                let refusals = ["ENODEV", "EINVAL", "ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH", "ENXIO"];
                assert!(by_own || tried == "works" || refusals.contains(&tried.as_str()), "{text}: {tried}");
            }
        }
    }
    // The host's own is one that names a device, and then it leaves there.
    let control = Datagram::to(targets[0], 0).by("SO_BINDTODEVICE", "eth1", 0).expect("a door");
    town.host.enter(|| control.send(b"control")).expect("the host may");
    assert!(wires[1].wait_for(b"control", SOON));
    wait(NEVER);
    assert!(!wires[1].contains(b"door ") && !inner.contains(b"door "), "it left by another's device");
}

/// Packets with headers of one's own.
pub fn raw(table: &Table) {
    let wires = [0, 1].map(|i| Capture::on(&table.node.town.gateways[i], "eth0"));
    for i in [0, 1] {
        let other = 1 - i;
        let sources: [IpAddr; 3] =
            [table.link(other).into(), end(other, false), Town::host_address(other).into()];
        for (source, what) in
            sources.map(|source| (source, "forged")).into_iter().chain([(gateway(i, false), "honest")])
        {
            let text = format!("{what} {source} of {}", NAMES[i]);
            // Everything behind the Ethernet header.
            let packet =
                Frame::new([0; 6], [0; 6]).ip(source, Town::SITE).udp(4000, 9, text.as_bytes()).split_off(14);
            let device = table.binding(i);
            let sent = table.as_tenant(i, || crate::odd::send_raw(device.as_deref(), &packet, Town::SITE));
            assert_eq!(outcome(&sent), "works", "{text}");
            if what == "honest" {
                assert!(wires[i].wait_for(text.as_bytes(), SOON), "{text}");
            }
        }
    }
    wait(NEVER);
    for wire in &wires {
        assert!(!wire.contains(b"forged"), "a forged source left");
    }
}

/// A mark is the host's business: none leads a tenant's packet to another uplink. In the host's own stack one with a tenant's
/// number is that tenant's, and where it has no such device it leaves by none.
pub fn marked(table: &Table) {
    let wires = [0, 1].map(|i| Capture::on(&table.node.town.gateways[i], "eth0"));
    let to = SocketAddr::new(Town::SITE.into(), 9);
    for i in [0, 1] {
        for mark in (0..=8).chain([0xffff, u32::MAX]) {
            let dial = table.dial(i, to).mark(mark);
            let text = format!("mark {mark:#x} of {}.", NAMES[i]);
            let sent = table.as_tenant(i, || {
                let socket = UdpSocket::from(dial.socket(SockType::Datagram)?);
                socket.send_to(text.as_bytes(), to)
            });
            assert_eq!(outcome(&sent), "works", "{text}");
            if mark == 0 || !in_vrfs() {
                assert!(wires[i].wait_for(text.as_bytes(), SOON), "{text}");
            }
        }
    }
    wait(NEVER);
    for i in [0, 1] {
        assert!(!wires[1 - i].contains(format!("of {}.", NAMES[i]).as_bytes()), "by the other's uplink");
    }
}

/// What comes from the wire for an address inside, or from one.
pub fn arriving(table: &Table) {
    let town = &table.node.town;
    let before = table.heard();
    for uplink in [0, 1] {
        let device = format!("eth{uplink}");
        let head = || Frame::new(town.gateways[uplink].mac("eth0"), town.host.mac(&device));
        let near = Town::gateway_address(uplink);
        let mut frames = Vec::new();
        for i in [0, 1] {
            let inside = [gateway(i, false), end(i, false), table.link(i).into()];
            frames.extend(inside.map(|to| head().ip(near, to).udp(4000, PORT, b"from the wire")));
            // As if a tenant called from outside.
            let source = table.link(i);
            frames.push(head().ip(source, Town::host_address(uplink)).udp(4000, 8080, b"from the wire"));
        }
        for frame in &frames {
            inject(&town.gateways[uplink], "eth0", frame);
        }
        let honest = head().ip(near, Town::host_address(uplink)).udp(4000, PORT, b"honest");
        inject(&town.gateways[uplink], "eth0", &honest);
        eventually(SOON, || match table.heard()[0] {
            now if now == before[0] + uplink + 1 => Ok(()),
            now => Err(format!("the host heard {now}, before {before:?}")),
        });
    }
    wait(NEVER);
    assert_eq!(table.heard()[1..], before[1..]);
}
