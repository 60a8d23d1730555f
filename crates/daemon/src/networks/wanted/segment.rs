//! One network: its bridge, who is on it, what its services are told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fief_model::{Mss, Network};
use fief_services::{EndpointConfig, NetworkConfig};
use ipnet::{IpNet, Ipv4Net};
use sha2::{Digest, Sha256};

use super::super::links::HOST_MAC;
use super::names::{device_name, hashed, short_name};
use super::port_maps::reserved;
use super::switch::cable;
use super::{Member, Port, Segment};

/// Names end in this where no tenant says otherwise (RFC 9476 has `internal` for private use).
const DOMAIN: &str = "internal";
/// DNS (RFC 1035).
const DNS: u16 = 53;

pub(super) fn segment(key: &str, network: &Network, members: &[Member<'_>], is_vrf: bool) -> Segment {
    let spec = &network.spec;
    let gateways: Vec<IpNet> =
        spec.subnets.iter().map(|net| IpNet::new_assert(network.gateway(*net), net.prefix_len())).collect();
    let mut ports = BTreeMap::new();
    for Member { endpoint, attachment, has_default } in members {
        let gateway_for = |address: IpAddr| gateways.iter().find(|gateway| gateway.contains(&address));
        let gateway = attachment.address.and_then(gateway_for);
        let port = Port {
            endpoint: endpoint.metadata.key(),
            attach: endpoint.spec.attach.clone(),
            interface: attachment.interface.clone(),
            mac: endpoint.mac_of(attachment),
            address: attachment.address.and_then(|address| IpNet::new(address, gateway?.prefix_len()).ok()),
            default_via: gateway.filter(|_| *has_default).map(IpNet::addr),
        };
        let device = match &endpoint.spec.attach.tap {
            Some(name) => name.clone(),
            None => device_name("e", network, endpoint, is_vrf),
        };
        ports.insert(device, Box::new(port));
    }
    Segment {
        bridge: if is_vrf { hashed("n", key) } else { short_name("n", &network.metadata.name, key) },
        gateways,
        mtu: spec.mtu,
        mss: match spec.mss {
            Mss::Auto => None,
            Mss::Bytes(bytes) => Some(bytes),
        },
        cable: cable(key, network),
        exit: None,
        ports,
        leased: BTreeMap::new(),
        services: services(key, network, members),
    }
}

fn services(key: &str, network: &Network, members: &[Member<'_>]) -> NetworkConfig {
    let spec = &network.spec;
    let subnet = network.subnet4().unwrap_or_default();
    let v6 = spec.subnets.iter().find_map(|net| match net {
        IpNet::V6(v6) => Some(*v6),
        IpNet::V4(_) => None,
    });
    let gateway4 = match network.gateway(IpNet::V4(subnet)) {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let gateway6 = v6.and_then(|net| match network.gateway(IpNet::V6(net)) {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    });
    let endpoints = members.iter().map(|Member { endpoint, attachment, has_default }| {
        let (address, address6) = match reserved(network, endpoint, attachment) {
            Some(IpAddr::V4(v4)) => (Some(v4), None),
            Some(IpAddr::V6(v6)) => (None, Some(v6)),
            None => (None, None),
        };
        EndpointConfig {
            name: endpoint.metadata.name.clone(),
            tenant: endpoint.metadata.tenant.clone(),
            mac: endpoint.mac_of(attachment).0,
            address,
            address6,
            default_route: *has_default,
            labels: endpoint.metadata.labels.clone(),
            hostname: endpoint.metadata.name.clone(),
        }
    });
    NetworkConfig {
        key: key.to_owned(),
        namespace: 0,
        gateway: gateway4,
        subnet,
        gateway6,
        subnet6: v6,
        // Uplinks translate IPv4 only.
        leads_out6: false,
        dhcp: spec.dhcp.as_ref().map(|dhcp| fief_services::Dhcp {
            range: dhcp.addresses().ok().flatten().or_else(|| whole(subnet)),
            lease: dhcp.lease_time().unwrap_or_default(),
        }),
        domain: format!("{}.{}.{DOMAIN}", network.metadata.name, network.metadata.tenant),
        names: spec.dns.names.iter().map(|(name, address)| (name.clone(), vec![*address])).collect(),
        ntp: spec.ntp.clone(),
        mtu: u16::try_from(spec.mtu).ok(),
        upstreams: spec.dns.servers.iter().map(|server| SocketAddr::new(*server, DNS)).collect(),
        endpoints: endpoints.collect(),
        bridge: 0,
        mac: mac_of_bridge(key),
    }
}

/// The Ethernet address of a network's bridge: the same whenever it is made, so that neighbours that know it still do.
fn mac_of_bridge(key: &str) -> [u8; 6] {
    let digest = Sha256::digest(key.as_bytes());
    [HOST_MAC[0], HOST_MAC[1], HOST_MAC[2], digest[0], digest[1], digest[2]]
}

/// All addresses of a subnet that hosts can have.
fn whole(subnet: Ipv4Net) -> Option<std::ops::RangeInclusive<Ipv4Addr>> {
    let (first, last) = (u32::from(subnet.network()) + 1, u32::from(subnet.broadcast()).checked_sub(1)?);
    Some(Ipv4Addr::from(first)..=Ipv4Addr::from(last))
}
