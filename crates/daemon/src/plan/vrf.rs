//! VRFs: a device for each tenant with `isolation: vrf`, above its interfaces (Documentation/networking/vrf.rst).
//!
//! Everything that `fib` has stays: the table, the mark, the tree, the programs. What the device adds is the kernel's own
//! separation of local addresses, ports and connections. The kernel keeps the local addresses of a VRF's interfaces in
//! the VRF's table, and fief uses the tenant's table for it.
//!
//! The rule that looks into VRFs' tables serves packets without a mark, which are the kernel's own. The kernel makes it with
//! the first VRF of a namespace, once, and leaves it behind; so fief makes one of its own, and takes the kernel's away if
//! fief's VRF brought it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fief_datapath::maps::{ALONE_SHIFT, DeviceName, Exit, VrfAddress};
use fief_datapath::{ALONE, Entries, Owner};
use fief_host::{Change, GROUP, Link, Rule, RuleAction, Vrf};
use fief_model::Slot;

use super::{Desired, Tree};
use crate::observed::Observed;

/// What a tenant's VRF is and stands at.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The device.
    pub vrf: Vrf,
    /// Its index, when it is there.
    pub index: Option<u32>,
    /// What shall be under it, and is there.
    pub ports: BTreeSet<u32>,
}

/// The VRF of a tenant.
pub fn of(tree: &Tree, slot: Slot, name: &str) -> Vrf {
    let table = tree.table_base + u32::from(slot.number());
    Vrf { name: format!("vrf{slot}"), table, alias: format!("fief tenant {name}") }
}

/// Is this device a VRF of fief's?
pub fn is_ours(link: &Link) -> bool {
    link.group == GROUP && link.vrf.is_some() && link.name.starts_with("vrf")
}

/// What is under VRFs of fief's now.
pub fn ports(observed: &Observed) -> impl Iterator<Item = u32> + '_ {
    let vrfs: BTreeSet<u32> = observed.links().filter(|link| is_ours(link)).map(|link| link.index).collect();
    observed.links().filter(move |link| link.master.is_some_and(|m| vrfs.contains(&m))).map(|link| link.index)
}

/// The rule for packets without a mark, if it is to stand: while there are VRFs of fief's, and while there are others whose
/// first one found the kernel's rule gone.
pub fn rule(tree: &Tree, tenants: &HashMap<Slot, Desired>, observed: &Observed) -> Option<Rule> {
    let is_wanted = tenants.values().any(|desired| desired.vrf.is_some());
    let others = tree.vrf_rule_is_ours && observed.links().any(|link| link.vrf.is_some() && !is_ours(link));
    let rule = Rule::everything(Rule::VRF_PREFERENCE, RuleAction::Vrf);
    (is_wanted || others).then_some(rule)
}

/// What comes before all else, what comes when the rules stand, and what goes.
#[derive(Debug, Default)]
pub struct Changes {
    /// New VRFs.
    pub first: Vec<Change>,
    /// Devices that move.
    pub add: Vec<Change>,
    /// What goes.
    pub remove: Vec<Change>,
}

/// From the VRFs that are there to the wanted ones.
pub fn changes(tree: &Tree, tenants: &HashMap<Slot, Desired>, observed: &Observed) -> Changes {
    let mut changes = Changes::default();
    let wanted: BTreeMap<&str, &Wanted> =
        tenants.values().filter_map(|d| d.vrf.as_ref()).map(|w| (w.vrf.name.as_str(), w)).collect();
    let there: BTreeMap<u32, &Link> =
        observed.links().filter(|link| is_ours(link)).map(|link| (link.index, link)).collect();
    for link in there.values() {
        let table = link.vrf.unwrap_or(0);
        match wanted.get(link.name.as_str()) {
            Some(wanted) if wanted.vrf.table == table && !link.up => {
                changes.add.push(Change::RaiseVrf(link.index));
            }
            Some(wanted) if wanted.vrf.table == table => {}
            _ => {
                let vrf = Vrf { name: link.name.clone(), table, alias: String::new() };
                changes.remove.push(Change::DeleteVrf(vrf));
            }
        }
    }
    for wanted in wanted.values() {
        match wanted.index {
            None if observed.link(&wanted.vrf.name).is_none() => {
                changes.first.push(Change::AddVrf(wanted.vrf.clone()));
            }
            None => {}
            Some(vrf) => {
                let free = |port: &&u32| observed.master_of(**port).is_none();
                changes.add.extend(wanted.ports.iter().filter(free).map(|port| Change::Enslave(*port, vrf)));
            }
        }
    }
    let ports: BTreeSet<(u32, u32)> = wanted
        .values()
        .filter_map(|w| Some((w.index?, &w.ports)))
        .flat_map(|(vrf, ports)| ports.iter().map(move |port| (*port, vrf)))
        .collect();
    for link in observed.links() {
        let of_ours = link.master.filter(|master| there.contains_key(master));
        if let Some(vrf) = of_ours.filter(|vrf| !ports.contains(&(link.index, *vrf))) {
            changes.remove.push(Change::Release(link.index, vrf));
        }
    }
    if tree.vrf_rule_is_ours {
        changes.remove.extend(observed.vrf_rules.iter().copied().map(Change::VrfRuleAway));
    }
    changes
}

/// What the datapath is told of a tenant with a VRF.
pub fn enter(slot: u32, desired: &Desired, wanted: &Wanted, observed: &Observed, entries: &mut Entries) {
    let devices = desired.devices.iter().copied().chain(wanted.index);
    entries.vrf_devices.extend(devices.map(|index| (device_name(observed.link_name(index)), slot)));
    if let Some(vrf) = wanted.index {
        entries.defaults.insert(vrf, Owner { slot, ifindex: vrf, flags: ALONE });
        entries.vrfs.insert(slot, vrf);
        entries.exits.insert(Exit { slot, ifindex: vrf });
        entries.devices.insert(vrf, slot << ALONE_SHIFT);
    }
    for (address, _) in &desired.owned {
        let address = match address {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            std::net::IpAddr::V6(v6) => v6.octets(),
        };
        entries.vrf_own.insert(VrfAddress { slot, address });
    }
}

fn device_name(name: &str) -> DeviceName {
    let mut bytes = DeviceName::default();
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
    bytes
}
