//! A host with networks, what lies outside of it, and beside it the plain things that it is compared with.
//!
//! ```text
//!   a [eth0]──┐  namespace of t0000     host                     outside
//!             n-net ── [transit]──[fiefN]   [eth0]────────[host] 192.0.2.1
//!   b [eth0]──┘  10.10.1.0/24                192.0.2.2
//!                as often as there are networks, with the same addresses
//!
//!   plain-a [eth0]──bridge──[eth0] plain-b      no filter sees what passes here
//!   inner [eth0]────────[in] gate [eth0]────────[gate] outside     one rule: masquerade
//! ```

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fief_testkit::{Daemon, DaemonOptions, Lab, Ns, attempt, bin};
use nix::net::if_::InterfaceFlags;

use super::clients::Clients;
use super::held::Held;

/// The device of every workload.
pub const DEVICE: &str = "eth0";
/// Where the host's uplink leads, and the host's own address there.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Where the plain gate leads, and its address there.
const OUTSIDE_GATE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const GATE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// A network's own address.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
/// The plain ends of a bridge.
const PLAIN: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 10, 1, 11), Ipv4Addr::new(10, 10, 1, 12)];
/// Nothing here takes longer, whatever the number of networks.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where an endpoint asks its peer.
const PORT: u16 = 7000;

/// A host with networks, and what is around it. Fields end in this order.
pub struct Town {
    /// The daemon.
    pub daemon: Daemon,
    /// The world.
    pub outside: Ns,
    /// The two workloads of each network.
    pub pairs: Vec<[Ns; 2]>,
    /// Two namespaces at a plain bridge.
    pub plain: [Ns; 2],
    /// A namespace behind a plain gate.
    pub inner: Ns,
    /// What making the networks took.
    pub made: Made,
    /// It ends what is above.
    _lab: Lab,
}

/// What making all networks took, and what was held before.
#[derive(Debug, Clone, Copy)]
pub struct Made {
    /// From the call of `fief apply` until both endpoints of every network have a lease and reach each other.
    pub whole: Duration,
    /// `fief apply` alone.
    pub apply: Duration,
    /// What the clients of one network cost without any of it.
    pub clients: Duration,
    /// What the kernel holds of a namespace with the devices of a network that somebody made by hand, in kB.
    pub by_hand: f64,
    /// Memory, before.
    pub before: Held,
}

/// Two ends of a conversation: who begins, who answers, at which address, and whom the latter sees.
pub struct Road<'a> {
    /// Who begins.
    pub from: &'a Ns,
    /// Who answers.
    pub to: &'a Ns,
    /// The address that answers.
    pub at: Ipv4Addr,
    /// The address that it sees.
    pub seen: Ipv4Addr,
}

impl Town {
    /// A host with an uplink, a daemon and `n` networks made by `fief apply`; `None` without programs to ask for leases.
    pub fn open(n: usize) -> Option<Town> {
        // A lab moves its thread into a mount namespace, and there are several labs.
        std::thread::spawn(move || Town::build(n))
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn build(n: usize) -> Option<Town> {
        let lab = Lab::new(&format!("bench-networks-{n}")).expect("the benchmarks need root");
        let [host, outside, inner] = ["host", "outside", "inner"].map(|name| plain(&lab, name));
        uplink(&lab, &host, &outside);
        gate(&lab, &inner, &outside);
        let plain = bridge(&lab);
        let pairs = (0..n).map(|i| ["a", "b"].map(|name| lab.ns(&format!("{name}{i}")))).collect();
        let clients = Clients::find(&lab)?;
        let alone = clients.two_alone(&lab);
        let by_hand = by_hand(&lab, &host);
        let daemon = Daemon::start(&lab, &host, DaemonOptions::default());
        let before = Held::now(daemon.pid());
        let made = Made { whole: Duration::ZERO, apply: Duration::ZERO, clients: alone, by_hand, before };
        let mut town = Town { daemon, outside, pairs, plain, inner, made, _lab: lab };
        (town.made.whole, town.made.apply) = clients.create(&town);
        Some(town)
    }

    /// The documents of all networks.
    pub fn documents(&self) -> String {
        let one = |(i, pair): (usize, &[Ns; 2])| document(i, pair);
        self.pairs.iter().enumerate().map(one).collect::<Vec<_>>().join("---\n")
    }

    /// `fief VERB -f -`, and how long that took.
    pub fn timed(&self, verb: &str, documents: &str) -> Duration {
        let begin = Instant::now();
        let command = self.daemon.cli_command(&[verb, "-f", "-"]).input(documents).timeout(PATIENCE);
        let output = command.run();
        assert!(output.success(), "{output}\n{}", self.daemon.log());
        begin.elapsed()
    }

    /// The two workloads of a network have asked each other and heard the answer.
    pub fn reach(&self, i: usize) {
        let pair = &self.pairs[i];
        let [a, b] = [0, 1].map(|end| self.address(&pair[end]));
        let server = pair[1].enter(|| UdpSocket::bind((b, PORT))).expect("the port is free");
        let client = pair[0].enter(|| UdpSocket::bind((a, 0))).expect("the address is there");
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket can wait");
        }
        let question = format!("network {i}");
        let mut buffer = [0; 64];
        let mut ask = || -> std::io::Result<String> {
            client.send_to(question.as_bytes(), (b, PORT))?;
            let (length, from) = server.recv_from(&mut buffer)?;
            server.send_to(&buffer[..length], from)?;
            let (length, _) = client.recv_from(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        let heard = attempt(Duration::from_secs(10), || ask().map_err(|error| error.to_string()));
        assert_eq!(heard.as_ref(), Ok(&question), "{a} to {b}:\n{}", self.daemon.log());
        pair.iter().for_each(Ns::keep_neighbours);
    }

    /// The address of a workload.
    pub fn address(&self, ns: &Ns) -> Ipv4Addr {
        address(ns).unwrap_or_else(|| panic!("no address in {}:\n{}", ns.short(), self.daemon.log()))
    }

    /// From one workload of the last network to the other, and the same over a plain bridge.
    pub fn across(&self) -> [Road<'_>; 2] {
        let [a, b] = self.pairs.last().expect("there are networks");
        let fief = Road { from: a, to: b, at: self.address(b), seen: self.address(a) };
        let [from, to] = &self.plain;
        [fief, Road { from, to, at: PLAIN[1], seen: PLAIN[0] }]
    }

    /// From a workload of the last network to the outside, and the same from behind a plain gate.
    pub fn out(&self) -> [Road<'_>; 2] {
        let [a, _] = self.pairs.last().expect("there are networks");
        if !a.sh("ip route get 192.0.2.1").success() {
            a.ip(&format!("route add default via {GATEWAY} dev {DEVICE}\n"));
        }
        let to = &self.outside;
        [
            Road { from: a, to, at: OUTSIDE, seen: HOST },
            Road { from: &self.inner, to, at: OUTSIDE_GATE, seen: GATE },
        ]
    }

    /// One network more, with nobody on it.
    pub fn one_more(&self) -> String {
        let i = self.pairs.len();
        tenant(i) + "---\n" + &network(i)
    }
}

/// Is the workload's device there, and up?
pub fn is_up(ns: &Ns) -> bool {
    let up = |found: nix::ifaddrs::InterfaceAddress| {
        found.interface_name == DEVICE && found.flags.contains(InterfaceFlags::IFF_UP)
    };
    ns.enter(|| nix::ifaddrs::getifaddrs().is_ok_and(|mut all| all.any(up)))
}

/// The workload's IPv4 address.
pub fn address(ns: &Ns) -> Option<Ipv4Addr> {
    let v4 = |found: nix::ifaddrs::InterfaceAddress| {
        let address = found.address.filter(|_| found.interface_name == DEVICE)?;
        Some(address.as_sockaddr_in()?.ip())
    };
    ns.enter(|| nix::ifaddrs::getifaddrs().ok()?.find_map(v4))
}

/// A program that scripts/peers.sh has unpacked.
pub fn program(name: &str) -> Option<PathBuf> {
    let fiefd = bin("fiefd");
    fiefd.ancestors().map(|dir| dir.join("peers/bin").join(name)).find(|path| path.is_file())
}

/// The least that a network of two endpoints in a namespace of its own can be made of: a bridge, a pair of devices for each
/// endpoint, and one for the way out. No rules, no programs, no services, hardly an address. They stay, so that their end
/// is not taken for something else's.
fn by_hand(lab: &Lab, host: &Ns) -> f64 {
    const MANY: usize = 64;
    let workloads: Vec<[Ns; 2]> =
        (0..MANY).map(|i| ["x", "y"].map(|name| lab.ns(&format!("hand-{name}{i}")))).collect();
    let before = Held::now(std::process::id());
    for (i, [x, y]) in workloads.iter().enumerate() {
        let ns = lab.ns(&format!("hand{i}"));
        lab.veth((&ns, "e-x"), (x, DEVICE));
        lab.veth((&ns, "e-y"), (y, DEVICE));
        lab.veth((&ns, "transit"), (host, &format!("hand{i}")));
        let up = ["e-x", "e-y"].map(|port| format!("link set {port} master n-web\n")).concat();
        ns.ip(&format!(
            "link add n-web type bridge\nlink set n-web up\naddr add {GATEWAY}/24 dev n-web\n{up}"
        ));
    }
    let each = Held::now(std::process::id()).each(before, MANY);
    each.kernel + each.cache
}

fn plain(lab: &Lab, name: &str) -> Ns {
    let ns = lab.ns(name);
    for scope in ["all", "default"] {
        ns.set_sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), 0);
    }
    ns
}

fn uplink(lab: &Lab, host: &Ns, outside: &Ns) {
    lab.veth((host, DEVICE), (outside, "host"));
    host.ip(&format!("addr add {HOST}/24 dev {DEVICE}\nroute add default via {OUTSIDE}\n"));
    outside.ip(&format!("addr add {OUTSIDE}/24 dev host\n"));
}

fn gate(lab: &Lab, inner: &Ns, outside: &Ns) {
    let gate = plain(lab, "gate");
    gate.set_sysctl("net.ipv4.ip_forward", 1);
    lab.veth((inner, DEVICE), (&gate, "in"));
    lab.veth((&gate, DEVICE), (outside, "gate"));
    inner.ip(&format!("addr add {}/24 dev {DEVICE}\nroute add default via {GATEWAY}\n", PLAIN[0]));
    gate.ip(&format!("addr add {GATEWAY}/24 dev in\naddr add {GATE}/24 dev {DEVICE}\n"));
    outside.ip(&format!("addr add {OUTSIDE_GATE}/24 dev gate\n"));
    gate.nft(&format!(
        "table ip plain {{ chain behind {{ type nat hook postrouting priority 100; oifname {DEVICE} masquerade; }}; }}"
    ));
}

fn bridge(lab: &Lab) -> [Ns; 2] {
    // The kit's wires have bridge-nf-call-iptables 0.
    let wire = lab.wire("plain");
    [("plain-a", PLAIN[0]), ("plain-b", PLAIN[1])].map(|(name, address)| {
        let ns = lab.ns(name);
        wire.attach(&ns, DEVICE);
        ns.ip(&format!("addr add {address}/24 dev {DEVICE}\n"));
        ns
    })
}

fn tenant(i: usize) -> String {
    format!("apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: t{i:04} }}\n")
}

fn network(i: usize) -> String {
    format!(
        "apiVersion: fief/v1alpha1\nkind: Network\nmetadata: {{ name: net, tenant: t{i:04} }}\nspec:\n  type: local\n  \
         subnets: [10.10.1.0/24]\n  uplinks: [{DEVICE}]\n  dhcp: {{ range: 10.10.1.50-10.10.1.150, lease: 60m }}\n  \
         portMaps: [{{ uplink: {DEVICE}, port: {}, to: \"a:80\", protocol: tcp }}]\n",
        10_000 + i
    )
}

fn document(i: usize, pair: &[Ns; 2]) -> String {
    let mut text = tenant(i) + "---\n" + &network(i);
    for (name, ns) in ["a", "b"].iter().zip(pair) {
        write!(
            text,
            "---\napiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: {name}, tenant: t{i:04} }}\nspec:\n  \
             networks: [{{ network: net, interface: {DEVICE} }}]\n  attach: {{ netns: {} }}\n",
            ns.path().display()
        )
        .expect("a string grows");
    }
    text
}

impl Road<'_> {
    /// A listener at its far end.
    pub fn listen(&self) -> TcpListener {
        self.to.enter(|| TcpListener::bind((IpAddr::V4(self.at), 0))).expect("the address is there")
    }
}
