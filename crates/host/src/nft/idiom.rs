//! Expressions as nft(8) would put them together, by what they say.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Clamp, Comparison, Direction, Expr, Field, Set, Translation, Value, Verdict};
use crate::Family;

/// Bits of `ct state` (NF_CT_STATE_BIT).
pub mod state {
    /// Belongs to no connection that makes sense.
    pub const INVALID: u32 = 1;
    /// Of a connection that has seen both directions.
    pub const ESTABLISHED: u32 = 2;
    /// Opens a connection that another one announced.
    pub const RELATED: u32 = 4;
    /// Opens a connection.
    pub const NEW: u32 = 8;
    /// Kept from connection tracking.
    pub const UNTRACKED: u32 = 64;
}

/// IPS_SRC_NAT and IPS_DST_NAT of `ct status`.
const SNATED: u32 = 1 << 4;
const DNATED: u32 = 1 << 5;

/// `FIELD VALUE`.
pub fn is(field: Field, value: Value) -> Expr {
    Expr::Compare { field, mask: None, comparison: Comparison::Equal, value }
}

/// `FIELD != VALUE`.
pub fn is_not(field: Field, value: Value) -> Expr {
    Expr::Compare { field, mask: None, comparison: Comparison::Different, value }
}

/// `iif INDEX`.
pub fn iif_is(index: u32) -> Expr {
    is(Field::Iif, Value::Ifindex(index))
}

/// `iif != INDEX`.
pub fn iif_is_not(index: u32) -> Expr {
    is_not(Field::Iif, Value::Ifindex(index))
}

/// `oif INDEX`.
pub fn oif_is(index: u32) -> Expr {
    is(Field::Oif, Value::Ifindex(index))
}

/// `oif != INDEX`.
pub fn oif_is_not(index: u32) -> Expr {
    is_not(Field::Oif, Value::Ifindex(index))
}

/// `iifname NAME`.
pub fn iifname_is(name: &str) -> Expr {
    is(Field::IifName, Value::Ifname(name.to_owned()))
}

/// `oifname NAME`.
pub fn oifname_is(name: &str) -> Expr {
    is(Field::OifName, Value::Ifname(name.to_owned()))
}

/// `ct original ip saddr NET`, an IPv4 prefix.
pub fn ct_original_source_in(net: ipnet::Ipv4Net) -> Expr {
    Expr::Compare {
        field: Field::CtOriginalSource,
        mask: Some(Value::Ipv4(net.netmask())),
        comparison: Comparison::Equal,
        value: Value::Ipv4(net.network()),
    }
}

/// `iifgroup GROUP`.
pub fn iifgroup_is(group: u32) -> Expr {
    is(Field::IifGroup, Value::Bytes(group.to_ne_bytes().to_vec()))
}

/// `oifgroup GROUP`.
pub fn oifgroup_is(group: u32) -> Expr {
    is(Field::OifGroup, Value::Bytes(group.to_ne_bytes().to_vec()))
}

/// `iifgroup and MASK == GROUP`.
pub fn iifgroup_in(group: u32, mask: u32) -> Expr {
    of_groups(Field::IifGroup, group, mask)
}

/// `oifgroup and MASK == GROUP`.
pub fn oifgroup_in(group: u32, mask: u32) -> Expr {
    of_groups(Field::OifGroup, group, mask)
}

/// `meta skuid != USER`; packets without a socket of a program end the rule.
pub fn socket_user_is_not(user: u32) -> Expr {
    is_not(Field::SocketUser, Value::Bytes(user.to_ne_bytes().to_vec()))
}

/// `meta nfproto ipv4` or `meta nfproto ipv6`: not in the family bridge, where [`ether_type_is`] says it.
pub fn family_is(family: Family) -> Expr {
    is(Field::NfProto, Value::Bytes(vec![family.af()]))
}

/// `meta protocol TYPE`, as 0x0800 for IPv4, 0x86dd for IPv6, 0x0806 for ARP.
pub fn ether_type_is(ether_type: u16) -> Expr {
    is(Field::EtherType, Value::Bytes(ether_type.to_be_bytes().to_vec()))
}

/// `meta l4proto NUMBER`, as 1 for ICMP, 6 for TCP, 17 for UDP, 58 for ICMPv6.
pub fn l4_is(protocol: u8) -> Expr {
    is(Field::L4Proto, Value::Protocol(protocol))
}

/// `ip saddr NET` or `ip6 saddr NET`, of that family's packets only.
pub fn source_in(net: IpNet) -> Expr {
    address(net, [Field::IpSource, Field::Ip6Source], Comparison::Equal)
}

/// `ip saddr != NET` or `ip6 saddr != NET`, of that family's packets only.
pub fn source_not_in(net: IpNet) -> Expr {
    address(net, [Field::IpSource, Field::Ip6Source], Comparison::Different)
}

/// `ip daddr NET` or `ip6 daddr NET`, of that family's packets only.
pub fn destination_in(net: IpNet) -> Expr {
    address(net, [Field::IpDestination, Field::Ip6Destination], Comparison::Equal)
}

/// `ip daddr != NET` or `ip6 daddr != NET`, of that family's packets only.
pub fn destination_not_in(net: IpNet) -> Expr {
    address(net, [Field::IpDestination, Field::Ip6Destination], Comparison::Different)
}

/// `th sport PORT`; look for the protocol before, see [`l4_is`].
pub fn source_port_is(port: u16) -> Expr {
    is(Field::SourcePort, Value::Port(port))
}

/// `th dport PORT`; look for the protocol before, see [`l4_is`].
pub fn destination_port_is(port: u16) -> Expr {
    is(Field::DestinationPort, Value::Port(port))
}

/// `th dport FROM-TO`, both included; look for the protocol before, see [`l4_is`].
pub fn destination_port_between(from: u16, to: u16) -> Expr {
    Expr::Range { field: Field::DestinationPort, from: Value::Port(from), to: Value::Port(to), inside: true }
}

/// `meta mark and MASK == VALUE`.
pub fn mark_is(value: u32, mask: u32) -> Expr {
    masked(Field::Mark, value, mask, Comparison::Equal)
}

/// `meta mark and MASK != VALUE`.
pub fn mark_is_not(value: u32, mask: u32) -> Expr {
    masked(Field::Mark, value, mask, Comparison::Different)
}

/// `ct mark and MASK == VALUE`.
pub fn ct_mark_is(value: u32, mask: u32) -> Expr {
    masked(Field::CtMark, value, mask, Comparison::Equal)
}

/// `ct state BITS`: one of these, see [`state`].
pub fn ct_state_in(bits: u32) -> Expr {
    any_of(Field::CtState, bits)
}

/// `ct status dnat`: the connection's destination was translated.
pub fn ct_is_dnat() -> Expr {
    any_of(Field::CtStatus, DNATED)
}

/// `ct status snat`: the connection's source was translated.
pub fn ct_is_snat() -> Expr {
    any_of(Field::CtStatus, SNATED)
}

/// `ct direction original` (true) or `ct direction reply`.
pub fn ct_is_original(original: bool) -> Expr {
    is(Field::CtDirection, Value::Direction(u8::from(!original)))
}

/// `FIELD . FIELD @SET`.
pub fn in_set(fields: &[Field], set: &Set) -> Expr {
    Expr::Lookup { fields: fields.to_vec(), set: set.name().to_owned(), inside: true }
}

/// `FIELD . FIELD != @SET`.
pub fn not_in_set(fields: &[Field], set: &Set) -> Expr {
    Expr::Lookup { fields: fields.to_vec(), set: set.name().to_owned(), inside: false }
}

/// `FIELD . FIELD vmap @MAP`.
pub fn verdict_by(fields: &[Field], map: &Set) -> Expr {
    Expr::VerdictMap { fields: fields.to_vec(), map: map.name().to_owned() }
}

/// `accept`.
pub fn accept() -> Expr {
    Expr::Verdict(Verdict::Accept)
}

/// `drop`.
pub fn drop() -> Expr {
    Expr::Verdict(Verdict::Drop)
}

/// `return`.
pub fn back() -> Expr {
    Expr::Verdict(Verdict::Return)
}

/// `jump CHAIN`.
pub fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.to_owned()))
}

/// `goto CHAIN`.
pub fn goto(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Goto(chain.to_owned()))
}

/// `meta mark set mark and ~MASK or VALUE`.
pub fn set_mark(value: u32, mask: u32) -> Expr {
    Expr::SetMark { value, mask }
}

/// `meta mark set FIELD . FIELD map @MAP`; packets that the map does not know end the rule.
pub fn set_mark_from_map(map: &Set, fields: &[Field]) -> Expr {
    Expr::SetMarkFromMap { fields: fields.to_vec(), map: map.name().to_owned() }
}

/// `ct original zone set ZONE`, `ct reply zone set ZONE` or `ct zone set ZONE`.
pub fn set_zone(direction: Direction, zone: u16) -> Expr {
    Expr::SetZone { direction, zone }
}

/// The same, to what a map says; packets that it does not know end the rule.
pub fn set_zone_from_map(direction: Direction, map: &Set, fields: &[Field]) -> Expr {
    Expr::SetZoneFromMap { direction, fields: fields.to_vec(), map: map.name().to_owned() }
}

/// `snat to ADDRESS:PORT`, of that family's packets only. A port needs a look for the protocol before, see [`l4_is`].
pub fn snat_to(address: IpAddr, port: Option<u16>) -> Expr {
    let to = Translation::Constant(address, port);
    Expr::All(vec![family_is(Family::of(address)), Expr::Snat(to)])
}

/// `dnat to ADDRESS:PORT`, of that family's packets only. A port needs a look for the protocol before, see [`l4_is`].
pub fn dnat_to(address: IpAddr, port: Option<u16>) -> Expr {
    let to = Translation::Constant(address, port);
    Expr::All(vec![family_is(Family::of(address)), Expr::Dnat(to)])
}

/// `snat to FIELD . FIELD map @MAP`, of the packets of the family that the map's addresses are of.
pub fn snat_to_map(map: &Set, fields: &[Field]) -> Expr {
    Expr::All(vec![family_is(map.data_family()), Expr::Snat(Translation::by(map, fields))])
}

/// `dnat to FIELD . FIELD map @MAP`, of the packets of the family that the map's addresses are of.
pub fn dnat_from_map(map: &Set, fields: &[Field]) -> Expr {
    Expr::All(vec![family_is(map.data_family()), Expr::Dnat(Translation::by(map, fields))])
}

/// `tcp flags syn / syn,rst tcp option maxseg size set rt mtu`.
pub fn clamp_mss() -> Expr {
    clamp(Clamp::RouteMtu)
}

/// `tcp flags syn / syn,rst tcp option maxseg size set BYTES`.
pub fn clamp_mss_to(bytes: u16) -> Expr {
    clamp(Clamp::Size(bytes))
}

fn clamp(to: Clamp) -> Expr {
    let (syn, rst) = (2, 4);
    let opens = Expr::Compare {
        field: Field::TcpFlags,
        mask: Some(Value::Bytes(vec![syn | rst])),
        comparison: Comparison::Equal,
        value: Value::Bytes(vec![syn]),
    };
    Expr::All(vec![l4_is(libc::IPPROTO_TCP as u8), opens, Expr::ClampMss(to)])
}

fn address(net: IpNet, [v4, v6]: [Field; 2], comparison: Comparison) -> Expr {
    let (field, whole, mask) = match net {
        IpNet::V4(net) => (v4, 32, IpAddr::V4(net.netmask())),
        IpNet::V6(net) => (v6, 128, IpAddr::V6(net.netmask())),
    };
    let of_family = family_is(Family::of(net.addr()));
    if net.prefix_len() == 0 && comparison == Comparison::Equal {
        return of_family;
    }
    let mask = (net.prefix_len() != whole).then_some(Value::from(mask));
    let compare = Expr::Compare { field, mask, comparison, value: Value::from(net.network()) };
    Expr::All(vec![of_family, compare])
}

fn masked(field: Field, value: u32, mask: u32, comparison: Comparison) -> Expr {
    let mask_value = (mask != u32::MAX).then_some(Value::Mark(mask));
    Expr::Compare { field, mask: mask_value, comparison, value: Value::Mark(value & mask) }
}

fn of_groups(field: Field, group: u32, mask: u32) -> Expr {
    let value = Value::Group(group & mask);
    Expr::Compare { field, mask: Some(Value::Group(mask)), comparison: Comparison::Equal, value }
}

fn any_of(field: Field, bits: u32) -> Expr {
    Expr::Compare {
        field,
        mask: Some(Value::Mark(bits)),
        comparison: Comparison::Different,
        value: Value::Mark(0),
    }
}
