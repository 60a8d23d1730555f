//! What networks' and endpoints' documents mean on this host as it is now. Pure.

mod exits;
mod names;
mod port_maps;
mod segment;
mod switch;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use fief_api::Condition;
use fief_model::{Attach, Attachment, Endpoint, Mac, Network, Slot, Tenant};
use fief_services::NetworkConfig;
use ipnet::IpNet;

use super::links::Links;
use super::probe::Silence;
use crate::config::uplinks::Uplinks;
use crate::observed::Observed;
use crate::store::{Stored, StoredEndpoint, StoredNetwork, Uplink};
use exits::exit;
pub use exits::{Exit, Link};
use port_maps::port_maps;
use segment::segment;
pub use switch::{Cable, Trunk, TrunkPort};

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
    /// Does fief write no marks? Then no tenant shares the host's stack.
    pub markless: bool,
}

/// What networks are built from, beside documents and the host.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Addresses of links.
    pub links: Links,
    /// Leased addresses, by network and Ethernet address.
    pub leases: &'a HashMap<(String, Mac), Ipv4Addr>,
    /// How uplinks are probed.
    pub uplinks: &'a Uplinks,
    /// Uplinks that do not answer.
    pub silent: BTreeMap<String, Silence>,
    /// The table of slot n is this plus n.
    pub table_base: u32,
}

/// Everything networks need of this host.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Namespaces of tenants, by tenant.
    pub spaces: BTreeMap<String, Space>,
    /// Uplinks by device.
    pub exits: BTreeMap<String, Exit>,
    /// The parts of switches that lie on the host, by key.
    pub trunks: BTreeMap<String, Trunk>,
    /// What networks lack, by key.
    pub networks: BTreeMap<String, Vec<Condition>>,
    /// What endpoints lack, by key.
    pub endpoints: BTreeMap<String, Vec<Condition>>,
}

/// The namespace or the VRF of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// The tenant's number: the conntrack zone of everything inside.
    pub slot: Slot,
    /// The routing table of its VRF; `None`: it has a namespace.
    pub vrf: Option<u32>,
    /// The link's addresses inside, by the uplink's index; empty for a tenant that reaches nobody outside.
    pub transit: BTreeMap<u8, Ipv4Addr>,
    /// The host's address on the link.
    pub gateway: Ipv4Addr,
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
    /// Bytes of a TCP segment to and from outside, at most, beside what the way takes.
    pub mss: Option<u16>,
    /// What leads to the host, if it is a switch.
    pub cable: Option<Cable>,
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

impl Space {
    /// Is another one the same, but for labels of endpoints?
    pub fn differs_in_labels_only(&self, other: &Space) -> bool {
        let plain = |space: &Space| {
            let mut space = space.clone();
            let endpoints = space.segments.values_mut().flat_map(|segment| &mut segment.services.endpoints);
            endpoints.for_each(|endpoint| endpoint.labels.clear());
            space
        };
        plain(self) == plain(other)
    }
}

impl Documents<'_> {
    /// Has this tenant a namespace, or a VRF of its own kind?
    pub fn is_segmented(&self, tenant: &Tenant) -> bool {
        self.markless
            || tenant.spec.isolation == fief_model::Isolation::Netns
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
            .map(|(name, uplink)| (name.clone(), exit(name, *uplink, observed, ground)))
            .collect(),
        ..Wanted::default()
    };
    for (key, stored) in &documents.endpoints {
        wanted.endpoints.insert(key.clone(), lacking(&stored.endpoint, documents));
    }
    let attached = attached(documents);
    for (name, stored) in &documents.tenants {
        if documents.is_segmented(&stored.tenant) {
            let space = space(name, stored, documents, ground, &attached, &mut wanted);
            wanted.spaces.insert(name.clone(), space);
        }
    }
    switch::add_trunks(documents, observed, &mut wanted);
    wanted
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
            network.is_some_and(|stored| !stored.network.exits().is_empty())
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
    stored: &Stored,
    documents: &Documents<'_>,
    ground: &Ground<'_>,
    attached: &HashMap<String, Vec<Member<'_>>>,
    wanted: &mut Wanted,
) -> Space {
    let slot = stored.slot;
    let is_vrf = stored.tenant.spec.isolation == fief_model::Isolation::Vrf;
    let mut space = Space {
        slot,
        vrf: is_vrf.then(|| ground.table_base + u32::from(slot.number())),
        transit: BTreeMap::new(),
        gateway: ground.links.gateway(),
        segments: BTreeMap::new(),
        mapped: BTreeMap::new(),
        called: BTreeMap::new(),
    };
    for (key, network) in documents.networks_of(tenant) {
        let mut conditions = Vec::new();
        let members = attached.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut segment = segment(key, network, members, is_vrf);
        let macs = members.iter().map(|member| member.endpoint.mac_of(member.attachment));
        let leased = macs.filter_map(|mac| Some((*ground.leases.get(&(key.clone(), mac))?, mac)));
        segment.leased = leased.collect();
        let exits: Vec<(&String, &Exit)> =
            network.exits().iter().filter_map(|name| wanted.exits.get_key_value(name)).collect();
        for (_, exit) in &exits {
            let index = exit.uplink.index;
            space.transit.insert(index, ground.links.address(slot, index));
        }
        let chosen = exits.iter().find(|(_, exit)| exit.lacks.is_none());
        segment.exit = chosen.map(|(_, exit)| ground.links.address(slot, exit.uplink.index));
        if chosen.is_none() && !exits.is_empty() {
            let why =
                exits.iter().filter_map(|(name, exit)| Some(format!("{name} {}", exit.lacks.as_ref()?)));
            let why = why.collect::<Vec<_>>().join("; ");
            conditions.push(condition("UplinkDown", format!("none of its uplinks works: {why}")));
        }
        port_maps(key, network, members, ground, &exits, &mut space, &mut conditions);
        space.segments.insert(key.clone(), segment);
        wanted.networks.insert(key.clone(), conditions);
    }
    space
}

pub(super) fn condition(reason: &str, message: impl Into<String>) -> Condition {
    Condition { reason: reason.into(), message: message.into() }
}

#[cfg(test)]
mod tests;
