//! What leaves the host: by the tenant's own table and devices, with its own addresses, or not at all.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use fief_testkit::{Capture, Dial, Frame, Lab, Ns, Street, set_mark};
use nix::sys::socket::SockType;

use crate::odd::{DOORS, Datagram};
use crate::room::{MODES, MOVE, NEVER, PORT, Room, SOON, answered, client, echo, outcome};

/// Device `eth1` is named by a third tenant, `spare` by nobody; the host's default routes lead out of `spare`. Every
/// next hop has a permanent entry, so that nothing waits for a neighbour to be found.
struct Yard {
    room: Room,
    beyond: Ns,
    nowhere: Ns,
}

const OTHER: &str = "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: other }\nspec:\n  interfaces:\n    \
                     - { name: eth1, addresses: [\"192.0.2.1/24\", \"2001:db8:2::1/64\"] }\n";
/// No default route, no route to where the clients are.
const POOR: &str = "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: t2 }\nspec:\n  interfaces:\n    \
                    - { name: eth0, addresses: [\"198.18.200.1/15\", \"fd00:18::c:1/64\"] }\n";
const LINK_LOCAL: &str = "fe80::99";
const GROUPS: [&str; 2] = ["239.1.2.3", "ff02::123"];

impl Yard {
    fn open(name: &str, mode: &str) -> Option<Yard> {
        let mut ends = None;
        let room = Room::with(name, 2, mode, |lab, street| {
            ends = Some(furnish(lab, &street.host));
            street.documents() + OTHER + POOR
        })?;
        let (beyond, nowhere) = ends?;
        Some(Yard { room, beyond, nowhere })
    }

    /// Captures on the far ends of `eth1` and `spare`, and at router 0.
    fn captures(&self) -> [Capture; 3] {
        [
            Capture::on(&self.beyond, "far"),
            Capture::on(&self.nowhere, "far"),
            Capture::on(self.room.street.router(0), "eth0"),
        ]
    }
}

fn furnish(lab: &Lab, host: &Ns) -> (Ns, Ns) {
    let (beyond, nowhere) = (lab.ns("beyond"), lab.ns("nowhere"));
    for (device, far) in [("eth1", &beyond), ("spare", &nowhere)] {
        lab.veth((host, device), (far, "far"));
        let mac = far.mac("far").map(|byte| format!("{byte:02x}")).join(":");
        for ip in ["10.0.0.1", "fd00:a::1", LINK_LOCAL, "203.0.113.254", "2001:db8:113::254"] {
            host.ip(&format!("neigh replace {ip} lladdr {mac} dev {device} nud permanent\n"));
        }
    }
    host.ip("addr add 192.0.2.100/24 dev eth1\naddr add 2001:db8:2::100/64 dev eth1 nodad\n\
         addr add 203.0.113.1/24 dev spare\naddr add 2001:db8:113::1/64 dev spare nodad\n\
         route add 0.0.0.0/0 via 203.0.113.254\nroute add ::/0 via 2001:db8:113::254\n\
         route add 0.0.0.0/0 dev eth1 metric 5000\nroute add ::/0 dev eth1 metric 5000\n");
    (beyond, nowhere)
}

/// Sends to the remote network that every tenant has.
fn to_client(room: &Room, mark: u32, v6: bool, text: &str) -> String {
    outcome(&room.inside(room.host(), || Datagram::to(client(v6), mark).send(text.as_bytes())))
}

#[test]
fn a_slot_that_nobody_has_goes_nowhere() {
    for mode in MODES {
        let Some(yard) = Yard::open("leave-unknown", mode) else { return };
        let room = &yard.room;
        // Somebody's own rule behind everything: the tree must end before it.
        for family in ["-4", "-6"] {
            room.host().run(&["ip", family, "rule", "add", "pref", "200000", "lookup", "main"]).ok();
        }
        let [beyond, nowhere, own] = yard.captures();
        for v6 in [false, true] {
            for mark in [999, 0x8000, 0xffff] {
                assert_eq!(
                    to_client(room, mark, v6, "unknown slot"),
                    "ENETUNREACH",
                    "{mode:?} {mark} v6 {v6}"
                );
            }
            let tcp = room.inside(room.host(), || Dial::to(client(v6)).mark(999).connect());
            assert_eq!(outcome(&tcp), "ENETUNREACH");
            // It is no tenant, so nothing local is its own either. With `local` moved nothing is local to it at all.
            let refused = if mode == MOVE { "ENETUNREACH" } else { "EACCES" };
            for local in [room.local(0, v6), crate::room::host_address(v6)] {
                let tcp = room.inside(room.host(), || Dial::to(local).mark(999).connect());
                assert_eq!(outcome(&tcp), refused, "{local}");
            }
            assert_eq!(to_client(room, 0, v6, "the host itself"), "works");
            assert_eq!(to_client(room, room.mark(0), v6, "a tenant that is"), "works");
            assert!(nowhere.wait_for(b"the host itself", SOON), "the host's default route leads there");
            assert!(own.wait_for(b"a tenant that is", SOON));
        }
        crate::room::wait(NEVER);
        for capture in [&beyond, &nowhere, &own] {
            assert!(!capture.contains(b"unknown slot"));
        }
    }
}

#[test]
fn a_tenant_without_a_route_never_leaves_by_main() {
    for mode in MODES {
        let Some(yard) = Yard::open("leave-poor", mode) else { return };
        let room = &yard.room;
        let [_, nowhere, wire] = yard.captures();
        let poor = room.mark(2);
        for v6 in [false, true] {
            // The table's own end answers, before the tree's.
            assert_eq!(to_client(room, poor, v6, "no route"), "EHOSTUNREACH", "{mode:?} v6 {v6}");
            assert_eq!(to_client(room, 0, v6, "the host itself"), "works");
            let near: IpAddr = if v6 { room.street.router6(0).into() } else { room.street.router4(0).into() };
            let near = Datagram::to((near, PORT).into(), poor);
            room.inside(room.host(), || near.send(b"on the wire")).expect("its own wire has a route");
            assert!(nowhere.wait_for(b"the host itself", SOON));
            assert!(wire.wait_for(b"on the wire", SOON));
        }
        crate::room::wait(NEVER);
        assert!(!nowhere.contains(b"no route"));
        assert!(!wire.contains(b"no route"));
    }
}

#[test]
fn foreign_bits_of_a_mark_change_nothing() {
    let Some(room) = Room::open("leave-bits", 2, "") else { return };
    let server = room.street.client(0).enter(|| echo("[::]:8000"));
    for v6 in [false, true] {
        for bits in [0, 0xabcd_0000, 0x8000_0000] {
            let mark = bits | room.mark(0);
            let dial = Dial::to(client(v6)).mark(mark);
            room.inside(room.host(), || answered(&format!("mark {mark:#x} v6 {v6}"), &dial));
        }
    }
    assert_eq!(server.heard().len(), 6);
}

#[test]
fn a_socket_that_names_a_foreign_device_does_not_leave_by_it() {
    for mode in MODES {
        let Some(yard) = Yard::open("leave-doors", mode) else { return };
        let room = &yard.room;
        let [beyond, nowhere, own] = yard.captures();
        let (mark, mut opened) = (room.mark(0), Vec::new());
        let link_local = SocketAddr::new(LINK_LOCAL.parse().unwrap(), PORT);
        let groups = GROUPS.map(|group| SocketAddr::new(group.parse().unwrap(), PORT));
        let before = room.count(0, "dropDeviceOut");
        for to in [client(false), client(true), link_local, groups[0], groups[1]] {
            for door in DOORS {
                for device in ["eth1", "spare"] {
                    let index = room.host().ifindex(device);
                    let send = |mark: u32, text: String| {
                        let datagram = Datagram::to(to, mark).by(door, device, index)?;
                        Some(outcome(&room.inside(room.host(), || datagram.send(text.as_bytes()))))
                    };
                    let Some(tried) = send(mark, format!("door {door} {to}")) else { continue };
                    // Whatever the errno, nothing may leave. The host's own socket shows that the door is one.
                    let control = send(0, format!("control {door} {to} {device}"));
                    opened.push((door, to, device, tried, control));
                }
                let index = room.host().ifindex("eth0");
                // Where the tables are not asked, the kernel takes the device's first address, which is the host's;
                // so a tenant that sends multicast binds to its own.
                let source = room.local(0, to.is_ipv6()).ip();
                if let Some(datagram) = Datagram::to(to, mark).from(source).by(door, "eth0", index) {
                    let text = format!("own {door} {to}");
                    let sent = room.inside(room.host(), || datagram.send(text.as_bytes()));
                    // A link-local neighbour on the wire has to be found first, and is not there.
                    let seen = to.ip() != link_local.ip();
                    assert_eq!(outcome(&sent), "works", "{text}");
                    assert!(!seen || own.wait_for(text.as_bytes(), SOON), "{mode:?} {text}");
                }
            }
        }
        crate::room::wait(NEVER);
        for (door, to, device, tried, control) in &opened {
            let text = format!("control {door} {to} {device}");
            let far = if *device == "eth1" { &beyond } else { &nowhere };
            assert_eq!(control.as_deref(), Some("works"), "{text}");
            // A UNICAST_IF without a route by that device is a wish, not a door.
            let is_door = far.contains(text.as_bytes()) || *door == "UNICAST_IF";
            assert!(is_door, "{mode:?} {text} did not leave, so it proves nothing");
            assert!(["EPERM", "ENETUNREACH", "EHOSTUNREACH", "works"].contains(&tried.as_str()), "{tried}");
        }
        assert!(!beyond.contains(b"door "), "{mode:?} {opened:?}");
        assert!(!nowhere.contains(b"door "), "{mode:?} {opened:?}");
        assert!(room.count(0, "dropDeviceOut") > before, "the guard had to stop some: {opened:?}");
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
        let wire = Capture::on(room.street.router(0), "eth0");
        let mark = room.mark(0);
        for v6 in [false, true] {
            let before = room.count(0, "dropSpoof");
            for source in [room.local(1, v6), crate::room::host_address(v6)] {
                let datagram = Datagram::to(client(v6), mark).from(source.ip());
                // The bind program tells who is seen; the packets of who is not are dropped.
                let seen = room.inside(room.host(), || datagram.send(b"not my address"));
                let is_a_tenants = source == room.local(1, v6);
                assert_eq!(outcome(&seen), if is_a_tenants { "EADDRNOTAVAIL" } else { "works" }, "{source}");
                if !is_a_tenants {
                    continue;
                }
                let unseen = room.host().enter(|| datagram.send(b"not my address"));
                assert_eq!(outcome(&unseen), "works", "the sender is not told: {source}");
            }
            let own = Datagram::to(client(v6), mark).from(room.local(0, v6).ip());
            room.inside(room.host(), || own.send(b"my own address")).expect("its own address");
            assert!(wire.wait_for(b"my own address", SOON));
            assert_eq!(room.count(0, "dropSpoof"), before + 2, "{mode:?} v6 {v6}");
        }
        crate::room::wait(NEVER);
        assert!(!wire.contains(b"not my address"));
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
    let captures = [0, 1].map(|i| Capture::on(room.street.client(i), "eth0"));
    for tenant in [0, 1] {
        for v6 in [false, true] {
            let text = format!("from tenant {tenant} v6 {v6}");
            assert_eq!(to_client(&room, room.mark(tenant), v6, &text), "works");
            assert!(captures[tenant].wait_for(text.as_bytes(), SOON));
            assert!(!captures[1 - tenant].contains(text.as_bytes()));
        }
    }
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
