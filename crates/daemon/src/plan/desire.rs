//! What a tenant's document means on this host as it is now.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fief_api::Condition;
use fief_datapath::maps::Neighbour;
use fief_datapath::{ALONE, HOST_ACCESS, NEIGHBOURS, Owner, UDP_ALIAS, UDP_REFUSE};
use fief_host::teeth::is_off;
use fief_host::{Address, Family, Link, Route, RouteKind};
use fief_model::{Interface, Tenant, Udp};
use ipnet::IpNet;

use super::{Tree, vrf};
use crate::observed::Observed;
use crate::store::{MemberIds, Stored};

/// The metric of the unreachable default that every table ends in.
const LAST: u32 = u32::MAX;

/// What one tenant needs.
#[derive(Debug, Default)]
pub struct Desired {
    /// Its name.
    pub name: String,
    /// Who may act as it.
    pub members: MemberIds,
    /// Users and groups whose new sockets are its.
    pub selected: MemberIds,
    /// Control groups whose processes' new sockets are its, step by step.
    pub cgroups: Vec<Vec<String>>,
    /// Flags of the tenant in the datapath.
    pub flags: u32,
    /// Its VRF, if it has one.
    pub vrf: Option<vrf::Wanted>,
    /// Devices it may leave by.
    pub devices: BTreeSet<u32>,
    /// Of an uplink, which is no tenant and has no name: its index.
    pub uplink: Option<u8>,
    /// And the device that packets are forwarded from.
    pub forwards: Option<u32>,
    /// Its local addresses.
    pub owned: Vec<(IpAddr, Owner)>,
    /// Devices whose strays are its own.
    pub defaults: Vec<Owner>,
    /// Who brings packets for it.
    pub neighbours: Vec<Neighbour>,
    /// Addresses to be on devices.
    pub addresses: Vec<Address>,
    /// Its routes; the table is filled in by the plan.
    pub routes: Vec<Route>,
    /// What the host lacks.
    pub conditions: Vec<Condition>,
}

/// A switch of the host as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name with dots; a device's dots are slashes (sysctl(8)).
    pub name: String,
    /// What it shall be.
    pub value: String,
    /// The index of the device whose switch it is.
    pub device: Option<u32>,
}

/// What this tenant needs of the host as it is observed, with a VRF or without.
pub fn desire(tree: &Tree, stored: &Stored, observed: &Observed, has_vrf: bool) -> Desired {
    let Stored { tenant, members, selected, .. } = stored;
    let mut desired = Desired {
        name: tenant.metadata.name.clone(),
        members: members.clone(),
        selected: selected.clone(),
        cgroups: cgroups(tenant),
        ..Desired::default()
    };
    if tenant.spec.host_access {
        desired.flags |= HOST_ACCESS;
    }
    for family in observed.families().filter(|_| !is_off("table-end")) {
        desired.routes.push(unreachable_default(family));
    }
    if has_vrf {
        desired.vrf = Some(of_vrf(tree, stored, observed, &mut desired));
    }
    for (position, interface) in tenant.spec.interfaces.iter().enumerate() {
        match observed.link(&interface.name) {
            None => desired.lacks(
                "DeviceMissing",
                format!(
                    "device {0} is not there; its part of the tenant starts when {0} appears",
                    interface.name
                ),
            ),
            Some(link) => on_device(tree, stored, interface, position as u32, link, observed, &mut desired),
        }
    }
    routes(tenant, observed, &mut desired);
    prefer_later(&mut desired.routes);
    if tree.move_local && tenant.spec.host_access {
        host_as_local(observed, &mut desired);
    }
    desired
}

/// The tenant's VRF. A device that has its name and is another's is left alone.
fn of_vrf(tree: &Tree, stored: &Stored, observed: &Observed, desired: &mut Desired) -> vrf::Wanted {
    let vrf = vrf::of(tree, stored.slot, &stored.tenant.metadata.name);
    let there = observed.link(&vrf.name);
    if there.is_some_and(|link| !vrf::is_ours(link)) {
        let text = format!(
            "there is a device {0} that is not fief's; rename it: ip link set {0} name OTHER",
            vrf.name
        );
        desired.lacks("VrfTaken", text);
    }
    let index = there.filter(|link| vrf::is_ours(link) && link.vrf == Some(vrf.table)).map(|link| link.index);
    vrf::Wanted { vrf, index, ports: BTreeSet::new() }
}

/// Is this device where its addresses and routes may be? With a VRF that is under it, and nowhere else: they would be the
/// host's.
fn is_in_place(link: &Link, observed: &Observed, desired: &mut Desired) -> bool {
    let Some(wanted) = &mut desired.vrf else { return true };
    let Some(vrf) = wanted.index else { return false };
    let master = link.master.filter(|master| *master != vrf);
    match master.and_then(|master| observed.links().find(|link| link.index == master)) {
        // Another tenant's until this round is over.
        Some(other) if vrf::is_ours(other) => false,
        Some(other) => {
            let text = format!(
                "device {0} is a port of {1}; take it from there: ip link set {0} nomaster",
                link.name, other.name
            );
            desired.lacks("DeviceEnslaved", text);
            false
        }
        None => {
            wanted.ports.insert(link.index);
            link.master == Some(vrf)
        }
    }
}

impl Desired {
    fn lacks(&mut self, reason: &str, message: String) {
        self.conditions.push(Condition { reason: reason.into(), message });
    }
}

fn on_device(
    tree: &Tree,
    stored: &Stored,
    interface: &Interface,
    position: u32,
    link: &Link,
    observed: &Observed,
    desired: &mut Desired,
) {
    let slot = u32::from(stored.slot.number());
    let neighbours = if interface.neighbours.is_some() { NEIGHBOURS } else { 0 };
    let flags = neighbours | udp_flags(stored.tenant.spec.udp);
    let owner = Owner { slot, ifindex: link.index, flags };
    desired.devices.insert(link.index);
    match desired.vrf {
        Some(_) => desired.defaults.push(Owner { flags: neighbours | ALONE, ..owner }),
        None if interface.default => desired.defaults.push(owner),
        None => {}
    }
    let macs = interface.neighbours.iter().flatten();
    desired.neighbours.extend(macs.map(|mac| Neighbour {
        slot,
        ifindex: link.index,
        mac: mac.0,
        pad: [0; 2],
    }));
    if !link.up {
        let text = format!("device {0} is down; bring it up: ip link set {0} up", link.name);
        desired.lacks("LinkDown", text);
    } else if !link.carrier {
        desired
            .lacks("NoCarrier", format!("device {} has no carrier; check the cable or the peer", link.name));
    }
    if !is_in_place(link, observed, desired) {
        return;
    }
    let mut usable = Vec::new();
    for net in &interface.addresses {
        if claim(interface, link, *net, observed, desired) {
            desired.owned.push((net.addr(), owner));
            usable.push(*net);
        }
    }
    if link.up {
        let mut connected = connected(&usable, link.index, position);
        // What the kernel puts into the table of a VRF by itself.
        connected.retain(|route| desired.vrf.is_none() || !is_link_local(&route.prefix));
        desired.routes.extend(connected);
        if tree.move_local && desired.vrf.is_none() {
            desired.routes.extend(local(interface, &usable, link.index));
            if interface.default {
                desired.routes.extend(link_locals(observed, link.index));
            }
        }
    }
}

/// The control groups that a tenant selects, step by step. Its slice the programs know by its name.
fn cgroups(tenant: &Tenant) -> Vec<Vec<String>> {
    let steps = |path: &String| path.split('/').filter(|step| !step.is_empty()).map(str::to_owned).collect();
    tenant.spec.select.cgroups.iter().map(steps).collect()
}

/// What becomes of datagrams for servers that do not ask which address was called.
fn udp_flags(udp: Udp) -> u32 {
    match udp {
        Udp::Alias => UDP_ALIAS,
        Udp::Pktinfo => 0,
        Udp::Refuse => UDP_REFUSE,
    }
}

/// Decides about one address: to be added, there already, or not to be had.
fn claim(interface: &Interface, link: &Link, net: IpNet, observed: &Observed, desired: &mut Desired) -> bool {
    if net.addr().is_ipv6() && !observed.has_ipv6 {
        desired
            .lacks("Ipv6Missing", format!("{} needs IPv6, which this kernel was booted without", net.addr()));
        return false;
    }
    let foreign = observed.foreign_address(net.addr());
    let (address, name) = (net.addr(), &link.name);
    match (interface.manage, foreign) {
        (true, None) => {
            let own = Address { device: link.index, net: IpNet::from(address), ours: true };
            // A device that is down takes no IPv6 address; those that it has it keeps (keep_addr_on_down).
            if link.up || address.is_ipv4() || observed.has_address(&own) {
                desired.addresses.push(own);
            }
            true
        }
        (true, Some(other)) => {
            let on = observed.link_name(other.device);
            desired.lacks(
                "AddressTaken",
                format!("{address} is on device {on} already and is not fief's; remove it, or write `manage: false`"),
            );
            false
        }
        (false, Some(other)) if other.device == link.index => true,
        (false, _) => {
            desired.lacks(
                "AddressMissing",
                format!("{address} is not on device {name}; add it, or leave out `manage: false`"),
            );
            false
        }
    }
}

/// The prefixes on the wire. Addresses are added with their full length: in IPv4 a second address of a prefix would
/// be a secondary one and go when the first goes, and the prefix belongs into the tenant's table only.
fn connected(nets: &[IpNet], device: u32, position: u32) -> Vec<Route> {
    let mut seen = BTreeSet::new();
    let mut routes = Vec::new();
    for net in nets.iter().filter(|n| n.prefix_len() < n.max_prefix_len()) {
        if seen.insert(net.trunc()) {
            let metric = position + if net.addr().is_ipv6() { 256 } else { 0 };
            routes.push(unicast(net.trunc(), metric, device, Some(net.addr())));
        }
    }
    if nets.iter().any(|n| n.addr().is_ipv6()) {
        let link_local = IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 64);
        routes.push(unicast(link_local, 256 + position, device, None));
    }
    routes
}

fn is_link_local(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

/// What the `local` table would say, for the mode in which the tenant's own table is asked first.
fn local(interface: &Interface, nets: &[IpNet], device: u32) -> Vec<Route> {
    let one = |prefix: IpNet, kind| Route { kind, ..unicast(prefix, 0, device, None) };
    let mut routes: Vec<Route> = nets.iter().map(|n| one(IpNet::from(n.addr()), RouteKind::Local)).collect();
    if !interface.default {
        return with_v6_metric(routes);
    }
    for net in nets {
        if let IpNet::V4(v4) = net
            && v4.prefix_len() < 31
        {
            routes.push(one(IpNet::from(IpAddr::V4(v4.broadcast())), RouteKind::Broadcast));
        }
    }
    routes.push(one(IpNet::from(IpAddr::V4(Ipv4Addr::BROADCAST)), RouteKind::Broadcast));
    let multicast = IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8);
    routes.push(Route { metric: 256, ..one(multicast, RouteKind::Multicast) });
    with_v6_metric(routes)
}

/// The device's link-local addresses, which are in no map because another device may have them too: what calls them
/// belongs to the interface's default, answers of neighbour discovery among it, and must still be delivered.
fn link_locals(observed: &Observed, device: u32) -> Vec<Route> {
    let on_it = observed.addresses().filter(|a| a.device == device).map(|a| a.net.addr());
    let link_local = on_it.filter(|a| matches!(a, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    let local = |a| Route { kind: RouteKind::Local, ..unicast(IpNet::from(a), 0, device, None) };
    with_v6_metric(link_local.map(local).collect())
}

/// The host's own addresses as local ones of this tenant: hostAccess where `local` is asked behind the tree.
fn host_as_local(observed: &Observed, desired: &mut Desired) {
    const LOOPBACK: u32 = 1;
    let mut routes = vec![
        unicast(IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8), 0, LOOPBACK, None),
        unicast(IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)), 0, LOOPBACK, None),
    ];
    for address in observed.addresses().filter(|a| !a.ours && a.device != LOOPBACK) {
        routes.push(unicast(IpNet::from(address.net.addr()), 0, address.device, None));
    }
    routes.iter_mut().for_each(|r| r.kind = RouteKind::Local);
    desired.routes.extend(with_v6_metric(routes));
}

fn routes(tenant: &Tenant, observed: &Observed, desired: &mut Desired) {
    for route in &tenant.spec.routes {
        let Some(prefix) = route.prefix() else { continue };
        let kind = match route.kind {
            fief_model::RouteKind::Unicast => RouteKind::Unicast,
            fief_model::RouteKind::Blackhole => RouteKind::Blackhole,
            fief_model::RouteKind::Unreachable => RouteKind::Unreachable,
            fief_model::RouteKind::Prohibit => RouteKind::Prohibit,
        };
        let device = match kind {
            RouteKind::Unicast => match tenant.device_of(route).and_then(|name| observed.link(name)) {
                // A missing device has its condition already.
                Some(link) if link.up => Some(link.index),
                _ => continue,
            },
            _ => None,
        };
        let family = Family::of(prefix.addr());
        if observed.families().all(|there| there != family) {
            continue;
        }
        // A gateway on a prefix whose address is not to be had cannot be reached; that has its condition already.
        if !route.on_link && route.via.is_some_and(|via| !has_way_to(tenant, via, desired)) {
            continue;
        }
        let own = |net: &IpNet| Family::of(net.addr()) == family;
        let source = route.from.or_else(|| {
            let name = tenant.device_of(route)?;
            let on_it: Vec<IpNet> = tenant
                .addresses()
                .filter(|(i, net)| i.name == name && own(net))
                .map(|(_, net)| net)
                .collect();
            let covering = on_it.iter().find(|net| route.via.is_some_and(|via| net.contains(&via)));
            covering.or(on_it.first()).map(|net| net.addr())
        });
        let source = source.filter(|s| device.is_some() && desired.owned.iter().any(|(a, _)| a == s));
        desired.routes.push(Route {
            table: 0,
            prefix,
            metric: metric(route.metric, family),
            kind,
            device,
            via: route.via,
            source,
            on_link: route.on_link,
            mtu: route.mtu.map(|mtu| mtu.min(65_520)),
            detour: None,
        });
    }
}

/// Of two routes with the same prefix and metric the later one counts: a document may replace a connected route.
fn prefer_later(routes: &mut Vec<Route>) {
    let mut seen = std::collections::HashSet::new();
    routes.reverse();
    routes.retain(|route| seen.insert(route.key()));
    routes.reverse();
}

/// Does one of the addresses that the tenant really has cover this gateway? A link-local one needs none.
fn has_way_to(tenant: &Tenant, via: IpAddr, desired: &Desired) -> bool {
    let is_had = |net: &IpNet| desired.owned.iter().any(|(address, _)| *address == net.addr());
    matches!(via, IpAddr::V6(v6) if v6.is_unicast_link_local())
        || tenant.addresses().any(|(_, net)| net.contains(&via) && is_had(&net))
}

/// Whose switches are set.
#[derive(Debug, Default)]
pub struct Switched {
    /// Devices that tenants name.
    pub devices: BTreeSet<u32>,
    /// Devices that packets of uplinks are forwarded from.
    pub forwards: BTreeSet<u32>,
    /// Those of the devices that are under a VRF.
    pub under_vrfs: BTreeSet<u32>,
    /// Has any tenant a VRF?
    pub has_vrf: bool,
    /// Do packets take a short way past connection tracking?
    pub is_short: bool,
}

/// What has connection tracking let packets of TCP pass whose like it has not seen lately (nf_conntrack-sysctl.rst).
pub const LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";

/// The switches that must be set, with their values. rp_filter of the host is not touched; where it is in force, it
/// has to look with the packet's mark, and elsewhere the devices that tenants name need no such look: their programs
/// know this host's addresses. IPv6 keeps addresses over a link's flap, as IPv4 does anyway: taking thousands away and
/// adding them again costs the kernel time that grows with their square.
///
/// With VRFs, one listener shall be everybody's across them too; and the kernel itself asks whether a source is an address
/// of a VRF.
pub fn sysctls(tree: &Tree, switched: &Switched, observed: &Observed) -> Vec<Setting> {
    let Switched { devices, forwards, under_vrfs, has_vrf, is_short } = switched;
    let setting = |name: String, device| Setting { name, value: "1".into(), device };
    let mut names = vec!["net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect", "net.ipv4.tcp_fwmark_accept"];
    if tree.move_local || observed.filters_reverse_path {
        names.push("net.ipv4.conf.all.src_valid_mark");
    }
    if *has_vrf {
        names.push("net.ipv4.tcp_l3mdev_accept");
    }
    // Where fief writes no marks it asks nobody to heed them.
    names.retain(|_| tree.field.is_some());
    names.retain(|name| observed.has_ipv6 || !name.starts_with("net.ipv6."));
    if *is_short {
        names.push(LIBERAL);
    }
    names.retain(|name| !is_off(name));
    let mut settings: Vec<Setting> = names.into_iter().map(|name| setting(name.into(), None)).collect();
    let of_device = |above: &str, leaf: &str, device: u32| {
        setting(Setting::name_on(&format!("{above}.DEVICE.{leaf}"), observed.link_name(device)), Some(device))
    };
    settings.extend(forwards.iter().map(|d| of_device("net.ipv4.conf", "forwarding", *d)));
    if !observed.filters_reverse_path {
        let shared = devices.difference(under_vrfs);
        settings.extend(shared.map(|d| of_device("net.ipv4.conf", "accept_local", *d)));
    }
    if observed.has_ipv6 {
        // A device falls and rises when it leaves a VRF, and has the host's own addresses then.
        let leaving = vrf::ports(observed).filter(|port| !devices.contains(port));
        let falling = devices.iter().copied().chain(leaving);
        settings.extend(falling.map(|d| of_device("net.ipv6.conf", "keep_addr_on_down", d)));
    }
    settings
}

impl Setting {
    /// The name of this switch when its device is called so.
    pub fn name_on(name: &str, device: &str) -> String {
        let (rest, leaf) = name.rsplit_once('.').unwrap_or(("", name));
        let above = rest.rsplit_once('.').map_or("", |(above, _)| above);
        format!("{above}.{}.{leaf}", device.replace('.', "/"))
    }
}

/// IPv6 has no metric 0: it becomes 1024 (IP6_RT_PRIO_USER).
fn metric(asked: Option<u32>, family: Family) -> u32 {
    match (asked.unwrap_or(0), family) {
        (0, Family::V6) => 1024,
        (metric, _) => metric,
    }
}

fn with_v6_metric(mut routes: Vec<Route>) -> Vec<Route> {
    for route in routes.iter_mut().filter(|r| r.metric == 0) {
        route.metric = metric(None, route.family());
    }
    routes
}

/// What every table ends in.
pub fn unreachable_default(family: Family) -> Route {
    let any = match family {
        Family::V4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        Family::V6 => IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    };
    Route { kind: RouteKind::Unreachable, device: None, ..unicast(any, LAST, 0, None) }
}

fn unicast(prefix: IpNet, metric: u32, device: u32, source: Option<IpAddr>) -> Route {
    Route {
        table: 0,
        prefix,
        metric,
        kind: RouteKind::Unicast,
        device: Some(device),
        via: None,
        source,
        on_link: false,
        mtu: None,
        detour: None,
    }
}
