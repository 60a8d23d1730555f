//! The nf_tables rules of networks: one table in the host's namespace, one in each tenant's.
//!
//! They translate addresses, which the bpf programs do not, and they say what may pass a link. What grows with the
//! number of tenants is in sets and maps; the rules are the same for one and for thousands. Where only elements differ only
//! they come and go, and all changes of a table are one transaction, so no packet meets half of it. Connections that are
//! under way stay translated: that is in connection tracking, not in the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use fief_host::HostError;
use fief_host::netlink::Socket;
use fief_host::nft::idiom::{self, state};
use fief_host::nft::{
    ChainKind, Direction, Element, Expr, Family, Field, Hook, HookPoint, Key, Reject, Set, Table, Type,
    Value, Verdict,
};
use fief_host::teeth::is_off;
use fief_marks::Positions;
use ipnet::{IpNet, Ipv4Net};

use super::links::{DOOR, GROUP, INSIDE, KIND, Links, TRANSIT};
use super::wanted::{Exit, Space};

/// The table's name, in every namespace.
pub const TABLE: &str = "fief";

/// NF_IP_PRI_RAW, before connection tracking (linux/netfilter_ipv4.h).
pub const RAW: i32 = -300;
const MANGLE: i32 = -150;
pub const DSTNAT: i32 = -100;
pub const FILTER: i32 = 0;
pub const SRCNAT: i32 = 100;
/// Behind source translation, before the datapath's last look at 300.
const LAST: i32 = 200;

/// What a port map is found by.
pub const BY_PORT: [Field; 3] = [Field::IpDestination, Field::L4Proto, Field::DestinationPort];

/// The host's side of all links.
#[derive(Debug, PartialEq, Eq)]
pub struct HostRules {
    /// The range of links.
    pub links: Links,
    /// Where the slot stands in marks; `None` where fief writes none, and rules ask for sources instead.
    pub positions: Option<Positions>,
    /// Does the host's `local` rule stand behind the tree? Then one uplink reaches another's address over the wire.
    pub local_moved: bool,
    /// Uplinks that are there.
    pub exits: BTreeMap<String, Exit>,
    /// Devices whose forwarding fief switched on: nothing else may be forwarded from there.
    pub closed: BTreeSet<u32>,
}

/// What one tenant adds to the host's sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfTenant {
    /// By whose end of which link packets come, with which source, and the number of the uplink for it.
    pub sources: BTreeMap<(u32, Ipv4Addr), u16>,
    /// Ports of uplinks.
    pub called: BTreeMap<(Ipv4Addr, u8, u16), Ipv4Addr>,
    /// Sources that mean somebody else behind an address of a link.
    pub collisions: BTreeSet<(Ipv4Net, Ipv4Addr)>,
}

impl OfTenant {
    /// With what another one adds.
    pub fn extend(&mut self, other: OfTenant) {
        self.sources.extend(other.sources);
        self.called.extend(other.called);
        self.collisions.extend(other.collisions);
    }
}

impl HostRules {
    /// The table, with all that tenants add.
    pub fn table(&self, tenants: &OfTenant) -> Table {
        let mut table = Table::new(Family::Inet, TABLE);
        table.base_chain("from-tenants", Hook::new(ChainKind::Filter, HookPoint::Prerouting, MANGLE));
        self.not_from_elsewhere(&mut table);
        for (set, elements) in self.elements(tenants) {
            table.set(&set, elements);
        }
        match self.positions {
            Some(positions) => self.mark_by_source(&mut table, positions),
            None => self.pass_by_source(&mut table),
        }
        if self.positions.is_some() {
            self.mark_by_uplink(&mut table);
        }
        self.filter(&mut table);
        self.translate(&mut table);
        table
    }

    /// The sets that grow with tenants, and what these add to them.
    pub fn elements(&self, tenants: &OfTenant) -> [(Set, Vec<Element>); 3] {
        let sources = tenants.sources.iter().map(|((device, address), number)| {
            let element = Element::new(&[Value::Ifindex(*device), Value::Ipv4(*address)]);
            match self.positions {
                Some(_) => element.to_verdict(Verdict::Goto(via(*number))),
                None => element,
            }
        });
        let foreign = tenants
            .collisions
            .iter()
            .map(|(net, to)| Element::of(&[Key::Prefix(IpNet::V4(*net)), Key::Value(Value::Ipv4(*to))]));
        [
            (self.sources(), sources.collect()),
            (called(), ports(&tenants.called, |inside| vec![Value::Ipv4(*inside)])),
            (collisions(), foreign.collect()),
        ]
    }

    /// Whose packet it is.
    fn sources(&self) -> Set {
        let key = [Type::Ifindex, Type::Ipv4];
        match self.positions {
            Some(_) => Set::new("sources", &key).verdict_map(),
            None => Set::new("known", &key),
        }
    }

    /// Sources of links come from links: who sends with one by a wire would leave as a tenant does, where the host forwards.
    fn not_from_elsewhere(&self, table: &mut Table) {
        not_here(table, "from-tenants", idiom::iifgroup_in);
        let links = || idiom::source_in(IpNet::V4(self.links.0));
        let foreign = [
            links(),
            idiom::source_not_in(IpNet::V4(self.links.of_host())),
            idiom::is_not(Field::IifGroup, Value::Group(GROUP)),
            Expr::Counter,
            idiom::drop(),
        ];
        wall(table, "net-wire", "from-tenants", &foreign, Some("a tenant's source that comes by no link"));
    }

    /// What comes from a tenant's namespace is marked with the uplink that its source stands for; nothing else comes.
    fn mark_by_source(&self, table: &mut Table, positions: Positions) {
        let numbers: BTreeSet<u16> = self.exits.values().map(|exit| exit.uplink.slot.number()).collect();
        for number in &numbers {
            let chain = via(*number);
            table.chain(&chain);
            let mark = positions.with(0, *number).unwrap_or(0);
            let rule = [idiom::set_mark(mark, positions.mask()), idiom::accept()];
            table.rule(&chain, &rule, None);
        }
        let by_source = idiom::verdict_by(&[Field::Iif, Field::IpSource], &self.sources());
        let known = [idiom::iifgroup_is(GROUP), v4(), by_source];
        table.rule("from-tenants", &known, Some("whose packet it is, and by which uplink it leaves"));
        no_other_source(table);
        // The route is chosen; from here on the packet is the host's, with an address of the host's.
        table.base_chain("leaving", Hook::new(ChainKind::Filter, HookPoint::Postrouting, LAST));
        for number in &numbers {
            let mark = positions.with(0, *number).unwrap_or(0);
            let mask = positions.mask();
            table.rule("leaving", &[idiom::mark_is(mark, mask), idiom::set_mark(0, mask)], None);
        }
    }

    /// What comes from a tenant's namespace has a source that says by which uplink it leaves; nothing else comes.
    fn pass_by_source(&self, table: &mut Table) {
        let is_known = idiom::in_set(&[Field::Iif, Field::IpSource], &self.sources());
        let known = [idiom::iifgroup_is(GROUP), v4(), is_known, idiom::accept()];
        table.rule("from-tenants", &known, Some("whose packet it is, and by which uplink it leaves"));
        no_other_source(table);
    }

    /// What comes in by an uplink for tenants is marked with that uplink as well: only its table knows the way back, where
    /// the host asks whether the sender can be there at all (reverse path, and addresses of the host itself). Without marks
    /// it asks with the tenant's address for the source (__fib_validate_source), for which there is a rule.
    fn mark_by_uplink(&self, table: &mut Table) {
        let uplinks = Set::new("uplinks", &[Type::Ifindex]).verdict_map();
        let there = self.exits.values().filter_map(|exit| Some((exit.device?, exit.uplink.slot.number())));
        let elements = there.map(|(device, number)| {
            Element::new(&[Value::Ifindex(device)]).to_verdict(Verdict::Goto(via(number)))
        });
        table.set(&uplinks, elements.collect::<Vec<_>>());
        let by_device = || idiom::verdict_by(&[Field::Iif], &uplinks);
        let is_tenants = idiom::ct_original_source_in(self.links.0);
        let answer = [v4(), idiom::ct_is_original(false), is_tenants, by_device()];
        table.rule("from-tenants", &answer, Some("answers to tenants"));
        let call = [v4(), idiom::in_set(&BY_PORT, &called()), by_device()];
        table.rule("from-tenants", &call, Some("port maps"));
    }

    /// A tenant's packet to another uplink's address leaves by its own uplink, and comes back if the world wants it.
    fn keep_apart(&self, table: &mut Table) {
        for exit in self.exits.values() {
            let mark = |positions: Positions| {
                let mark = positions.with(0, exit.uplink.slot.number()).unwrap_or(0);
                idiom::mark_is(mark, positions.mask())
            };
            let source = || idiom::source_in(IpNet::V4(self.links.of_uplink(exit.uplink.index)));
            for address in &exit.addresses {
                let own = [
                    idiom::iifgroup_is(GROUP),
                    self.positions.map_or_else(source, mark),
                    idiom::destination_in(IpNet::from(std::net::IpAddr::V4(*address))),
                    idiom::dnat_from_map(&called(), &BY_PORT),
                ];
                table.rule("called", &own, Some("port maps of the uplink in use"));
            }
        }
        wall(table, "net-apart", "called", &[idiom::iifgroup_is(GROUP), idiom::accept()], None);
    }

    fn filter(&self, table: &mut Table) {
        let replies = state::ESTABLISHED | state::RELATED;
        table.base_chain("to-host", Hook::new(ChainKind::Filter, HookPoint::Input, FILTER));
        let answer = [idiom::iifgroup_is(GROUP), idiom::ct_state_in(replies), idiom::accept()];
        table.rule("to-host", &answer, Some("answers to the host"));
        let other = [idiom::iifgroup_is(GROUP), Expr::Counter, idiom::drop()];
        wall(table, "net-host", "to-host", &other, Some("nothing leads from a tenant to the host"));

        table.base_chain("through-host", Hook::new(ChainKind::Filter, HookPoint::Forward, FILTER));
        // A namespace does not see the uplink, which may take less than the link to there.
        let clamp = |of_tenants| [of_tenants, idiom::clamp_mss()];
        table.rule(
            "through-host",
            &clamp(idiom::iifgroup_is(GROUP)),
            Some("segments as the uplink takes them"),
        );
        table.rule("through-host", &clamp(idiom::oifgroup_is(GROUP)), None);
        let onto = |more: &[Expr]| {
            let mut rule = vec![idiom::oifgroup_is(GROUP)];
            rule.extend_from_slice(more);
            rule
        };
        let known = onto(&[idiom::ct_state_in(replies), idiom::accept()]);
        table.rule("through-host", &known, Some("answers"));
        table.rule("through-host", &onto(&[idiom::ct_is_dnat(), idiom::accept()]), Some("port maps"));
        let other = onto(&[Expr::Counter, idiom::drop()]);
        wall(table, "net-through", "through-host", &other, Some("nothing else leads to a tenant"));
        for device in &self.closed {
            let rule = [idiom::iif_is(*device), Expr::Counter, idiom::drop()];
            wall(
                table,
                "net-closed",
                "through-host",
                &rule,
                Some("this device forwarded nothing before fief"),
            );
        }
    }

    fn translate(&self, table: &mut Table) {
        for (chain, point) in [("called", HookPoint::Prerouting), ("called-here", HookPoint::Output)] {
            table.base_chain(chain, Hook::new(ChainKind::Nat, point, DSTNAT));
            let in_a_vrf = if point == HookPoint::Output { idiom::oifgroup_in } else { idiom::iifgroup_in };
            not_here(table, chain, in_a_vrf);
            if self.local_moved && chain == "called" {
                self.keep_apart(table);
            }
            table.rule(chain, &[idiom::dnat_from_map(&called(), &BY_PORT)], Some("port maps"));
        }
        table.base_chain("behind", Hook::new(ChainKind::Nat, HookPoint::Postrouting, SRCNAT));
        not_here(table, "behind", idiom::oifgroup_in);
        let tenants = [idiom::source_in(IpNet::V4(self.links.0)), Expr::Masquerade];
        table.rule("behind", &tenants, Some("tenants, behind the address of whatever they leave by"));
        let fields = [Field::IpSource, Field::IpDestination];
        let foreign = [v4(), idiom::in_set(&fields, &collisions()), Expr::Masquerade];
        wall(
            table,
            "net-collision",
            "behind",
            &foreign,
            Some("a caller who has an address that the tenant has as well"),
        );
    }
}

/// Makes a table in a namespace that has none yet.
pub fn make(table: &Table, socket: &mut Socket) -> Result<(), HostError> {
    table.first().commit(socket)
}

/// Makes a table so, in the socket's namespace; `before` is what stands there, if that is known. Says whether anything was
/// done.
pub fn set(before: Option<&Table>, table: &Table, socket: &mut Socket) -> Result<bool, HostError> {
    let batch = match before {
        Some(before) => table.from(before),
        // One that an earlier daemon left is left alone if it is the same.
        None if table.stands(socket) => return Ok(false),
        None => table.whole(),
    };
    let did = !batch.is_empty();
    // Elements that are not there, or there already: somebody else was at the table.
    if did && batch.commit(socket).is_err() {
        table.whole().commit(socket)?;
    }
    Ok(did)
}

/// A tenant's namespace.
pub fn space(space: &Space) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    for (chain, point) in [("zone", HookPoint::Prerouting), ("zone-here", HookPoint::Output)] {
        table.base_chain(chain, Hook::new(ChainKind::Filter, point, RAW));
        let zone = idiom::set_zone(Direction::Both, space.slot.number());
        wall(&mut table, "net-zone", chain, &[zone], Some("the tenant's number"));
    }
    if space.transit.is_empty() {
        return table;
    }
    let exits = Set::new("exits", &[Type::Ipv4]).map(&[Type::Ipv4]).with_intervals();
    let elements = space.segments.values().filter_map(|segment| {
        let exit = segment.exit?;
        Some(Element::prefix(IpNet::V4(segment.services.subnet)).to(&[Value::Ipv4(exit)]))
    });
    table.set(&exits, elements.collect::<Vec<_>>());
    let mapped = Set::new("mapped", &[Type::Ipv4, Type::Protocol, Type::Port]).map(&[Type::Ipv4, Type::Port]);
    table.set(&mapped, ports(&space.mapped, |(to, port)| vec![Value::Ipv4(*to), Value::Port(*port)]));

    let (inwards, outwards) = (|| idiom::iifname_is(TRANSIT), || idiom::oifname_is(TRANSIT));
    let replies = state::ESTABLISHED | state::RELATED;
    table.base_chain("called", Hook::new(ChainKind::Nat, HookPoint::Prerouting, DSTNAT));
    let to_endpoints = [inwards(), v4(), idiom::dnat_from_map(&mapped, &BY_PORT)];
    table.rule("called", &to_endpoints, Some("port maps"));

    table.base_chain("through", Hook::new(ChainKind::Filter, HookPoint::Forward, FILTER));
    table.rule("through", &[outwards(), idiom::clamp_mss()], None);
    table.rule("through", &[inwards(), idiom::clamp_mss()], None);
    for segment in space.segments.values() {
        let Some(bytes) = segment.mss else { continue };
        for net in segment.gateways.iter().map(IpNet::trunc) {
            let least = || idiom::clamp_mss_to(bytes);
            table.rule("through", &[outwards(), idiom::source_in(net), least()], None);
            table.rule("through", &[inwards(), idiom::destination_in(net), least()], None);
        }
    }
    table.rule("through", &[inwards(), idiom::ct_state_in(replies), idiom::accept()], Some("answers"));
    table.rule("through", &[inwards(), idiom::ct_is_dnat(), idiom::accept()], Some("port maps"));
    wall(
        &mut table,
        "net-inwards",
        "through",
        &[inwards(), Expr::Counter, idiom::drop()],
        Some("nothing else comes in"),
    );
    let lost =
        [outwards(), v4(), idiom::not_in_set(&[Field::IpSource], &exits), Expr::Reject(Reject::NoRoute)];
    wall(&mut table, "net-exit", "through", &lost, Some("a network without a way out"));

    table.base_chain("to-gateway", Hook::new(ChainKind::Filter, HookPoint::Input, FILTER));
    table.rule("to-gateway", &[inwards(), idiom::ct_state_in(replies), idiom::accept()], Some("answers"));
    wall(
        &mut table,
        "net-gateway",
        "to-gateway",
        &[inwards(), Expr::Counter, idiom::drop()],
        Some("services are for endpoints"),
    );

    table.base_chain("behind", Hook::new(ChainKind::Nat, HookPoint::Postrouting, SRCNAT));
    let translated = [outwards(), v4(), idiom::snat_to_map(&exits, &[Field::IpSource])];
    table.rule("behind", &translated, Some("the uplink in use"));
    table
}

fn no_other_source(table: &mut Table) {
    let unknown = [idiom::iifgroup_is(GROUP), Expr::Counter, idiom::drop()];
    wall(table, "net-source", "from-tenants", &unknown, Some("a source that no tenant has"));
}

/// Adds a rule that keeps something out.
pub fn wall(table: &mut Table, tooth: &str, chain: &str, rule: &[Expr], comment: Option<&str>) {
    if !is_off(tooth) {
        table.rule(chain, rule, comment);
    }
}

pub fn ports<T>(map: &BTreeMap<(Ipv4Addr, u8, u16), T>, to: impl Fn(&T) -> Vec<Value>) -> Vec<Element> {
    let key = |(address, protocol, port): &(Ipv4Addr, u8, u16)| {
        [Value::Ipv4(*address), Value::Protocol(*protocol), Value::Port(*port)]
    };
    map.iter().map(|(at, target)| Element::new(&key(at)).to(&to(target))).collect()
}

/// Ports of uplinks, and the addresses of links that they lead to.
fn called() -> Set {
    Set::new("called", &[Type::Ipv4, Type::Protocol, Type::Port]).map(&[Type::Ipv4])
}

/// Addresses that a tenant has, and the end of its link: callers from there are not the ones that it means.
fn collisions() -> Set {
    Set::new("collisions", &[Type::Ipv4, Type::Ipv4]).with_intervals()
}

pub fn v4() -> Expr {
    idiom::family_is(fief_host::Family::V4)
}

/// What is in a tenant's VRF is not the host's to translate.
fn not_here(table: &mut Table, chain: &str, is_group: impl Fn(u32, u32) -> Expr) {
    for kind in [INSIDE, DOOR] {
        table.rule(chain, &[is_group(kind, KIND), idiom::accept()], None);
    }
}

fn via(number: u16) -> String {
    format!("via-{number}")
}
