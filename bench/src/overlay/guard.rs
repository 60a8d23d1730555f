//! `overlay.guard.send`: a datagram by a guarded socket, beside one by a socket that nobody guards.
//!
//! ```text
//!   h1 [eth0]────────[eth0] h2    the peer has been heard, and then has the Ethernet address of nobody: its host drops what
//!                                 comes at once, so that its cost stays out of the ratio
//! ```

use std::net::UdpSocket;
use std::time::Duration;

use fief_testkit::{Lab, bind_device};
use nix::unistd::{Gid, getegid, setegid};

use super::{GROUP, daemons, pair};
use crate::compare::{compare, cost};
use crate::report::Row;

const SEND: &str = "overlay.guard.send";
/// What is measured here.
pub const IDS: &[&str] = &[SEND];
const GOAL: f64 = 0.9;
const COUNT: u32 = 20_000;
/// A small frame, for which a look at each datagram costs most.
const FRAME: usize = 100;
const SOON: Duration = Duration::from_secs(10);
/// The station that nobody is.
const NOBODY: &str = "02:00:00:00:00:fe";

/// Measures it.
pub fn measure(_: &str) -> Vec<Row> {
    let lab = Lab::new("bench-guard").expect("the benchmarks need root");
    let hosts = pair(&lab, ["h1", "h2"], "192.0.2");
    let daemons = daemons(&lab, &hosts);
    let sockets = daemons[0].root().join("run/fief/sockets.sock");
    // Whose segment, the effective group says.
    let before = getegid();
    setegid(Gid::from_raw(GROUP)).expect("root may");
    let segment = libfief::segment_by(&sockets, libc::AF_INET, None);
    setegid(before).expect("root may");
    let segment = segment.unwrap_or_else(|error| panic!("no sockets: {error}\n{}", daemons[0].log()));
    let guarded = UdpSocket::from(segment.unicast);
    let mut datagram = segment.header.to_vec();
    datagram.resize(segment.header.len() + FRAME, 7);
    let peer = hosts[1].enter(|| UdpSocket::bind("192.0.2.2:0")).expect("the address is there");
    let [to, own] = [&peer, &guarded].map(|socket| socket.local_addr().expect("it has a name"));
    let bare = hosts[0].enter(|| UdpSocket::bind("192.0.2.1:0")).expect("the address is there");
    bind_device(&bare, "eth0").expect("root may");
    bare.set_ttl(1).expect("an ordinary option");
    let hear = |socket: &UdpSocket| {
        socket.set_read_timeout(Some(SOON)).expect("a socket can wait");
        let length = socket.recv(&mut vec![0; datagram.len()]).expect("what is sent arrives");
        assert_eq!(length, datagram.len());
    };
    let send = |socket: &UdpSocket| {
        socket.send_to(&datagram, to).expect("the peer may be sent to");
    };
    // Who was heard is sent to.
    peer.send_to(&datagram, own).expect("there is a way");
    hear(&guarded);
    for socket in [&guarded, &bare] {
        send(socket);
        hear(&peer);
    }
    hosts[0].ip(&format!("neigh replace 192.0.2.2 lladdr {NOBODY} dev eth0 nud permanent\n"));
    let speed = |socket| 1e9 / cost(COUNT, || (0..COUNT).for_each(|_| send(socket)));
    let found = compare(|| speed(&guarded), || speed(&bare));
    let what = "datagrams of 108 bytes by a guarded socket, to a bare one's";
    vec![Row::value(SEND, what, found.subject, "1/s").against(found.baseline, found.ratio).least(GOAL)]
}
