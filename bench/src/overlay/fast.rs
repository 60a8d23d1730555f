//! `overlay.fast.*`: the overlay's fast path, beside the kernel's own VXLAN.
//!
//! ```text
//!   a [eth0]── port ── programs ── fief4 ── h1 [eth0]────────[eth0] h2 ── fief4 ── programs ── port ──[eth0] b
//!   k1 [vx0]── [eth0]────────[eth0] ──[vx0] k2
//!   u1 [eth0]── bridge ── vx0 ── g1 [eth0]────────[eth0] g2 ── vx0 ── bridge ──[eth0] u2
//! ```
//!
//! The second is the kernel's at its quickest: the tunnel's device in the namespace of whoever speaks, which gives him every
//! network of the LAN, with one peer that somebody wrote down. The third is what the kernel has for somebody who is not to
//! reach the tunnel's device himself.

use fief_testkit::{Lab, Ns};

use super::{ENDS, daemons, joined, pair};
use crate::compare::compare;
use crate::networks::talk::Talk;
use crate::networks::town::Road;
use crate::report::Row;

const TCP: &str = "overlay.fast.tcp";
const RR: &str = "overlay.fast.rr";
const BRIDGE_TCP: &str = "overlay.fast.bridge.tcp";
const BRIDGE_RR: &str = "overlay.fast.bridge.rr";
/// What is measured here.
pub const IDS: &[&str] = &[TCP, RR, BRIDGE_TCP, BRIDGE_RR];
/// So much of the kernel's speed is to be left.
const GOAL: f64 = 0.95;

/// Measures those whose ids begin with `only`.
pub fn measure(only: &str) -> Vec<Row> {
    let lab = Lab::new("bench-fast").expect("the benchmarks need root");
    let hosts = pair(&lab, ["h1", "h2"], "192.0.2");
    let daemons = daemons(&lab, &hosts);
    let users = joined(&lab, &daemons, ["a", "b"]);
    let kernels = pair(&lab, ["k1", "k2"], "192.0.3");
    for ((kernel, address), far) in kernels.iter().zip(ENDS).zip([2, 1]) {
        kernel.ip(&format!(
            "link add vx0 type vxlan id 1000 remote 192.0.3.{far} dev eth0 dstport 4789\n\
             addr add {address}/24 dev vx0\nlink set vx0 up\n"
        ));
    }
    let bridged = bridged(&lab);
    let roads = [&users, &kernels, &bridged].map(|[from, to]| Road { from, to, at: ENDS[1], seen: ENDS[0] });
    for road in &roads {
        road.from.run(&["ping", "-c", "3", "-i", "0.2", &ENDS[1].to_string()]).ok();
    }
    let [fast, kernel, bridge] = &roads;
    let wanted = [
        (TCP, "TCP on a segment, to the kernel's VXLAN", true, kernel),
        (RR, "a byte for a byte over TCP on a segment, to the kernel's VXLAN", false, kernel),
        (BRIDGE_TCP, "TCP on a segment, to VXLAN, bridge and veth", true, bridge),
        (BRIDGE_RR, "a byte for a byte over TCP on a segment, to VXLAN, bridge and veth", false, bridge),
    ];
    let row = |(id, what, is_stream, against): (&str, &str, bool, &Road<'_>)| {
        let [mut subject, mut baseline] = [fast, against].map(Talk::along);
        let (unit, run): (_, fn(&mut Talk) -> f64) = if is_stream {
            // Nanoseconds a KiB.
            ("Gbit/s", |talk| 8.0 * 1024.0 / talk.stream())
        } else {
            ("1/s", |talk| 1e9 / talk.exchange())
        };
        let found = compare(|| run(&mut subject), || run(&mut baseline));
        Row::value(id, what, found.subject, unit).against(found.baseline, found.ratio).least(GOAL)
    };
    wanted.into_iter().filter(|(id, ..)| id.starts_with(only)).map(row).collect()
}

fn bridged(lab: &Lab) -> [Ns; 2] {
    let gates = pair(lab, ["g1", "g2"], "192.0.4");
    let users = ["u1", "u2"].map(|name| lab.ns(name));
    for (((gate, user), address), far) in gates.iter().zip(&users).zip(ENDS).zip([2, 1]) {
        lab.veth((gate, "user"), (user, "eth0"));
        gate.ip(&format!(
            "link add vx0 type vxlan id 1000 remote 192.0.4.{far} dev eth0 dstport 4789\n\
             link add br0 type bridge mcast_snooping 0\nlink set vx0 master br0 up\nlink set user master br0 up\n\
             link set br0 up\n"
        ));
        user.ip(&format!("link set eth0 mtu 1450\naddr add {address}/24 dev eth0\n"));
    }
    users
}
