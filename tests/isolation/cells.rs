//! Local destinations: who may call whom, by connect(2) and by sendto(2), inside the cgroup and outside.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use fief_testkit::{Dial, Lab, Street, set_mark};
use nix::sys::socket::SockType;

use crate::room::{MODES, MOVE, PORT, Room, SOON, answered, echo, host_address, loopback, outcome};

/// A connection to where nobody answers is given this long.
const PATIENCE: Duration = Duration::from_millis(300);

/// connect(2) of a TCP socket, as [`outcome`] says it.
fn connects(to: SocketAddr, mark: u32) -> String {
    let dial = Dial::to(to).timeout(PATIENCE);
    outcome(&if mark == 0 { dial } else { dial.mark(mark) }.connect())
}

/// sendto(2) of a UDP socket, as [`outcome`] says it.
fn sends(to: SocketAddr, mark: u32, text: &str) -> String {
    let socket = Dial::to(to).mark(mark).socket(SockType::Datagram).expect("a socket");
    outcome(&UdpSocket::from(socket).send_to(text.as_bytes(), to))
}

/// A UDP socket on a tenant's own address that carries the tenant's mark, as its own programs do.
fn own_socket(at: SocketAddr, mark: u32) -> UdpSocket {
    let socket: OwnedFd = Dial::to(at).socket(SockType::Datagram).expect("a socket");
    set_mark(&socket, mark).expect("root may mark");
    nix::sys::socket::bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &nix::sys::socket::SockaddrStorage::from(SocketAddr::new(at.ip(), PORT + 1)),
    )
    .expect("the address is there");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    socket
}

#[test]
fn a_tenant_reaches_its_own_addresses_in_both_modes() {
    for mode in MODES {
        let Some(room) = Room::open("cell-own", 2, mode) else { return };
        let _server = room.server();
        let mark = room.mark(0);
        for v6 in [false, true] {
            let own = room.local(0, v6);
            for see in [true, false] {
                let call = || {
                    answered(&format!("own address, v6 {v6}, seen {see}"), &Dial::to(own).mark(mark));
                    let receiver = own_socket(own, mark);
                    let to = receiver.local_addr().expect("bound");
                    assert_eq!(sends(to, mark, "own datagram"), "works");
                    assert_eq!(receiver.recv(&mut [0; 64]).expect("it arrives"), 12, "{to}");
                };
                if see { room.inside(room.host(), call) } else { room.host().enter(call) }
            }
        }
        assert_eq!(room.count(0, "dropCrossing"), 0);
    }
}

#[test]
fn connecting_to_another_tenant_the_host_or_loopback_is_eacces() {
    let Some(room) = Room::open("cell-connect", 2, "") else { return };
    let server = room.server();
    let mark = room.mark(0);
    for v6 in [false, true] {
        for to in [room.local(1, v6), host_address(v6), loopback(v6), unspecified(v6)] {
            let before = room.count(0, "dropCrossing");
            assert_eq!(room.inside(room.host(), || connects(to, mark)), "EACCES", "connect to {to}");
            assert_eq!(room.count(0, "dropCrossing"), before + 1, "{to} is counted once: at connect");
        }
        // An IPv4 destination behind an IPv6 socket is no way around.
        if v6 {
            for to in [mapped(room.local(1, false)), mapped(loopback(false))] {
                assert_eq!(room.inside(room.host(), || connects(to, mark)), "EACCES", "{to}");
            }
            let own = mapped(room.local(0, false));
            room.inside(room.host(), || answered("mapped own address", &Dial::to(own).mark(mark)));
        }
    }
    assert!(!server.heard().iter().any(|line| line.contains("mark 0x0")), "{:?}", server.heard());
}

#[test]
fn sending_to_another_tenant_the_host_or_loopback_is_eacces() {
    let Some(room) = Room::open("cell-sendto", 2, "") else { return };
    let _server = room.server();
    let mark = room.mark(0);
    for v6 in [false, true] {
        for to in [room.local(1, v6), host_address(v6), loopback(v6), unspecified(v6)] {
            let before = room.count(0, "dropCrossing");
            let result = room.inside(room.host(), || sends(to, mark, "crossing"));
            assert_eq!(result, "EACCES", "sendto {to}");
            assert_eq!(room.count(0, "dropCrossing"), before + 1, "{to} is counted once: at sendmsg");
        }
        assert_eq!(room.inside(room.host(), || sends(room.local(0, v6), mark, "own")), "works");
    }
}

#[test]
fn a_process_outside_the_cgroup_is_dropped_on_lo_and_counted() {
    let Some(room) = Room::open("cell-lo", 2, "") else { return };
    let mark = room.mark(0);
    for v6 in [false, true] {
        let server = room.server();
        for to in [room.local(1, v6), host_address(v6), loopback(v6)] {
            let before = room.count(0, "dropCrossing");
            assert_eq!(room.host().enter(|| connects(to, mark)), "silence", "connect to {to}");
            assert_eq!(room.host().enter(|| sends(to, mark, "crossing")), "works", "sendto {to}");
            assert!(room.count(0, "dropCrossing") >= before + 2, "{to}: a SYN and a datagram die on lo");
        }
        // The host to a tenant: counted where it would have gone.
        let before = room.count(1, "dropCrossing");
        assert_eq!(room.host().enter(|| connects(room.local(1, v6), 0)), "silence");
        assert!(room.count(1, "dropCrossing") > before);
        assert_eq!(server.heard(), Vec::<String>::new());
        for own in [host_address(v6), loopback(v6)] {
            room.host().enter(|| answered(&format!("host to {own}"), &Dial::to(own)));
        }
        assert_eq!(server.heard().len(), 2, "{:?}", server.heard());
    }
}

#[test]
fn the_host_does_not_reach_a_tenants_address_and_reaches_its_own() {
    for mode in MODES {
        let Some(room) = Room::open("cell-host", 2, mode) else { return };
        let _server = room.server();
        for v6 in [false, true] {
            let tenant = room.local(1, v6);
            assert_eq!(room.inside(room.host(), || connects(tenant, 0)), "EACCES", "{tenant}");
            assert_eq!(room.inside(room.host(), || sends(tenant, 0, "crossing")), "EACCES", "{tenant}");
            let before = room.count(1, "dropCrossing");
            assert_eq!(room.host().enter(|| connects(tenant, 0)), "silence", "{mode:?} {tenant}, unseen");
            assert!(room.count(1, "dropCrossing") > before);
            for own in [host_address(v6), loopback(v6)] {
                room.inside(room.host(), || answered(&format!("host to {own}"), &Dial::to(own)));
            }
        }
    }
}

#[test]
fn host_access_opens_the_host_and_loopback_and_no_other_tenant() {
    for mode in MODES {
        let documents = |_: &Lab, street: &Street| {
            street.yaml_with(0, "  hostAccess: true\n") + "---\n" + &street.yaml(1)
        };
        let Some(room) = Room::with("cell-access", 2, mode, documents) else { return };
        let server = room.server();
        let mark = room.mark(0);
        for v6 in [false, true] {
            for to in [host_address(v6), loopback(v6)] {
                for see in [true, false] {
                    let say = format!("{mode:?} seen {see} {to}");
                    let call = || answered(&say, &Dial::to(to).mark(mark));
                    if see { room.inside(room.host(), call) } else { room.host().enter(call) }
                }
            }
            let other = room.local(1, v6);
            let expected = if mode == MOVE { "silence" } else { "EACCES" };
            assert_eq!(room.inside(room.host(), || connects(other, mark)), expected, "{mode:?} {other}");
        }
        let crossed = format!("to {}", room.street.local4(1));
        assert!(!server.heard().iter().any(|line| line.contains(&crossed)), "{:?}", server.heard());
    }
}

#[test]
fn with_local_moved_another_tenants_address_is_a_remote_one() {
    let Some(room) = Room::with("cell-move", 2, MOVE, |_, street| {
        // Behind router 0 lives somebody with the very addresses that tenant 1 has on this host.
        let (four, six) = (street.local4(1), street.local6(1));
        street.router(0).ip(&format!("addr add {four}/32 dev lo\naddr add {six}/128 dev lo nodad\n"));
        let routes = format!(
            "    - {{ to: {four}/32, via: {} }}\n    - {{ to: \"{six}/128\", via: \"{}\" }}\n",
            street.router4(0),
            street.router6(0)
        );
        street.yaml_with(0, &routes) + "---\n" + &street.yaml(1)
    }) else {
        return;
    };
    let server = room.server();
    let elsewhere = room.street.router(0).enter(|| echo(&format!("[::]:{PORT}")));
    let mark = room.mark(0);
    for v6 in [false, true] {
        let there = room.local(1, v6);
        for see in [true, false] {
            let call = || answered(&format!("remote {there}"), &Dial::to(there).mark(mark));
            if see { room.inside(room.host(), call) } else { room.host().enter(call) }
        }
        // Loopback is nobody's but the host's in this mode too.
        assert_eq!(room.inside(room.host(), || connects(loopback(v6), mark)), "EACCES");
        assert_eq!(room.inside(room.host(), || sends(loopback(v6), mark, "crossing")), "EACCES");
        // The host's address is on the wire for this tenant, where nobody has it.
        let host = room.inside(room.host(), || connects(host_address(v6), mark));
        assert!(host == "silence" || host == "EHOSTUNREACH", "{host}");
    }
    assert_eq!(elsewhere.heard().len(), 4, "{:?}", elsewhere.heard());
    assert_eq!(server.heard(), Vec::<String>::new());
}

fn unspecified(v6: bool) -> SocketAddr {
    let any = if v6 { "[::]:8000" } else { "0.0.0.0:8000" };
    any.parse().expect("an address")
}

fn mapped(v4: SocketAddr) -> SocketAddr {
    match v4 {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        SocketAddr::V6(_) => v4,
    }
}
