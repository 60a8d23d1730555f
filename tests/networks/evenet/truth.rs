//! The truth table of docs/isolation.md for tenants made of networks: what their own sockets reach, in a namespace or,
//! with `FIEF_TEST_ISOLATION=vrf`, bound to a VRF. Each cell stands beside one that works.
//!
//! ```text
//!   a 10.10.1.11, fd00:10:1::11 ── ni1 (gateway .1) ── eth0      a socket of ni1's is one inside of its place
//!   b 10.20.1.11, fd00:10:2::11 ── ni2 (gateway .1) ── eth1
//! ```

#[path = "truth_enter.rs"]
mod enter;
#[path = "truth_wires.rs"]
mod wires;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use fief_testkit::{Dial, Echo, eventually};
use nix::sys::socket::SockType;

use crate::app::App;
use crate::machine::in_namespace;
use crate::node::{Node, endpoint, in_vrfs, network, tenant};
use crate::room::{NEVER, PORT, SOON, answered, echo, outcome, wait};
use crate::town::Town;

/// A connection to where nobody answers is given this long.
const PATIENCE: Duration = Duration::from_millis(150);
const NAMES: [&str; 2] = ["ni1", "ni2"];
/// The host's address on every link.
const LINK: Ipv4Addr = Ipv4Addr::new(248, 0, 0, 1);

/// Two tenants, an endpoint each, and echo servers on the host, at the endpoints and in the tenants' namespaces, where
/// nobody but the tenant may hear of them. Fields end in this order.
struct Table {
    host: Echo,
    ends: [Echo; 2],
    inside: Vec<Echo>,
    apps: [App; 2],
    slots: [u32; 2],
    node: Node,
}

fn gateway(i: usize, v6: bool) -> IpAddr {
    let number = i as u16;
    match v6 {
        true => Ipv6Addr::new(0xfd00, 0x10, number + 1, 0, 0, 0, 0, 1).into(),
        false => Ipv4Addr::new(10, 10 * (i as u8 + 1), 1, 1).into(),
    }
}

fn end(i: usize, v6: bool) -> IpAddr {
    match gateway(i, v6) {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) + 10).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) + 0x10).into(),
    }
}

impl Table {
    #[track_caller]
    fn open(name: &str) -> Option<Table> {
        let town = Town::open(name, 2)?;
        if in_vrfs() {
            town.host.set_sysctl("net.bridge.bridge-nf-call-iptables", 0);
        }
        let node = Node::in_town(town, "");
        let map = |uplink: &str, to: &str| {
            format!("portMaps: [{{ uplink: {uplink}, port: 8080, to: \"{to}:{PORT}\" }}]")
        };
        let net = |i: usize, uplink: &str, to: &str| {
            let subnets = format!("{}/24, {}/64", gateway(i, false), gateway(i, true));
            let trunc = subnets.replace(".1.1/24", ".1.0/24").replace("::1/64", "::/64");
            network(NAMES[i], &trunc, &[&format!("uplinks: [{uplink}]"), &map(uplink, to)])
        };
        node.apply(&[tenant("ni1"), tenant("ni2"), net(0, "eth0", "a"), net(1, "eth1", "b")]);
        let apps = [(0, "a"), (1, "b")].map(|(i, name)| {
            let app = node.workload(NAMES[i], name);
            for (name, value) in [("accept_ra", 0), ("accept_dad", 0), ("disable_ipv6", 0)] {
                app.ns.set_sysctl(&format!("net.ipv6.conf.default.{name}"), value);
            }
            let card = format!("{{ network: net, interface: eth0, address: {} }}", end(i, false));
            node.apply(&[endpoint(NAMES[i], name, &[card], &app.attach())]);
            app.wait_for("eth0");
            app.ns.ip(&format!("addr add {}/64 dev eth0 nodad\n", end(i, true)));
            app
        });
        let everywhere = format!("[::]:{PORT}");
        let ends = apps.each_ref().map(|app| app.ns.enter(|| echo(&everywhere)));
        let host = node.town.host.enter(|| echo(&everywhere));
        let own = |name| in_namespace(&node.inside(name), || echo(&everywhere)).expect("root enters");
        let inside = if in_vrfs() { Vec::new() } else { NAMES.map(own).into() };
        let slots = NAMES.map(|name| node.slot(name));
        Some(Table { host, ends, inside, apps, slots, node })
    }

    /// Where tenant `i`'s programs are.
    fn place(&self, i: usize) -> PathBuf {
        if in_vrfs() { self.node.town.host.path() } else { self.node.inside(NAMES[i]) }
    }

    /// What a socket of tenant `i` names, if that makes it the tenant's.
    fn binding(&self, i: usize) -> Option<String> {
        in_vrfs().then(|| format!("vrf{}", self.slots[i]))
    }

    #[track_caller]
    fn as_tenant<T: Send>(&self, i: usize, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.place(i), work).expect("root enters")
    }

    fn dial(&self, i: usize, to: SocketAddr) -> Dial {
        let dial = Dial::to(to).timeout(PATIENCE);
        self.binding(i).iter().fold(dial, |dial, device| dial.device(device))
    }

    /// connect(2) as tenant `i`.
    fn connects(&self, i: usize, to: SocketAddr) -> String {
        let dial = self.dial(i, to);
        self.as_tenant(i, || outcome(&dial.connect()))
    }

    /// sendto(2) as tenant `i`.
    fn sends(&self, i: usize, to: SocketAddr) -> String {
        let dial = self.dial(i, to);
        self.as_tenant(i, || {
            let socket = dial.socket(SockType::Datagram).expect("a socket");
            outcome(&UdpSocket::from(socket).send_to(b"crossing", to))
        })
    }

    /// How many calls the host's server has heard, those of the endpoints, and those inside.
    fn heard(&self) -> Vec<usize> {
        let servers = [&self.host].into_iter().chain(&self.ends).chain(&self.inside);
        servers.map(|server| server.heard().len()).collect()
    }

    /// The tenant's end of its link.
    fn link(&self, i: usize) -> Ipv4Addr {
        let [high, low] = u16::try_from(self.slots[i]).expect("a slot").to_be_bytes();
        Ipv4Addr::new(248, i as u8 + 1, high, low)
    }

    /// Every address of somebody else's that tenant `i`, or the host if `None`, might call.
    fn others(&self, i: Option<usize>) -> Vec<IpAddr> {
        let tenants = [0, 1].into_iter().filter(|other| Some(*other) != i);
        let mut others: Vec<IpAddr> = Vec::new();
        for other in tenants {
            others.extend([false, true].map(|v6| gateway(other, v6)));
            others.extend([false, true].map(|v6| end(other, v6)));
            others.push(self.link(other).into());
        }
        if i.is_some() {
            others.extend([0, 1].map(|uplink| IpAddr::from(Town::host_address(uplink))));
            others.push(LINK.into());
            // A namespace has a loopback of its own.
            let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
            others.extend(loopback.into_iter().filter(|_| in_vrfs()));
        }
        others
    }
}

/// A question to all tenants.
type Cell = fn(&Table);

/// What calls that reach nobody come to: whatever is asked, it is not an answer.
const NOBODY: [&str; 5] = ["silence", "ENETUNREACH", "EHOSTUNREACH", "ECONNREFUSED", "EADDRNOTAVAIL"];

fn to_its_own(table: &Table) {
    for i in [0, 1] {
        for v6 in [false, true] {
            let to = SocketAddr::new(end(i, v6), PORT);
            let (dial, before) = (table.dial(i, to), table.heard());
            table.as_tenant(i, || answered(&format!("{} to {to}", NAMES[i]), &dial));
            assert_eq!(table.sends(i, to), "works");
            eventually(SOON, || match table.heard() {
                now if now[i + 1] == before[i + 1] + 2 && now[0] == before[0] => Ok(()),
                now => Err(format!("{before:?} {now:?}")),
            });
        }
        if let Some(own) = table.inside.get(i) {
            for to in [gateway(i, false), gateway(i, true), Ipv4Addr::LOCALHOST.into()] {
                let (to, before) = (SocketAddr::new(to, PORT), table.heard());
                table.as_tenant(i, || answered("inside", &Dial::to(to)));
                assert_eq!((own.heard().len(), table.heard()[0]), (before[i + 3] + 1, before[0]), "{to}");
            }
        }
        if in_vrfs() {
            // A host's server at the gateway is nobody's there, and the services are.
            let at = |port| SocketAddr::new(gateway(i, false), port);
            assert_eq!([PORT, 53].map(|port| table.connects(i, at(port))), ["ECONNREFUSED", "works"]);
        }
        let site = SocketAddr::new(Town::SITE.into(), 80);
        assert_eq!(table.connects(i, site), "works", "outside, by its uplink");
    }
}

fn calling_elsewhere(table: &Table) {
    for i in [0, 1] {
        for to in table.others(Some(i)) {
            let (to, before) = (SocketAddr::new(to, PORT), table.heard());
            let connected = table.connects(i, to);
            assert!(NOBODY.contains(&connected.as_str()), "{} to {to}: {connected}", NAMES[i]);
            let sent = table.sends(i, to);
            assert!(sent == "works" || NOBODY.contains(&sent.as_str()), "{} to {to}: {sent}", NAMES[i]);
            println!("{} to {to}: connect {connected}, sendto {sent}", NAMES[i]);
            assert_eq!(table.heard(), before, "{} to {to}", NAMES[i]);
        }
    }
    // What is on its way arrives now, if it does.
    let before = table.heard();
    wait(NEVER);
    assert_eq!(table.heard(), before);
}

fn endpoint_calls_elsewhere(table: &Table) {
    for i in [0, 1] {
        let before = table.heard();
        let others = table.others(Some(i)).into_iter().filter(|to| !to.is_loopback());
        for to in others.map(|to| SocketAddr::new(to, PORT)) {
            let dial = Dial::to(to).timeout(PATIENCE);
            let connected = table.apps[i].ns.enter(|| outcome(&dial.connect()));
            assert!(NOBODY.contains(&connected.as_str()), "an endpoint of {} to {to}: {connected}", NAMES[i]);
        }
        assert_eq!(table.heard(), before);
        let own = SocketAddr::new(end(i, false), PORT);
        let dial = table.dial(i, own);
        table.as_tenant(i, || answered("its own", &dial));
    }
}

fn host_calls(table: &Table) {
    let host = &table.node.town.host;
    let before = table.heard();
    for to in table.others(None) {
        let to = SocketAddr::new(to, PORT);
        let connected = host.enter(|| outcome(&Dial::to(to).timeout(PATIENCE).connect()));
        assert!(NOBODY.contains(&connected.as_str()), "the host to {to}: {connected}");
        drop(host.enter(|| Dial::to(to).timeout(Duration::from_millis(1)).udp(b"crossing")));
        println!("the host to {to}: connect {connected}");
    }
    wait(NEVER);
    assert_eq!(table.heard(), before);
    for i in [0, 1] {
        let map = SocketAddr::new(Town::host_address(i).into(), 8080);
        host.enter(|| answered("by the port map", &Dial::to(map)));
        assert_eq!(table.heard()[i + 1], before[i + 1] + 1);
        host.enter(|| answered("itself", &Dial::to(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT))));
    }
}

/// One port, three listeners: each hears its own. In a VRF nobody calls what listens at the gateway.
fn listeners(table: &Table) {
    if in_vrfs() {
        return;
    }
    const OWN: u16 = 8100;
    let everywhere = format!("[::]:{OWN}");
    let servers = [0, 1].map(|i| table.as_tenant(i, || echo(&everywhere)));
    let host = table.node.town.host.enter(|| echo(&everywhere));
    for i in [0, 1] {
        for v6 in [false, true] {
            let to = SocketAddr::new(gateway(i, v6), OWN);
            table.apps[i].ns.enter(|| answered("my gateway", &Dial::to(to)));
            table.as_tenant(i, || answered("my own", &Dial::to(to)));
        }
        let outside = &table.node.town.gateways[i];
        outside.enter(|| answered("the host's", &Dial::to((Town::host_address(i), OWN).into())));
    }
    assert_eq!([&servers[0], &servers[1], &host].map(|server| server.heard().len()), [4, 4, 2]);
}

#[test]
fn every_cell_of_tenants_made_of_networks() {
    let Some(table) = Table::open("net-truth") else { return };
    let cells: [(&str, Cell); 10] = [
        ("to its own", to_its_own),
        ("calling elsewhere", calling_elsewhere),
        ("an endpoint calling elsewhere", endpoint_calls_elsewhere),
        ("the host to a tenant", host_calls),
        ("bound elsewhere", wires::bound_elsewhere),
        ("foreign devices", wires::foreign_devices),
        ("raw", wires::raw),
        ("marked", wires::marked),
        ("listeners", listeners),
        ("arriving", wires::arriving),
    ];
    for (name, cell) in cells {
        println!("cell: {name}");
        cell(&table);
    }
    println!("{} cells", cells.len());
}

#[test]
fn every_cell_of_tenants_made_of_networks_without_marks() {
    fief_testkit::without_marks(every_cell_of_tenants_made_of_networks);
}
