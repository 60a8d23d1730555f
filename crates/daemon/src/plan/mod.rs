//! Deciding, without touching anything: documents and what is there in, steps out.
//!
//! [`desire`] says what one tenant's document means on this host as it is now; [`plan`] compares all of them with what
//! was observed. Both are pure: the same input gives the same steps, so a dry run shows exactly what would be done.

pub mod aliases;
pub mod backend;
pub mod desire;
pub mod tree;
pub mod vrf;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use fief_datapath::maps::{
    ALONE_SHIFT, CGROUP_NAME, ETHERNET, Entries, GROUP, Member, NAMED, Name, Node, SELECT_GROUP, SELECT_USER,
    Selector, Step, USER,
};
use fief_host::{Address, Change, Family, Route, RouteKey, Rule};
use fief_model::Slot;
use sha2::{Digest, Sha256};

pub use desire::{Desired, Setting};
pub use tree::Tree;

use crate::networks::Link;
use crate::observed::Observed;
use crate::overlay::fast::is_overlays;

/// What is to be done, in order: switches, entries, `add`, `remove`, entries that go.
#[derive(Debug, Default)]
pub struct Plan {
    /// Switches and their values.
    pub sysctls: Vec<Setting>,
    /// What the maps shall hold at the end.
    pub entries: Entries,
    /// There is no tenant: switches go back, programs and maps go.
    pub is_vacant: bool,
    /// Packets are told apart without marks: there are no programs and no maps.
    pub is_markless: bool,
    /// The devices the programs sit on at the end.
    pub devices: BTreeSet<u32>,
    /// Objects to add or replace, in order.
    pub add: Vec<Change>,
    /// Objects to remove, in order, after everything was added.
    pub remove: Vec<Change>,
}

impl Plan {
    /// Is there nothing to ask of netlink?
    pub fn is_quiet(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// Compares what all tenants desire with what is there.
///
/// `links` lead to tenants' namespaces; their host's ends are told apart from others' by their names.
pub fn plan(tree: &Tree, tenants: &HashMap<Slot, Desired>, links: &[Link], observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let slots: BTreeSet<Slot> = tenants.keys().copied().collect();
    let is_short = tree.short_way && links.iter().any(|link| link.is_there && link.vrf.is_none());
    gather(tree, tenants, is_short, observed, &mut plan);
    let has_vrfs = links.iter().any(|link| link.vrf.is_some());
    let uplinks: BTreeMap<Slot, u8> =
        tenants.iter().filter_map(|(slot, desired)| Some((*slot, desired.uplink?))).collect();
    let wanted_rules = |family: Family| {
        let mut rules = tree.rules(family, &slots, &uplinks);
        if has_vrfs {
            rules.extend(tree.rules_of_vrfs(!slots.is_empty()));
        }
        rules.extend(vrf::rule(tree, tenants, observed));
        rules
    };
    let vrfs = vrf::changes(tree, tenants, observed);
    plan.add.extend(vrfs.first);
    // For each rule that comes or goes, and each address that goes, IPv6 walks all routes of all tables
    // (rt_genid_bump_ipv6, rt6_remove_prefsrc). So routes come last and go first, or thousands of tenants take minutes.
    // Without its routes a tenant's packets fall through its leaf to the guard of its bucket.
    let (mut jumps, mut late_remove) = (Vec::new(), Vec::new());
    for family in observed.families() {
        let there: Vec<Rule> = observed.rules(family).collect();
        let (add, remove) = tree::changes(family, &there, &wanted_rules(family));
        // The ends stand before anything else, so that nothing that follows can be walked past.
        let (ends, rest): (Vec<_>, Vec<_>) = add.into_iter().partition(is_end);
        plan.add.extend(ends);
        jumps.extend(rest);
        late_remove.extend(remove);
    }
    plan.add.extend(jumps);
    plan.add.extend(vrfs.add);
    compare_addresses(tenants, links, observed, &mut plan);
    compare_routes(tree, tenants, links, observed, &mut plan);
    for family in observed.families() {
        let first = observed.local_first.contains(&family);
        match ((tree.move_local && !slots.is_empty()) || has_vrfs, first) {
            (true, true) => plan.add.push(Change::LocalRuleAway(family)),
            (false, false) => plan.add.push(Change::LocalRuleFirst(family)),
            _ => {}
        }
    }
    plan.remove.extend(late_remove);
    plan.remove.extend(vrfs.remove);
    plan.remove.sort_by_key(|change| match change {
        Change::DeleteRoute(_) => 0,
        Change::DeleteAddress(_) => 1,
        Change::Release(..) => 2,
        Change::DeleteVrf(_) => 3,
        _ => 4,
    });
    plan
}

/// Joins what the tenants want of the datapath and adds the host's own addresses.
fn gather(
    tree: &Tree,
    tenants: &HashMap<Slot, Desired>,
    is_short: bool,
    observed: &Observed,
    plan: &mut Plan,
) {
    plan.is_vacant = tenants.is_empty();
    plan.is_markless = tree.field.is_none();
    if plan.is_vacant {
        return;
    }
    let forwards: BTreeSet<u32> = tenants.values().filter_map(|desired| desired.forwards).collect();
    if plan.is_markless {
        let switched = desire::Switched { forwards, is_short, ..desire::Switched::default() };
        plan.sysctls = desire::sysctls(tree, &switched, observed);
        return;
    }
    let entries = &mut plan.entries;
    for address in observed.addresses().filter(|a| !a.ours) {
        let owner = fief_datapath::Owner { slot: 0, ifindex: address.device, flags: 0 };
        // Loopback addresses are the host's without an entry; a link-local one may stand on every device.
        match address.net.addr() {
            IpAddr::V4(a) if !a.is_loopback() => {
                entries.own4.insert(a, owner);
            }
            IpAddr::V6(a) if !a.is_loopback() && !a.is_unicast_link_local() => {
                entries.own6.insert(a, owner);
            }
            _ => {}
        }
    }
    // What leaves by an uplink has lost its mark where the programs look: only the rule tree knows an uplink's number.
    for (slot, desired) in tenants.iter().filter(|(_, desired)| !desired.name.is_empty()) {
        let slot = u32::from(slot.number());
        entries.tenants.insert(slot, desired.flags);
        entries.names.insert(slot, name_of(desired));
        let member = |kind| move |id: &u32| Member { slot, kind, id: *id };
        entries.members.extend(desired.members.users.iter().map(member(USER)));
        entries.members.extend(desired.members.groups.iter().map(member(GROUP)));
        let selector = |kind| move |id: &u32| (Selector { kind, id: *id }, slot);
        entries.selectors.extend(desired.selected.users.iter().map(selector(SELECT_USER)));
        entries.selectors.extend(desired.selected.groups.iter().map(selector(SELECT_GROUP)));
        desired.cgroups.iter().for_each(|path| select_path(&mut entries.paths, path, slot));
        for device in &desired.devices {
            entries.exits.insert(fief_datapath::maps::Exit { slot, ifindex: *device });
            plan.devices.insert(*device);
        }
        match &desired.vrf {
            Some(wanted) => vrf::enter(slot, desired, wanted, observed, entries),
            None => desired.owned.iter().for_each(|(address, owner)| match address {
                IpAddr::V4(a) => drop(entries.own4.insert(*a, *owner)),
                IpAddr::V6(a) => drop(entries.own6.insert(*a, *owner)),
            }),
        }
        entries.defaults.extend(desired.defaults.iter().map(|o| (o.ifindex, *o)));
        entries.neighbours.extend(desired.neighbours.iter().copied());
    }
    let flags = |device: &u32| match observed.is_ethernet(*device) {
        true => NAMED | ETHERNET,
        false => NAMED,
    };
    plan.entries.devices.extend(plan.devices.iter().map(|device| (*device, flags(device))));
    let with_vrf = tenants.iter().filter(|(_, desired)| desired.vrf.is_some());
    for (slot, desired) in with_vrf.clone() {
        for device in &desired.devices {
            *plan.entries.devices.entry(*device).or_default() |= u32::from(slot.number()) << ALONE_SHIFT;
        }
    }
    let under_vrfs = with_vrf.flat_map(|(_, desired)| desired.devices.iter().copied()).collect();
    let has_vrf = tenants.values().any(|desired| desired.vrf.is_some());
    let switched =
        desire::Switched { devices: plan.devices.clone(), forwards, under_vrfs, has_vrf, is_short };
    plan.sysctls = desire::sysctls(tree, &switched, observed);
}

/// Enters a path, step by step. A node is numbered by the path to it, so that it is the same in every plan.
fn select_path(paths: &mut HashMap<Step, Node>, path: &[String], slot: u32) {
    let mut above = 0;
    for (at, name) in path.iter().enumerate() {
        let mut step = Step { above, name: [0; CGROUP_NAME] };
        step.name.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
        let digest = Sha256::new().chain_update(above.to_ne_bytes()).chain_update(name).finalize();
        let id = digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)) | 1;
        let node = paths.entry(step).or_insert(Node { id, slot: 0, pad: 0 });
        if at + 1 == path.len() {
            node.slot = slot;
        }
        above = id;
    }
}

/// A name is at most 63 bytes (RFC 1123), so a zero is behind it.
fn name_of(desired: &Desired) -> Name {
    let mut name = [0; 64];
    name.iter_mut().zip(desired.name.bytes()).for_each(|(to, byte)| *to = byte);
    name
}

fn compare_addresses(tenants: &HashMap<Slot, Desired>, links: &[Link], observed: &Observed, plan: &mut Plan) {
    let of_links = links.iter().filter_map(|link| link.address(observed));
    let wanted: HashSet<Address> =
        tenants.values().flat_map(|d| d.addresses.iter().copied()).chain(of_links).collect();
    let mut missing: Vec<Address> = wanted.iter().filter(|a| !observed.has_address(a)).copied().collect();
    let mut surplus: Vec<Address> = observed.addresses().filter(|a| a.ours && !wanted.contains(a)).collect();
    missing.sort_by_key(|a| (a.device, a.net));
    surplus.sort_by_key(|a| (a.device, a.net));
    plan.remove.extend(surplus.iter().copied().map(Change::DeleteAddress));
    // An address that moves between devices must leave the one before it can be on the other.
    let moving = |a: &Address| missing.iter().any(|m| m.net == a.net);
    let (moves, _): (Vec<_>, Vec<_>) = surplus.iter().partition(|a| missing.len() < 64 && moving(a));
    plan.add.extend(moves.into_iter().copied().map(Change::DeleteAddress));
    plan.add.extend(missing.into_iter().map(Change::AddAddress));
}

fn compare_routes(
    tree: &Tree,
    tenants: &HashMap<Slot, Desired>,
    links: &[Link],
    observed: &Observed,
    plan: &mut Plan,
) {
    let mut wanted = HashSet::<RouteKey>::new();
    let mut want = |route: Route, plan: &mut Plan| {
        wanted.insert(route.key());
        if observed.route(&route.key()) != Some(&route) {
            plan.add.push(Change::SetRoute(route));
        }
    };
    aliases::routes(tree, tenants, observed).into_iter().for_each(|route| want(route, plan));
    // Beside the aliases': packets that no tenant has marked find their way to a link there.
    for route in links.iter().flat_map(|link| link.routes(observed)) {
        want(Route { table: tree.table_base, ..route }, plan);
    }
    links.iter().flat_map(|link| link.inside(observed)).for_each(|route| want(route, plan));
    let mut slots: Vec<&Slot> = tenants.keys().collect();
    slots.sort();
    for slot in slots {
        let table = tree.table_base + u32::from(slot.number());
        for route in &tenants[slot].routes {
            want(Route { table, ..route.clone() }, plan);
        }
    }
    let is_surplus = |route: &&Route| !wanted.contains(&route.key()) && !is_overlays(route);
    let mut surplus: Vec<&Route> = observed.routes().filter(is_surplus).collect();
    surplus.sort_by_key(|r| r.key());
    plan.remove.extend(surplus.into_iter().cloned().map(Change::DeleteRoute));
}

fn is_end(change: &Change) -> bool {
    matches!(change, Change::AddRule(_, rule) if rule.action == fief_host::RuleAction::Unreachable)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
