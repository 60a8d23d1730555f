//! Making one tenant's namespace as it is wanted: looks at what is there, adds what is missing, takes away what is
//! surplus. Doing it twice changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use fief_api::Condition;
use fief_datapath::ports;
use fief_host::devices::{
    self, Bridge, Build, Device, InterfaceAddress, Named, Neighbour, NewLink, Settings, Veth,
};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::nft::Table;
use fief_host::{HostError, Route, RouteKind};
use fief_model::Slot;
use fief_services::ROUTER;
use ipnet::IpNet;

use super::links::{HOST_MAC, SPACE_MAC, TRANSIT};
use super::numbers::{Last, Numbers};
use super::occupants::Watch;
use super::port::{self, Place};
use super::vrf::{self, Home};
use super::wanted::{Segment, Space};
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
/// Only there once the kernel has loaded connection tracking and br_netfilter.
const TRACKED: [(&str, &str); 4] = [
    // Of a conversation between endpoints only some packets are seen (bpf/ports.bpf.c).
    ("net.netfilter.nf_conntrack_tcp_be_liberal", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("net.bridge.bridge-nf-call-arptables", "0"),
];

/// A namespace that stands.
#[derive(Debug)]
pub struct Standing {
    /// The namespace; of a tenant with a VRF the host's.
    pub namespace: Arc<Namespace>,
    /// The VRF's number, if it has one.
    pub vrf: Option<u32>,
    /// What it was made as.
    pub space: Arc<Space>,
    /// What its table was made of, which is smaller than the table; those with a VRF share one.
    pub ruled: Option<Arc<Space>>,
    /// Its table of frames, if it has switches.
    pub frames: Option<Table>,
    /// The number of the link's end on the host, if there is a link.
    pub link: Option<u32>,
    /// Do its ports' programs judge?
    pub is_judged: bool,
    /// The numbers of its ports, by their names.
    pub ports: BTreeMap<String, u32>,
    /// The numbers of the bridges that are served, by the key of their network.
    pub bridges: BTreeMap<String, u32>,
    /// What endpoints lack, by their key.
    pub lacking: BTreeMap<String, Vec<Condition>>,
    /// The numbers of the ports that were made last.
    pub last_ports: Last,
}

/// The mark of origin on the loopback device of a namespace that fief made.
pub(super) fn origin(tenant: &str) -> String {
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
    space: &Arc<Space>,
    before: Option<&Standing>,
    watch: Option<Watch<'_>>,
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
        let _ = namespace.set_sysctls(&TRACKED);
        let settings = Settings { alias: Some(origin(tenant)), ..Settings::default() };
        let loopback = Build::Set { device: Named::Index(LOOPBACK), settings };
        let metadata = add_address(LOOPBACK, IpNet::from(IpAddr::V4(METADATA)));
        carry_out(&mut socket, &[loopback, metadata])?;
    }
    let table = rules::space(space);
    let stands = before.filter(|_| !is_new).and_then(|standing| standing.ruled.as_ref());
    let stands = stands.map(|ruled| rules::space(ruled));
    if stands.as_ref() != Some(&table) {
        let mut netfilter = Socket::open_in(&namespace, libc::NETLINK_NETFILTER)?;
        match is_empty {
            true => rules::make(&table, &mut netfilter)?,
            false => drop(rules::set(stands.as_ref(), &table, &mut netfilter)?),
        }
        closing.push(netfilter);
    }
    let stood = before.filter(|_| !is_new).and_then(|standing| standing.frames.as_ref());
    let frames = switch::guard(&namespace, space, stood, closing)?;
    let mut standing = Standing {
        namespace,
        vrf: None,
        ruled: Some(space.clone()),
        frames,
        space: space.clone(),
        link: None,
        is_judged: watch.is_some_and(|watch| watch.is_judging()),
        ports: BTreeMap::new(),
        bridges: BTreeMap::new(),
        lacking: BTreeMap::new(),
        last_ports: Last::default(),
    };
    let there = devices::list(&mut socket)?;
    let there = remove_surplus(&mut socket, space, there)?;
    let numbered: Vec<u32> = there.values().map(|device| device.index).collect();
    let last = before.filter(|_| !is_new).map(|before| before.last_ports).unwrap_or_default();
    let mut numbers = Numbers::beside(&numbered, space.slot, last);
    if let Some(watch) = watch {
        watch.introduce(space, &there.iter().map(|(name, device)| (name.clone(), device.index)).collect())?;
    }
    for (key, segment) in &space.segments {
        let (bridge, is_fresh) = bridge(&mut socket, key, segment, Home::default())?;
        match &segment.cable {
            Some(_) => switch::plug(&mut socket, &standing.namespace, bridge, key, segment)?,
            None => drop(standing.bridges.insert(key.clone(), bridge)),
        }
        for (name, port) in &segment.ports {
            let home = Home::default();
            let slot = space.slot.number();
            let place = Place { namespace: &standing.namespace, bridge, segment, home, slot, watch };
            let near = there.get(name);
            match port::attach(&mut socket, &place, &mut numbers, near, name, port) {
                Ok(index) => drop(standing.ports.insert(name.clone(), index)),
                Err(reason) => {
                    // Whatever it lacks, what stands of it goes on.
                    standing.ports.extend(there.get(name).map(|near| (name.clone(), near.index)));
                    standing.lacking.entry(port.endpoint.clone()).or_default().push(reason);
                }
            }
        }
        neighbours(&mut socket, bridge, is_fresh, segment)?;
    }
    standing.last_ports = numbers.last();
    Ok(standing)
}

/// Gives the inner end of the link its addresses and the way to the host. The device is there already.
pub fn connect(standing: &Standing, watch: Option<Watch<'_>>) -> Result<(), HostError> {
    let space = &standing.space;
    let mut socket = Socket::open_in(&standing.namespace, libc::NETLINK_ROUTE)?;
    let Some(transit) = devices::index_of(&mut socket, TRANSIT)? else {
        return Err(HostError::Missing(format!("device {TRANSIT} of a tenant's namespace")));
    };
    if let Some(pair) = watch.and_then(|watch| watch.link()) {
        // Without them the way is longer.
        let _ = port::equip(&mut socket, transit, pair);
    }
    let gateway = IpAddr::V4(space.gateway);
    let mut builds = vec![
        Build::NoAddressGeneration(Named::Index(transit)),
        Build::Set {
            device: Named::Index(transit),
            settings: Settings { up: Some(true), ..Settings::default() },
        },
    ];
    let wanted: HashSet<IpNet> = space.transit.values().map(|a| IpNet::from(IpAddr::V4(*a))).collect();
    builds.extend(addresses(&mut socket, transit, false, &wanted)?);
    builds.push(Build::SetNeighbour(Neighbour { device: transit, address: gateway, mac: HOST_MAC }));
    builds.push(Build::SetRoute(route(IpNet::from(gateway), transit)));
    let default = Route {
        via: Some(gateway),
        source: space.source(),
        ..route(IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), transit)
    };
    builds.push(Build::SetRoute(default));
    carry_out(&mut socket, &builds)
}

/// The link, its inner end in the tenant's namespace; both ends down.
pub fn link(name: &str, slot: Slot, tenant: &str, namespace: &Arc<Namespace>) -> Build {
    let [outside, inside] = ports::link(slot.number()).map(Some);
    let outer = NewLink {
        name: name.to_owned(),
        index: outside,
        mac: Some(HOST_MAC),
        group: Some(super::links::GROUP),
        alias: Some(origin(tenant)),
        ..NewLink::default()
    };
    let inner = NewLink { name: TRANSIT.into(), index: inside, mac: Some(SPACE_MAC), ..NewLink::default() };
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

/// Removes what no document wants among these devices, which are the tenant's; returns what stays, by name.
pub(super) fn remove_surplus(
    socket: &mut Socket,
    space: &Space,
    there: Vec<Device>,
) -> Result<HashMap<String, Device>, HostError> {
    let bridges: HashSet<&str> = space.segments.values().map(|segment| segment.bridge.as_str()).collect();
    let cables = space.segments.values().filter_map(|segment| segment.cable.as_ref());
    let cables: HashSet<&str> = cables.map(|cable| cable.inner.as_str()).collect();
    let ports: HashMap<&str, String> = space
        .segments
        .values()
        .flat_map(|segment| segment.ports.iter().map(|(name, port)| (name.as_str(), port::fingerprint(port))))
        .collect();
    let is_surplus = |device: &&Device| match ports.get(device.name.as_str()) {
        // One that was made for something else, or not to its end, is made anew.
        Some(fingerprint) => device.alias.as_ref() != Some(fingerprint),
        None if cables.contains(device.name.as_str()) => false,
        None if is_bridge(device) => !bridges.contains(device.name.as_str()),
        None => is_port(device, &there),
    };
    let surplus: HashSet<u32> = there.iter().filter(is_surplus).map(|device| device.index).collect();
    let builds: Vec<Build> = surplus.iter().map(|index| Build::DeleteLink(Named::Index(*index))).collect();
    // Some of them go with others.
    devices::carry_out(socket, &builds);
    let stays = there.into_iter().filter(|device| !surplus.contains(&device.index));
    Ok(stays.map(|device| (device.name.clone(), device)).collect())
}

/// Makes a network's bridge, or sets the one that is there; returns its number, and whether it is new.
pub(super) fn bridge(
    socket: &mut Socket,
    key: &str,
    segment: &Segment,
    home: Home,
) -> Result<(u32, bool), HostError> {
    let name = Named::Name(segment.bridge.clone());
    let is_fresh = devices::index_of(socket, &segment.bridge)?.is_none();
    if is_fresh {
        let link = NewLink {
            name: segment.bridge.clone(),
            mac: Some(segment.services.mac),
            alias: Some(format!("fief network {key}")),
            group: home.group,
            master: home.master,
            ..NewLink::default()
        };
        let bridge = Bridge {
            link,
            forward_delay: Some(0),
            multicast_snooping: Some(false),
            // The switch of a whole namespace is not ours where that is the host's.
            netfilter: home.master.map(|_| true),
            ..Bridge::default()
        };
        carry_out(socket, &[Build::AddBridge(bridge), Build::NoAddressGeneration(name.clone())])?;
    }
    let Some(index) = devices::index_of(socket, &segment.bridge)? else {
        return Err(HostError::Missing(format!("bridge {}", segment.bridge)));
    };
    if home.master.is_some() {
        vrf::switches(&segment.bridge)?;
    }
    let settings = Settings {
        up: Some(true),
        mtu: Some(segment.mtu),
        master: home.master.map(|master| Some(Named::Index(master))),
        ..Settings::default()
    };
    let mut builds = vec![Build::Set { device: name, settings }];
    let mut wanted: HashSet<IpNet> = segment.gateways.iter().copied().collect();
    if segment.services.subnet6.is_some() {
        wanted.insert(IpNet::new_assert(IpAddr::V6(ROUTER), 64));
    }
    builds.extend(addresses(socket, index, is_fresh, &wanted)?);
    carry_out(socket, &builds)?;
    Ok((index, is_fresh))
}

/// What leads from the addresses that a device has to those that it shall have.
pub(super) fn addresses(
    socket: &mut Socket,
    device: u32,
    is_new: bool,
    wanted: &HashSet<IpNet>,
) -> Result<Vec<Build>, HostError> {
    // A new one has none, and the kernel would list those of all devices.
    let there = if is_new { Vec::new() } else { devices::addresses(socket)? };
    let there: HashSet<IpNet> = there.into_iter().filter(|a| a.device == device).map(|a| a.net).collect();
    let surplus = there.iter().filter(|net| !wanted.contains(net));
    let surplus =
        surplus.map(|net| Build::DeleteAddress(InterfaceAddress { device, net: *net, noprefixroute: false }));
    let missing = wanted.iter().filter(|net| !there.contains(net)).map(|net| add_address(device, *net));
    Ok(surplus.chain(missing).collect())
}

fn add_address(device: u32, net: IpNet) -> Build {
    Build::AddAddress(InterfaceAddress { device, net, noprefixroute: false })
}

/// Neighbours whose Ethernet address is known are not asked for, and do not count against the host's limit of them.
pub(super) fn neighbours(
    socket: &mut Socket,
    bridge: u32,
    is_fresh: bool,
    segment: &Segment,
) -> Result<(), HostError> {
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
pub fn carry_out(socket: &mut Socket, builds: &[Build]) -> Result<(), HostError> {
    let answers = devices::carry_out(socket, builds);
    let is_done = |error: &HostError| error.errno() == Some(libc::EEXIST);
    answers.into_iter().filter(|answer| !answer.as_ref().is_err_and(is_done)).collect()
}
