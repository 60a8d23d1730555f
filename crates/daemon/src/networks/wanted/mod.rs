//! What networks' and endpoints' documents mean on this host as it is now. Pure.
//!
//! What a tenant wants is made of its own documents, those of endpoints on its networks, their leases, and the uplinks. So
//! [`Wanted::renew`] makes anew only what may have changed, and the rest is the very value of before; the same as if all
//! were made anew, which [`wanted`] does.

mod documents;
mod exits;
mod names;
mod port_maps;
mod segment;
mod stale;
mod switch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fief_api::Condition;
use fief_model::{Attach, Attachment, Endpoint, Mac, Network, Slot};
use fief_services::NetworkConfig;
use ipnet::IpNet;

use crate::observed::Observed;
use crate::store::{Stored, StoredEndpoint, StoredNetwork};
pub use documents::{Documents, Ground, Layered};
use exits::exit;
pub use exits::{Exit, Link};
use port_maps::port_maps;
use segment::segment;
pub use stale::{Stale, tenant_of};
pub use switch::{Cable, Trunk, TrunkPort};

/// Everything networks need of this host.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Namespaces of tenants, by tenant.
    pub spaces: BTreeMap<String, Arc<Space>>,
    /// Uplinks by device.
    pub exits: BTreeMap<String, Exit>,
    /// The parts of switches that lie on the host, by key.
    pub trunks: BTreeMap<String, Trunk>,
    /// What networks lack, by key.
    pub networks: BTreeMap<String, Vec<Condition>>,
    /// May the spaces be others than before they were last renewed?
    pub is_news: bool,
    /// The links to the spaces.
    links: Arc<Vec<Link>>,
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
    /// Its networks, by key. Boxed, as ports are: a node of a BTreeMap has room for eleven, and most tenants have one.
    pub segments: BTreeMap<String, Box<Segment>>,
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
    pub ports: BTreeMap<String, Box<Port>>,
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

impl Wanted {
    /// Takes in what has changed since the last time.
    pub fn renew(
        &mut self,
        documents: &Documents<'_>,
        observed: &Observed,
        ground: &Ground<'_>,
        stale: &Stale,
    ) {
        let exits = documents.uplinks.iter();
        let exits =
            exits.map(|(name, uplink)| (name.clone(), exit(name, *uplink, observed, ground))).collect();
        let before = std::mem::replace(&mut self.exits, exits);
        let is_all = stale.all || before != self.exits;
        if is_all {
            self.spaces.clear();
            self.networks.clear();
            documents.tenants.iter().for_each(|(name, stored)| self.add(name, stored, documents, ground));
        } else {
            for name in &stale.tenants {
                self.forget(name);
                if let Some(stored) = documents.tenants.get(name) {
                    self.add(name, stored, documents, ground);
                }
            }
        }
        self.is_news = is_all || !stale.tenants.is_empty();
        if self.is_news {
            self.link_up();
        }
        self.trunks.clear();
        switch::add_trunks(documents, observed, self);
    }

    fn forget(&mut self, tenant: &str) {
        let Some(space) = self.spaces.remove(tenant) else { return };
        space.segments.keys().for_each(|key| drop(self.networks.remove(key)));
    }

    fn add(&mut self, name: &str, stored: &Stored, documents: &Documents<'_>, ground: &Ground<'_>) {
        if documents.is_segmented(&stored.tenant) {
            let space = space(name, stored, documents, ground, self);
            self.spaces.insert(name.to_owned(), Arc::new(space));
        }
    }
}

/// What these documents need.
pub fn wanted(documents: &Documents<'_>, observed: &Observed, ground: &Ground<'_>) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.renew(documents, observed, ground, &Stale::all());
    wanted
}

/// What an endpoint lacks, by the documents alone.
pub fn lacking(endpoint: &Endpoint, networks: &BTreeMap<String, StoredNetwork>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for attachment in &endpoint.spec.networks {
        let key = endpoint.network_of(attachment);
        match networks.get(&key) {
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

/// Who may be on each of a tenant's networks, by their keys. An endpoint's default route is by the first of its networks that
/// has a way out, or by the first if none has.
fn attached<'a>(
    tenant: &str,
    networks: &BTreeMap<&str, &'a Network>,
    documents: &Documents<'a>,
) -> HashMap<String, Vec<Member<'a>>> {
    let allowed =
        networks.values().flat_map(|network| network.spec.allow_endpoints.iter().map(String::as_str));
    let tenants: BTreeSet<&str> = allowed.chain([tenant]).collect();
    // In the order of their keys, which is not that of their tenants' names.
    let endpoints: BTreeMap<&str, &StoredEndpoint> =
        tenants.iter().flat_map(|tenant| documents.endpoints.of_tenant(tenant)).collect();
    let mut attached = HashMap::<String, Vec<_>>::new();
    for endpoint in endpoints.into_values().map(|stored| &stored.endpoint) {
        let leads_out = |attachment: &&Attachment| {
            let network = documents.networks.get(&endpoint.network_of(attachment));
            network.is_some_and(|stored| !stored.network.exits().is_empty())
        };
        let mut attachments = endpoint.spec.networks.iter();
        let default = attachments.clone().find(leads_out).or(attachments.next());
        for attachment in &endpoint.spec.networks {
            let has_default = default.is_some_and(|default| std::ptr::eq(default, attachment));
            let key = endpoint.network_of(attachment);
            if networks.get(key.as_str()).is_some_and(|network| may_attach(endpoint, network)) {
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
    wanted: &mut Wanted,
) -> Space {
    let slot = stored.slot;
    let networks = documents.networks_of(tenant);
    let attached = attached(tenant, &networks, documents);
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
    for (key, network) in networks {
        let mut conditions = Vec::new();
        let members = attached.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut segment = segment(key, network, members, is_vrf);
        let macs = members.iter().map(|member| member.endpoint.mac_of(member.attachment));
        let leased = macs.filter_map(|mac| Some((*ground.leases.get(&(key.to_owned(), mac))?, mac)));
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
        space.segments.insert(key.to_owned(), Box::new(segment));
        wanted.networks.insert(key.to_owned(), conditions);
    }
    space
}

pub(super) fn condition(reason: &str, message: impl Into<String>) -> Condition {
    Condition { reason: reason.into(), message: message.into() }
}

#[cfg(test)]
mod renew_tests;
#[cfg(test)]
mod tests;
