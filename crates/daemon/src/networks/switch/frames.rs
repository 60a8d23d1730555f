//! Which frames a switch takes: the nf_tables rules of the family bridge, one table in the host's namespace and one in
//! that of each tenant with switches.
//!
//! Nothing of a switch enters the host's or the tenant's own stack: neither has an address there, but both would
//! answer ARP for those that they have elsewhere (`arp_ignore`, ip-sysctl.rst), and take packets for them. An endpoint
//! says nothing to the switches outside: a frame with a tag of its own would come out in another VLAN, and a message
//! of the spanning tree could change the tree. The kernel's own BPDU guard needs a bridge that runs the protocol,
//! whose every new port is silent for twice the forward delay (br_stp_rcv, br_make_forwarding in net/bridge):
//! endpoints would be too.

use std::time::Duration;

use fief_host::HostError;
use fief_host::devices;
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::nft::idiom;
use fief_host::nft::{
    ChainKind, Comparison, Element, Expr, Family, Field, Hook, HookPoint, Set, Table, Type, Value, Verdict,
    keys,
};
use fief_host::teeth::is_off;

use super::super::rules::{self, TABLE};
use super::super::wanted::Space;

/// Before everything else that looks at frames, br_netfilter included (NF_BR_PRI_* of linux/netfilter_bridge.h).
const FIRST: i32 = -400;
/// IEEE 802.1D: to the next bridge and no further, the last four bits free. The first of them is the spanning tree's.
const LINK_LOCAL: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
const LINK_LOCAL_MASK: [u8; 6] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xf0];
/// Where Cisco's switches send theirs, one for each VLAN.
const PER_VLAN: [u8; 6] = [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd];
/// IEEE 802.1Q and 802.1ad tags, and what was used for the latter before.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// IPv4, ARP, IPv6.
const PROTOCOLS: [u16; 3] = [0x0800, 0x0806, 0x86dd];
/// How long an endpoint that spoke the spanning tree's language is left alone: what switches are shipped with.
pub const PAUSE: Duration = Duration::from_secs(300);
const GUARDED: &str = "guarded";

/// On the host; `ports` are those of every switch, by number.
pub fn of_host(ports: impl Iterator<Item = u32>) -> Table {
    let mut table = Table::new(Family::Bridge, TABLE);
    let set = Set::new("ports", &[Type::Ifindex]);
    table.set(&set, ports.map(|port| Element::new(&[Value::Ifindex(port)])).collect());
    table.base_chain("to-host", Hook::new(ChainKind::Filter, HookPoint::Input, FIRST));
    let is_port = || idiom::in_set(&[Field::Iif], &set);
    let mut own = vec![is_port(), is_link_local()];
    own.extend(PROTOCOLS.map(|protocol| idiom::is_not(Field::EtherType, two(protocol))));
    own.push(idiom::accept());
    table.rule("to-host", &own, Some("spanning tree, LLDP and the like are the device's own"));
    if !is_off("switch-host") {
        let other = [is_port(), Expr::Counter, idiom::drop()];
        table.rule("to-host", &other, Some("nothing leads from a switch to the host"));
    }
    table
}

/// In a tenant's namespace; `None` for one without switches.
pub fn of_space(space: &Space) -> Option<Table> {
    let mut sides: Vec<(&str, &str)> = Vec::new();
    for segment in space.segments.values() {
        let Some(cable) = &segment.cable else { continue };
        sides.push((&cable.inner, "from-uplink"));
        sides.extend(segment.ports.keys().map(|port| (port.as_str(), "from-endpoint")));
    }
    if sides.is_empty() {
        return None;
    }
    let mut table = Table::new(Family::Bridge, TABLE);
    for chain in ["from-uplink", "from-endpoint"] {
        table.chain(chain);
    }
    let guarded = Set::new(GUARDED, &[Type::Ifindex]).remembering(PAUSE);
    table.set(&guarded, Vec::new());
    let switched = Set::new("switched", &[Type::Ifname]);
    let name = |port: &str| [Value::Ifname(port.to_owned())];
    table.set(&switched, sides.iter().map(|(port, _)| Element::new(&name(port))).collect());
    let by_side = Set::new("sides", &[Type::Ifname]).verdict_map();
    let to =
        |(port, chain): &(&str, &str)| Element::new(&name(port)).to_verdict(Verdict::Goto((*chain).into()));
    table.set(&by_side, sides.iter().map(to).collect());

    table.base_chain("arriving", Hook::new(ChainKind::Filter, HookPoint::Prerouting, FIRST));
    table.rule("arriving", &[idiom::verdict_by(&[Field::IifName], &by_side)], None);
    let is_guarded = |field| idiom::in_set(&[field], &guarded);
    let lost = [is_guarded(Field::Iif), Expr::Counter, idiom::drop()];
    table.rule("from-endpoint", &lost, Some("it spoke the spanning tree's language"));
    for address in [LINK_LOCAL, PER_VLAN] {
        let remember = Expr::Remember { field: Field::Iif, set: GUARDED.into() };
        let to_tree = idiom::is(Field::EtherDestination, Value::Ether(address));
        if !is_off("switch-guard") {
            table.rule(
                "from-endpoint",
                &[to_tree, remember, Expr::Counter, idiom::drop()],
                Some("BPDU guard"),
            );
        }
    }
    for chain in ["from-endpoint", "from-uplink"] {
        if !is_off("switch-guard") {
            let near = [is_link_local(), Expr::Counter, idiom::drop()];
            table.rule(chain, &near, Some("to the next bridge and no further"));
        }
        for tag in TAGS.into_iter().filter(|_| !is_off("switch-tag")) {
            let tagged = [idiom::is(Field::EtherTypeOnWire, two(tag)), Expr::Counter, idiom::drop()];
            table.rule(chain, &tagged, Some("endpoints are in one VLAN"));
        }
    }
    table.base_chain("leaving", Hook::new(ChainKind::Filter, HookPoint::Forward, FIRST));
    let lost = [is_guarded(Field::Oif), Expr::Counter, idiom::drop()];
    table.rule("leaving", &lost, Some("nor does it hear anything"));
    if !is_off("switch-gateway") {
        table.base_chain("to-gateway", Hook::new(ChainKind::Filter, HookPoint::Input, FIRST));
        let own = [idiom::in_set(&[Field::IifName], &switched), Expr::Counter, idiom::drop()];
        table.rule("to-gateway", &own, Some("a switch has no gateway"));
    }
    Some(table)
}

/// Has the endpoint at this port spoken the spanning tree's language?
pub fn is_guarded(namespace: &Namespace, port: &str) -> Result<bool, HostError> {
    let mut route = Socket::open_in(namespace, libc::NETLINK_ROUTE)?;
    let Some(index) = devices::index_of(&mut route, port)? else { return Ok(false) };
    let mut netfilter = Socket::open_in(namespace, libc::NETLINK_NETFILTER)?;
    let there = keys(Family::Bridge, TABLE, GUARDED, &mut netfilter)?;
    Ok(there.iter().any(|key| key.as_slice() == index.to_ne_bytes()))
}

/// Makes a table of frames so; `before` is what stands. Says whether anything was done.
pub(super) fn set(before: Option<&Table>, table: &Table, socket: &mut Socket) -> Result<bool, HostError> {
    rules::set(before, table, socket).map_err(|error| match error.errno() {
        // A module that the kernel has not, or did not find (nft_meta_get_init, nf_tables_newchain).
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => HostError::Missing(format!(
            "a switch needs nf_tables for bridges: load the module nft_meta_bridge, if this kernel has it ({error})"
        )),
        _ => error,
    })
}

fn is_link_local() -> Expr {
    Expr::Compare {
        field: Field::EtherDestination,
        mask: Some(Value::Ether(LINK_LOCAL_MASK)),
        comparison: Comparison::Equal,
        value: Value::Ether(LINK_LOCAL),
    }
}

fn two(number: u16) -> Value {
    Value::Bytes(number.to_be_bytes().to_vec())
}
