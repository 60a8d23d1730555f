//! Hosts on a LAN, each with a daemon that has an overlay on `eth0`.
//!
//! ```text
//!   h1 10.0.0.1, .77  fd00::1 [eth0]──┐
//!      10.1.0.1               [eth1]──│──┐         eth1: another LAN, with `aside` (10.1.0.9) on it
//!   h2 10.0.0.2       fd00::2 [eth0]──┼──│── wire (multicast to every port)
//!   h3, ...                           │  │
//!   out 10.0.0.9      fd00::9 [eth0]──┘  │
//!   aside                     [eth0]─────┘
//! ```

use std::path::PathBuf;

use fief_testkit::{Capture, Child, Command, Daemon, DaemonOptions, Lab, Ns, Output, Wire};

/// A group of users, and another one.
pub const GROUP: u32 = 1000;
pub const OTHER: u32 = 1001;
/// The group's segment: its VNI and multicast groups.
pub const MULTICAST: &str = "239.0.3.232";
pub const MULTICAST6: &str = "ff05:56de::3e8";
pub const PORT: u16 = 14789;

/// The LAN. Fields are dropped in this order.
pub struct Lan {
    pub daemons: Vec<Daemon>,
    pub hosts: Vec<Ns>,
    /// Not a host of ours; its root speaks to all as it likes.
    pub out: Ns,
    /// On another LAN of the first host.
    pub aside: Ns,
    attacker: PathBuf,
    _wires: [Wire; 2],
    pub lab: Lab,
}

/// Families of addresses, as the attacker's program takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn number(self) -> i32 {
        if self == Family::V4 { libc::AF_INET } else { libc::AF_INET6 }
    }
}

impl Lan {
    /// So many hosts; `more` is added to each one's `overlay:`.
    #[track_caller]
    pub fn open(name: &str, hosts: usize, more: &str) -> Option<Lan> {
        Lan::with(name, hosts, |_| format!("overlay: {{ device: eth0{more} }}\n"))
    }

    /// So many hosts, with these configurations.
    #[track_caller]
    pub fn with(name: &str, hosts: usize, config: impl Fn(usize) -> String) -> Option<Lan> {
        let lab = Lab::new(name)?;
        let wires = [lab.wire("wire"), lab.wire("elsewhere")];
        let plug = |ns: &Ns, number: u8| {
            wires[0].attach(ns, "eth0");
            ns.ip(&format!(
                "addr add 10.0.0.{number}/24 dev eth0\naddr add fd00::{number}/64 dev eth0 nodad\n"
            ));
        };
        let all: Vec<Ns> = (1..=hosts).map(|number| lab.ns(&format!("h{number}"))).collect();
        for (host, number) in all.iter().zip(1..) {
            plug(host, number);
        }
        let [out, aside] = ["out", "aside"].map(|name| lab.ns(name));
        plug(&out, 9);
        wires[1].attach(&all[0], "eth1");
        wires[1].attach(&aside, "eth0");
        all[0].ip("addr add 10.0.0.77/24 dev eth0\naddr add fd00::77/64 dev eth0 nodad preferred_lft 0\n\
            addr add 10.1.0.1/24 dev eth1\naddr add fd01::1/64 dev eth1 nodad\n");
        aside.ip("addr add 10.1.0.9/24 dev eth0\naddr add fd01::9/64 dev eth0 nodad\n");
        let daemons = all.iter().enumerate().map(|(i, host)| {
            let root = format!("root{}", i + 1);
            let options = DaemonOptions { config_yaml: Some(config(i)), root, ..DaemonOptions::default() };
            Daemon::start(&lab, host, options)
        });
        let daemons = daemons.collect();
        let attacker = lab.dir().join("attacker.py");
        std::fs::write(&attacker, include_str!("attacker.py")).expect("the lab's directory is writable");
        Some(Lan { daemons, hosts: all, out, aside, attacker, _wires: wires, lab })
    }

    /// Where a host's daemon hands sockets over.
    pub fn sockets(&self, host: usize) -> PathBuf {
        self.daemons[host].root().join("run/fief/sockets.sock")
    }

    /// A member of a group on a host, who does with his sockets what the code says.
    pub fn user(&self, host: usize, group: u32, family: Family, code: &str) -> Command {
        let at = self.sockets(host);
        let argv = ["/usr/bin/python3", &self.attacker.display().to_string(), &at.display().to_string()];
        let command = self.hosts[host].command(&argv).arg(family.number().to_string()).arg("").arg(code);
        command.user(group + 40_000, group)
    }

    /// One on the first host, to his end.
    #[track_caller]
    pub fn attack(&self, family: Family, code: &str) -> Output {
        self.user(0, GROUP, family, code).run().ok()
    }

    /// One on the first host who goes on; the port of his socket.
    #[track_caller]
    pub fn victim(&self, family: Family, code: &str) -> (Child, u16) {
        let mut child = self.user(0, GROUP, family, code).spawn();
        child.wait_for_output("ready\n", crate::room::SOON);
        let said = child.output();
        let port = said.lines().find_map(|line| line.strip_prefix("port ")?.parse().ok());
        (child, port.unwrap_or_else(|| panic!("no port: {said}")))
    }

    /// Root of the host that is not ours, to the end of a program.
    #[track_caller]
    pub fn outside(&self, code: &str) -> Output {
        let head = "import socket, struct, sys, time\n\
            def frame(text): return b'\\xff' * 6 + b'\\x02\\0\\0\\0\\0\\x09' + b'\\x88\\xb5' + text.encode()\n\
            def vni(n, text): return bytes([8, 0, 0, 0]) + n.to_bytes(3, 'big') + b'\\0' + frame(text)\n\
            def sock(family=socket.AF_INET): return socket.socket(family, socket.SOCK_DGRAM)\n";
        self.out.run(&["/usr/bin/python3", "-c", &format!("{head}{code}")]).ok()
    }

    /// Everything that crosses a host's card.
    pub fn wire_of(&self, host: usize, device: &str) -> Capture {
        Capture::on(&self.hosts[host], device)
    }
}
