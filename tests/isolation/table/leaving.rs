//! What leaves the host: by the tenant's own table and devices, with its own addresses, or not at all.
//! Each is asked of a room, whatever keeps its tenants apart.

use std::net::{IpAddr, SocketAddr};

use fief_testkit::{Capture, Dial, Lab, Ns};

use crate::odd::{DOORS, Datagram};
use crate::room::{MOVE, NEVER, PORT, Room, SOON, answered, client, echo, outcome};

/// Device `eth1` is named by a third tenant, `spare` by nobody; the host's default routes lead out of `spare`. Every
/// next hop has a permanent entry, so that nothing waits for a neighbour to be found.
pub struct Yard {
    pub room: Room,
    pub beyond: Ns,
    pub nowhere: Ns,
}

pub const OTHER: &str = "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: other }\nspec:\n  interfaces:\n    \
                     - { name: eth1, addresses: [\"192.0.2.1/24\", \"2001:db8:2::1/64\"] }\n";
/// No default route, no route to where the clients are.
pub const POOR: &str = "---\napiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: { name: t2 }\nspec:\n  interfaces:\n    \
                    - { name: eth0, addresses: [\"198.18.200.1/15\", \"fd00:18::c:1/64\"] }\n";
pub const LINK_LOCAL: &str = "fe80::99";
pub const GROUPS: [&str; 2] = ["239.1.2.3", "ff02::123"];

impl Yard {
    pub fn open(name: &str, mode: &str) -> Option<Yard> {
        let mut ends = None;
        let room = Room::with(name, 2, mode, |lab, street| {
            ends = Some(furnish(lab, &street.host));
            street.documents() + OTHER + POOR
        })?;
        let (beyond, nowhere) = ends?;
        Some(Yard { room, beyond, nowhere })
    }

    /// The same with VRFs: tenants 0 and 1 are plain, 2 has no route; the one on `eth1` has no VRF.
    pub fn apart(name: &str) -> Option<Yard> {
        let mut ends = None;
        let room = Room::apart(name, 3, "", |lab, street| {
            ends = Some(furnish(lab, &street.host));
            let poor = street.yaml(2);
            let poor = poor.split("  routes:").next().unwrap_or_default();
            [street.yaml(0).as_str(), &street.yaml(1), poor].join("---\n") + OTHER
        })?;
        let (beyond, nowhere) = ends?;
        Some(Yard { room, beyond, nowhere })
    }

    /// Captures on the far ends of `eth1` and `spare`, and at router 0.
    pub fn captures(&self) -> [Capture; 3] {
        [
            Capture::on(&self.beyond, "far"),
            Capture::on(&self.nowhere, "far"),
            Capture::on(self.room.street.router(0), "eth0"),
        ]
    }
}

pub fn furnish(lab: &Lab, host: &Ns) -> (Ns, Ns) {
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
pub fn to_client(room: &Room, mark: u32, v6: bool, text: &str) -> String {
    outcome(&room.inside(room.host(), || Datagram::to(client(v6), mark).send(text.as_bytes())))
}

pub fn unknown_slot(yard: &Yard, mode: &str) {
    {
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
            for (local, is_here) in
                [(room.local(0, v6), !room.has_vrfs()), (crate::room::host_address(v6), true)]
            {
                let refused = if mode == MOVE || !is_here { "ENETUNREACH" } else { "EACCES" };
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

pub fn without_a_route(yard: &Yard, mode: &str) {
    {
        let room = &yard.room;
        let [_, nowhere, wire] = yard.captures();
        // Where each has a wire of its own, it is the poor one's.
        let neighbour = if room.has_vrfs() { 2 } else { 0 };
        let wire = if room.has_vrfs() { Capture::on(room.street.router(2), "eth0") } else { wire };
        let poor = room.mark(2);
        for v6 in [false, true] {
            // The table's own end answers, before the tree's.
            assert_eq!(to_client(room, poor, v6, "no route"), "EHOSTUNREACH", "{mode:?} v6 {v6}");
            assert_eq!(to_client(room, 0, v6, "the host itself"), "works");
            let street = &room.street;
            let near: IpAddr =
                if v6 { street.router6(neighbour).into() } else { street.router4(neighbour).into() };
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

pub fn foreign_bits(room: &Room) {
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

pub fn foreign_devices(yard: &Yard, mode: &str) {
    {
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
                let device = room.street.device(0);
                let index = room.host().ifindex(&device);
                // Where the tables are not asked, the kernel takes the device's first address, which is the host's;
                // so a tenant that sends multicast binds to its own.
                let source = room.local(0, to.is_ipv6()).ip();
                if let Some(datagram) = Datagram::to(to, mark).from(source).by(door, &device, index) {
                    let text = format!("own {door} {to}");
                    let sent = room.inside(room.host(), || datagram.send(text.as_bytes()));
                    // A link-local neighbour on the wire has to be found first, and is not there.
                    let seen = to.ip() != link_local.ip();
                    // What IPv6 takes of no bound socket, and one in a VRF is bound (do_ipv6_setsockopt,
                    // vrf_link_scope_lookup).
                    let refused = match door {
                        "UNICAST_IF" => Some("EINVAL"),
                        "MULTICAST_IF" => Some("ENETUNREACH"),
                        _ => None,
                    };
                    if let Some(refused) = refused.filter(|_| room.has_vrfs() && to.is_ipv6()) {
                        assert_eq!(outcome(&sent), refused, "{text}");
                        continue;
                    }
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
            // A socket in a VRF may not name what is not in it (EINVAL).
            let refusals = ["EPERM", "ENETUNREACH", "EHOSTUNREACH", "works", "EINVAL"];
            let refusals = if room.has_vrfs() { &refusals[..] } else { &refusals[..4] };
            assert!(refusals.contains(&tried.as_str()), "{tried}");
        }
        assert!(!beyond.contains(b"door "), "{mode:?} {opened:?}");
        assert!(!nowhere.contains(b"door "), "{mode:?} {opened:?}");
        assert!(room.count(0, "dropDeviceOut") > before, "the guard had to stop some: {opened:?}");
    }
}

pub fn bound_elsewhere(room: &Room, mode: &str) {
    {
        let wire = Capture::on(room.street.router(0), "eth0");
        let mark = room.mark(0);
        for v6 in [false, true] {
            let before = room.count(0, "dropSpoof");
            // With VRFs another tenant's address is nobody's here, as any that is remote.
            let sources = [room.local(1, v6), crate::room::host_address(v6)];
            for source in sources.into_iter().skip(usize::from(room.has_vrfs())) {
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
            let dropped = if room.has_vrfs() { 1 } else { 2 };
            assert_eq!(room.count(0, "dropSpoof"), before + dropped, "{mode:?} v6 {v6}");
        }
        crate::room::wait(NEVER);
        assert!(!wire.contains(b"not my address"));
    }
}

pub fn to_its_own(room: &Room) {
    let captures = [0, 1].map(|i| Capture::on(room.street.client(i), "eth0"));
    for tenant in [0, 1] {
        for v6 in [false, true] {
            let text = format!("from tenant {tenant} v6 {v6}");
            assert_eq!(to_client(room, room.mark(tenant), v6, &text), "works");
            assert!(captures[tenant].wait_for(text.as_bytes(), SOON));
            assert!(!captures[1 - tenant].contains(text.as_bytes()));
        }
    }
}
