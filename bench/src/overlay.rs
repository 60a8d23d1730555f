//! The benchmarks whose ids begin with `overlay.`: what a segment of the overlay carries, beside what else there is for it.
//! All of them are speeds, so a ratio is one of speeds and a goal is the least that it may be.

mod fast;
mod guard;
mod pace;
mod vde;

use std::net::Ipv4Addr;

use fief_testkit::{Daemon, DaemonOptions, Lab, Ns};

use crate::report::Row;

/// Whose segment.
const GROUP: u32 = 1000;
/// Addresses on it.
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];

/// Runs the benchmarks whose ids begin with `only`; `tell` gets each result as soon as it is known.
pub fn run(only: &str, tell: &mut dyn FnMut(Row)) {
    for (ids, measure) in [
        (fast::IDS, fast::measure as fn(&str) -> Vec<Row>),
        (guard::IDS, guard::measure),
        (vde::IDS, vde::measure),
    ] {
        if !ids.iter().any(|id| id.starts_with(only)) {
            continue;
        }
        let only = only.to_owned();
        // A lab moves its thread into a mount namespace.
        let measured = std::thread::spawn(move || measure(&only));
        let rows = measured.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        rows.into_iter().for_each(&mut *tell);
    }
}

/// Two hosts and a cable, of IPv4 only, so that all tunnels have the same MTU.
fn pair(lab: &Lab, names: [&str; 2], net: &str) -> [Ns; 2] {
    let hosts = names.map(|name| lab.ns(name));
    hosts.iter().for_each(|host| host.set_sysctl("net.ipv6.conf.default.disable_ipv6", 1));
    lab.veth((&hosts[0], "eth0"), (&hosts[1], "eth0"));
    for (host, number) in hosts.iter().zip([1, 2]) {
        host.ip(&format!("addr add {net}.{number}/24 dev eth0\n"));
    }
    hosts
}

/// A daemon on each, with an overlay.
fn daemons(lab: &Lab, hosts: &[Ns; 2]) -> [Daemon; 2] {
    hosts.each_ref().map(|host| {
        let config_yaml = Some("overlay: { device: eth0 }\n".into());
        let root = host.short().to_owned();
        Daemon::start(lab, host, DaemonOptions { config_yaml, root, ..DaemonOptions::default() })
    })
}

/// A namespace at each, with an interface on the segment that a fast path carries.
fn joined(lab: &Lab, daemons: &[Daemon; 2], names: [&str; 2]) -> [Ns; 2] {
    let users = names.map(|name| lab.ns(name));
    for ((user, daemon), address) in users.iter().zip(daemons).zip(ENDS) {
        let cli = lab.dir().join("fief").display().to_string();
        let root = daemon.root().display().to_string();
        user.run(&[&cli, "--root", &root, "join", "--group", &GROUP.to_string()]).ok();
        user.ip(&format!("addr add {address}/24 dev eth0\n"));
    }
    users
}
