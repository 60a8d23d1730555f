//! The scene of most tests: a host whose tenants all have the same client.
//!
//! ```text
//!  wire 198.18.0.0/15, fd00:18::/64
//!   │
//!   ├─[eth0] host      198.18.0.1, fd00:18::1, no default route
//!   │                  and, once fief has them, the tenants' addresses
//!   │                  t0: 198.18.1.1, fd00:18::a:1    t1: 198.18.1.2, fd00:18::a:2    ...
//!   │
//!   ├─[eth0] router 0  198.19.1.1, fd00:18::b:1
//!   │        [inner]   10.0.0.254/24, fd00:a::254/64
//!   │           └──[eth0] client 0   10.0.0.1/24, fd00:a::1/64
//!   │
//!   ├─[eth0] router 1  198.19.1.2, fd00:18::b:2
//!   │        [inner]   10.0.0.254/24, fd00:a::254/64
//!   │           └──[eth0] client 1   10.0.0.1/24, fd00:a::1/64      the same again
//!   ...
//! ```
//!
//! With VRFs ([`Street::apart`]) each tenant has a device and a wire of its own, and beside its own addresses one that
//! all of them have:
//!
//! ```text
//!   host [eth0]──wire     198.18.0.1, fd00:18::1
//!        [up0]──wire 0──router 0 ...    t0: as above, and 198.18.250.250, fd00:18::c
//!        [up1]──wire 1──router 1 ...    t1: as above, and 198.18.250.250, fd00:18::c
//! ```
//!
//! 198.18.0.0/15 is the range for benchmarks (RFC 2544); fd00::/8 is for everybody's own use (RFC 4193).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::lab::Lab;
use crate::link::{Plug, Wire, mac_text};
use crate::ns::Ns;

/// The address families of a [`Street`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Both,
}

/// A wire with the host and the tenants' routers on it, and a client behind each router.
#[derive(Debug)]
pub struct Street {
    /// The segment between host and routers.
    pub wire: Wire,
    /// Where the daemon runs; its device on the wire is `eth0`.
    pub host: Ns,
    /// How many tenants there are, those without a router included.
    pub tenants: usize,
    /// The families everything has addresses of.
    pub families: Families,
    /// Has each tenant a device of its own, and a VRF?
    pub apart: bool,
    houses: BTreeMap<usize, House>,
}

#[derive(Debug)]
struct House {
    router: Ns,
    client: Ns,
}

impl Street {
    /// The address of every client.
    pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    /// The address of every client.
    pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 1);
    /// The address of every router on its client's side.
    pub const INNER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
    /// The address of every router on its client's side.
    pub const INNER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0x254);
    /// The host's own address, which is no tenant's.
    pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
    /// The host's own address, which is no tenant's.
    pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 1);
    /// More tenants than this have no addresses here.
    pub const MOST: usize = 16_384;

    /// A street with `tenants` tenants, each with its router and client.
    #[track_caller]
    pub fn new(lab: &Lab, tenants: usize, families: Families) -> Street {
        let everybody: Vec<usize> = (0..tenants).collect();
        Street::sparse(lab, tenants, &everybody, families)
    }

    /// A street of both families whose tenants have VRFs.
    #[track_caller]
    pub fn apart(lab: &Lab, tenants: usize) -> Street {
        let everybody: Vec<usize> = (0..tenants).collect();
        Street::of(lab, tenants, &everybody, Families::Both, true)
    }

    /// A street with `tenants` tenants of which only `present` have a router and a client.
    #[track_caller]
    pub fn sparse(lab: &Lab, tenants: usize, present: &[usize], families: Families) -> Street {
        Street::of(lab, tenants, present, families, false)
    }

    #[track_caller]
    fn of(lab: &Lab, tenants: usize, present: &[usize], families: Families, apart: bool) -> Street {
        assert!(tenants <= Street::MOST, "{tenants} tenants: there are addresses for {}", Street::MOST);
        assert!(present.iter().all(|i| *i < tenants), "{present:?} are not all below {tenants}");
        let (wire, host) = (lab.wire("wire"), lab.ns("host"));
        let house = |i: usize| House { router: lab.ns(&format!("r{i}")), client: lab.ns(&format!("c{i}")) };
        let houses: BTreeMap<usize, House> = present.iter().map(|i| (*i, house(*i))).collect();
        let street = Street { wire, host, tenants, families, apart, houses };
        street.build(lab);
        street
    }

    /// The address that all tenants have that are apart.
    pub const COMMON_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 250, 250);
    /// The address that all tenants have that are apart.
    pub const COMMON_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 0xc);

    /// The host's device for tenant `i`.
    pub fn device(&self, i: usize) -> String {
        if self.apart { format!("up{i}") } else { "eth0".to_owned() }
    }

    /// The name of tenant `i` in its document.
    pub fn name(&self, i: usize) -> String {
        format!("t{i}")
    }

    /// The router of tenant `i`.
    #[track_caller]
    pub fn router(&self, i: usize) -> &Ns {
        &self.house(i).router
    }

    /// The client of tenant `i`, whose addresses are those of every client.
    #[track_caller]
    pub fn client(&self, i: usize) -> &Ns {
        &self.house(i).client
    }

    /// The address that tenant `i` has on the host once fief has added it.
    pub fn local4(&self, i: usize) -> Ipv4Addr {
        on_wire(18, i)
    }

    /// The address that tenant `i` has on the host once fief has added it.
    pub fn local6(&self, i: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0xa, 1 + i as u16)
    }

    /// The address of tenant `i`'s router on the wire.
    pub fn router4(&self, i: usize) -> Ipv4Addr {
        on_wire(19, i)
    }

    /// The address of tenant `i`'s router on the wire.
    pub fn router6(&self, i: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0xb, 1 + i as u16)
    }

    /// The Ethernet address of tenant `i`'s router on the wire.
    pub fn router_mac(&self, i: usize) -> [u8; 6] {
        let [high, low] = (i as u16).to_be_bytes();
        [0x02, 0, 0, 0x0b, high, low]
    }

    /// The Ethernet address of the host's `eth0`.
    pub fn host_mac(&self) -> [u8; 6] {
        [0x02, 0, 0, 0, 0, 1]
    }

    /// The document of tenant `i`.
    pub fn yaml(&self, i: usize) -> String {
        self.yaml_with(i, "")
    }

    /// The document of tenant `i` with more lines in its spec, each indented by two spaces and ended.
    pub fn yaml_with(&self, i: usize, spec: &str) -> String {
        let mut addresses = Vec::new();
        let mut routes = String::new();
        let mut family = |address: String, via: String| {
            addresses.push(format!("{address:?}"));
            writeln!(routes, "    - {{ to: default, via: {via:?} }}").expect("a string grows");
        };
        if self.families.v4() {
            family(format!("{}/15", self.local4(i)), self.router4(i).to_string());
        }
        if self.families.v6() {
            family(format!("{}/64", self.local6(i)), self.router6(i).to_string());
        }
        let mut isolation = "";
        if self.apart {
            isolation = "  isolation: vrf\n";
            addresses.extend([format!("{}/15", Street::COMMON_V4), format!("\"{}/64\"", Street::COMMON_V6)]);
        }
        format!(
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {} }}\nspec:\n{isolation}  interfaces:\n    \
             - {{ name: {}, addresses: [{}] }}\n  routes:\n{routes}{spec}",
            self.name(i),
            self.device(i),
            addresses.join(", ")
        )
    }

    /// The documents of all tenants, one stream of YAML.
    pub fn documents(&self) -> String {
        self.documents_of(0..self.tenants)
    }

    /// The documents of some tenants, one stream of YAML.
    pub fn documents_of(&self, which: Range<usize>) -> String {
        which.map(|i| self.yaml(i)).collect::<Vec<_>>().join("---\n")
    }

    #[track_caller]
    fn house(&self, i: usize) -> &House {
        self.houses.get(&i).unwrap_or_else(|| panic!("tenant {i} has no router on this street"))
    }

    #[track_caller]
    fn build(&self, lab: &Lab) {
        let macs = self.houses.keys().map(|i| self.router_mac(*i));
        let routers = self.houses.values().zip(macs);
        let routers = routers.map(|(house, mac)| Plug { ns: &house.router, device: "eth0", mac: Some(mac) });
        let host = Plug { ns: &self.host, device: "eth0", mac: Some(self.host_mac()) };
        if self.apart {
            self.wire.attach_all(&[host]);
            for (i, router) in self.houses.keys().zip(routers) {
                let device = self.device(*i);
                let host = Plug { ns: &self.host, device: &device, mac: Some(self.host_mac()) };
                lab.wire(&format!("wire{i}")).attach_all(&[host, router]);
                self.host.ip(&format!("link set {device} up\n"));
            }
        } else {
            let plugs: Vec<Plug<'_>> = [host].into_iter().chain(routers).collect();
            self.wire.attach_all(&plugs);
        }
        self.host.ip(&self.lines(
            "link set eth0 up\n",
            &[
                (format!("addr add {}/15 dev eth0", Street::HOST_V4), Families::V4),
                (format!("addr add {}/64 dev eth0 nodad", Street::HOST_V6), Families::V6),
            ],
        ));
        for i in self.houses.keys() {
            self.furnish(*i);
        }
    }

    /// One process of ip(8) a namespace: that is what the time goes into.
    #[track_caller]
    fn furnish(&self, i: usize) {
        let House { router, client } = self.house(i);
        router.set_sysctl("net.ipv4.ip_forward", 1);
        router.set_sysctl("net.ipv6.conf.all.forwarding", 1);
        let links = format!(
            "link set eth0 up\nlink add inner type veth peer name eth0 netns {} address {}\nlink set inner up\n",
            client.name(),
            mac_text([0x02, 0, 0, 0x0c, 0, 1])
        );
        router.ip(&self.lines(
            &links,
            &[
                (format!("addr add {}/15 dev eth0", self.router4(i)), Families::V4),
                (format!("addr add {}/24 dev inner", Street::INNER_V4), Families::V4),
                (format!("addr add {}/64 dev eth0 nodad", self.router6(i)), Families::V6),
                (format!("addr add {}/64 dev inner nodad", Street::INNER_V6), Families::V6),
            ],
        ));
        client.ip(&self.lines(
            "link set eth0 up\n",
            &[
                (format!("addr add {}/24 dev eth0", Street::CLIENT_V4), Families::V4),
                (format!("route add 0.0.0.0/0 via {}", Street::INNER_V4), Families::V4),
                (format!("addr add {}/64 dev eth0 nodad", Street::CLIENT_V6), Families::V6),
                (format!("route add ::/0 via {}", Street::INNER_V6), Families::V6),
            ],
        ));
    }

    fn lines(&self, links: &str, of_family: &[(String, Families)]) -> String {
        let wanted = of_family
            .iter()
            .filter(|(_, family)| self.families == Families::Both || self.families == *family);
        wanted.fold(links.to_owned(), |lines, (line, _)| lines + line + "\n")
    }
}

impl Families {
    /// Is IPv4 among them?
    pub fn v4(self) -> bool {
        self != Families::V6
    }

    /// Is IPv6 among them?
    pub fn v6(self) -> bool {
        self != Families::V4
    }
}

/// Tenant `i`'s address in 198.`second`.0.0/16, never one that ends in 0 or 255.
fn on_wire(second: u8, i: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, second, (1 + i / 250) as u8, (1 + i % 250) as u8)
}
