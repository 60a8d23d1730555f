//! Uplinks, and the host's side of the links to namespaces.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use fief_host::probe::Target;
use fief_host::{Address, Family, Route, RouteKind};
use fief_model::Slot;
use ipnet::{IpNet, Ipv4Net};

use super::super::links;
use super::super::probe::Probe;
use super::{Ground, Space, Wanted};
use crate::config::uplinks::{self, ProbeSettings};
use crate::observed::Observed;
use crate::plan::Desired;
use crate::store::Uplink;

/// An uplink on this host now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its number.
    pub uplink: Uplink,
    /// The device, if it is there.
    pub device: Option<u32>,
    /// The device's own IPv4 addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Why no packets leave there; `None` if they do.
    pub lacks: Option<String>,
    /// Who is asked whether they arrive, while the device is such that they leave.
    pub probe: Option<Probe>,
}

impl Wanted {
    /// What the uplinks need of the host's routing, like tenants.
    pub fn exits(&self, observed: &Observed) -> Vec<(Slot, Desired)> {
        let links: Vec<Route> = self.links().iter().flat_map(|link| link.routes(observed)).collect();
        let desire = |exit: &Exit| {
            let mut routes = observed.routes_by(exit.device);
            routes.extend(links.iter().cloned());
            routes.push(crate::plan::desire::unreachable_default(Family::V4));
            Desired { routes, uplink: Some(exit.uplink.index), forwards: exit.device, ..Desired::default() }
        };
        self.exits.values().map(|exit| (exit.uplink.slot, desire(exit))).collect()
    }

    /// Who is asked now.
    pub fn probes(&self) -> Vec<Probe> {
        self.exits.values().filter_map(|exit| exit.probe.clone()).collect()
    }

    /// The links to namespaces.
    pub fn links(&self) -> Arc<Vec<Link>> {
        self.links.clone()
    }

    pub(super) fn link_up(&mut self) {
        let linked = self.spaces.values().filter(|space| !space.transit.is_empty() || space.vrf.is_some());
        let link = |space: &Arc<Space>| Link {
            slot: space.slot,
            device: links::device(space.slot),
            gateway: space.gateway,
            transit: space.transit.values().copied().collect(),
            is_there: !space.transit.is_empty(),
            vrf: space.vrf,
            source: space.source(),
        };
        self.links = Arc::new(linked.map(link).collect());
    }
}

/// The host's side of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Whose it is.
    pub slot: Slot,
    /// The name of its end on the host.
    pub device: String,
    /// The host's address on it.
    pub gateway: Ipv4Addr,
    /// The addresses at its other end, one for each uplink.
    pub transit: Vec<Ipv4Addr>,
    /// Is there one? A tenant with a VRF that reaches nobody outside has routes only.
    pub is_there: bool,
    /// The routing table of the tenant's VRF, whose routes are the host's; `None`: it has a namespace.
    pub vrf: Option<u32>,
    /// The address of what the tenant's side sends by itself.
    pub source: Option<IpAddr>,
}

impl Space {
    /// What the tenant's side sends by itself has an address that the rules translate to the uplink in use.
    pub fn source(&self) -> Option<IpAddr> {
        let source = self.segments.values().find(|segment| segment.exit.is_some());
        source.map(|segment| IpAddr::V4(segment.services.gateway))
    }
}

impl Link {
    /// The host's address on the device, if that is there.
    pub fn address(&self, observed: &Observed) -> Option<Address> {
        if !self.is_there {
            return None;
        }
        let device = observed.link(&self.device)?.index;
        Some(Address { device, net: IpNet::from(IpAddr::V4(self.gateway)), ours: true })
    }

    /// The routes to the other end, once the device is up.
    pub fn routes(&self, observed: &Observed) -> Vec<Route> {
        let device = observed.link(&self.device).filter(|link| link.up && self.is_there);
        let to = |index| move |address: &Ipv4Addr| by(index, IpNet::from(IpAddr::V4(*address)));
        device.map(|device| self.transit.iter().map(to(device.index)).collect()).unwrap_or_default()
    }

    /// The routes of the tenant's VRF, with their table. Other tables are never asked for its packets: this one ends
    /// unreachable, in both families.
    pub fn inside(&self, observed: &Observed) -> Vec<Route> {
        let Some(table) = self.vrf else { return Vec::new() };
        let mut routes: Vec<Route> =
            observed.families().map(crate::plan::desire::unreachable_default).collect();
        let inner = observed.link(&links::inner(self.slot)).filter(|link| link.up && self.is_there);
        if let Some(inner) = inner {
            let gateway = IpAddr::V4(self.gateway);
            let any = IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            routes.push(by(inner.index, IpNet::from(gateway)));
            routes.push(Route { via: Some(gateway), source: self.source, ..by(inner.index, any) });
        }
        routes.into_iter().map(|route| Route { table, ..route }).collect()
    }
}

fn by(device: u32, prefix: IpNet) -> Route {
    Route {
        table: 0,
        prefix,
        metric: 0,
        kind: RouteKind::Unicast,
        device: Some(device),
        via: None,
        source: None,
        on_link: false,
        mtu: None,
        detour: None,
    }
}

pub(super) fn exit(name: &str, uplink: Uplink, observed: &Observed, ground: &Ground<'_>) -> Exit {
    let link = observed.link(name);
    let device = link.map(|link| link.index);
    let nets = observed.addresses().filter(|a| !a.ours && Some(a.device) == device);
    let nets = nets.filter_map(|address| match address.net {
        IpNet::V4(v4) => Some(v4),
        IpNet::V6(_) => None,
    });
    let mut nets: Vec<Ipv4Net> = nets.collect();
    nets.sort_by_key(Ipv4Net::addr);
    let routes = observed.routes_by(device);
    let default =
        routes.iter().filter(|route| route.prefix.prefix_len() == 0).min_by_key(|route| route.metric);
    let lacks = match link {
        None => Some("is not there"),
        Some(link) if !link.up => Some("is down"),
        Some(link) if !link.carrier => Some("has no carrier"),
        Some(_) if nets.is_empty() => Some("has no IPv4 address"),
        Some(_) if default.is_none() => Some("has no default route in the host's main table"),
        Some(_) => None,
    };
    let settings = ground.uplinks.probe(name);
    let silence = ground.silent.get(name).filter(|_| settings.is_some()).map(ToString::to_string);
    let probe = match (lacks, device, default, settings) {
        (None, Some(device), Some(default), Some(settings)) => probe(name, device, &nets, default, settings),
        _ => None,
    };
    let lacks = lacks.map(str::to_owned).or(silence);
    Exit { uplink, device, addresses: nets.iter().map(Ipv4Net::addr).collect(), lacks, probe }
}

/// Who is asked by a device that has such addresses and such a default route; `None` if there is nobody.
fn probe(
    name: &str,
    device: u32,
    nets: &[Ipv4Net],
    default: &Route,
    settings: ProbeSettings,
) -> Option<Probe> {
    let gateway = default.via.and_then(|via| match via {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    let is_beside = |net: &&Ipv4Net| gateway.is_some_and(|gateway| net.contains(&gateway));
    let source = nets.iter().find(is_beside).or(nets.first())?.addr();
    let ProbeSettings { targets, interval, timeout, fall, rise } = settings;
    let targets: Vec<Target> = targets
        .into_iter()
        .filter_map(|target| match target {
            uplinks::Target::Gateway => gateway.map(Target::Neighbour),
            uplinks::Target::Echo(address) => Some(Target::Echo(address)),
            uplinks::Target::Tcp(address) => Some(Target::Tcp(address)),
        })
        .collect();
    let is_asked = !targets.is_empty();
    is_asked.then(|| Probe {
        uplink: name.to_owned(),
        device,
        source,
        targets,
        interval,
        timeout,
        fall,
        rise,
    })
}
