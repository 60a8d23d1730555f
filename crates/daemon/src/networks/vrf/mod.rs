//! A tenant's networks in a VRF, not a namespace: the same picture in the host's own stack.
//!
//! ```text
//!   endpoint ── port ── n-… (bridge) ─┐                        rules: the VRF's table first, for what is in a VRF
//!                                     ├─ vrfSLOT, table base + SLOT: subnets, default by tSLOT, else unreachable
//!                       tSLOT ────────┘
//!                         └── veth ── fiefSLOT, outside the VRF: as the link of a tenant with a namespace
//! ```
//!
//! The link forgets what connection tracking knows of a packet, so that it is translated twice, as with a namespace. It keeps
//! the packet's mark, which a link between namespaces does not (skb_scrub_packet); the host's table takes that away where a
//! packet leaves the host's own routing.
//!
//! What is in here is known by its group (ip-link(8)), which rules and this module tell tenants apart by. Doing it twice
//! changes nothing.

mod rules;
mod table;

pub use rules::TABLE;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use fief_api::Condition;
use fief_host::devices::{self, Build, Device, Named, Neighbour, NewLink, Settings, Veth, Vrf};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::{HostError, Route, kernel, sysctl};
use fief_model::Slot;
use ipnet::IpNet;

use super::links::{self, HOST_MAC, SPACE_MAC};
use super::numbers::{Last, Numbers};
use super::occupants::Watch;
use super::port::{self, Place};
use super::space::{self, METADATA, Standing, carry_out};
use super::wanted::{Space, Wanted, condition};
use crate::plan::desire::unreachable_default;

/// Where a tenant's devices are put.
#[derive(Debug, Clone, Copy, Default)]
pub struct Home {
    /// The VRF that its bridges are under.
    pub master: Option<u32>,
    /// The group of its devices.
    pub group: Option<u32>,
}

/// Without them a tenant's packets would meet the host's own addresses and routes first.
pub fn rules_missing() -> Condition {
    condition(
        "VrfRulesMissing",
        "the rules that look into VRFs' tables first do not stand; a kernel without VRFs refuses them (modprobe vrf)",
    )
}

/// A number for the services that no namespace has, which tells VRFs apart.
pub fn number(vrf: u32) -> u64 {
    1 << 63 | u64::from(vrf)
}

/// Makes a tenant's VRF as it is wanted, with its bridges and ports. The link is not looked at. Where it `is_first` nothing
/// of the tenant's can be there.
pub fn build(
    tenant: &str,
    space: &Arc<Space>,
    number_of_table: u32,
    is_first: bool,
    watch: Option<Watch<'_>>,
) -> Result<Standing, HostError> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let (slot, name) = (space.slot, links::vrf(space.slot));
    let group = links::inside(slot);
    let (ours, taken) = devices_of(&mut socket, space, is_first)?;
    let bridges = space.segments.values().map(|segment| &segment.bridge);
    if let Some(other) = bridges.chain([&name]).find(|wanted| taken.contains(*wanted)) {
        return Err(HostError::Missing(format!(
            "{tenant}'s device {other}: one of this name is there already and is not fief's; rename it"
        )));
    }
    // Its end stands before anything is looked up there.
    let end = |family| Route { table: number_of_table, ..unreachable_default(family) };
    let ends: Vec<Build> =
        fief_host::Family::present().iter().map(|family| Build::SetRoute(end(*family))).collect();
    carry_out(&mut socket, &ends)?;
    // One of ours that somebody has renamed: its bridges come under the new one.
    let strays = ours.iter().filter(|device| device.kind.as_deref() == Some("vrf") && device.name != name);
    let strays: Vec<Build> = strays.map(|device| Build::DeleteLink(Named::Index(device.index))).collect();
    devices::carry_out(&mut socket, &strays);
    let is_new = !ours.iter().any(|device| device.name == name);
    if is_new {
        let alias = Some(space::origin(tenant));
        let link = NewLink { name: name.clone(), group: Some(group), alias, ..NewLink::default() };
        let vrf = Build::AddVrf(Vrf { link, table: number_of_table });
        carry_out(&mut socket, &[vrf, Build::NoAddressGeneration(Named::Name(name.clone()))])?;
    }
    switches(&name)?;
    let Some(master) = devices::index_of(&mut socket, &name)? else {
        return Err(HostError::Missing(format!("device {name}")));
    };
    let up = Settings { up: Some(true), ..Settings::default() };
    let mut builds = vec![Build::Set { device: Named::Index(master), settings: up }];
    let metadata = [IpNet::from(IpAddr::V4(METADATA))].into();
    builds.extend(space::addresses(&mut socket, master, is_new, &metadata)?);
    carry_out(&mut socket, &builds)?;
    let mut standing = Standing {
        namespace: Arc::new(Namespace::current()),
        vrf: Some(master),
        ruled: None,
        frames: None,
        space: space.clone(),
        link: None,
        is_judged: watch.is_some_and(|watch| watch.is_judging()),
        ports: BTreeMap::new(),
        bridges: BTreeMap::new(),
        lacking: BTreeMap::new(),
        last_ports: Last::default(),
    };
    let there = space::remove_surplus(&mut socket, space, ours)?;
    let numbered: Vec<u32> = there.values().map(|device| device.index).collect();
    let mut numbers = Numbers::beside(&numbered, slot, Last::default());
    let home = Home { master: Some(master), group: Some(group) };
    if let Some(watch) = watch {
        watch.introduce(space, &there.iter().map(|(name, device)| (name.clone(), device.index)).collect())?;
    }
    for (key, segment) in &space.segments {
        let (bridge, is_fresh) = space::bridge(&mut socket, key, segment, home)?;
        standing.bridges.insert(key.clone(), bridge);
        for (name, port) in &segment.ports {
            let attached = match taken.contains(name) {
                true => Err(condition(
                    "NameTaken",
                    format!("the host has a device {name} already, which is not fief's; name another one"),
                )),
                false => {
                    let namespace = &standing.namespace;
                    let place = Place { namespace, bridge, segment, home, slot: slot.number(), watch };
                    port::attach(&mut socket, &place, &mut numbers, there.get(name), name, port)
                }
            };
            match attached {
                Ok(index) => drop(standing.ports.insert(name.clone(), index)),
                Err(reason) => {
                    // Whatever it lacks, what stands of it goes on.
                    standing.ports.extend(there.get(name).map(|near| (name.clone(), near.index)));
                    standing.lacking.entry(port.endpoint.clone()).or_default().push(reason);
                }
            }
        }
        space::neighbours(&mut socket, bridge, is_fresh, segment)?;
    }
    Ok(standing)
}

/// The tenant's devices that are there, and names that it wants and others have. For a new tenant not all devices of the
/// host are listed: its own names are looked for.
fn devices_of(
    socket: &mut Socket,
    space: &Space,
    is_first: bool,
) -> Result<(Vec<Device>, HashSet<String>), HostError> {
    let segments = space.segments.values();
    let names = segments.flat_map(|segment| segment.ports.keys().chain([&segment.bridge])).cloned();
    let names: HashSet<String> = names.chain([links::vrf(space.slot)]).collect();
    if is_first {
        let mut taken = HashSet::new();
        for name in names {
            if devices::index_of(socket, &name)?.is_some() {
                taken.insert(name);
            }
        }
        return Ok((Vec::new(), taken));
    }
    let group = links::inside(space.slot);
    let (ours, others): (Vec<Device>, Vec<Device>) =
        devices::list(socket)?.into_iter().partition(|device| device.group == group);
    let taken = others.into_iter().map(|device| device.name).filter(|name| names.contains(name));
    Ok((ours, taken.collect()))
}

/// The link, both ends down, the inner one in the VRF.
pub fn link(name: &str, tenant: &str, slot: Slot, vrf: u32) -> Build {
    let outer = NewLink {
        name: name.to_owned(),
        mac: Some(HOST_MAC),
        group: Some(links::GROUP),
        alias: Some(space::origin(tenant)),
        ..NewLink::default()
    };
    let inner = NewLink {
        name: links::inner(slot),
        mac: Some(SPACE_MAC),
        group: Some(links::door(slot)),
        alias: Some(space::origin(tenant)),
        master: Some(vrf),
        ..NewLink::default()
    };
    Build::AddVeth(Veth { link: outer, peer: inner, peer_namespace: None })
}

/// Takes a link away whose inner end is not to be found by its name; says whether one is left.
pub fn has_link(socket: &mut Socket, outer: &str, slot: Slot) -> Result<bool, HostError> {
    if devices::index_of(socket, &links::inner(slot))?.is_some() {
        return Ok(true);
    }
    carry_out(socket, &[Build::DeleteLink(Named::Name(outer.to_owned()))])?;
    Ok(false)
}

/// Gives the inner end of the link its addresses. Its routes are the plan's, with the host's others.
pub fn connect(space: &Space, vrf: u32) -> Result<(), HostError> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let name = links::inner(space.slot);
    let Some(inner) = devices::index_of(&mut socket, &name)? else {
        return Err(HostError::Missing(format!("device {name}")));
    };
    switches(&name)?;
    let device = || Named::Index(inner);
    let master = Settings { master: Some(Some(Named::Index(vrf))), ..Settings::default() };
    let up = Settings { up: Some(true), ..Settings::default() };
    let mut builds = vec![
        Build::NoAddressGeneration(device()),
        Build::Set { device: device(), settings: master },
        Build::Set { device: device(), settings: up },
    ];
    let wanted: HashSet<IpNet> = space.transit.values().map(|a| IpNet::from(IpAddr::V4(*a))).collect();
    builds.extend(space::addresses(&mut socket, inner, false, &wanted)?);
    let address = IpAddr::V4(space.gateway);
    builds.push(Build::SetNeighbour(Neighbour { device: inner, address, mac: HOST_MAC }));
    carry_out(&mut socket, &builds)
}

/// Removes everything of a tenant's VRF, and what connection tracking knows of it.
pub fn remove(slot: Slot) {
    let removed = Socket::open(libc::NETLINK_ROUTE).map(|mut socket| {
        // A group without devices is no failure.
        let groups = [links::door(slot), links::inside(slot)].map(Build::DeleteGroup);
        devices::carry_out(&mut socket, &groups)
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "a tenant's VRF stays");
    }
    if let Err(error) = fief_host::conntrack::forget_zone(slot.number()) {
        tracing::warn!(%error, "connections of a tenant that is gone are tracked on");
    }
}

/// Tenants that an earlier daemon has left VRFs or ends of links of, by their slots, without those that are wanted.
pub fn left(wanted: &Wanted) -> BTreeSet<Slot> {
    let there = Socket::open(libc::NETLINK_ROUTE).and_then(|mut socket| devices::list(&mut socket));
    let there = there.unwrap_or_default();
    let slots = there.iter().filter(|device| links::is_in_a_vrf(device.group)).filter_map(|device| {
        let number = u16::try_from(device.group & !links::KIND).ok()?;
        Slot::new(number)
    });
    let wanted: BTreeSet<Slot> =
        wanted.spaces.values().filter(|space| space.vrf.is_some()).map(|space| space.slot).collect();
    slots.filter(|slot| !wanted.contains(slot)).collect()
}

/// Is everything there, by its name? `is_there` knows the host's devices.
pub fn is_whole(standing: &Standing, is_there: &dyn Fn(&str) -> bool) -> bool {
    let space = &standing.space;
    let is_lacking = |port: &super::wanted::Port| {
        standing.lacking.get(&port.endpoint).is_some_and(|list| !list.is_empty())
    };
    let segments = space.segments.values();
    let ports = segments.clone().flat_map(|segment| &segment.ports).filter(|(_, port)| !is_lacking(port));
    is_there(&links::vrf(space.slot))
        && (space.transit.is_empty() || is_there(&links::inner(space.slot)))
        && segments.clone().all(|segment| is_there(&segment.bridge))
        && ports.into_iter().all(|(name, _)| is_there(name))
}

/// What a device in a VRF needs of the kernel. Packets are forwarded for the VRF as a whole; whose source fits which
/// network is a rule's to say, because the kernel's reverse path filter sees the VRF only (fib_info_nh_uses_dev).
/// Neighbours are asked for with the address of the network that they are in.
pub fn switches(device: &str) -> Result<(), HostError> {
    let v4 = |leaf: &str| crate::plan::Setting::name_on(&format!("net.ipv4.conf.DEVICE.{leaf}"), device);
    let v6 = |leaf: &str| crate::plan::Setting::name_on(&format!("net.ipv6.conf.DEVICE.{leaf}"), device);
    let mut wanted = vec![
        (v4("forwarding"), "1"),
        (v4("rp_filter"), "0"),
        (v4("send_redirects"), "0"),
        (v4("accept_redirects"), "0"),
        (v4("arp_announce"), "2"),
    ];
    if kernel::has_ipv6() {
        wanted.extend([(v6("forwarding"), "1"), (v6("accept_dad"), "0"), (v6("accept_ra"), "0")]);
    }
    let wanted: Vec<(&str, &str)> = wanted.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    sysctl::write_all(&wanted)
}
