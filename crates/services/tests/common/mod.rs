//! A network as the daemon would make it: a namespace with a bridge, clients behind it, and the services.
//!
//! ```text
//!   world [eth0] 198.51.100.53 ── 198.51.100.1 [out] gate          lo 169.254.169.254
//!                                                    br0  192.0.2.1/24, 2001:db8::1/64
//!                                                     ├─ p1 ── [eth0] c1     02:00:00:00:00:01
//!                                                     └─ p2 ── [eth0] c2     02:00:00:00:00:02
//! ```
#![allow(dead_code, reason = "each test executable uses its own part")]

mod sockets;
mod store;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use fief_services::{Dhcp, EndpointConfig, NetworkConfig, Services};
use fief_testkit::{Lab, Ns, eventually, missing};

#[allow(unused_imports, reason = "each test executable uses its own part")]
pub use sockets::{open, packets};
pub use store::Store;

/// Long enough for everything between namespaces of one machine, however busy it is.
pub const SOON: Duration = Duration::from_secs(20);

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

pub fn mac(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, last]
}

/// Gives what must not come the time to come.
#[expect(clippy::disallowed_methods, reason = "there is no event for what does not happen")]
pub fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// A program that scripts/peers.sh has unpacked; `None`, with a word, where it has not.
pub fn peer(name: &str) -> Option<String> {
    let own = std::env::current_exe().expect("a process has an executable");
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let targets = own.ancestors().map(PathBuf::from).chain([here]);
    let found = targets.map(|dir| dir.join("peers/bin").join(name)).find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("{name} is not below target/peers; scripts/peers.sh puts it there"));
    }
    found.map(|path| path.display().to_string())
}

/// The namespace of one network, with its bridge.
pub struct Gate<'a> {
    pub lab: &'a Lab,
    pub ns: Ns,
    name: String,
}

impl Gate<'_> {
    pub fn new<'a>(lab: &'a Lab, name: &str) -> Gate<'a> {
        let ns = lab.ns(name);
        ns.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
               link set br0 up\n\
               addr add 192.0.2.1/24 dev br0\n\
               addr add 2001:db8::1/64 dev br0 nodad\n\
               addr add fe80::1/64 dev br0 nodad\n\
               addr add 169.254.169.254/32 dev lo\n");
        Gate { lab, ns, name: name.to_owned() }
    }

    /// A client behind the bridge, without an address.
    pub fn client(&self, last: u8) -> Ns {
        let client = self.lab.ns(&format!("{}-c{last}", self.name));
        let mac = mac(last).map(|byte| format!("{byte:02x}")).join(":");
        self.ns.ip(&format!(
            "link add p{last} type veth peer name eth0 netns {} address {mac}\n\
             link set p{last} master br0 up\n",
            client.name()
        ));
        client.ip("link set eth0 up\n");
        // The bridge hears of the carrier a moment later, and drops what comes before.
        let port = format!("p{last}");
        eventually(SOON, || {
            let shown = self.ns.run(&["ip", "-d", "link", "show", &port]).ok().stdout;
            if shown.contains("state forwarding") { Ok(()) } else { Err(shown) }
        });
        client
    }

    /// A client with the address 192.0.2.LAST and a default route.
    pub fn settled(&self, last: u8) -> Ns {
        let client = self.client(last);
        client.ip(&format!(
            "addr add 192.0.2.{last}/24 dev eth0\n\
             addr add 2001:db8::{last}/64 dev eth0 nodad\n\
             route add default via 192.0.2.1\n"
        ));
        client
    }

    /// Where name servers of the world are.
    pub fn world(&self) -> Ns {
        let world = self.lab.ns(&format!("{}-world", self.name));
        self.lab.veth((&world, "eth0"), (&self.ns, "out"));
        world.ip("addr add 198.51.100.53/24 dev eth0\n");
        self.ns.ip("addr add 198.51.100.1/24 dev out\n");
        world
    }

    /// A configuration with endpoints `app1` to `app3`, `range` for those without an address.
    pub fn config(&self, range: Option<(u8, u8)>) -> NetworkConfig {
        NetworkConfig {
            key: format!("blue/{}", self.name),
            namespace: self.ns.inode(),
            gateway: GATEWAY,
            subnet: "192.0.2.0/24".parse().unwrap(),
            gateway6: Some("2001:db8::1".parse().unwrap()),
            subnet6: Some("2001:db8::/64".parse().unwrap()),
            leads_out6: false,
            dhcp: Some(Dhcp {
                range: range.map(|(first, last)| host(first)..=host(last)),
                lease: Duration::from_secs(600),
            }),
            domain: "web.blue.example".to_owned(),
            names: [("gw".to_owned(), vec![GATEWAY.into()])].into(),
            ntp: vec![host(123)],
            mtu: Some(1400),
            upstreams: Vec::new(),
            endpoints: (1..=3).map(|last| endpoint(last, None)).collect(),
            bridge: self.ns.ifindex("br0"),
            mac: self.ns.mac("br0"),
        }
    }

    /// The configuration of settled clients.
    pub fn settled_config(&self) -> NetworkConfig {
        let endpoints = (1..=3).map(|last| endpoint(last, Some(host(last + 10)))).collect();
        NetworkConfig { endpoints, ..self.config(None) }
    }

    /// Begins to serve.
    pub fn serve(&self, services: &Services, config: NetworkConfig) {
        services.set(config, Some(open(&self.ns)));
    }
}

/// The endpoint `appLAST`.
pub fn endpoint(last: u8, address: Option<Ipv4Addr>) -> EndpointConfig {
    EndpointConfig {
        name: format!("app{last}"),
        tenant: "blue".to_owned(),
        mac: mac(last),
        address,
        default_route: true,
        address6: address.map(|address| format!("2001:db8::{}", address.octets()[3]).parse().unwrap()),
        labels: [("role".to_owned(), format!("role{last}"))].into(),
        hostname: String::new(),
    }
}

pub fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
