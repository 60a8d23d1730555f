//! Sockets that are a tenant's own: they get that tenant's packets and no other's.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use fief_testkit::{Dial, Lab, Street};

use crate::odd::Datagram;
use crate::room::{MODES, NEVER, Room, SOON, client, outcome};
use crate::table::receiving::*;

#[test]
fn a_tenants_own_tcp_listener_gets_its_tenants_connections_only() {
    for mode in MODES {
        let Some(room) = Room::open("receive-tcp", 2, mode) else { return };
        own_listener(&room, mode);
    }
}

#[test]
fn a_tenants_own_udp_socket_gets_its_tenants_datagrams_only() {
    for mode in MODES {
        let Some(room) = Room::open("receive-udp", 2, mode) else { return };
        own_receiver(&room, mode);
    }
}

/// What hostAccess opens is the host's sockets, not those of another tenant that listen on the same addresses.
#[test]
fn host_access_does_not_open_another_tenants_own_listener() {
    for mode in MODES {
        let documents = |_: &Lab, street: &Street| {
            street.yaml_with(0, "  hostAccess: true\n") + "---\n" + &street.yaml(1)
        };
        let Some(room) = Room::with("receive-access", 2, mode, documents) else { return };
        let (blue, red) = (room.mark(0), room.mark(1));
        for v6 in [false, true] {
            for late in [false, true] {
                let make = || if late { marked_late(v6, red) } else { listener(v6, red) };
                let listener = room.inside(room.host(), make);
                for to in [crate::room::host_address(v6), crate::room::loopback(v6)] {
                    let to = SocketAddr::new(to.ip(), OWN_PORT);
                    let dial = Dial::to(to).mark(blue).timeout(Duration::from_millis(300));
                    let before = room.count(0, "dropListener");
                    let result = outcome(&room.inside(room.host(), || dial.connect()));
                    assert_eq!(result, if late { "silence" } else { "ECONNREFUSED" }, "{mode:?} {to}");
                    assert!(listener.accept().is_err(), "{mode:?} {to}: blue's connection was accepted");
                    assert_eq!(room.count(0, "dropListener") > before, late);
                }
            }
            let _plain = room.inside(room.host(), || listener(v6, 0));
            for to in [crate::room::host_address(v6), crate::room::loopback(v6)] {
                let dial = Dial::to(SocketAddr::new(to.ip(), OWN_PORT)).mark(blue).timeout(SOON);
                room.inside(room.host(), || dial.connect()).expect("the host's own listener");
            }
        }
    }
}

/// A limit that docs/isolation.md names: loopback is one for all namespaces, so the host's own datagrams over it cannot
/// be told from those of a container whose marks mean something else.
#[test]
fn the_host_itself_reaches_a_tenants_own_socket_over_loopback_by_udp_and_no_other_way() {
    let Some(room) = Room::open("receive-host", 2, "") else { return };
    let red = room.mark(1);
    for v6 in [false, true] {
        let (over_address, over_loopback) = (crate::room::host_address(v6), crate::room::loopback(v6));
        for (late, result) in [(false, "ECONNREFUSED"), (true, "silence")] {
            let make = || if late { marked_late(v6, red) } else { listener(v6, red) };
            let listener = room.inside(room.host(), make);
            for to in [over_address, over_loopback] {
                let dial = Dial::to(SocketAddr::new(to.ip(), OWN_PORT)).timeout(Duration::from_millis(300));
                assert_eq!(outcome(&room.inside(room.host(), || dial.connect())), result, "{to}");
                assert!(listener.accept().is_err());
            }
        }
        let socket = room.inside(room.host(), || receiver(v6, red));
        for (to, arrives) in [(over_address, false), (over_loopback, true)] {
            let datagram = Datagram::to(SocketAddr::new(to.ip(), OWN_PORT), 0);
            room.inside(room.host(), || datagram.send(b"from the host")).expect("it is sent");
            assert_eq!(socket.recv(&mut [0; 16]).is_ok(), arrives, "{to}");
        }
    }
}

/// Multicast that a tenant sends comes back to sockets of this host that have joined (ip(7), IP_MULTICAST_LOOP).
#[test]
fn multicast_of_a_tenant_is_not_looped_back_to_the_host() {
    let Some(room) = Room::open("receive-multicast", 2, "") else { return };
    let index = room.host().ifindex("eth0");
    for (group, v6) in [("239.1.2.3", false), ("ff05::123", true)] {
        let to = SocketAddr::new(group.parse().unwrap(), OWN_PORT);
        let member = room.inside(room.host(), || {
            let socket = UdpSocket::bind(wildcard(v6)).expect("the port is free");
            match to.ip() {
                std::net::IpAddr::V4(group) => socket.join_multicast_v4(&group, &Street::HOST_V4),
                std::net::IpAddr::V6(group) => socket.join_multicast_v6(&group, index),
            }
            .expect("root may join");
            socket.set_read_timeout(Some(NEVER)).expect("a timeout");
            socket
        });
        let send = |mark: u32, from: SocketAddr, text: &str| {
            let datagram = Datagram::to(to, mark).from(from.ip()).by("SO_BINDTODEVICE", "eth0", index);
            let sent = room.inside(room.host(), || datagram.expect("a door").send(text.as_bytes()));
            assert_eq!(outcome(&sent), "works");
        };
        let before = room.count(0, "dropCrossing");
        send(room.mark(0), room.local(0, v6), "tenant");
        assert!(member.recv(&mut [0; 16]).is_err(), "a tenant's multicast reached a socket of the host");
        assert_eq!(room.count(0, "dropCrossing"), before + 1);
        send(0, crate::room::host_address(v6), "host");
        assert_eq!(member.recv(&mut [0; 16]).expect("the host's own multicast"), 4);
    }
}

/// Both directions of a connection that a tenant opens itself.
#[test]
fn a_tenants_own_client_is_answered() {
    let Some(room) = Room::open("receive-client", 2, "") else { return };
    let servers = [0, 1].map(|i| room.street.client(i).enter(|| crate::room::echo("[::]:8000")));
    for (tenant, server) in servers.iter().enumerate() {
        for v6 in [false, true] {
            let dial = Dial::to(client(v6)).mark(room.mark(tenant));
            room.inside(room.host(), || crate::room::answered(&format!("tenant {tenant} {v6}"), &dial));
        }
        assert_eq!(server.heard().len(), 2, "{:?}", server.heard());
    }
}
