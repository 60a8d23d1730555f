//! The nf_tables rules of all tenants with a VRF: one table in the host's namespace, in which nothing but elements grows
//! with the number of tenants. They say what [`super::super::rules::space`] says inside of one namespace.
//!
//! A packet that comes in on a device under a VRF passes prerouting twice, and what the host sends there passes output and
//! postrouting twice: with the device and with the VRF (drivers/net/vrf.c). Connection tracking sees it once, with the
//! device: on the way in the first time counts, and on the way out the VRF's own round is untracked. In input and forward
//! it has come in on the VRF; `meta sdifname` names the device.

use std::collections::BTreeMap;

use fief_host::nft::idiom::{self, state};
use fief_host::nft::{
    ChainKind, Direction, Element, Expr, Family, Field, Hook, HookPoint, Key, Reject, Set, Table, Type, Value,
};
use ipnet::{IpNet, Ipv4Net};

use super::super::links::{self, DOOR, INSIDE, KIND};
use super::super::rules::{BY_PORT, DSTNAT, FILTER, RAW, SRCNAT, ports, v4, wall};
use super::super::wanted::Space;

/// The table's name.
pub const TABLE: &str = "fief-vrf";

/// What endpoints may call at their gateway and at 169.254.169.254: DNS, DHCP, metadata.
const SERVICES: [(i32, u16); 5] = [
    (libc::IPPROTO_UDP, 53),
    (libc::IPPROTO_TCP, 53),
    (libc::IPPROTO_UDP, 67),
    (libc::IPPROTO_UDP, 547),
    (libc::IPPROTO_TCP, 80),
];

/// The table of these tenants.
pub fn table<'a>(spaces: impl Iterator<Item = &'a Space> + Clone) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    zones(&mut table, spaces.clone());
    let exits = exits(&mut table, spaces.clone());
    inwards(&mut table, spaces.clone());
    to_gateway(&mut table);
    entering(&mut table);
    through(&mut table, spaces, &exits);
    table.base_chain("behind", Hook::new(ChainKind::Nat, HookPoint::Postrouting, SRCNAT));
    let translated = [outwards(), v4(), idiom::snat_to_map(&exits, &[Field::OifGroup, Field::IpSource])];
    table.rule("behind", &translated, Some("the uplink in use"));
    table
}

fn outwards() -> Expr {
    idiom::oifgroup_in(DOOR, KIND)
}

fn zones<'a>(table: &mut Table, spaces: impl Iterator<Item = &'a Space>) {
    let zones = Set::new("zones", &[Type::Group]).map(&[Type::Zone]);
    let both =
        spaces.flat_map(|space| [links::inside, links::door].map(|group| (group(space.slot), space.slot)));
    let elements =
        both.map(|(group, slot)| Element::new(&[Value::Group(group)]).to(&[Value::Zone(slot.number())]));
    table.set(&zones, elements.collect());
    let by = |field| idiom::set_zone_from_map(Direction::Both, &zones, &[field]);
    table.base_chain("zone", Hook::new(ChainKind::Filter, HookPoint::Prerouting, RAW));
    wall(table, "net-zone", "zone", &[by(Field::IifGroup)], Some("the tenant's number"));
    table.base_chain("zone-here", Hook::new(ChainKind::Filter, HookPoint::Output, RAW));
    let round = [idiom::ct_state_in(state::UNTRACKED), idiom::accept()];
    table.rule("zone-here", &round, Some("the VRF's own round"));
    wall(table, "net-zone", "zone-here", &[by(Field::OifGroup)], Some("the tenant's number"));
}

/// By whose door packets leave, from which subnet, and the link's address for that.
fn exits<'a>(table: &mut Table, spaces: impl Iterator<Item = &'a Space>) -> Set {
    let exits = Set::new("exits", &[Type::Group, Type::Ipv4]).map(&[Type::Ipv4]).with_intervals();
    let elements = spaces.flat_map(|space| {
        space.segments.values().filter_map(|segment| {
            let door = Key::Value(Value::Group(links::door(space.slot)));
            let subnet = Key::Prefix(IpNet::V4(segment.services.subnet));
            Some(Element::of(&[door, subnet]).to(&[Value::Ipv4(segment.exit?)]))
        })
    });
    table.set(&exits, elements.collect());
    exits
}

/// What comes in by a door: port maps and answers.
fn inwards<'a>(table: &mut Table, spaces: impl Iterator<Item = &'a Space>) {
    let inwards = || idiom::iifgroup_in(DOOR, KIND);
    let mapped = Set::new("mapped", &[Type::Ipv4, Type::Protocol, Type::Port]).map(&[Type::Ipv4, Type::Port]);
    let all: BTreeMap<_, _> =
        spaces.flat_map(|space| space.mapped.iter().map(|(at, to)| (*at, *to))).collect();
    table.set(&mapped, ports(&all, |(to, port)| vec![Value::Ipv4(*to), Value::Port(*port)]));
    table.base_chain("called", Hook::new(ChainKind::Nat, HookPoint::Prerouting, DSTNAT));
    let to_endpoints = [inwards(), v4(), idiom::dnat_from_map(&mapped, &BY_PORT)];
    table.rule("called", &to_endpoints, Some("port maps"));

    // Here and not where it is forwarded or delivered: there it has come in on the VRF.
    table.base_chain("inwards", Hook::new(ChainKind::Filter, HookPoint::Prerouting, FILTER));
    let replies = idiom::ct_state_in(state::ESTABLISHED | state::RELATED);
    table.rule("inwards", &[inwards(), replies, idiom::accept()], Some("answers"));
    table.rule("inwards", &[inwards(), idiom::ct_is_dnat(), idiom::accept()], Some("port maps"));
    let other = [inwards(), Expr::Counter, idiom::drop()];
    wall(table, "net-inwards", "inwards", &other, Some("nothing else comes in"));
}

/// What is for the host itself: the services, which are bound to the tenant's devices. Servers of the host that are bound
/// to no device would be reached too, if net.ipv4.tcp_l3mdev_accept or its like say so.
fn to_gateway(table: &mut Table) {
    let services = Set::new("services", &[Type::Protocol, Type::Port]);
    let elements =
        SERVICES.map(|(protocol, port)| Element::new(&[Value::Protocol(protocol as u8), Value::Port(port)]));
    table.set(&services, elements.to_vec());
    table.base_chain("to-gateway", Hook::new(ChainKind::Filter, HookPoint::Input, FILTER));
    let from = |more: &[Expr]| [&[idiom::iifgroup_in(INSIDE, KIND)], more].concat();
    let replies = idiom::ct_state_in(state::ESTABLISHED | state::RELATED);
    table.rule("to-gateway", &from(&[replies, idiom::accept()]), Some("answers"));
    let called = idiom::in_set(&[Field::L4Proto, Field::DestinationPort], &services);
    table.rule("to-gateway", &from(&[called, idiom::accept()]), Some("services"));
    for protocol in [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6, libc::IPPROTO_IGMP] {
        table.rule("to-gateway", &from(&[idiom::l4_is(protocol as u8), idiom::accept()]), None);
    }
    let tcp = from(&[idiom::l4_is(libc::IPPROTO_TCP as u8), Expr::Reject(Reject::Reset)]);
    wall(table, "net-gateway", "to-gateway", &tcp, Some("nobody listens"));
    let other = from(&[Expr::Reject(Reject::PortUnreachable)]);
    wall(table, "net-gateway", "to-gateway", &other, Some("nobody listens"));
}

/// What programs of the host send inside. Anybody may bind a socket to a device (sk_bindtoindex asks for CAP_NET_RAW only
/// where it is bound already); a tenant's place is for administrators, as a namespace is.
fn entering(table: &mut Table) {
    table.base_chain("entering", Hook::new(ChainKind::Filter, HookPoint::Output, FILTER));
    for kind in [INSIDE, DOOR] {
        let user =
            [idiom::oifgroup_in(kind, KIND), idiom::socket_user_is_not(0), Expr::Counter, idiom::drop()];
        wall(table, "net-users", "entering", &user, Some("only root enters"));
    }
}

fn through<'a>(table: &mut Table, spaces: impl Iterator<Item = &'a Space>, exits: &Set) {
    let homes = Set::new("homes", &[Type::Ifname, Type::Ipv4]).with_intervals();
    let home = |device: &str, net: Ipv4Net| {
        Element::of(&[Key::Value(Value::Ifname(device.to_owned())), Key::Prefix(IpNet::V4(net))])
    };
    let any = Ipv4Net::default();
    let elements = spaces.flat_map(|space| {
        let bridges = space.segments.values();
        let bridges = bridges.map(move |segment| home(&segment.bridge, segment.services.subnet));
        bridges.chain([home(&links::inner(space.slot), any)])
    });
    // What is bridged has come in on no device under the VRF.
    table.set(&homes, elements.chain([home("", any)]).collect());
    table.base_chain("through", Hook::new(ChainKind::Filter, HookPoint::Forward, FILTER));
    table.rule("through", &[idiom::iifgroup_in(INSIDE, KIND), idiom::clamp_mss()], None);
    let strange = idiom::not_in_set(&[Field::SdifName, Field::IpSource], &homes);
    let spoofed = [idiom::iifgroup_in(INSIDE, KIND), v4(), strange, Expr::Counter, idiom::drop()];
    wall(table, "net-home", "through", &spoofed, Some("a source that is not of its network"));
    let no_exit = idiom::not_in_set(&[Field::OifGroup, Field::IpSource], exits);
    let lost = [outwards(), v4(), no_exit, Expr::Reject(Reject::NoRoute)];
    wall(table, "net-exit", "through", &lost, Some("a network without a way out"));
}
