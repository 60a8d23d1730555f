//! What a switch needs of the host: which devices are its ports, and why one cannot be.

use std::net::IpAddr;

use fief_api::Condition;
use fief_model::Network;
use sha2::{Digest, Sha256};

use super::super::links::HOST_MAC;
use super::names::short_name;
use super::{Documents, Wanted, condition};
use crate::observed::Observed;

/// The part of a switch that lies on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trunk {
    /// The name of its bridge.
    pub bridge: String,
    /// The bridge's Ethernet address: the same whenever it is made and whatever its ports are, as the spanning tree
    /// knows bridges by it.
    pub mac: [u8; 6],
    /// The port that leads to the bridge of its endpoints.
    pub cable: String,
    /// Does it take part in the spanning tree?
    pub stp: bool,
    /// Bytes of a packet.
    pub mtu: u32,
    /// Its other ports.
    pub ports: Vec<TrunkPort>,
}

/// A device of the host that is to be a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkPort {
    /// Its name in the document.
    pub uplink: String,
    /// Its number, if it is there.
    pub device: Option<u32>,
    /// The VLAN, and the name of the device for it that becomes the port instead.
    pub vlan: Option<(u16, String)>,
    /// It is not to become a port. One that is a port already stays one.
    pub barred: bool,
}

/// The pair of devices between a switch's bridges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cable {
    /// The end on the host.
    pub outer: String,
    /// The end in the tenant's namespace.
    pub inner: String,
}

impl TrunkPort {
    /// The name of the device that becomes the port.
    pub fn name(&self) -> &str {
        self.vlan.as_ref().map_or(&self.uplink, |(_, name)| name)
    }
}

pub(super) fn cable(key: &str, network: &Network) -> Option<Cable> {
    let inner = || short_name("u", &network.metadata.name, key);
    network.is_switch().then(|| Cable { outer: hashed("c", key), inner: inner() })
}

/// Adds the switches, and what they lack.
pub(super) fn add_trunks(documents: &Documents<'_>, observed: &Observed, wanted: &mut Wanted) {
    for (key, stored) in documents.networks.iter().filter(|(_, stored)| stored.network.is_switch()) {
        let network = &stored.network;
        let has_space = wanted.spaces.contains_key(&network.metadata.tenant);
        if !has_space {
            continue;
        }
        let mut lacking = Vec::new();
        let ports =
            network.ports().iter().map(|name| port(key, name, network.spec.vlan, observed, &mut lacking));
        let trunk = Trunk {
            bridge: hashed("b", key),
            mac: mac_of_trunk(key),
            cable: hashed("c", key),
            stp: network.spans(),
            mtu: network.spec.mtu,
            ports: ports.collect(),
        };
        let works = |name: &String| observed.link(name).is_some_and(|link| link.up && link.carrier);
        let there = || network.ports().iter().any(|name| observed.link(name).is_some());
        if there() && !network.ports().iter().any(works) {
            let names = network.ports().join(", ");
            let text = format!("none of its ports works: {names} must be up, with a carrier");
            lacking.push(condition("UplinkDown", text));
        }
        wanted.networks.insert(key.to_owned(), lacking);
        wanted.trunks.insert(key.to_owned(), trunk);
    }
}

fn port(
    key: &str,
    name: &str,
    vlan: Option<u16>,
    observed: &Observed,
    lacking: &mut Vec<Condition>,
) -> TrunkPort {
    let link = observed.link(name);
    let flaw = match link {
        None => Some(("DeviceMissing", format!("there is no device {name}; it becomes a port when there is one"))),
        Some(link) if !link.ethernet || link.loopback => {
            Some(("PortUnfit", format!("{name} is no Ethernet device; name another one in `uplinks`")))
        }
        Some(link) if vlan.is_none() => own_of_host(link.index, observed).map(|own| {
            let text = format!(
                "{name} has {own} of this host, which would stop working on a port: give the host another device and \
                 remove it there (`ip addr`, `ip route`), or write a `vlan`"
            );
            ("AddressesOnPort", text)
        }),
        Some(_) => None,
    };
    let barred = flaw.is_some();
    lacking.extend(flaw.map(|(reason, text)| condition(reason, text)));
    TrunkPort {
        uplink: name.to_owned(),
        device: link.map(|link| link.index),
        vlan: vlan.map(|vlan| (vlan, hashed("v", &format!("{key} {name}")))),
        barred,
    }
}

/// An address of the host's own on a device, or a route over it. The kernel gives every device a link-local address.
fn own_of_host(index: u32, observed: &Observed) -> Option<String> {
    let is_own = |address: IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    let mut addresses: Vec<_> =
        observed.addresses().filter(|a| a.device == index && is_own(a.net.addr())).map(|a| a.net).collect();
    addresses.sort();
    let address = addresses.first().map(|net| format!("address {net}"));
    address.or_else(|| {
        let routes = observed.routes_by(Some(index));
        routes.first().map(|route| format!("a route to {}", route.prefix))
    })
}

fn mac_of_trunk(key: &str) -> [u8; 6] {
    let digest = Sha256::digest(format!("trunk {key}"));
    [HOST_MAC[0], HOST_MAC[1], HOST_MAC[2], digest[0], digest[1], digest[2]]
}

/// The name of a device on the host: 15 bytes.
fn hashed(kind: &str, of: &str) -> String {
    let digest = Sha256::digest(of.as_bytes());
    let hex: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("fief{kind}{hex}")
}
