//! What networks' and endpoints' documents mean on this host as it is now. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fief_api::Condition;
use fief_host::{Address, Family, Route, RouteKind};
use fief_model::{Attach, Attachment, Endpoint, Mac, Network, Slot, Tenant};
use fief_services::{EndpointConfig, NetworkConfig};
use ipnet::{IpNet, Ipv4Net};
use sha2::{Digest, Sha256};

use super::links::{self, HOST_MAC, Links};
use crate::observed::Observed;
use crate::plan::Desired;
use crate::store::{Stored, StoredEndpoint, StoredNetwork, Uplink};

/// Names end in this where no tenant says otherwise (RFC 9476 has `internal` for private use).
const DOMAIN: &str = "internal";
/// DNS (RFC 1035).
const DNS: u16 = 53;

/// Every document that there is, or would be.
#[derive(Debug, Clone)]
pub struct Documents<'a> {
    /// Tenants by name.
    pub tenants: BTreeMap<String, &'a Stored>,
    /// Networks by `TENANT/NAME`.
    pub networks: BTreeMap<String, &'a StoredNetwork>,
    /// Endpoints by `TENANT/NAME`.
    pub endpoints: BTreeMap<String, &'a StoredEndpoint>,
    /// Uplinks by device.
    pub uplinks: &'a BTreeMap<String, Uplink>,
}

/// What networks are built from, beside documents and the host.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Addresses of links.
    pub links: Links,
    /// Leased addresses, by network and Ethernet address.
    pub leases: &'a HashMap<(String, Mac), Ipv4Addr>,
}

/// Everything networks need of this host.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Namespaces of tenants, by tenant.
    pub spaces: BTreeMap<String, Space>,
    /// Uplinks by device.
    pub exits: BTreeMap<String, Exit>,
    /// What networks lack, by key.
    pub networks: BTreeMap<String, Vec<Condition>>,
    /// What endpoints lack, by key.
    pub endpoints: BTreeMap<String, Vec<Condition>>,
}

/// An uplink on this host now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its number.
    pub uplink: Uplink,
    /// The device, if it is there.
    pub device: Option<u32>,
    /// The device's own IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Can packets leave there?
    pub works: bool,
}

/// The namespace of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The tenant's number: the conntrack zone of everything inside.
    pub slot: Slot,
    /// The link's addresses inside, by the uplink's index; empty for a tenant that reaches nobody outside.
    pub transit: BTreeMap<u8, Ipv4Addr>,
    /// The host's address on the link.
    pub gateway: Ipv4Addr,
    /// The prefix of the link's addresses inside.
    pub block: Ipv4Net,
    /// Its networks, by key.
    pub segments: BTreeMap<String, Segment>,
    /// Ports of the link's addresses that lead to endpoints.
    pub mapped: BTreeMap<(Ipv4Addr, u8, u16), (Ipv4Addr, u16)>,
    /// Ports of uplinks that lead to the link's addresses.
    pub called: BTreeMap<(Ipv4Addr, u8, u16), Ipv4Addr>,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The bridge's name.
    pub bridge: String,
    /// The gateway's addresses, with their prefix lengths.
    pub gateways: Vec<IpNet>,
    /// Bytes of a packet.
    pub mtu: u32,
    /// The link's address that its packets leave by, if they may and can.
    pub exit: Option<Ipv4Addr>,
    /// Who is attached, by the port's name.
    pub ports: BTreeMap<String, Port>,
    /// Addresses that were leased, and to whom.
    pub leased: BTreeMap<Ipv4Addr, Mac>,
    /// What its services are told. The bridge's number is filled in where it is known.
    pub services: NetworkConfig,
}

/// One interface of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The endpoint's key.
    pub endpoint: String,
    /// Where its other end is.
    pub attach: Attach,
    /// The other end's name there.
    pub interface: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The address to set on it, with its prefix length.
    pub address: Option<IpNet>,
    /// The gateway of its default route, if this interface is to have it.
    pub default_via: Option<IpAddr>,
}

impl Documents<'_> {
    /// Has this tenant a namespace?
    pub fn is_segmented(&self, tenant: &Tenant) -> bool {
        tenant.spec.isolation == fief_model::Isolation::Netns
            || self.networks_of(&tenant.metadata.name).next().is_some()
    }

    /// The networks of a tenant.
    fn networks_of(&self, tenant: &str) -> impl Iterator<Item = (&String, &Network)> {
        let prefix = format!("{tenant}/");
        let from = self.networks.range(prefix.clone()..);
        from.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(key, stored)| (key, &stored.network))
    }
}

/// What these documents need.
pub fn wanted(documents: &Documents<'_>, observed: &Observed, ground: &Ground<'_>) -> Wanted {
    let mut wanted = Wanted {
        exits: documents
            .uplinks
            .iter()
            .map(|(name, uplink)| (name.clone(), exit(name, *uplink, observed)))
            .collect(),
        ..Wanted::default()
    };
    for (key, stored) in &documents.endpoints {
        wanted.endpoints.insert(key.clone(), lacking(&stored.endpoint, documents));
    }
    let attached = attached(documents);
    for (name, stored) in &documents.tenants {
        if documents.is_segmented(&stored.tenant) {
            let space = space(name, stored.slot, documents, ground, &attached, &mut wanted);
            wanted.spaces.insert(name.clone(), space);
        }
    }
    wanted
}

impl Wanted {
    /// What the uplinks need of the host's routing, like tenants.
    pub fn exits(&self, observed: &Observed) -> Vec<(Slot, Desired)> {
        let links: Vec<Route> = self.links().iter().filter_map(|link| link.route(observed)).collect();
        let desire = |exit: &Exit| {
            let mut routes = observed.routes_by(exit.device);
            routes.extend(links.iter().cloned());
            routes.push(crate::plan::desire::unreachable_default(Family::V4));
            Desired { routes, forwards: exit.device, ..Desired::default() }
        };
        self.exits.values().map(|exit| (exit.uplink.slot, desire(exit))).collect()
    }

    /// The links to namespaces.
    pub fn links(&self) -> Vec<Link> {
        let linked = self.spaces.values().filter(|space| !space.transit.is_empty());
        linked.map(|space| Link { slot: space.slot, gateway: space.gateway, block: space.block }).collect()
    }
}

/// The host's side of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whose it is.
    pub slot: Slot,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// The prefix of the addresses at its other end.
    pub block: Ipv4Net,
}

impl Link {
    /// The host's address on the device, if that is there.
    pub fn address(&self, observed: &Observed) -> Option<Address> {
        let device = observed.link(&links::device(self.slot))?.index;
        Some(Address { device, net: IpNet::from(IpAddr::V4(self.gateway)), ours: true })
    }

    /// The route to the other end, once the device is up.
    pub fn route(&self, observed: &Observed) -> Option<Route> {
        let device = observed.link(&links::device(self.slot)).filter(|link| link.up)?;
        Some(Route {
            table: 0,
            prefix: IpNet::V4(self.block),
            metric: 0,
            kind: RouteKind::Unicast,
            device: Some(device.index),
            via: None,
            source: None,
            on_link: false,
            mtu: None,
            detour: None,
        })
    }
}

fn exit(name: &str, uplink: Uplink, observed: &Observed) -> Exit {
    let link = observed.link(name);
    let device = link.map(|link| link.index);
    let addresses = observed.addresses().filter(|a| !a.ours && Some(a.device) == device);
    let addresses = addresses.filter_map(|address| match address.net.addr() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    let mut addresses: Vec<Ipv4Addr> = addresses.collect();
    addresses.sort();
    let works = link.is_some_and(|link| link.up && link.carrier)
        && !addresses.is_empty()
        && observed.routes_by(device).iter().any(|route| route.prefix.prefix_len() == 0);
    Exit { uplink, device, addresses, works }
}

/// What an endpoint lacks, by the documents alone.
fn lacking(endpoint: &Endpoint, documents: &Documents<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for attachment in &endpoint.spec.networks {
        let key = endpoint.network_of(attachment);
        match documents.networks.get(&key) {
            None => conditions.push(condition(
                "NetworkMissing",
                format!("there is no network {key}; it is attached when there is one"),
            )),
            Some(stored) if !may_attach(endpoint, &stored.network) => conditions.push(condition(
                "NotAllowed",
                format!(
                    "network {key} does not allow endpoints of tenant {0}; write `allowEndpoints: [{0}]` there",
                    endpoint.metadata.tenant
                ),
            )),
            Some(_) => {}
        }
    }
    conditions
}

fn may_attach(endpoint: &Endpoint, network: &Network) -> bool {
    let tenant = &endpoint.metadata.tenant;
    *tenant == network.metadata.tenant || network.spec.allow_endpoints.contains(tenant)
}

/// One interface of an endpoint on a network.
struct Member<'a> {
    endpoint: &'a Endpoint,
    attachment: &'a Attachment,
    /// Is its default route here?
    has_default: bool,
}

/// Who may be on each network, by its key. An endpoint's default route is by the first of its networks that has a way out,
/// or by the first if none has.
fn attached<'a>(documents: &Documents<'a>) -> HashMap<String, Vec<Member<'a>>> {
    let mut attached = HashMap::<String, Vec<_>>::new();
    for stored in documents.endpoints.values() {
        let endpoint = &stored.endpoint;
        let leads_out = |attachment: &&Attachment| {
            let network = documents.networks.get(&endpoint.network_of(attachment));
            network.is_some_and(|stored| !stored.network.spec.uplinks.is_empty())
        };
        let mut attachments = endpoint.spec.networks.iter();
        let default = attachments.clone().find(leads_out).or(attachments.next());
        for attachment in &endpoint.spec.networks {
            let has_default = default.is_some_and(|default| std::ptr::eq(default, attachment));
            let key = endpoint.network_of(attachment);
            if documents.networks.get(&key).is_some_and(|stored| may_attach(endpoint, &stored.network)) {
                attached.entry(key).or_default().push(Member { endpoint, attachment, has_default });
            }
        }
    }
    attached
}

fn space(
    tenant: &str,
    slot: Slot,
    documents: &Documents<'_>,
    ground: &Ground<'_>,
    attached: &HashMap<String, Vec<Member<'_>>>,
    wanted: &mut Wanted,
) -> Space {
    let mut space = Space {
        slot,
        transit: BTreeMap::new(),
        gateway: ground.links.gateway(),
        block: ground.links.block(slot),
        segments: BTreeMap::new(),
        mapped: BTreeMap::new(),
        called: BTreeMap::new(),
    };
    for (key, network) in documents.networks_of(tenant) {
        let mut conditions = Vec::new();
        let members = attached.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut segment = segment(key, network, members);
        let macs = members.iter().map(|member| member.endpoint.mac_of(member.attachment));
        let leased = macs.filter_map(|mac| Some((*ground.leases.get(&(key.clone(), mac))?, mac)));
        segment.leased = leased.collect();
        let exits: Vec<(&String, &Exit)> =
            network.spec.uplinks.iter().filter_map(|name| wanted.exits.get_key_value(name)).collect();
        for (_, exit) in &exits {
            let index = exit.uplink.index;
            space.transit.insert(index, ground.links.address(slot, index));
        }
        let chosen = exits.iter().find(|(_, exit)| exit.works);
        segment.exit = chosen.map(|(_, exit)| ground.links.address(slot, exit.uplink.index));
        if chosen.is_none() && !exits.is_empty() {
            let names: Vec<&str> = exits.iter().map(|(name, _)| name.as_str()).collect();
            conditions.push(condition(
                "UplinkDown",
                format!(
                    "none of its uplinks works: {} must be up, with an address and a default route in the host's main table",
                    names.join(", ")
                ),
            ));
        }
        port_maps(key, network, members, ground, &exits, &mut space, &mut conditions);
        space.segments.insert(key.clone(), segment);
        wanted.networks.insert(key.clone(), conditions);
    }
    space
}

fn segment(key: &str, network: &Network, members: &[Member<'_>]) -> Segment {
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
            None => device_name("e", network, endpoint),
        };
        ports.insert(device, port);
    }
    Segment {
        bridge: short_name("n", &network.metadata.name, key),
        gateways,
        mtu: spec.mtu,
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

/// The address that an endpoint has on a network whatever happens: its document's, or one that is reserved for it.
fn reserved(network: &Network, endpoint: &Endpoint, attachment: &Attachment) -> Option<IpAddr> {
    attachment.address.or_else(|| {
        let mac = endpoint.mac_of(attachment);
        let reservations = network.spec.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
        reservations.filter(|r| r.mac == mac).map(|r| IpAddr::V4(r.address)).next()
    })
}

fn port_maps(
    key: &str,
    network: &Network,
    members: &[Member<'_>],
    ground: &Ground<'_>,
    exits: &[(&String, &Exit)],
    space: &mut Space,
    conditions: &mut Vec<Condition>,
) {
    for map in &network.spec.port_maps {
        let Some((_, exit)) = exits.iter().find(|(name, _)| **name == map.uplink) else { continue };
        let Some((to, port)) = map.target() else { continue };
        let address = match to.parse::<Ipv4Addr>() {
            Ok(address) => Some(address),
            Err(_) => address_of(key, network, to, members, ground),
        };
        let Some(address) = address else {
            conditions.push(condition(
                "PortMapIdle",
                format!(
                    "port {} of {} leads to {to}, which has no address on this network yet",
                    map.port, map.uplink
                ),
            ));
            continue;
        };
        let protocol = map.protocol.number();
        let inside = ground.links.address(space.slot, exit.uplink.index);
        space.mapped.insert((inside, protocol, map.port), (address, port));
        for outside in &exit.addresses {
            space.called.insert((*outside, protocol, map.port), inside);
        }
    }
}

/// The IPv4 address of the endpoint that a port map names, fixed or leased.
fn address_of(
    key: &str,
    network: &Network,
    name: &str,
    members: &[Member<'_>],
    ground: &Ground<'_>,
) -> Option<Ipv4Addr> {
    let own = format!("{}/{name}", network.metadata.tenant);
    let is_named = |endpoint: &Endpoint| {
        let key = endpoint.metadata.key();
        key == own || key == name
    };
    let named = members.iter().find(|member| is_named(member.endpoint));
    // An endpoint of another tenant may be called by its name alone where that is nobody's of the own one.
    let by_name = |member: &&Member<'_>| member.endpoint.metadata.name == name;
    let Member { endpoint, attachment, .. } = named.or_else(|| members.iter().find(by_name))?;
    match reserved(network, endpoint, attachment) {
        Some(IpAddr::V4(v4)) => Some(v4),
        _ => ground.leases.get(&(key.to_owned(), endpoint.mac_of(attachment))).copied(),
    }
}

/// The name of an endpoint's port: as people call it where that fits.
fn device_name(prefix: &str, network: &Network, endpoint: &Endpoint) -> String {
    let key = endpoint.metadata.key();
    let names = format!("{key} {}", network.metadata.key());
    let is_own = endpoint.metadata.tenant == network.metadata.tenant && endpoint.spec.networks.len() == 1;
    match is_own {
        true => short_name(prefix, &endpoint.metadata.name, &names),
        false => hashed(prefix, &names),
    }
}

/// `n-web`, or where that is too long for a device a name made of the key.
fn short_name(prefix: &str, name: &str, key: &str) -> String {
    let short = format!("{prefix}-{name}");
    // Names that look like hashed ones are hashed, so that no two can be the same.
    if short.len() <= 15 && name.len() != 12 { short } else { hashed(prefix, key) }
}

fn hashed(prefix: &str, key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}-{hex}")
}

pub(super) fn condition(reason: &str, message: impl Into<String>) -> Condition {
    Condition { reason: reason.into(), message: message.into() }
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
