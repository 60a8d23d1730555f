//! What the services know of one network: values that the daemon makes from documents.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

/// The gateway's address on the link of a network with IPv6: hosts take router advertisements from none but such (RFC 4861,
/// 6.1.2). The same everywhere, so that a bridge that is made anew is the same router.
pub const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Everything the services need to know of one network. Replaced as a whole by [`crate::Services::set`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// `TENANT/NETWORK`, such as `blue/web`; unique on the host. Names the network in logs and leases.
    pub key: String,
    /// Which namespace the network's sockets are in: any number, the same for all networks of one namespace (the inode
    /// number of the namespace, say). Networks with the same number share one metadata listener.
    pub namespace: u64,
    /// The network's own address: DHCP server identifier, router and DNS server of its endpoints.
    pub gateway: Ipv4Addr,
    /// The network's IPv4 prefix. Who asks from elsewhere gets no answer.
    pub subnet: Ipv4Net,
    /// The network's own IPv6 address, if it has one.
    pub gateway6: Option<Ipv6Addr>,
    /// The network's IPv6 prefix, if it has one.
    pub subnet6: Option<Ipv6Net>,
    /// Does IPv6 leave the network? Then the gateway is its endpoints' default router.
    pub leads_out6: bool,
    /// How addresses are leased; `None`: there is no DHCP service, of IPv6 neither.
    pub dhcp: Option<Dhcp>,
    /// The domain of the network's names and the search domain of its clients, such as `web.blue.internal`; may be empty.
    pub domain: String,
    /// Fixed DNS names without the domain. They come before endpoints of the same name.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Time servers for clients (option 42).
    pub ntp: Vec<Ipv4Addr>,
    /// The network's MTU in bytes, for clients (option 26).
    pub mtu: Option<u16>,
    /// DNS servers for all other names, asked in this order; none: other names are refused.
    pub upstreams: Vec<SocketAddr>,
    /// Who is attached. Nobody else gets an address, or an answer from the metadata service.
    pub endpoints: Vec<EndpointConfig>,
    /// The number of the bridge inside the namespace; frames from other devices are dropped. 0: not checked.
    pub bridge: u32,
    /// The bridge's Ethernet address, for router advertisements. Zeros: not said.
    pub mac: [u8; 6],
}

/// How a network leases addresses (RFC 2131). In IPv6 (RFC 8415) there are only fixed ones, with the same times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp {
    /// The addresses for endpoints that have none of their own; `None`: only those with one are served.
    pub range: Option<RangeInclusive<Ipv4Addr>>,
    /// How long a lease lasts; seconds count, and at least ten of them.
    pub lease: Duration,
}

/// One endpoint's interface on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The endpoint's name, which is a DNS name of its network. Of two with the same name the first has it.
    pub name: String,
    /// The tenant it belongs to, which need not be the network's.
    pub tenant: String,
    /// The Ethernet address of its interface.
    pub mac: [u8; 6],
    /// Its fixed or reserved address; `None`: one of the range.
    pub address: Option<Ipv4Addr>,
    /// Its fixed IPv6 address.
    pub address6: Option<Ipv6Addr>,
    /// Is the gateway its default route (options 3 and 121)? An endpoint of several networks has one of them.
    pub default_route: bool,
    /// Its labels, for the metadata service.
    pub labels: BTreeMap<String, String>,
    /// The host name it is told (option 12, metadata), and a second DNS name if nobody else has it; empty: its name.
    pub hostname: String,
}

impl EndpointConfig {
    /// The host name, or the endpoint's name where that is empty.
    pub fn hostname(&self) -> &str {
        if self.hostname.is_empty() { &self.name } else { &self.hostname }
    }
}
