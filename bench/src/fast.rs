//! The benchmarks whose ids begin with `overlay.fast.`: the overlay's fast path, beside the kernel's own VXLAN.
//!
//! ```text
//!   a [eth0]── port ── programs ── fief4 ── h1 [eth0]────────[eth0] h2 ── fief4 ── programs ── port ──[eth0] b
//!   k1 [vx0]── [eth0]────────[eth0] ──[vx0] k2
//!   u1 [eth0]── bridge ── vx0 ── g1 [eth0]────────[eth0] g2 ── vx0 ── bridge ──[eth0] u2
//! ```
//!
//! The last is what the kernel has for somebody who is not to reach the tunnel's device himself.

use std::net::Ipv4Addr;

use fief_testkit::{Daemon, DaemonOptions, Lab, Ns};

use crate::compare::compare;
use crate::networks::talk::Talk;
use crate::networks::town::Road;
use crate::report::Row;

const TCP: &str = "overlay.fast.tcp";
const RR: &str = "overlay.fast.rr";
const BRIDGE_TCP: &str = "overlay.fast.bridge.tcp";
const BRIDGE_RR: &str = "overlay.fast.bridge.rr";
/// A conversation may cost so much more that 0.95 of its speed is left.
const GOAL: f64 = 1.0 / 0.95;
const GROUP: &str = "1000";
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];

/// Runs the benchmarks whose ids begin with `only`; `tell` gets each result as soon as it is known.
pub fn run(only: &str, tell: &mut dyn FnMut(Row)) {
    if ![TCP, RR, BRIDGE_TCP, BRIDGE_RR].iter().any(|id| id.starts_with(only)) {
        return;
    }
    let measured = std::thread::spawn({
        let only = only.to_owned();
        // A lab moves its thread into a mount namespace.
        move || measure(&only)
    });
    let rows = measured.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    rows.into_iter().for_each(tell);
}

fn measure(only: &str) -> Vec<Row> {
    let lab = Lab::new("bench-fast").expect("the benchmarks need root");
    let hosts = pair(&lab, ["h1", "h2"], "192.0.2");
    let daemons = hosts.each_ref().map(|host| {
        let config_yaml = Some("overlay: { device: eth0 }\n".into());
        let root = host.short().to_owned();
        Daemon::start(&lab, host, DaemonOptions { config_yaml, root, ..DaemonOptions::default() })
    });
    let users = ["a", "b"].map(|name| lab.ns(name));
    for ((user, daemon), address) in users.iter().zip(&daemons).zip(ENDS) {
        let cli = lab.dir().join("fief").display().to_string();
        let root = daemon.root().display().to_string();
        user.run(&[&cli, "--root", &root, "join", "--group", GROUP]).ok();
        user.ip(&format!("addr add {address}/24 dev eth0\n"));
    }
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
    let stream = Talk::stream as fn(&mut Talk) -> f64;
    let wanted = [
        (TCP, "a KiB over TCP on a segment, to the kernel's VXLAN", stream, kernel),
        (RR, "a byte for a byte over TCP on a segment, to the kernel's VXLAN", Talk::exchange, kernel),
        (BRIDGE_TCP, "a KiB over TCP on a segment, to VXLAN, bridge and veth", stream, bridge),
        (
            BRIDGE_RR,
            "a byte for a byte over TCP on a segment, to VXLAN, bridge and veth",
            Talk::exchange,
            bridge,
        ),
    ];
    let wanted = wanted.into_iter().filter(|(id, ..)| id.starts_with(only));
    let row = |(id, what, talk, against): (&str, &str, fn(&mut Talk) -> f64, &Road<'_>)| {
        let [mut subject, mut baseline] = [fast, against].map(Talk::along);
        let found = compare(|| talk(&mut subject), || talk(&mut baseline));
        Row::value(id, what, found.subject, "ns").against(found.baseline, found.ratio).goal(GOAL)
    };
    wanted.map(row).collect()
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

/// Two hosts and a cable, of IPv4 only, so that both tunnels have the same MTU.
fn pair(lab: &Lab, names: [&str; 2], net: &str) -> [Ns; 2] {
    let hosts = names.map(|name| lab.ns(name));
    hosts.iter().for_each(|host| host.set_sysctl("net.ipv6.conf.default.disable_ipv6", 1));
    lab.veth((&hosts[0], "eth0"), (&hosts[1], "eth0"));
    for (host, number) in hosts.iter().zip([1, 2]) {
        host.ip(&format!("addr add {net}.{number}/24 dev eth0\n"));
    }
    hosts
}
