//! What is left of a tenant when it is deleted: nothing.

use std::io::Read;
use std::net::SocketAddr;

use fief_testkit::{Dial, eventually};
use fief_tests::peers::peer;

use crate::house;
use crate::room::{PORT, Room, SOON};

/// Tracked connections with this address, in conntrack(8)'s words.
fn tracked(room: &Room, conntrack: &str, address: &str) -> usize {
    let all = room.host().sh(&format!("{conntrack} -L -f ipv4; {conntrack} -L -f ipv6")).stdout;
    all.lines().filter(|line| line.contains(&format!("={address} "))).count()
}

#[test]
fn a_deleted_tenants_connections_are_closed_and_forgotten() {
    let Some(conntrack) = peer("conntrack") else { return };
    let conntrack = conntrack.display().to_string();
    let Some(room) = house("dead") else { return };
    // Connections are tracked where a rule asks for their state.
    room.host().nft(
        "table inet own { chain c { type filter hook input priority 0; ct state invalid counter; }; }\n",
    );
    let server = room.server();
    let mut streams = Vec::new();
    for tenant in [0, 1] {
        for v6 in [false, true] {
            let to = SocketAddr::new(room.local(tenant, v6).ip(), PORT);
            let dial = Dial::to(to).timeout(SOON);
            streams.push(room.street.client(tenant).enter(|| dial.connect()).expect("it is served"));
            room.street.client(tenant).enter(|| dial.udp(b"hello")).expect("it is served");
        }
    }
    eventually(
        SOON,
        || if server.heard().len() == 8 { Ok(()) } else { Err(format!("{:?}", server.heard())) },
    );
    let count = |tenant: usize| {
        [false, true].map(|v6| tracked(&room, &conntrack, &room.local(tenant, v6).ip().to_string()))
    };
    assert!(count(0).iter().chain(&count(1)).all(|n| *n >= 2), "{:?} {:?}", count(0), count(1));
    let others = count(1);
    room.daemon.cli(&["delete", "tenant", "t0"]).ok();
    assert_eq!(count(0), [0, 0], "forgotten");
    assert_eq!(count(1), others, "others' connections are tracked on");
    // The peers of the deleted one hear of it; the other's go on.
    for (i, mut stream) in streams.into_iter().enumerate() {
        stream
            .set_read_timeout(Some(if i < 2 { SOON } else { std::time::Duration::from_millis(50) }))
            .expect("a time-out");
        let ended = !matches!(stream.read(&mut [0; 8]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
        assert_eq!(ended, i < 2, "connection {i}");
    }
}
