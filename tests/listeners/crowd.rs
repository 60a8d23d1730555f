//! A hundred tenants on one wire, whose clients have one address and port between them.

use std::io::{Read, Write};
use std::net::SocketAddr;

use fief_testkit::{Capture, Dial, Street};

use crate::room::{Room, SOON};

fn from(v6: bool) -> SocketAddr {
    if v6 { (Street::CLIENT_V6, 40_000).into() } else { (Street::CLIENT_V4, 40_000).into() }
}

fn nonce(tenant: usize, v6: bool) -> String {
    format!("<nonce of tenant {tenant}, v6 {v6}>")
}

/// Everybody connects, then everybody asks, then everybody hears: all answers are outstanding at once.
fn everybody(name: &str, tenants: usize, config: &str) {
    let Some(room) = Room::open(name, tenants, config) else { return };
    let street = &room.street;
    let server = room.server();
    let captures: Vec<Capture> = (0..tenants).map(|i| Capture::on(street.client(i), "eth0")).collect();
    for v6 in [false, true] {
        let open = |i: usize| {
            let to = room.local(i, v6);
            let dial = Dial::to(to).bind(from(v6)).timeout(SOON);
            street.client(i).enter(|| dial.connect()).unwrap_or_else(|e| panic!("tenant {i} {to}: {e}"))
        };
        let mut streams: Vec<_> = (0..tenants).map(open).collect();
        for (i, stream) in streams.iter_mut().enumerate() {
            stream.write_all(nonce(i, v6).as_bytes()).expect("the connection is open");
        }
        for (i, stream) in streams.iter_mut().enumerate() {
            let mut answer = vec![0; nonce(i, v6).len()];
            stream.read_exact(&mut answer).unwrap_or_else(|e| panic!("tenant {i} v6 {v6}: {e}"));
            assert_eq!(String::from_utf8_lossy(&answer), nonce(i, v6));
        }
    }
    for (i, capture) in captures.into_iter().enumerate() {
        let frames = capture.stop();
        let text: Vec<u8> = frames.iter().filter(|f| !f.outgoing).flat_map(|f| f.bytes.clone()).collect();
        let text = String::from_utf8_lossy(&text);
        let heard: Vec<&str> =
            text.split("<nonce of ").skip(1).map(|rest| rest.split('>').next().unwrap_or("")).collect();
        assert!(heard.len() >= 2, "client {i} heard {heard:?}");
        let own = format!("tenant {i},");
        assert!(heard.iter().all(|nonce| nonce.starts_with(&own)), "client {i} heard {heard:?}");
    }
    assert_eq!(server.heard().len(), 2 * tenants);
}

#[test]
fn a_hundred_tenants_with_the_same_client_address_and_port() {
    everybody("crowd", 100, "");
}

#[test]
fn ten_tenants_with_the_mark_field_elsewhere() {
    everybody("crowd-mask", 10, "markMask: \"0xffff0000\"\nlocalRule: move\n");
}
