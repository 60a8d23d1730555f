//! What leaves the host: by the tenant's own table and devices, with its own addresses, or not at all.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use fief_testkit::{Capture, Dial, Frame, Ns, Street, set_mark};
use nix::sys::socket::SockType;

use crate::odd::Datagram;
use crate::room::{MODES, NEVER, Room, SOON, client};
use crate::table::leaving::*;

#[test]
fn a_slot_that_nobody_has_goes_nowhere() {
    for mode in MODES {
        let Some(yard) = Yard::open("leave-unknown", mode) else { return };
        unknown_slot(&yard, mode);
    }
}

#[test]
fn a_tenant_without_a_route_never_leaves_by_main() {
    for mode in MODES {
        let Some(yard) = Yard::open("leave-poor", mode) else { return };
        without_a_route(&yard, mode);
    }
}

#[test]
fn foreign_bits_of_a_mark_change_nothing() {
    let Some(room) = Room::open("leave-bits", 2, "") else { return };
    foreign_bits(&room);
}

#[test]
fn a_socket_that_names_a_foreign_device_does_not_leave_by_it() {
    for mode in MODES {
        let Some(yard) = Yard::open("leave-doors", mode) else { return };
        foreign_devices(&yard, mode);
    }
}

#[test]
fn a_packet_socket_with_a_tenants_mark_sends_on_that_tenants_devices_only() {
    let Some(yard) = Yard::open("leave-packet", "") else { return };
    let room = &yard.room;
    let [beyond, _, own] = yard.captures();
    let (mark, before) = (room.mark(0), room.count(0, "dropDeviceOut"));
    for (from, to) in [("10.9.9.9", "10.0.0.1"), ("fd00:99::1", "fd00:a::1")] {
        let frame = |text: &str| Frame::new([2; 6], [0xff; 6]).ip(from, to).udp(1, 2, text.as_bytes());
        packet(room.host(), "eth1", mark, &frame("foreign device"));
        packet(room.host(), "eth1", 0, &frame("the host's own"));
        packet(room.host(), "eth0", mark, &frame("its own device"));
    }
    assert!(beyond.wait_for(b"the host's own", SOON));
    assert!(own.wait_for(b"its own device", SOON));
    crate::room::wait(NEVER);
    assert!(!beyond.contains(b"foreign device"));
    // A limit that docs/isolation.md names: packet sockets pass by the guard, and no program sits on a device that no
    // tenant names.
    let nowhere = Capture::on(&yard.nowhere, "far");
    let frame = Frame::new([2; 6], [0xff; 6]).ip("10.9.9.9", "10.0.0.1").udp(1, 2, b"unnamed device");
    packet(room.host(), "spare", mark, &frame);
    assert!(nowhere.wait_for(b"unnamed device", SOON));
    assert_eq!(room.count(0, "dropDeviceOut"), before + 2);
}

#[test]
fn a_socket_bound_to_another_tenants_address_sends_nothing() {
    for mode in MODES {
        let Some(room) = Room::open("leave-spoof", 2, mode) else { return };
        bound_elsewhere(&room, mode);
    }
}

/// A socket that no program of ours sees sends without a mark, by the host's own routes. What has a tenant's address for
/// its source must not go where those lead, which may be another tenant's router.
#[test]
fn an_answer_without_a_mark_does_not_carry_a_tenants_address_away_by_the_hosts_routes() {
    for mode in MODES {
        let Some(yard) = Yard::open("leave-unmarked", mode) else { return };
        let room = &yard.room;
        let [_, nowhere, _] = yard.captures();
        for v6 in [false, true] {
            let before = room.count(0, "dropUnmarked");
            let unmarked = Datagram::to(client(v6), 0).from(room.local(0, v6).ip());
            // The sender is not told everywhere.
            let _ = room.host().enter(|| unmarked.send(b"a tenant's secret"));
            fief_testkit::eventually(SOON, || match room.count(0, "dropUnmarked") {
                drops if drops == before + 1 => Ok(()),
                other => Err(format!("{mode:?} v6 {v6}: dropped became {other}")),
            });
            // The host's own answers go the host's own way.
            assert_eq!(to_client(room, 0, v6, "the host itself"), "works");
            assert!(nowhere.wait_for(b"the host itself", SOON));
        }
        assert!(!nowhere.contains(b"a tenant's secret"));
    }
}

/// Sends a frame from a packet socket with a mark (packet(7)).
fn packet(ns: &Ns, device: &str, mark: u32, frame: &[u8]) {
    let index = ns.ifindex(device);
    let sent = ns.enter(|| {
        // SAFETY: socket(2) takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        set_mark(&socket, mark).expect("root may mark");
        // SAFETY: sockaddr_ll is plain C data, for which all zeroes is a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index.cast_signed();
        // The kernel takes a frame's protocol from here.
        to.sll_protocol = u16::from_be_bytes([frame[12], frame[13]]).to_be();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        let address = (&raw const to).cast();
        // SAFETY: both pointers are to live values of the lengths that go with them.
        unsafe { libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, address, length) }
    });
    // A frame that the egress program drops is reported as sent, or as ENOBUFS.
    assert!(sent > 0 || mark != 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn what_a_tenant_sends_to_its_remote_network_arrives_there_and_nowhere_else() {
    let Some(room) = Room::open("leave-right", 2, "") else { return };
    to_its_own(&room);
}

#[test]
fn the_host_itself_never_speaks_from_a_tenants_address() {
    let Some(room) = Room::open("leave-host", 20, "") else { return };
    let street = &room.street;
    for (to, own) in [
        (IpAddr::from(street.router4(0)), IpAddr::from(Street::HOST_V4)),
        (street.router6(0).into(), Street::HOST_V6.into()),
        // Closer to tenants' addresses than to the host's.
        (street.local6(18).to_string().replace(":a:", ":a:8").parse().unwrap(), Street::HOST_V6.into()),
    ] {
        let socket =
            room.host().enter(|| Dial::to((to, 9).into()).socket(SockType::Datagram)).expect("a socket");
        let socket = std::net::UdpSocket::from(socket);
        socket.connect((to, 9)).expect("a route");
        assert_eq!(socket.local_addr().expect("bound").ip(), own, "towards {to}");
    }
}
