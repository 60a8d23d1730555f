//! The world around a node with several uplinks; it answers without fief.
//!
//! ```text
//!                          internet 192.0.2.0/24
//!    ┌──────────┬──────────┬──────────┬──────────────┐
//!    │.1        │.2        │.3        │.4            │.80 http  .53 DNS
//!   gw0        gw1        gw2        gw3            site
//!    │.1        │.1  │     │.1  │     │.1
//!    │          │    │     │    └── cloud2 192.168.222.1     both serve 192.168.0.1/24
//!    │          │    └───────────── cloud1 192.168.111.1
//!    │          │          │          │
//!  192.168.0  192.168.1  192.168.2  192.168.3 (DHCP .50-.150)
//!    │.2        │.2        │.2        │.2
//!   eth0       eth1       eth2       eth3
//!    └──────────┴─ host ───┴──────────┘           default routes by all four, metrics 100..103
//! ```
//!
//! Nobody out there translates an address, and nobody has a route to a tenant's subnet: what the site says it saw is
//! what left the host, and what left with a tenant's own address gets no answer. 192.0.2.0/24 is documentation's
//! (RFC 5737).

use std::fmt::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use fief_testkit::{Child, Lab, Ns, Wire, eventually};
use fief_tests::peers::dnsmasq;

use crate::room::SOON;
use crate::tools::Tools;

/// A host with its uplinks, and what lies beyond them. Fields end in this order.
pub struct Town {
    servers: Vec<Child>,
    resolver: Child,
    /// Where fief runs.
    pub host: Ns,
    /// The router of each uplink.
    pub gateways: Vec<Ns>,
    /// The segment of each uplink; the host is on port `p0`.
    pub segments: Vec<Wire>,
    /// The outside host.
    pub site: Ns,
    /// Cloud 1 and cloud 2, if this is the whole town.
    pub clouds: Vec<Ns>,
    /// Unmodified programs.
    pub tools: Tools,
    /// The world.
    pub lab: Lab,
}

impl Town {
    /// The web server outside; it is `site.example` to the resolver outside.
    pub const SITE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
    /// The resolver outside.
    pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

    /// A town with so many uplinks and no clouds; `None`, with a word, where something is missing.
    #[track_caller]
    pub fn open(name: &str, uplinks: usize) -> Option<Town> {
        Town::build(name, uplinks, false)
    }

    /// All four uplinks, both clouds, a DHCP server on the last segment.
    #[track_caller]
    pub fn whole(name: &str) -> Option<Town> {
        Town::build(name, 4, true)
    }

    /// The host's own address on an uplink.
    pub fn host_address(uplink: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, uplink as u8, 2)
    }

    /// The address of an uplink's router on its segment.
    pub fn gateway_address(uplink: usize) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, uplink as u8, 1)
    }

    /// Gives an uplink its carrier, or takes it away, as if somebody pulled the cable at the far end.
    #[track_caller]
    pub fn carrier(&self, uplink: usize, up: bool) {
        let state = if up { "up" } else { "down" };
        self.segments[uplink].ns.ip(&format!("link set p0 {state}\n"));
    }

    /// A machine on an uplink's segment, with the segment's router.
    #[track_caller]
    pub fn neighbour(&self, uplink: usize, name: &str, last: u8) -> Ns {
        let ns = plain(&self.lab, name);
        self.segments[uplink].attach(&ns, "eth0");
        let gateway = Town::gateway_address(uplink);
        ns.ip(&format!("addr add 192.168.{uplink}.{last}/24 dev eth0\nroute add default via {gateway}\n"));
        ns
    }

    /// A web server in a namespace, port 80 of every address, that says who it is and whom it sees.
    #[track_caller]
    pub fn serve(&self, ns: &Ns, who: &str) -> Child {
        www(&self.lab, &self.tools, ns, who)
    }

    /// What the resolver outside was asked, and by whom: dnsmasq's log.
    pub fn asked(&self) -> String {
        self.resolver.output()
    }

    #[track_caller]
    fn build(name: &str, uplinks: usize, whole: bool) -> Option<Town> {
        let tools = Tools::find()?;
        let listen = format!("--listen-address={}", Town::RESOLVER);
        let address = format!("--address=/site.example/{}", Town::SITE);
        let resolver = dnsmasq(&[&listen, &address, "--bind-interfaces", "--log-queries"])?;
        let lab = Lab::new(name)?;
        let internet = lab.wire("internet");
        let host = plain(&lab, "host");
        let (mut gateways, mut segments) = (Vec::new(), Vec::new());
        for uplink in 0..uplinks {
            let segment = lab.wire(&format!("w{uplink}"));
            segment.attach(&host, &format!("eth{uplink}"));
            gateways.push(gateway(&lab, &segment, &internet, uplink, uplinks));
            segments.push(segment);
        }
        host.ip(&(0..uplinks).fold(String::new(), |mut lines, uplink| {
            let (own, via) = (Town::host_address(uplink), Town::gateway_address(uplink));
            let metric = 100 + uplink;
            writeln!(lines, "addr add {own}/24 dev eth{uplink}").expect("a string grows");
            writeln!(lines, "route add default via {via} dev eth{uplink} metric {metric}")
                .expect("a string grows");
            lines
        }));
        let site = site(&lab, &internet, uplinks);
        let mut servers = vec![www(&lab, &tools, &site, "site")];
        let mut resolver = site.spawn(&resolver);
        resolver.wait_for_output("started", SOON);
        let mut clouds = Vec::new();
        if whole {
            for number in [1, 2] {
                let cloud = cloud(&lab, &gateways, &site, number);
                servers.push(www(&lab, &tools, &cloud, &format!("cloud{number}")));
                clouds.push(cloud);
            }
            servers.push(www(&lab, &tools, &gateways[0], "gw0"));
            servers.push(dhcp_server(&lab, &gateways[3]));
        }
        Some(Town { servers, resolver, host, gateways, segments, site, clouds, tools, lab })
    }

    /// Everything that was started and still runs says nothing of an end.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        for server in self.servers.iter_mut().chain([&mut self.resolver]) {
            assert!(server.ended().is_none(), "a server of the town has ended:\n{}", server.output());
        }
    }
}

/// A namespace whose devices take what arrives by any way: machines differ in what a new one inherits.
#[track_caller]
fn plain(lab: &Lab, name: &str) -> Ns {
    let ns = lab.ns(name);
    for scope in ["all", "default"] {
        ns.set_sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), 0);
    }
    ns
}

/// An uplink's router. It knows the way to every other uplink.
#[track_caller]
fn gateway(lab: &Lab, segment: &Wire, internet: &Wire, uplink: usize, uplinks: usize) -> Ns {
    let ns = plain(lab, &format!("gw{uplink}"));
    ns.set_sysctl("net.ipv4.ip_forward", 1);
    segment.attach(&ns, "eth0");
    internet.attach(&ns, "out");
    let own = Town::gateway_address(uplink);
    let mut lines = format!("addr add {own}/24 dev eth0\naddr add {}/24 dev out\n", outer(uplink));
    for other in (0..uplinks).filter(|other| *other != uplink) {
        writeln!(lines, "route add 192.168.{other}.0/24 via {}", outer(other)).expect("a string grows");
    }
    ns.ip(&lines);
    // Loads what keeps connections, so that its sysctls are there before anybody compares them.
    ns.nft("table ip watch { chain c { type filter hook forward priority 0; ct state invalid counter; }; }");
    ns
}

/// An uplink's router as the internet knows it.
fn outer(uplink: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 1 + uplink as u8)
}

#[track_caller]
fn site(lab: &Lab, internet: &Wire, uplinks: usize) -> Ns {
    let ns = plain(lab, "site");
    internet.attach(&ns, "eth0");
    let own = [Town::SITE, Town::RESOLVER, Ipv4Addr::new(192, 0, 2, 123)];
    let own = own.iter().map(|address| format!("addr add {address}/24 dev eth0\n"));
    let back = (0..uplinks).map(|uplink| format!("route add 192.168.{uplink}.0/24 via {}\n", outer(uplink)));
    ns.ip(&own.chain(back).collect::<String>());
    ns
}

/// A cloud behind the router of the uplink with its number; everybody outside knows the way to its outer address.
#[track_caller]
fn cloud(lab: &Lab, gateways: &[Ns], site: &Ns, number: usize) -> Ns {
    let ns = plain(lab, &format!("cloud{number}"));
    let (gateway, subnet) = (&gateways[number], format!("192.168.{}", 111 * number));
    lab.veth((&ns, "eth0"), (gateway, "cloud"));
    gateway.ip(&format!("addr add {subnet}.254/24 dev cloud\n"));
    ns.ip(&format!(
        "addr add {subnet}.1/24 dev eth0\nroute add default via {subnet}.254\n\
         link add inner type bridge\nlink set inner up\naddr add 192.168.0.1/24 dev inner\n"
    ));
    let others = gateways.iter().filter(|other| other.short() != gateway.short()).chain([site]);
    others.for_each(|ns| ns.ip(&format!("route add {subnet}.0/24 via {}\n", outer(number))));
    ns
}

#[track_caller]
fn dhcp_server(lab: &Lab, gateway: &Ns) -> Child {
    let leases = format!("--dhcp-leasefile={}", lab.dir().join("leases").display());
    let range = "--dhcp-range=192.168.3.50,192.168.3.150,1h";
    let more = ["--dhcp-option=option:mtu,1400", "--dhcp-option=option:ntp-server,192.0.2.123"];
    let plain = ["--port=0", "--interface=eth0", "--dhcp-authoritative", range, &leases];
    let words = dnsmasq(&[&plain[..], &more].concat());
    let mut server = gateway.spawn(&words.expect("dnsmasq was there a moment ago"));
    server.wait_for_output("DHCP, IP range", SOON);
    server
}

/// nginx, one process, its files in the lab's directory.
#[track_caller]
fn www(lab: &Lab, tools: &Tools, ns: &Ns, who: &str) -> Child {
    let dir = lab.dir().join(format!("www-{}", ns.short()));
    std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
    let config = dir.join("nginx.conf");
    std::fs::write(&config, nginx(&dir, who)).expect("the lab's directory is writable");
    let words = [&tools.nginx, Path::new("-e"), Path::new("stderr"), Path::new("-p"), &dir];
    let server = ns.command(&words).arg("-c").arg(&config).spawn();
    eventually(SOON, || {
        let up = ns.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, 80)));
        up.map(drop).map_err(|error| format!("nginx of {who}: {error}\n{}", server.output()))
    });
    server
}

fn nginx(dir: &Path, who: &str) -> String {
    let dir = dir.display();
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let places: String = places.map(|place| format!("{place}_temp_path {dir}/{place};\n")).concat();
    format!(
        "user root; pid {dir}/nginx.pid; daemon off; master_process off;\nevents {{}}\nhttp {{\n{places}\
         access_log off;\nserver {{ listen 80; default_type text/plain; \
         location / {{ return 200 \"{who} sees $remote_addr\\n\"; }} }}\n}}\n"
    )
}
