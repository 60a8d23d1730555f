//! The acceptance scenarios for network instances (NI), each a tenant of its own with one network.
//!
//! ```text
//!   app1 [eth0]── ni1 10.10.1.0/24 ────────── eth0
//!        [eth1]─┐
//!               ├ ni2 192.168.1.0/24 ──────── eth0      the subnet of the segment of eth1
//!   app2 [eth0]─┘     port map eth0:8080 -> app2:80
//!   app3 [tap]─── ni3 10.10.1.0/24 ────────── eth1      the subnet of ni1
//! ```
//!
//! Instance 6 is a switch (`switch.rs`); 4 and 5 need a kind of network that is not here: VPN.

#[path = "evenet/apart.rs"]
mod apart;
#[path = "evenet/guest.rs"]
mod guest;
#[path = "evenet/inside.rs"]
mod inside;
#[path = "evenet/markless.rs"]
mod markless;
#[path = "evenet/ports.rs"]
mod ports;
#[path = "evenet/truth.rs"]
mod truth;
#[path = "evenet/vrf.rs"]
mod vrf;

use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;

use fief_testkit::{Child, attempt, eventually};

use crate::app::{App, Lease};
use crate::machine::{Machine, in_namespace, tap};
use crate::node::{Node, by_dhcp, endpoint, in_vrfs, network, tenant};
use crate::room::SOON;
use crate::town::Town;

/// The Ethernet address of app3's card.
const APP3: &str = "02:00:00:00:03:03";
const NI1_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
const NI2_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// The port map, called from anywhere.
const PORT_MAP: &str = "http://192.168.0.2:8080/";

/// The instances 1 to 3, app1 and app2 with their leases and web servers. Fields end in this order.
struct Evenet {
    _servers: [Child; 2],
    /// app1's lease in NI1.
    one: Lease,
    /// app1's lease in NI2.
    other: Lease,
    /// app2's lease in NI2.
    second: Lease,
    app1: App,
    app2: App,
    node: Node,
}

impl Evenet {
    #[track_caller]
    fn open(name: &str, config: &str) -> Option<Evenet> {
        let town = Town::open(name, 2)?;
        if in_vrfs() {
            // It is not a switch of the host that makes fief's bridges call netfilter.
            town.host.set_sysctl("net.bridge.bridge-nf-call-iptables", 0);
        }
        let node = Node::in_town(town, config);
        let [app1, app2] = ["app1", "app2"].map(|name| App::new(&node.town, name));
        let dhcp = "dhcp: { range: 10.10.1.50-10.10.1.150, lease: 60m }";
        let dns = "dns: { servers: [192.0.2.53] }";
        let second = [
            "uplinks: [eth0]",
            "dhcp: { range: 192.168.1.50-192.168.1.150, lease: 60m }",
            "portMaps: [{ uplink: eth0, port: 8080, to: \"app2:80\", protocol: tcp }]",
            "allowEndpoints: [ni1]",
            dns,
        ];
        let both = [by_dhcp("net", "eth0"), by_dhcp("ni2/net", "eth1")];
        node.apply(&[
            tenant("ni1"),
            tenant("ni2"),
            tenant("ni3"),
            network("ni1", "10.10.1.0/24", &["uplinks: [eth0]", dhcp, dns]),
            network("ni2", "192.168.1.0/24", &second),
            network("ni3", "10.10.1.0/24", &["uplinks: [eth1]", dhcp, dns]),
            endpoint("ni1", "app1", &both, &app1.attach()),
            endpoint("ni2", "app2", &[by_dhcp("net", "eth0")], &app2.attach()),
        ]);
        let (one, other, second) = (app1.udhcpc("eth0"), app1.udhcpc("eth1"), app2.udhcpc("eth0"));
        app1.resolve_as_leased("eth0");
        let servers = [node.town.serve(&app1.ns, "app1"), node.town.serve(&app2.ns, "app2")];
        Some(Evenet { _servers: servers, one, other, second, app1, app2, node })
    }

    /// app3, a machine, with its lease in NI3.
    #[track_caller]
    fn app3(&self) -> (App, Lease, Machine) {
        let card = format!("{{ network: net, interface: eth0, mac: {APP3:?} }}");
        self.node.apply(&[endpoint("ni3", "app3", &[card], "attach: { tap: vm3 }")]);
        let app = App::new(&self.node.town, "app3");
        let machine = Machine::start(self.card("ni3", "vm3"), &app.ns, APP3);
        let lease = app.udhcpc("eth0");
        (app, lease, machine)
    }

    /// The TAP device of a document, opened: where fief has put it, or made on the host as a hypervisor makes it.
    #[track_caller]
    fn card(&self, tenant: &str, name: &str) -> File {
        let host = self.node.town.host.path();
        let places = [host.clone(), self.node.inside(tenant)];
        let open = |path: &std::path::Path| {
            let opened = in_namespace(path, || {
                nix::net::if_::if_nametoindex(name).map_err(std::io::Error::from).and_then(|_| tap(name))
            });
            opened.and_then(|tap| tap).map_err(|error| format!("{}: {error}", path.display()))
        };
        let there = attempt(Duration::from_secs(1), || {
            places.iter().find_map(|path| open(path).ok()).ok_or_else(String::new)
        });
        there.unwrap_or_else(|_| {
            eventually(SOON, || {
                let made = in_namespace(&host, || tap(name)).and_then(|made| made);
                made.map_err(|error| error.to_string())
            })
        })
    }

    /// app1's default route goes by this interface only.
    #[track_caller]
    fn route_app1(&self, interface: &str, gateway: Ipv4Addr) {
        self.app1.ns.sh("while ip route del default 2>/dev/null; do :; done").ok();
        self.app1.ns.ip(&format!("route add default via {gateway} dev {interface}\n"));
    }
}
