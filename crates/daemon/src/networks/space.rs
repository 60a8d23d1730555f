//! Making one tenant's namespace as it is wanted: looks at what is there, adds what is missing, takes away what is
//! surplus. Doing it twice changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use fief_api::Condition;
use fief_host::devices::{
    self, Bridge, Build, Device, Fdb, FdbState, InterfaceAddress, Named, Neighbour, NewLink,
    Port as PortSettings, Settings, Veth,
};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::nft::Table;
use fief_host::teeth::is_off;
use fief_host::{HostError, Route, RouteKind};
use fief_services::ROUTER;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::links::{HOST_MAC, SPACE_MAC, TRANSIT};
use super::wanted::{Port, Segment, Space, condition};
use super::workload;
use super::{rules, switch};

/// Where every cloud's metadata service is.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The loopback device of any namespace.
const LOOPBACK: u32 = 1;
const MAIN: u32 = 254;
/// The group of devices that go; only inside of tenants' namespaces, where nobody else has groups.
const DOOMED: u32 = 0xf1ef;

/// What the namespace needs of the kernel. Bridged packets pass connection tracking on purpose: so they have the tenant's
/// zone, and their records. Neighbours are asked for with the address of the network that they are in.
const SWITCHES: [(&str, &str); 10] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "1"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.arp_announce", "2"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv6.conf.default.accept_dad", "0"),
];
/// Only there once the kernel has loaded br_netfilter.
const BRIDGED: [(&str, &str); 3] = [
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.bridge.bridge-nf-call-arptables", "0"),
];

/// A namespace that stands.
#[derive(Debug)]
pub struct Standing {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    /// What it was made as.
    pub space: Space,
    /// Its table.
    pub table: Table,
    /// Its table of frames, if it has switches.
    pub frames: Option<Table>,
    /// The number of the link's end on the host, if there is a link.
    pub link: Option<u32>,
    /// The numbers of the bridges that are served, by the key of their network.
    pub bridges: BTreeMap<String, u32>,
    /// What endpoints lack, by their key.
    pub lacking: BTreeMap<String, Vec<Condition>>,
}

/// The mark of origin on the loopback device of a namespace that fief made.
fn origin(tenant: &str) -> String {
    format!("fief tenant {tenant}")
}

/// Is this the loopback device of a namespace that was made for some tenant?
pub fn is_marked(device: &Device) -> bool {
    device.index == LOOPBACK && device.alias.as_ref().is_some_and(|alias| alias.starts_with(&origin("")))
}

/// Was this namespace made for a tenant?
pub fn is_ours(path: &Path, tenant: &str) -> bool {
    let look = || -> Result<bool, HostError> {
        let mut socket = Socket::open_in(&Namespace::at(path)?, libc::NETLINK_ROUTE)?;
        let marked =
            |device: &Device| device.index == LOOPBACK && device.alias.as_deref() == Some(&origin(tenant));
        Ok(devices::list(&mut socket)?.iter().any(marked))
    };
    look().unwrap_or(false)
}

/// Makes the namespace at `path` as it is wanted. `before` is what an earlier call made. The host's end of the link is
/// not looked at. What closes slowly is left in `closing`.
pub fn build(
    path: &Path,
    tenant: &str,
    space: &Space,
    before: Option<&Standing>,
    closing: &mut Vec<Socket>,
) -> Result<Standing, HostError> {
    let there = Namespace::at(path).ok();
    let is_empty = there.is_none();
    let namespace = match before {
        Some(standing) if standing.namespace.identity() == there.and_then(|there| there.identity()) => {
            standing.namespace.clone()
        }
        _ => Arc::new(Namespace::create(path)?),
    };
    let is_new = before.is_none_or(|standing| !Arc::ptr_eq(&standing.namespace, &namespace));
    let mut socket = Socket::open_in(&namespace, libc::NETLINK_ROUTE)?;
    if is_new {
        namespace.set_sysctls(&SWITCHES)?;
        // A kernel without br_netfilter has no such switches, and its bridged packets no records.
        let _ = namespace.set_sysctls(&BRIDGED);
        let settings = Settings { alias: Some(origin(tenant)), ..Settings::default() };
        let loopback = Build::Set { device: Named::Index(LOOPBACK), settings };
        let metadata = add_address(LOOPBACK, IpNet::from(IpAddr::V4(METADATA)));
        carry_out(&mut socket, &[loopback, metadata])?;
    }
    let table = rules::space(space);
    let stands = before.filter(|_| !is_new).map(|standing| &standing.table);
    if stands != Some(&table) {
        let mut netfilter = Socket::open_in(&namespace, libc::NETLINK_NETFILTER)?;
        match is_empty {
            true => rules::make(&table, &mut netfilter)?,
            false => drop(rules::set(stands, &table, &mut netfilter)?),
        }
        closing.push(netfilter);
    }
    let before = before.filter(|_| !is_new).and_then(|standing| standing.frames.as_ref());
    let frames = switch::guard(&namespace, space, before, closing)?;
    let mut standing = Standing {
        namespace,
        table,
        frames,
        space: space.clone(),
        link: None,
        bridges: BTreeMap::new(),
        lacking: BTreeMap::new(),
    };
    remove_surplus(&mut socket, space)?;
    for (key, segment) in &space.segments {
        let (bridge, is_fresh) = bridge(&mut socket, key, segment)?;
        match &segment.cable {
            Some(_) => switch::plug(&mut socket, &standing.namespace, bridge, key, segment)?,
            None => drop(standing.bridges.insert(key.clone(), bridge)),
        }
        for (name, port) in &segment.ports {
            if let Err(reason) = attach(&mut socket, &standing.namespace, bridge, segment, name, port) {
                standing.lacking.entry(port.endpoint.clone()).or_default().push(reason);
            }
        }
        neighbours(&mut socket, bridge, is_fresh, segment)?;
    }
    Ok(standing)
}

/// Gives the inner end of the link its addresses and the way to the host. The device is there already.
pub fn connect(standing: &Standing) -> Result<(), HostError> {
    let space = &standing.space;
    let mut socket = Socket::open_in(&standing.namespace, libc::NETLINK_ROUTE)?;
    let Some(transit) = devices::index_of(&mut socket, TRANSIT)? else {
        return Err(HostError::Missing(format!("device {TRANSIT} of a tenant's namespace")));
    };
    let gateway = IpAddr::V4(space.gateway);
    let mut builds = vec![
        Build::NoAddressGeneration(Named::Index(transit)),
        Build::Set {
            device: Named::Index(transit),
            settings: Settings { up: Some(true), ..Settings::default() },
        },
    ];
    let wanted: HashSet<IpNet> = space.transit.values().map(|a| IpNet::from(IpAddr::V4(*a))).collect();
    builds.extend(addresses(&mut socket, transit, &wanted)?);
    builds.push(Build::SetNeighbour(Neighbour { device: transit, address: gateway, mac: HOST_MAC }));
    builds.push(Build::SetRoute(route(IpNet::from(gateway), transit)));
    // What the namespace sends by itself has an address that the rules translate to the uplink in use.
    let source = space.segments.values().find(|segment| segment.exit.is_some());
    let source = source.map(|segment| IpAddr::V4(segment.services.gateway));
    let default = Route {
        via: Some(gateway),
        source,
        ..route(IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), transit)
    };
    builds.push(Build::SetRoute(default));
    carry_out(&mut socket, &builds)
}

/// The link, its inner end in the tenant's namespace; both ends down.
pub fn link(name: &str, tenant: &str, namespace: &Arc<Namespace>) -> Build {
    let outer = NewLink {
        name: name.to_owned(),
        mac: Some(HOST_MAC),
        group: Some(super::links::GROUP),
        alias: Some(origin(tenant)),
        ..NewLink::default()
    };
    let inner = NewLink { name: TRANSIT.into(), mac: Some(SPACE_MAC), ..NewLink::default() };
    Build::AddVeth(Veth { link: outer, peer: inner, peer_namespace: Some(namespace.clone()) })
}

/// Takes everything out of a namespace that fief put there, the link included, so that nothing of it outlives a program
/// that is still inside, and removes it.
pub fn remove(path: &Path) -> Result<(), HostError> {
    if let Ok(namespace) = Namespace::at(path) {
        let mut socket = Socket::open_in(&namespace, libc::NETLINK_ROUTE)?;
        let ours = devices::list(&mut socket)?;
        let is_ours = |device: &&Device| {
            is_port(device, &ours) || is_bridge(device) || (device.name == TRANSIT && is_veth(device))
        };
        let doomed = ours.iter().filter(is_ours).map(|device| Build::Set {
            device: Named::Index(device.index),
            settings: Settings { group: Some(DOOMED), ..Settings::default() },
        });
        let builds: Vec<Build> = doomed.chain([Build::DeleteGroup(DOOMED)]).collect();
        // One that went meanwhile is no failure.
        devices::carry_out(&mut socket, &builds);
    }
    Namespace::remove(path)
}

fn is_veth(device: &Device) -> bool {
    device.kind.as_deref() == Some("veth")
}

fn is_bridge(device: &Device) -> bool {
    device.name.starts_with("n-") && device.kind.as_deref() == Some("bridge")
}

fn is_port(device: &Device, all: &[Device]) -> bool {
    device.alias.as_deref().is_some_and(|alias| alias.starts_with("fief endpoint "))
        || device
            .master
            .is_some_and(|master| all.iter().any(|other| other.index == master && is_bridge(other)))
}

fn remove_surplus(socket: &mut Socket, space: &Space) -> Result<(), HostError> {
    let there = devices::list(socket)?;
    let bridges: HashSet<&str> = space.segments.values().map(|segment| segment.bridge.as_str()).collect();
    let cables = space.segments.values().filter_map(|segment| segment.cable.as_ref());
    let cables: HashSet<&str> = cables.map(|cable| cable.inner.as_str()).collect();
    let ports: HashMap<&str, String> = space
        .segments
        .values()
        .flat_map(|segment| segment.ports.iter().map(|(name, port)| (name.as_str(), fingerprint(port))))
        .collect();
    let is_surplus = |device: &&Device| match ports.get(device.name.as_str()) {
        // One that was made for something else, or not to its end, is made anew.
        Some(fingerprint) => device.alias.as_ref() != Some(fingerprint),
        None if cables.contains(device.name.as_str()) => false,
        None if is_bridge(device) => !bridges.contains(device.name.as_str()),
        None => is_port(device, &there),
    };
    let builds: Vec<Build> =
        there.iter().filter(is_surplus).map(|device| Build::DeleteLink(Named::Index(device.index))).collect();
    // Some of them go with others.
    devices::carry_out(socket, &builds);
    Ok(())
}

/// Makes a network's bridge, or sets the one that is there; returns its number, and whether it is new.
fn bridge(socket: &mut Socket, key: &str, segment: &Segment) -> Result<(u32, bool), HostError> {
    let name = Named::Name(segment.bridge.clone());
    let is_fresh = devices::index_of(socket, &segment.bridge)?.is_none();
    if is_fresh {
        let link = NewLink {
            name: segment.bridge.clone(),
            mac: Some(segment.services.mac),
            alias: Some(format!("fief network {key}")),
            ..NewLink::default()
        };
        let bridge =
            Bridge { link, forward_delay: Some(0), multicast_snooping: Some(false), ..Bridge::default() };
        carry_out(socket, &[Build::AddBridge(bridge), Build::NoAddressGeneration(name.clone())])?;
    }
    let Some(index) = devices::index_of(socket, &segment.bridge)? else {
        return Err(HostError::Missing(format!("bridge {}", segment.bridge)));
    };
    let settings = Settings { up: Some(true), mtu: Some(segment.mtu), ..Settings::default() };
    let mut builds = vec![Build::Set { device: name, settings }];
    let mut wanted: HashSet<IpNet> = segment.gateways.iter().copied().collect();
    if segment.services.subnet6.is_some() {
        wanted.insert(IpNet::new_assert(IpAddr::V6(ROUTER), 64));
    }
    builds.extend(addresses(socket, index, &wanted)?);
    carry_out(socket, &builds)?;
    Ok((index, is_fresh))
}

/// What leads from the addresses that a device has to those that it shall have.
fn addresses(socket: &mut Socket, device: u32, wanted: &HashSet<IpNet>) -> Result<Vec<Build>, HostError> {
    let there: HashSet<IpNet> =
        devices::addresses(socket)?.into_iter().filter(|a| a.device == device).map(|a| a.net).collect();
    let surplus = there.iter().filter(|net| !wanted.contains(net));
    let surplus =
        surplus.map(|net| Build::DeleteAddress(InterfaceAddress { device, net: *net, noprefixroute: false }));
    let missing = wanted.iter().filter(|net| !there.contains(net)).map(|net| add_address(device, *net));
    Ok(surplus.chain(missing).collect())
}

fn add_address(device: u32, net: IpNet) -> Build {
    Build::AddAddress(InterfaceAddress { device, net, noprefixroute: false })
}

/// Attaches an endpoint, unless it is.
fn attach(
    socket: &mut Socket,
    namespace: &Namespace,
    bridge: u32,
    segment: &Segment,
    name: &str,
    port: &Port,
) -> Result<(), Condition> {
    let refused = |error: HostError| condition("AttachRefused", error.to_string());
    let there = devices::index_of(socket, name).map_err(refused)?;
    if there.is_none() {
        let link = NewLink { name: name.to_owned(), mtu: Some(segment.mtu), ..NewLink::default() };
        workload::plug(socket, namespace, link, port)?;
    }
    let device = || Named::Name(name.to_owned());
    // Frames come in with the endpoint's address or not at all, and nobody else's are learned to be there.
    let locked = PortSettings {
        locked: Some(!is_off("net-locked")),
        learning: Some(false),
        bpdu_guard: Some(true),
        ..PortSettings::default()
    };
    let settings =
        Settings { master: Some(Some(Named::Index(bridge))), mtu: Some(segment.mtu), ..Settings::default() };
    let up = Settings { up: Some(true), ..Settings::default() };
    let done = Settings { alias: Some(fingerprint(port)), ..Settings::default() };
    carry_out(
        socket,
        &[
            Build::NoAddressGeneration(device()),
            Build::Set { device: device(), settings },
            Build::SetPort { device: device(), port: locked },
        ],
    )
    .map_err(refused)?;
    let Some(index) = devices::index_of(socket, name).map_err(refused)? else {
        return Err(condition("AttachRefused", format!("device {name} went away")));
    };
    let state = if is_off("switch-sticky") { FdbState::Static } else { FdbState::Sticky };
    let entry = Fdb { device: index, mac: port.mac.0, state };
    carry_out(socket, &[Build::SetFdb(entry), Build::Set { device: device(), settings: up }])
        .map_err(refused)?;
    if there.is_none()
        && let Err(reason) = workload::configure(port, segment.mtu)
    {
        devices::carry_out(socket, &[Build::DeleteLink(device())]);
        return Err(reason);
    }
    // Last: without this text the port is one that was not made to its end.
    carry_out(socket, &[Build::Set { device: device(), settings: done }]).map_err(refused)
}

/// Neighbours whose Ethernet address is known are not asked for, and do not count against the host's limit of them.
fn neighbours(socket: &mut Socket, bridge: u32, is_fresh: bool, segment: &Segment) -> Result<(), HostError> {
    let known = segment.services.endpoints.iter().flat_map(|endpoint| {
        let v4 = endpoint.address.map(IpAddr::V4);
        let v6 = endpoint.address6.map(IpAddr::V6);
        v4.into_iter().chain(v6).map(|address| Neighbour { device: bridge, address, mac: endpoint.mac })
    });
    let known = known.chain(segment.leased.iter().map(|(address, mac)| Neighbour {
        device: bridge,
        address: IpAddr::V4(*address),
        mac: mac.0,
    }));
    let known: HashMap<IpAddr, Neighbour> = known.map(|neighbour| (neighbour.address, neighbour)).collect();
    // A new bridge has none, and the kernel would look through those of all namespaces.
    let there = if is_fresh { Vec::new() } else { devices::neighbours(socket)? };
    let there = there.into_iter().filter(|neighbour| neighbour.device == bridge);
    let mut builds: Vec<Build> = there
        .filter(|neighbour| !known.contains_key(&neighbour.address))
        .map(Build::DeleteNeighbour)
        .collect();
    builds.extend(known.into_values().map(Build::SetNeighbour));
    carry_out(socket, &builds)
}

/// What a port is for, as its text for people.
fn fingerprint(port: &Port) -> String {
    let attach = &port.attach;
    let place = [attach.netns.clone(), attach.pid.map(|pid| format!("pid {pid}")), attach.tap.clone()];
    let place: Vec<String> = place.into_iter().flatten().collect();
    let address = port.address.map(|net| format!(" {net}")).unwrap_or_default();
    let text = format!(
        "fief endpoint {} {} {}{address} {}",
        port.endpoint,
        port.interface,
        port.mac,
        place.join(" ")
    );
    // A text for a device holds 255 bytes; a path may be longer.
    if text.len() <= 255 {
        return text;
    }
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("fief endpoint {digest}")
}

fn route(prefix: IpNet, device: u32) -> Route {
    Route {
        table: MAIN,
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

/// Makes all of these; what is there already is no failure.
pub(super) fn carry_out(socket: &mut Socket, builds: &[Build]) -> Result<(), HostError> {
    let answers = devices::carry_out(socket, builds);
    let is_done = |error: &HostError| error.errno() == Some(libc::EEXIST);
    answers.into_iter().filter(|answer| !answer.as_ref().is_err_and(is_done)).collect()
}
