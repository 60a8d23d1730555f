//! Frames as they come: tagged, in fragments, with extension headers, echo requests.

use std::net::{SocketAddr, UdpSocket};

use fief_testkit::{Capture, Captured, Dial, Frame, Street, eventually, inject};

use crate::room::{NEVER, PORT, Room, SOON, client};

fn local(street: &Street, v6: bool) -> String {
    if v6 { street.local6(0).to_string() } else { street.local4(0).to_string() }
}

/// Router 0's frames to the host.
fn frame(street: &Street) -> Frame {
    Frame::new(street.router_mac(0), street.host_mac())
}

#[test]
fn a_tagged_frame_on_the_parent_is_not_the_tenants_and_a_priority_tag_is_no_tag() {
    let Some(room) = Room::open("wire-vlan", 1, "") else { return };
    let street = &room.street;
    let server = room.server();
    for v6 in [false, true] {
        // Whoever was called before is known as a neighbour, and asks for none.
        let warm = Dial::to(SocketAddr::new(local(street, v6).parse().expect("an address"), PORT));
        street.client(0).enter(|| warm.udp(b"warm")).expect("it is answered");
        let (heard, before) = (server.heard().len(), room.count(0, "rxPackets"));
        // Who waits for the answer: a closed port would say so, and that is a packet too.
        let waits = SocketAddr::new(client(v6).ip(), 4000);
        let _waits = street.client(0).enter(|| UdpSocket::bind(waits)).expect("the port is free");
        for tag in [20, 4094] {
            let tagged = frame(street).vlan(tag).ip(client(v6).ip(), local(street, v6));
            inject(street.router(0), "eth0", &tagged.udp(4000, PORT, b"tagged"));
            let double = frame(street).vlan(tag).vlan(7).ip(client(v6).ip(), local(street, v6));
            inject(street.router(0), "eth0", &double.udp(4000, PORT, b"tagged twice"));
        }
        // 3 << 13: a priority and VLAN 0 (IEEE 802.1Q, 9.6).
        let priority = frame(street).vlan(3 << 13).ip(client(v6).ip(), local(street, v6));
        inject(street.router(0), "eth0", &priority.udp(4000, PORT, b"priority"));
        eventually(SOON, || match server.heard().len() {
            now if now == heard + 1 => Ok(()),
            now => Err(format!("{now}: {:?}", server.heard())),
        });
        crate::room::wait(NEVER);
        assert_eq!(server.heard().len(), heard + 1, "{:?}", server.heard());
        assert_eq!(room.count(0, "rxPackets"), before + 1, "v6 {v6}");
    }
}

#[test]
fn fragments_are_put_together_and_answered() {
    let Some(room) = Room::open("wire-fragments", 2, "") else { return };
    let street = &room.street;
    let _server = room.server();
    for v6 in [false, true] {
        for (case, reversed) in [(0_u16, false), (1, true)] {
            let payload: Vec<u8> = (0..2400_u32).map(|i| (i % 251) as u8).collect();
            let kind = |packet: fief_testkit::frame::Packet| packet.echo_request(77, case, &payload);
            let whole = kind(frame(street).ip(client(v6).ip(), local(street, v6)));
            let (head, protocol) = if v6 { (54, 58) } else { (34, 1) };
            let parts: Vec<(u16, &[u8], bool)> = vec![
                (0, &whole[head..][..1200], true),
                (1200, &whole[head..][1200..2400], true),
                (2400, &whole[head..][2400..], false),
            ];
            let mut frames: Vec<Vec<u8>> = parts
                .into_iter()
                .map(|(offset, bytes, more)| {
                    let packet = frame(street).ip(client(v6).ip(), local(street, v6));
                    packet.fragment(900 + u32::from(case), offset, more).payload(protocol, bytes)
                })
                .collect();
            if reversed {
                frames.reverse();
            }
            let ways = [0, 1].map(|i| Capture::on(street.client(i), "eth0"));
            let before = room.count(0, "rxPackets");
            frames.iter().for_each(|bytes| inject(street.router(0), "eth0", bytes));
            // The answer is fragmented too; every part of it comes through the tenant's router.
            let answer = |f: &Captured| !f.outgoing && f.contains(&payload[500..600]);
            eventually(SOON, || match ways[0].count(answer) {
                0 => Err(format!("no answer, v6 {v6}, reversed {reversed}")),
                _ => Ok(()),
            });
            eventually(SOON, || match room.count(0, "rxPackets") {
                now if now >= before + 3 => Ok(()),
                now => Err(format!("{} of 3 fragments counted", now - before)),
            });
            assert_eq!(ways[1].count(|f| f.contains(&payload[500..600])), 0);
        }
    }
}

#[test]
fn echo_requests_behind_extension_headers_are_answered_through_the_tenants_router() {
    let Some(room) = Room::open("wire-options", 2, "") else { return };
    let street = &room.street;
    let ways = [0, 1].map(|i| Capture::on(street.client(i), "eth0"));
    for headers in 1..=3_usize {
        let plain =
            frame(street).ip(client(true).ip(), local(street, true)).echo_request(5, 6, b"behind options");
        // Destination options, all padding (RFC 8200, 4.2), one after the other.
        let next = |i: usize| if i + 1 == headers { 58 } else { 60 };
        let options: Vec<u8> = (0..headers).flat_map(|i| [next(i), 0, 1, 4, 0, 0, 0, 0]).collect();
        let packet = frame(street).ip(client(true).ip(), local(street, true));
        ways[0].clear();
        inject(street.router(0), "eth0", &packet.payload(60, &[options, plain[54..].to_vec()].concat()));
        assert!(ways[0].wait_for(b"behind options", SOON), "{headers} headers");
        assert!(!ways[1].contains(b"behind options"));
    }
}

#[test]
fn packets_that_lie_about_themselves_reach_nobody_and_break_nothing() {
    let Some(room) = Room::open("wire-lies", 1, "") else { return };
    let street = &room.street;
    let server = room.server();
    for v6 in [false, true] {
        let good = frame(street).ip(client(v6).ip(), local(street, v6)).udp(4000, PORT, b"good");
        for cut in 14..good.len() {
            inject(street.router(0), "eth0", &good[..cut]);
        }
        let heard = server.heard().len();
        assert_eq!(heard, usize::from(v6), "{:?}", server.heard());
        inject(street.router(0), "eth0", &good);
        eventually(SOON, || match server.heard().len() {
            now if now == heard + 1 => Ok(()),
            now => Err(format!("{now}")),
        });
    }
}
