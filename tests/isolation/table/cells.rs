//! Local destinations: who may call whom, by connect(2) and by sendto(2), inside the cgroup and outside.
//! Each is asked of a room, whatever keeps its tenants apart.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use fief_testkit::{Dial, Street, set_mark};
use nix::sys::socket::SockType;

use crate::room::{MOVE, PORT, Room, SOON, answered, host_address, loopback, outcome};

/// A connection to where nobody answers is given this long.
pub const PATIENCE: Duration = Duration::from_millis(300);

/// connect(2) of a TCP socket, as [`outcome`] says it.
pub fn connects(to: SocketAddr, mark: u32) -> String {
    let dial = Dial::to(to).timeout(PATIENCE);
    outcome(&if mark == 0 { dial } else { dial.mark(mark) }.connect())
}

/// sendto(2) of a UDP socket, as [`outcome`] says it.
pub fn sends(to: SocketAddr, mark: u32, text: &str) -> String {
    let socket = Dial::to(to).mark(mark).socket(SockType::Datagram).expect("a socket");
    outcome(&UdpSocket::from(socket).send_to(text.as_bytes(), to))
}

/// A UDP socket on a tenant's own address that carries the tenant's mark, as its own programs do.
pub fn own_socket(at: SocketAddr, mark: u32) -> UdpSocket {
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

pub fn own_addresses(room: &Room) {
    let _server = room.server();
    let mark = room.mark(0);
    let common = |v6| {
        let ip = if v6 { IpAddr::from(Street::COMMON_V6) } else { Street::COMMON_V4.into() };
        SocketAddr::new(ip, PORT)
    };
    for v6 in [false, true] {
        for own in [room.local(0, v6), common(v6)].into_iter().take(if room.has_vrfs() { 2 } else { 1 }) {
            for see in [true, false] {
                let call = || {
                    answered(&format!("own address {own}, seen {see}"), &Dial::to(own).mark(mark));
                    // Who is not seen is not in the VRF, where the address is.
                    if room.has_vrfs() && !see {
                        return;
                    }
                    let receiver = own_socket(own, mark);
                    let to = receiver.local_addr().expect("bound");
                    assert_eq!(sends(to, mark, "own datagram"), "works");
                    assert_eq!(receiver.recv(&mut [0; 64]).expect("it arrives"), 12, "{to}");
                };
                if see { room.inside(room.host(), call) } else { room.host().enter(call) }
            }
        }
    }
}

/// With a VRF another tenant's address is not on this host; where it may be, nobody answers.
pub fn is_remote(outcome: &str) -> bool {
    outcome == "silence" || outcome == "EHOSTUNREACH"
}

pub fn connecting_elsewhere(room: &Room) {
    let server = room.server();
    let mark = room.mark(0);
    for v6 in [false, true] {
        let others = room.local(1, v6);
        if room.has_vrfs() {
            let result = room.inside(room.host(), || connects(others, mark));
            assert!(is_remote(&result), "connect to {others}: {result}");
        }
        let refused = [others, host_address(v6), loopback(v6), unspecified(v6)];
        for to in refused.into_iter().skip(usize::from(room.has_vrfs())) {
            let before = room.count(0, "dropCrossing");
            assert_eq!(room.inside(room.host(), || connects(to, mark)), "EACCES", "connect to {to}");
            assert_eq!(room.count(0, "dropCrossing"), before + 1, "{to} is counted once: at connect");
        }
        // An IPv4 destination behind an IPv6 socket is no way around.
        if v6 {
            let refused = [mapped(room.local(1, false)), mapped(loopback(false))];
            for to in refused.into_iter().skip(usize::from(room.has_vrfs())) {
                assert_eq!(room.inside(room.host(), || connects(to, mark)), "EACCES", "{to}");
            }
            let own = mapped(room.local(0, false));
            room.inside(room.host(), || answered("mapped own address", &Dial::to(own).mark(mark)));
        }
    }
    assert!(!server.heard().iter().any(|line| line.contains("mark 0x0")), "{:?}", server.heard());
}

pub fn sending_elsewhere(room: &Room) {
    let server = room.server();
    let mark = room.mark(0);
    for v6 in [false, true] {
        if room.has_vrfs() {
            assert_eq!(room.inside(room.host(), || sends(room.local(1, v6), mark, "crossing")), "works");
        }
        let refused = [room.local(1, v6), host_address(v6), loopback(v6), unspecified(v6)];
        for to in refused.into_iter().skip(usize::from(room.has_vrfs())) {
            let before = room.count(0, "dropCrossing");
            let result = room.inside(room.host(), || sends(to, mark, "crossing"));
            assert_eq!(result, "EACCES", "sendto {to}");
            assert_eq!(room.count(0, "dropCrossing"), before + 1, "{to} is counted once: at sendmsg");
        }
        assert_eq!(room.inside(room.host(), || sends(room.local(0, v6), mark, "own")), "works");
    }
    assert!(!server.heard().iter().any(|line| line.contains("crossing")), "{:?}", server.heard());
}

pub fn unseen(room: &Room) {
    let mark = room.mark(0);
    for v6 in [false, true] {
        let server = room.server();
        let dropped = [room.local(1, v6), host_address(v6), loopback(v6)];
        for to in dropped.into_iter().skip(usize::from(room.has_vrfs())) {
            let before = room.count(0, "dropCrossing");
            assert_eq!(room.host().enter(|| connects(to, mark)), "silence", "connect to {to}");
            assert_eq!(room.host().enter(|| sends(to, mark, "crossing")), "works", "sendto {to}");
            assert!(room.count(0, "dropCrossing") >= before + 2, "{to}: a SYN and a datagram die on lo");
        }
        // The host to a tenant: counted where it would have gone.
        let before = room.count(1, "dropCrossing");
        let host_to_tenant = room.host().enter(|| connects(room.local(1, v6), 0));
        assert!(is_remote(&host_to_tenant), "{host_to_tenant}");
        assert_eq!(room.count(1, "dropCrossing") > before, !room.has_vrfs());
        assert_eq!(server.heard(), Vec::<String>::new());
        for own in [host_address(v6), loopback(v6)] {
            room.host().enter(|| answered(&format!("host to {own}"), &Dial::to(own)));
        }
        assert_eq!(server.heard().len(), 2, "{:?}", server.heard());
    }
}

pub fn host_to_tenant(room: &Room) {
    let server = room.server();
    for v6 in [false, true] {
        let tenant = room.local(1, v6);
        let connected = room.inside(room.host(), || connects(tenant, 0));
        if room.has_vrfs() {
            assert!(is_remote(&connected), "{tenant}: {connected}");
        } else {
            assert_eq!(connected, "EACCES", "{tenant}");
            assert_eq!(room.inside(room.host(), || sends(tenant, 0, "crossing")), "EACCES", "{tenant}");
            let before = room.count(1, "dropCrossing");
            assert_eq!(room.host().enter(|| connects(tenant, 0)), "silence", "{tenant}, unseen");
            assert!(room.count(1, "dropCrossing") > before);
        }
        let heard = server.heard().len();
        for own in [host_address(v6), loopback(v6)] {
            room.inside(room.host(), || answered(&format!("host to {own}"), &Dial::to(own)));
        }
        assert_eq!(server.heard().len(), heard + 2, "{:?}", server.heard());
    }
    assert_eq!(server.heard().len(), 4, "{:?}", server.heard());
}

/// Tenant 0 has `hostAccess: true`, which no VRF can give.
pub fn host_access(room: &Room, mode: &str) {
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
        let result = room.inside(room.host(), || connects(other, mark));
        assert_eq!(result, if mode == MOVE { "silence" } else { "EACCES" }, "{mode:?} {other}");
    }
    let crossed = format!("to {}", room.street.local4(1));
    assert!(!server.heard().iter().any(|line| line.contains(&crossed)), "{:?}", server.heard());
}

pub fn unspecified(v6: bool) -> SocketAddr {
    let any = if v6 { "[::]:8000" } else { "0.0.0.0:8000" };
    any.parse().expect("an address")
}

pub fn mapped(v4: SocketAddr) -> SocketAddr {
    match v4 {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        SocketAddr::V6(_) => v4,
    }
}
