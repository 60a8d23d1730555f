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
    attacker: PathBuf,
    wires: [Wire; 2],
    ports: Vec<String>,
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

    /// Its name in Python.
    pub fn python(self) -> &'static str {
        if self == Family::V4 { "socket.AF_INET" } else { "socket.AF_INET6" }
    }

    /// The group's multicast group.
    pub fn multicast(self) -> &'static str {
        if self == Family::V4 { MULTICAST } else { MULTICAST6 }
    }

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
        let all: Vec<Ns> = (1..=hosts).map(|number| lab.ns(&format!("h{number}"))).collect();
        let ports = all.iter().zip(1..).map(|(host, number)| plug(&wires[0], host, "eth0", number)).collect();
        let [out, aside] = ["out", "aside"].map(|name| lab.ns(name));
        plug(&wires[0], &out, "eth0", 9);
        out.ip("route add 224.0.0.0/4 dev eth0\n");
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
        Some(Lan { daemons, hosts: all, out, attacker, wires, ports, lab })
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

    /// One on the first host whose sockets nobody guards.
    pub fn bare(&self, family: Family, code: &str) -> Command {
        let argv = ["/usr/bin/python3", &self.attacker.display().to_string(), "bare"];
        self.hosts[0].command(&argv).arg(family.number().to_string()).arg("").arg(code)
    }

    /// One on the first host, to his end.
    #[track_caller]
    pub fn attack(&self, family: Family, code: &str) -> String {
        self.user(0, GROUP, family, code).run().ok().stdout
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
        self.outside_command(code).run().ok()
    }

    /// The same, with everything about it still open.
    pub fn outside_command(&self, code: &str) -> Command {
        let head = "import socket, struct, sys, time\n\
            def frame(text): return b'\\xff' * 6 + b'\\x02\\0\\0\\0\\0\\x09' + b'\\x88\\xb5' + text.encode()\n\
            def vni(n, text): return bytes([8, 0, 0, 0]) + n.to_bytes(3, 'big') + b'\\0' + frame(text)\n\
            def sock(family=socket.AF_INET): return socket.socket(family, socket.SOCK_DGRAM)\n";
        self.out.command(&["/usr/bin/python3", "-c", &format!("{head}{code}")])
    }

    /// A program of root's on a host that prints what comes to UDP port 14789 of these multicast groups, and of its own
    /// addresses on port 7777.
    #[track_caller]
    pub fn listener(&self, host: usize, family: Family, groups: &[&str]) -> Child {
        let code = "import select, socket, struct, sys\n\
            family = socket.AF_INET6 if sys.argv[1] == '6' else socket.AF_INET\n\
            socks = []\n\
            def listen(at, port):\n\
            \x20   s = socket.socket(family, socket.SOCK_DGRAM); s.setsockopt(1, 2, 1)\n\
            \x20   if family == socket.AF_INET6: s.setsockopt(41, 26, 1)\n\
            \x20   s.bind((at, port)); socks.append(s); return s\n\
            for to in sys.argv[2:]:\n\
            \x20   a = socket.inet_pton(family, to); i = socket.if_nametoindex('eth0')\n\
            \x20   if family == socket.AF_INET: listen(to, 14789).setsockopt(0, 35, a + struct.pack('=4xi', i))\n\
            \x20   else: listen(to, 14789).setsockopt(41, 20, a + struct.pack('=i', i))\n\
            listen('', 7777)\n\
            print('listens', flush=True)\n\
            while True:\n\
            \x20   for s in select.select(socks, [], [])[0]: print(s.getsockname()[0], s.recv(65536)[22:], flush=True)\n";
        let six = if family == Family::V4 { "4" } else { "6" };
        let argv = ["/usr/bin/python3", "-c", code, six].into_iter().chain(groups.iter().copied());
        let mut child = self.hosts[host].spawn(&argv.collect::<Vec<&str>>());
        child.wait_for_output("listens\n", crate::room::SOON);
        child
    }

    /// A program that says something of the group's to a multicast group.
    pub fn root_says(&self, family: Family, to: &str, text: &str) -> String {
        format!(
            "import socket\ns = socket.socket({}, socket.SOCK_DGRAM); s.setsockopt(1, 25, b'eth0\\0')\n\
             s.sendto(bytes.fromhex('080000000003e800') + bytes(14) + b'{text}', ('{to}', 14789))\n",
            family.python()
        )
    }

    /// The far end of a host's `eth0`.
    pub fn port(&self, host: usize) -> (&Ns, &str) {
        (&self.wires[0].ns, &self.ports[host])
    }

    /// Puts a namespace on the LAN.
    #[track_caller]
    pub fn plug(&self, ns: &Ns, device: &str, number: u8) {
        plug(&self.wires[0], ns, device, number);
    }

    /// Lets longer packets pass everywhere.
    #[track_caller]
    pub fn set_mtu(&self, bytes: u32) {
        let ports = "ip -o link show type veth | sed 's/^[0-9]*: //; s/@.*//'";
        self.wires[0].ns.sh(&format!("for port in $({ports}); do ip link set $port mtu {bytes}; done")).ok();
        for ns in self.hosts.iter().chain([&self.out]) {
            ns.ip(&format!("link set eth0 mtu {bytes}\n"));
        }
    }

    /// Everything that crosses a host's card.
    pub fn wire_of(&self, host: usize, device: &str) -> Capture {
        Capture::on(&self.hosts[host], device)
    }
}

#[track_caller]
fn plug(wire: &Wire, ns: &Ns, device: &str, number: u8) -> String {
    let port = wire.attach(ns, device);
    ns.ip(&format!(
        "addr add 10.0.0.{number}/24 dev {device}\naddr add fd00::{number}/64 dev {device} nodad\n"
    ));
    port
}

/// Holds what was said of each try against what should have come of it.
#[track_caller]
pub fn outcomes(said: &str, wanted: &[(&str, &str)]) {
    for (what, outcome) in wanted {
        let line = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        let line = line.unwrap_or_else(|| panic!("nothing of {what:?} in:\n{said}"));
        assert!(line.starts_with(outcome), "{what}: {line}, and not {outcome}\n{said}");
    }
}
