//! What comes from the wire and pretends: another's source, a road through the host, a better route.

use std::net::{IpAddr, UdpSocket};

use fief_testkit::{Capture, Dial, Frame, Lab, Street, inject};
use nix::sys::socket::SockType;

use crate::room::{MODES, NEVER, Room, SOON, answered, client, outcome};
use crate::table::arriving::*;

#[test]
fn a_packet_from_the_wire_whose_source_is_an_address_of_this_host_is_not_delivered() {
    let Some(room) = Room::open("arrive-spoof", 2, "") else { return };
    spoofed(&room);
}

#[test]
fn a_neighbour_is_not_forwarded_into_another_tenants_network() {
    for mode in MODES {
        let Some(room) = Room::with("arrive-forward", 2, mode, |lab, street| {
            forwarding(lab, street);
            street.documents()
        }) else {
            return;
        };
        let street = &room.street;
        let other = Capture::on(street.client(1), "eth0");
        let behind = Capture::on(street.router(1), "eth0");
        let host = Capture::on(&room.lab.ns("nowhere"), "far");
        for v6 in [false, true] {
            let (_, near) = pair(street, 0, v6);
            let frame = Frame::new(street.router_mac(0), street.host_mac());
            let frame = frame.ip(near, client(v6).ip()).udp(1, 2, b"through the host");
            inject(street.router(0), "eth0", &frame);
            // It belongs to nobody, so the host's own routes decide: that it takes the host's way is the control.
            assert!(host.wait_for(b"through the host", SOON), "{mode:?} v6 {v6}: the host forwards");
            host.clear();
            // The same network is reachable for the tenant that has it.
            let own = outcome(&room.inside(room.host(), || {
                crate::odd::Datagram::to(client(v6), room.mark(1)).send(b"tenant 1 itself")
            }));
            assert_eq!(own, "works");
            assert!(other.wait_for(b"tenant 1 itself", SOON));
            other.clear();
        }
        crate::room::wait(NEVER);
        assert!(!other.contains(b"through the host"));
        assert!(
            !behind
                .frames()
                .iter()
                .any(|f| f.contains(b"through the host") && f.bytes[6..12] == street.host_mac())
        );
    }
}

/// The host is a router, with default routes of its own.
fn forwarding(lab: &Lab, street: &Street) {
    let far = lab.ns("nowhere");
    lab.veth((&street.host, "spare"), (&far, "far"));
    let mac = far.mac("far").map(|byte| format!("{byte:02x}")).join(":");
    street.host.set_sysctl("net.ipv4.ip_forward", 1);
    street.host.set_sysctl("net.ipv6.conf.all.forwarding", 1);
    street.host.ip(&format!(
        "addr add 203.0.113.1/24 dev spare\naddr add 2001:db8:113::1/64 dev spare nodad\n\
         neigh replace 203.0.113.254 lladdr {mac} dev spare nud permanent\n\
         neigh replace 2001:db8:113::254 lladdr {mac} dev spare nud permanent\n\
         route add 0.0.0.0/0 via 203.0.113.254\nroute add ::/0 via 2001:db8:113::254\n"
    ));
}

#[test]
fn a_redirect_for_a_tenant_changes_nothing() {
    let Some(room) = Room::open("arrive-redirect", 2, "") else { return };
    let street = &room.street;
    // The kernel must be willing: a host takes redirects from the gateway it uses.
    for name in ["all", "default", "eth0"] {
        street.host.set_sysctl(&format!("net.ipv4.conf.{name}.accept_redirects"), 1);
        street.host.set_sysctl(&format!("net.ipv4.conf.{name}.secure_redirects"), 0);
        street.host.set_sysctl(&format!("net.ipv6.conf.{name}.accept_redirects"), 1);
    }
    let _server = street.client(0).enter(|| crate::room::echo("[::]:8000"));
    let mark = room.mark(0);
    for v6 in [false, true] {
        let dial = Dial::to(client(v6)).mark(mark);
        room.inside(room.host(), || answered("before the redirect", &dial));
        for behind_extension in [false, true] {
            if behind_extension && !v6 {
                continue;
            }
            let before = room.count(0, "dropRedirect");
            inject(street.router(0), "eth0", &redirect(street, v6, behind_extension));
            fief_testkit::eventually(SOON, || match room.count(0, "dropRedirect") {
                count if count == before + 1 => Ok(()),
                count => Err(format!("{count} redirects dropped, v6 {v6}, extension {behind_extension}")),
            });
        }
        let wrong = Capture::on(street.router(1), "eth0");
        room.inside(room.host(), || answered("after the redirect", &dial));
        assert!(!wrong.contains(b"after the redirect"), "the flow went to router 1");
        // An echo from the same neighbour still comes in: it is redirects that are dropped.
        let (own, near) = pair(street, 0, v6);
        let received = room.count(0, "rxPackets");
        let echo = Frame::new(street.router_mac(0), street.host_mac()).ip(near, own).echo_request(1, 1, b"x");
        inject(street.router(0), "eth0", &echo);
        fief_testkit::eventually(SOON, || match room.count(0, "rxPackets") {
            count if count > received => Ok(()),
            count => Err(format!("{count} packets")),
        });
    }
}

/// The kernel takes a redirect for the flow of a socket. For the host's own flow that is the host's affair and shows
/// that this redirect is a good one; for a tenant's flow it changes nothing.
#[test]
fn a_redirect_moves_the_hosts_own_flow_and_not_a_tenants() {
    let Some(room) = Room::with("arrive-taken", 2, "", |_, street| {
        for name in ["all", "default", "eth0"] {
            street.host.set_sysctl(&format!("net.ipv4.conf.{name}.accept_redirects"), 1);
            street.host.set_sysctl(&format!("net.ipv4.conf.{name}.secure_redirects"), 0);
        }
        street.host.ip(&format!("route add 10.0.0.0/24 via {}\n", street.router4(0)));
        street.documents()
    }) else {
        return;
    };
    let street = &room.street;
    let wrong = Capture::on(street.router(1), "eth0");
    // A closed port would end the flow.
    let _open =
        street.client(0).enter(|| UdpSocket::bind((Street::CLIENT_V4, 4001))).expect("the port is free");
    let flow = |mark: u32, own: IpAddr| {
        let dial = Dial::to(client(false)).mark(mark).bind((own, 4000).into());
        let socket =
            room.inside(room.host(), || dial.socket(SockType::Datagram)).expect("the address is there");
        let socket = UdpSocket::from(socket);
        socket.connect((client(false).ip(), 4001)).expect("a route");
        for round in 0..20 {
            socket.send(format!("flow of {own}, round {round}").as_bytes()).expect("a route");
            inject(street.router(0), "eth0", &redirect_to(street, own, false, false));
            // The first one makes the kernel ask where router 1 is; it takes one after that.
            crate::room::wait(NEVER / 20);
            let text = format!("flow of {own}");
            if wrong.contains(text.as_bytes()) {
                return true;
            }
        }
        false
    };
    assert!(flow(0, Street::HOST_V4.into()), "the host's own flow follows the redirect");
    assert!(!flow(room.mark(0), street.local4(0).into()), "a tenant's flow went to router 1");
}

/// "To the client, better use router 1", from router 0 to tenant 0.
fn redirect(street: &Street, v6: bool, behind_extension: bool) -> Vec<u8> {
    redirect_to(street, pair(street, 0, v6).0, v6, behind_extension)
}

fn redirect_to(street: &Street, own: IpAddr, v6: bool, behind_extension: bool) -> Vec<u8> {
    let (mac, router) = (street.host_mac(), street.router_mac(0));
    let (_, near) = pair(street, 0, v6);
    let (_, better) = pair(street, 1, v6);
    let about =
        Frame::new(mac, router).ip(own, client(v6).ip()).udp(4000, 4001, b"about this")[14..].to_vec();
    let frame = Frame::new(router, mac);
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    if !v6 {
        return frame.ip(near, own).icmp(5, 1, &[octets(better), about].concat());
    }
    // RFC 4861: from a link-local address, with hop limit 255.
    let rest = [vec![0; 4], octets(better), octets(client(true).ip())].concat();
    let plain = frame.ip("fe80::b:1", own).hops(255).icmp(137, 0, &rest);
    if !behind_extension {
        return plain;
    }
    // Six bytes of padding make the hop-by-hop header whole (RFC 8200).
    let body = [&[58, 0, 1, 4, 0, 0, 0, 0], &plain[54..]].concat();
    Frame::new(router, mac).ip("fe80::b:1", own).hops(255).payload(0, &body)
}
