//! `overlay.plugin.*` and `overlay.vde.tcp`: Debian's vde_plug with its own vxvde and with our plug-in, and the fast path.
//!
//! ```text
//!   s1 [tap0]── vde_plug vxvde:// ── [eth0]────────[eth0] ── vde_plug vxvde:// ──[tap0] s2
//!   p1 [eth0]── vde_plug vxvdex:// ── h1 [eth0]────────[eth0] h2 ── vde_plug vxvdex:// ──[eth0] p2     with and without `lro`
//!   x1 [tap0]── vde_plug ──[tap0] x2
//!   a [eth0]── fast path ── h1 [eth0]────────[eth0] h2 ── fast path ──[eth0] b
//! ```
//!
//! The third is no segment: vde_plug reads each frame from one interface and writes it to another one, and nothing else. No
//! plug-in is quicker than none, so that is the most that any of them could reach.
//!
//! All interfaces have the MTU with which nothing is cut up on the cable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fief_testkit::{Child, Daemon, Lab, Ns, attempt, bin};

use super::pace::Pace;
use super::{ENDS, GROUP, daemons, joined, pair};
use crate::compare::compare_free;
use crate::networks::town::{Road, program};
use crate::report::Row;

const PLUGIN: &str = "overlay.plugin.tcp";
const PLAIN: &str = "overlay.plugin.plain";
const BOUND: &str = "overlay.plugin.bound";
const VDE: &str = "overlay.vde.tcp";
/// What is measured here.
pub const IDS: &[&str] = &[PLUGIN, PLAIN, BOUND, VDE];
const MTU: u32 = 1450;
/// More than any of it takes to be there.
const SOON: Duration = Duration::from_secs(20);

/// Measures those whose ids begin with `only`.
pub fn measure(only: &str) -> Vec<Row> {
    let lab = Lab::new("bench-vde").expect("the benchmarks need root");
    let Some(programs) = unpack(&lab) else {
        eprintln!("fief-bench: no vde_plug below target/peers; scripts/peers.sh unpacks Debian's");
        return Vec::new();
    };
    let stock = pair(&lab, ["s1", "s2"], "192.0.3");
    let url = format!("vxvde:///grp={GROUP}/if=eth0");
    let _stock = [0, 1].map(|end| plug(&programs, &stock[end], None, &url, "tap0", end));
    let hosts = pair(&lab, ["h1", "h2"], "192.0.2");
    let daemons = daemons(&lab, &hosts);
    let stock = Road { from: &stock[0], to: &stock[1], at: ENDS[1], seen: ENDS[0] };
    let mut rows = Vec::new();
    for (id, names, url, what) in [
        (
            PLUGIN,
            ["p1", "p2"],
            "vxvdex:///lro=9216",
            "TCP by vde_plug with our plug-in and lro, to its own vxvde",
        ),
        (PLAIN, ["q1", "q2"], "vxvdex://", "TCP by vde_plug with our plug-in, to its own vxvde"),
    ] {
        if id.starts_with(only) {
            let users = names.map(|name| lab.ns(name));
            let _plugs =
                [0, 1].map(|end| plug(&programs, &users[end], Some(&daemons[end]), url, "eth0", end));
            let row = row(id, what, &users, &stock);
            rows.push(if id == PLUGIN { row.least(2.0) } else { row });
        }
    }
    if BOUND.starts_with(only) {
        let ends = ["x1", "x2"].map(|name| lab.ns(name));
        let _plug = plug(&programs, &ends[0], None, "tap://tap1", "tap0", 0);
        ends[0].ip(&format!("link set tap1 netns {} name tap0\n", ends[1].name()));
        dress(&ends[1], "tap0", 1);
        let what = "TCP by vde_plug between two interfaces, to vxvde";
        rows.push(row(BOUND, what, &ends, &stock));
    }
    if VDE.starts_with(only) {
        let users = joined(&lab, &daemons, ["a", "b"]);
        rows.push(row(VDE, "TCP by the fast path, to vde_plug with vxvde", &users, &stock).least(10.0));
    }
    rows
}

fn row(id: &str, what: &str, [from, to]: &[Ns; 2], stock: &Road<'_>) -> Row {
    let ours = Road { from, to, at: ENDS[1], seen: ENDS[0] };
    let [mut subject, mut baseline] = [&ours, stock].map(|road| {
        let reach = || {
            let ping = road.from.run(&["ping", "-c", "1", "-W", "1", &ENDS[1].to_string()]);
            if ping.success() { Ok(()) } else { Err(ping.to_string()) }
        };
        attempt(SOON, reach).unwrap_or_else(|error| panic!("{id}: the far end does not answer: {error}"));
        Pace::along(road)
    });
    let found = compare_free(|| subject.run(), || baseline.run());
    Row::value(id, what, found.subject, "Gbit/s").against(found.baseline, found.ratio)
}

/// Debian's programs and plug-ins and ours, in one directory.
fn unpack(lab: &Lab) -> Option<PathBuf> {
    let root = program("vde_plug")?.parent()?.parent()?.join("root");
    let ours = bin("fiefd").with_file_name("libvdeplug_vxvdex.so");
    let (root, ours) = (root.display(), ours.display());
    let dir = lab.dir().join("vde");
    std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
    let line = format!(
        "cd {root} && cp -L usr/bin/vde_plug usr/lib/*/libvdeplug*.so.* usr/lib/*/libexecs.so.0 usr/lib/*/vdeplug/*.so \
         {ours} {}",
        dir.display()
    );
    lab.ns("unpack").sh(&line).ok();
    Some(dir)
}

/// A vde_plug between a segment and an interface that it makes.
fn plug(dir: &Path, ns: &Ns, daemon: Option<&Daemon>, url: &str, device: &str, end: usize) -> Child {
    let vde_plug = dir.join("vde_plug").display().to_string();
    let argv = [vde_plug.as_str(), url, &format!("tap://{device}")];
    let command = ns.command(&argv).env("LD_LIBRARY_PATH", dir).env("VDEPLUGIN_PATH", dir);
    let command = match daemon {
        Some(daemon) => {
            let sockets = daemon.root().join("run/fief/sockets.sock");
            command.env("FIEF_SOCKETS", sockets).user(0, GROUP)
        }
        None => command,
    };
    let mut child = command.spawn();
    let there = || {
        assert!(child.ended().is_none(), "vde_plug ended: {}", child.output());
        if ns.sh(&format!("ip link show {device}")).success() { Ok(()) } else { Err(child.output()) }
    };
    attempt(SOON, there).unwrap_or_else(|said| panic!("no {device}: {said}"));
    dress(ns, device, end);
    child
}

fn dress(ns: &Ns, device: &str, end: usize) {
    ns.ip(&format!("link set {device} mtu {MTU} up\naddr add {}/24 dev {device}\n", ENDS[end]));
}
