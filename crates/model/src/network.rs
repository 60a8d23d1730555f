//! `kind: Network`: a segment of a tenant, with addresses, names and ways out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Mac, Mss};

/// A network as a person wrote it, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// Which one it is.
    pub metadata: OwnedMetadata,
    /// What it has.
    pub spec: NetworkSpec,
}

/// Name, tenant and labels of what belongs to a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnedMetadata {
    /// A DNS label (RFC 1123): 1..=63 of `a-z0-9-`, no hyphen at either end. Unique in its kind and tenant.
    pub name: String,
    /// The tenant that it belongs to.
    pub tenant: String,
    /// Free labels, with the syntax Kubernetes gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl OwnedMetadata {
    /// `TENANT/NAME`, which is unique on a host.
    pub fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }
}

/// What a network has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// What kind of segment it is.
    #[serde(default, rename = "type")]
    pub kind: NetworkKind,
    /// Its prefixes, host bits zero: one of IPv4, and one of IPv6 at most. A switch has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub subnets: Vec<IpNet>,
    /// The gateway's addresses, one of a subnet at most; left out, the first address of the subnet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Devices of the host by which its packets may leave, behind the device's own address: the first that works. None:
    /// it reaches nobody outside. Of a switch: its ports, all of them at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<String>,
    /// Of a switch: the VLAN (IEEE 802.1Q) that it is on its uplinks, 1..=4094; left out, frames without a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Of a switch: does it take part in the spanning tree (IEEE 802.1D)? Left out, with more than one uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stp: Option<bool>,
    /// Addresses on request (DHCPv4); left out, every endpoint needs an address in its document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Dhcp>,
    /// Names.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
    /// Ports of uplinks that lead to endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_maps: Vec<PortMap>,
    /// Time servers that DHCP tells of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<Ipv4Addr>,
    /// Bytes of a packet on its links, 576..=65535.
    #[serde(default = "ethernet_mtu", skip_serializing_if = "is_ethernet_mtu")]
    pub mtu: u32,
    /// Bytes of a TCP segment to and from outside, at most: `auto`, which is what the way takes, or a number.
    #[serde(default, skip_serializing_if = "Mss::is_auto")]
    pub mss: Mss,
    /// Other tenants whose endpoints may attach here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_endpoints: Vec<String>,
}

/// What kind of segment a network is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// A bridge in the tenant's namespace, with addresses of fief's and a way out behind the uplink's address.
    #[default]
    Local,
    /// A bridge with devices of the host as its ports, and no addresses of fief's.
    Switch,
}

/// What the DHCP server gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dhcp {
    /// First and last address, as `10.10.1.50-10.10.1.150`; left out, the whole subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// How long a lease lasts: a number with `s`, `m`, `h` or `d`.
    #[serde(default = "hour", skip_serializing_if = "is_hour")]
    pub lease: String,
    /// Addresses that belong to a client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<Reservation>,
}

/// An address that belongs to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reservation {
    /// The client's Ethernet address.
    pub mac: Mac,
    /// Its address.
    #[schemars(with = "String")]
    pub address: Ipv4Addr,
}

/// What names mean in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns {
    /// More names than those of its endpoints.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub names: BTreeMap<String, IpAddr>,
    /// Who is asked for every other name, from inside the tenant. None: every other name is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub servers: Vec<IpAddr>,
}

/// A port of an uplink that leads to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMap {
    /// The uplink.
    pub uplink: String,
    /// The port that is called there.
    pub port: u16,
    /// Where it leads: `ENDPOINT:PORT`, or `ADDRESS:PORT` of the subnet.
    pub to: String,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A transport protocol with ports.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its number (RFC 9293, RFC 768).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl Network {
    /// Is it a switch?
    pub fn is_switch(&self) -> bool {
        self.spec.kind == NetworkKind::Switch
    }

    /// The uplinks whose addresses its packets may leave behind: none of a switch, whose packets keep their own.
    pub fn exits(&self) -> &[String] {
        if self.is_switch() { &[] } else { &self.spec.uplinks }
    }

    /// The devices that are a switch's ports.
    pub fn ports(&self) -> &[String] {
        if self.is_switch() { &self.spec.uplinks } else { &[] }
    }

    /// Does it take part in the spanning tree?
    pub fn spans(&self) -> bool {
        self.spec.stp.unwrap_or(self.ports().len() > 1)
    }

    /// Its IPv4 prefix.
    pub fn subnet4(&self) -> Option<ipnet::Ipv4Net> {
        self.spec.subnets.iter().find_map(|net| match net {
            IpNet::V4(v4) => Some(*v4),
            IpNet::V6(_) => None,
        })
    }

    /// The gateway's address in a subnet: the one that is written, or the first that a host may have.
    pub fn gateway(&self, subnet: IpNet) -> IpAddr {
        let written = self.spec.gateways.iter().copied().find(|address| subnet.contains(address));
        written.unwrap_or_else(|| match subnet {
            IpNet::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4.network()).saturating_add(1))),
            IpNet::V6(v6) => IpAddr::V6((u128::from(v6.network()).saturating_add(1)).into()),
        })
    }
}

impl Dhcp {
    /// The range as addresses; `None` for the whole subnet.
    ///
    /// Errors: what is wrong with the text.
    pub fn addresses(&self) -> Result<Option<RangeInclusive<Ipv4Addr>>, String> {
        let Some(text) = &self.range else { return Ok(None) };
        let ends = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<Ipv4Addr>().ok()?, last.trim().parse::<Ipv4Addr>().ok()?))
        });
        match ends {
            Some((first, last)) if first <= last => Ok(Some(first..=last)),
            Some((first, last)) => Err(format!("the range begins at {first}, behind its end {last}")),
            None => Err(format!("`{text}` is not a range of addresses")),
        }
    }

    /// How long a lease lasts; `None` if the text is no time.
    pub fn lease_time(&self) -> Option<Duration> {
        let (number, unit) = self.lease.split_at_checked(self.lease.len().checked_sub(1)?)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        Some(Duration::from_secs(number.parse::<u32>().ok()? as u64 * seconds))
    }
}

impl Dns {
    /// Is nothing said?
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.servers.is_empty()
    }
}

impl PortMap {
    /// The endpoint's name or address, and the port; `None` if the text is neither.
    pub fn target(&self) -> Option<(&str, u16)> {
        let (to, port) = self.to.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!to.is_empty()).then_some((to, port))
    }
}

fn ethernet_mtu() -> u32 {
    1500
}

fn is_ethernet_mtu(mtu: &u32) -> bool {
    *mtu == ethernet_mtu()
}

fn hour() -> String {
    "60m".into()
}

fn is_hour(lease: &str) -> bool {
    lease == "60m"
}
