//! Who may bring packets for a tenant: everybody on the wire, unless the document lists them.

use fief_testkit::{Dial, Frame, Street, eventually, inject};

use crate::room::{MODES, PORT, Room, SOON, answered, outcome};

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Tenant 0 with only its own router as a neighbour.
fn guarded(street: &Street) -> String {
    let list = format!("{{ name: eth0, neighbours: [\"{}\"],", mac_text(street.router_mac(0)));
    street.yaml(0).replace("{ name: eth0,", &list) + "---\n" + &street.yaml(1)
}

/// The limit of `fib` that docs/isolation.md names: a wire is a wire.
#[test]
fn a_neighbour_on_the_same_wire_can_call_another_tenants_address() {
    for mode in MODES {
        let Some(room) = Room::open("wire-limit", 2, mode) else { return };
        let _server = room.server();
        for v6 in [false, true] {
            // Router 1 itself, whose address is on the wire that tenant 0 has too.
            let to = room.local(0, v6);
            room.street.router(1).enter(|| answered("from the neighbour", &Dial::to(to)));
        }
    }
}

#[test]
fn with_neighbours_only_they_bring_packets_and_ask_for_addresses() {
    for mode in MODES {
        let Some(room) = Room::with("wire-neighbours", 2, mode, |_, street| guarded(street)) else { return };
        let street = &room.street;
        let _server = room.server();
        for v6 in [false, true] {
            let before = room.count(0, "dropNeighbour");
            let to = room.local(0, v6);
            let called = street
                .router(1)
                .enter(|| Dial::to(to).timeout(std::time::Duration::from_millis(400)).connect());
            let called = outcome(&called);
            assert!(called == "silence" || called == "EHOSTUNREACH", "{mode:?} v6 {v6}: {called}");
            assert!(
                room.count(0, "dropNeighbour") > before,
                "it asked where the address is, and was dropped"
            );
            // Knowing the host's address on the wire is no help.
            let source = if v6 { street.router6(1).to_string() } else { street.router4(1).to_string() };
            let before = room.count(0, "dropNeighbour");
            let frame = Frame::new(street.router_mac(1), street.host_mac()).ip(source, to.ip());
            inject(street.router(1), "eth0", &frame.udp(4000, PORT, b"straight to the host"));
            eventually(SOON, || match room.count(0, "dropNeighbour") {
                now if now > before => Ok(()),
                now => Err(format!("{now} dropped")),
            });
            // Who is listed gets through, and who has no list hears everybody.
            street.client(0).enter(|| answered("from behind its router", &Dial::to(to)));
            street.router(0).enter(|| answered("from the router itself", &Dial::to(to)));
            let other = room.local(1, v6);
            street.router(0).enter(|| answered("to the tenant without a list", &Dial::to(other)));
        }
    }
}

#[test]
fn arp_and_neighbour_discovery_are_answered_for_the_listed_and_not_for_others() {
    let Some(room) = Room::with("wire-arp", 2, "", |_, street| guarded(street)) else { return };
    let street = &room.street;
    for (asker, answers) in [(0, true), (1, false)] {
        let (from, to) = (street.router(asker), street.host_mac());
        let seen = fief_testkit::Capture::on(from, "eth0");
        let before = room.count(0, "dropNeighbour");
        let frame = Frame::new(street.router_mac(asker), [0xff; 6]);
        inject(from, "eth0", &frame.arp_request(street.router4(asker), street.local4(0)));
        let frame = Frame::new(street.router_mac(asker), to);
        let frame = frame.ip(street.router6(asker), street.local6(0));
        inject(from, "eth0", &frame.neighbour_solicitation(street.local6(0)));
        let arp = |f: &fief_testkit::Captured| !f.outgoing && f.bytes[12..14] == [8, 6] && f.bytes[21] == 2;
        let nd = |f: &fief_testkit::Captured| {
            !f.outgoing && f.bytes[12..14] == [0x86, 0xdd] && f.bytes.get(54) == Some(&136)
        };
        if answers {
            eventually(SOON, || match (seen.count(arp), seen.count(nd)) {
                (1.., 1..) => Ok(()),
                now => Err(format!("(ARP, ND) answers: {now:?}")),
            });
        } else {
            eventually(SOON, || match room.count(0, "dropNeighbour") {
                now if now == before + 2 => Ok(()),
                now => Err(format!("{} dropped", now - before)),
            });
            crate::room::wait(crate::room::NEVER);
            assert_eq!((seen.count(arp), seen.count(nd)), (0, 0));
        }
    }
}
