//! Plans carried out on a host in memory.

use fief_datapath::aliases::Ranges;
use fief_host::Detour;
use std::collections::HashMap;

use fief_host::fake::FakeHost;
use fief_host::{Address, Family, Host, Link};
use fief_marks::MarkLayout;
use fief_model::{Document, Slot, Source, Tenant};

use super::desire::desire;
use super::*;
use crate::observed::Observed;
use crate::store::{MemberIds, Stored};

fn tree(move_local: bool) -> Tree {
    Tree {
        field: Some((MarkLayout::default(), 0)),
        links: crate::networks::links::Links("248.0.0.0/12".parse().unwrap()),
        also: None,
        entry: 10,
        table_base: 256_000_000,
        move_local,
        vrf_rule_is_ours: true,
        aliases: Ranges { v4: "240.0.0.0/5".parse().unwrap(), v6: "fd00::/64".parse().unwrap() },
        detour: Detour(1),
        short_way: true,
    }
}

fn tenant(number: u16, extra: &str) -> Tenant {
    let text = format!(
        "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: t{number} }}\nspec:\n  interfaces:\n    \
         - {{ name: eth0, addresses: [10.1.{}.{}/16, \"2001:db8::{number:x}/64\"] }}\n  routes:\n    \
         - {{ to: default, via: 10.1.255.254 }}\n{extra}",
        number / 200,
        number % 200 + 1,
    );
    let located = fief_model::parse(&[Source { name: "test".into(), text }]).unwrap().remove(0);
    let Document::Tenant(tenant) = located.document else { panic!("a tenant") };
    tenant
}

fn host() -> FakeHost {
    let link = |index, name: &str, loopback| Link {
        index,
        name: name.into(),
        up: true,
        carrier: true,
        loopback,
        ethernet: true,
        ..Link::default()
    };
    let mut host = FakeHost::default();
    host.listing.links = vec![link(1, "lo", true), link(2, "eth0", false), link(3, "eth1", false)];
    host.listing.addresses = vec![Address { device: 2, net: "192.0.2.1/24".parse().unwrap(), ours: false }];
    host.listing.local_first = Family::BOTH.to_vec();
    host
}

fn planned(tree: &Tree, tenants: &[(u16, Tenant)], host: &mut FakeHost) -> (Plan, HashMap<Slot, Desired>) {
    let mut observed = Observed::from_listing(host.list().unwrap(), Default::default());
    observed.has_ipv6 = true;
    let desired: HashMap<Slot, Desired> = tenants
        .iter()
        .map(|(number, tenant)| {
            let slot = Slot::new(*number).unwrap();
            let members = MemberIds::default();
            let stored = Stored {
                tenant: tenant.clone(),
                set: String::new(),
                slot,
                members,
                selected: MemberIds::default(),
            };
            let has_vrf = tenant.spec.isolation == fief_model::Isolation::Vrf;
            (slot, desire(tree, &stored, &observed, has_vrf))
        })
        .collect();
    (plan(tree, &desired, &[], &observed), desired)
}

/// Carries one plan out and demands that nothing is left to do.
fn settle(tree: &Tree, tenants: &[(u16, Tenant)], host: &mut FakeHost) {
    let (plan, _) = planned(tree, tenants, host);
    for change in plan.add.iter().chain(&plan.remove) {
        host.change(std::slice::from_ref(change)).remove(0).unwrap();
    }
    let (again, _) = planned(tree, tenants, host);
    assert!(again.is_quiet(), "still to do: {:?} {:?}", again.add, again.remove);
}

#[test]
fn vrfs_are_asked_before_the_hosts_own_addresses_and_leave_the_rules_as_they_were() {
    let vrf = |number: u16| crate::networks::Link {
        slot: Slot::new(number).unwrap(),
        device: format!("fief{number}"),
        gateway: "248.0.0.1".parse().unwrap(),
        transit: vec!["248.1.0.1".parse().unwrap()],
        is_there: false,
        vrf: Some(256_000_000 + u32::from(number)),
        source: None,
    };
    for (move_local, tenants) in [(false, 0), (true, 0), (false, 3), (true, 3)] {
        let tree = tree(move_local);
        let (mut host, tenants) = (host(), (1..=tenants).map(|n| (n, tenant(n, ""))).collect::<Vec<_>>());
        settle(&tree, &tenants, &mut host);
        let before = (host.listing.rules.clone(), host.listing.local_first.clone());
        for links in [&[vrf(7), vrf(8)][..], &[vrf(8)], &[]] {
            let planned = |host: &mut FakeHost| {
                let (_, desired) = planned(&tree, &tenants, host);
                let mut observed = Observed::from_listing(host.list().unwrap(), Default::default());
                observed.has_ipv6 = true;
                plan(&tree, &desired, links, &observed)
            };
            let first = planned(&mut host);
            for change in first.add.iter().chain(&first.remove) {
                host.change(std::slice::from_ref(change)).remove(0).unwrap();
                // At no time is there no lookup of local.
                for family in Family::BOTH {
                    let local = fief_host::RuleAction::Lookup(255);
                    let is_local = |(f, r): &(Family, Rule)| *f == family && r.action == local;
                    assert!(
                        host.listing.local_first.contains(&family) || host.listing.rules.iter().any(is_local)
                    );
                }
            }
            assert!(planned(&mut host).is_quiet());
            let first_rule = host.listing.rules.iter().find(|(f, _)| *f == Family::V4).map(|(_, r)| *r);
            let observed = Observed::from_listing(host.list().unwrap(), Default::default());
            assert_eq!(observed.asks_vrfs_first(), !links.is_empty());
            if !links.is_empty() {
                assert_eq!(first_rule.map(|rule| rule.action), Some(fief_host::RuleAction::Vrf));
                let ends = host.listing.routes.iter().filter(|route| route.table == 256_000_008);
                assert_eq!(ends.filter(|route| route.kind == fief_host::RouteKind::Unreachable).count(), 2);
            }
        }
        assert_eq!((host.listing.rules.clone(), host.listing.local_first.clone()), before);
        assert!(host.listing.routes.iter().all(|route| ![256_000_007, 256_000_008].contains(&route.table)));
    }
}

#[test]
fn one_round_reaches_what_is_asked_and_the_last_delete_leaves_what_was_there() {
    for move_local in [false, true] {
        let tree = tree(move_local);
        let (mut host, before) = (host(), host());
        let all: Vec<(u16, Tenant)> = (1..=100).map(|n| (n, tenant(n, ""))).collect();
        let odd: Vec<_> = all.iter().filter(|(n, _)| n % 2 == 1).cloned().collect();
        for tenants in [&all[..1], &all[..], &odd[..], &all[40..60], &all[..], &[]] {
            settle(&tree, tenants, &mut host);
        }
        assert!(host.listing.rules.is_empty() && host.listing.routes.is_empty());
        assert_eq!(host.listing.addresses, before.listing.addresses);
        let mut first = host.listing.local_first.clone();
        first.sort();
        assert_eq!(first, before.listing.local_first);
    }
}

#[test]
fn the_ends_stand_first_and_the_entry_comes_when_everything_it_leads_to_is_there() {
    let (tree, mut host) = (tree(false), host());
    let (plan, _) = planned(&tree, &[(1, tenant(1, ""))], &mut host);
    let at = |wanted: &dyn Fn(&Change) -> bool| plan.add.iter().position(wanted).unwrap();
    let end = at(
        &|c| matches!(c, Change::AddRule(Family::V4, r) if r.action == fief_host::RuleAction::Unreachable),
    );
    let leaf = at(
        &|c| matches!(c, Change::AddRule(Family::V4, r) if matches!(r.action, fief_host::RuleAction::Lookup(_))),
    );
    let entry = at(&|c| matches!(c, Change::AddRule(Family::V4, r) if r.invert));
    assert!(end < leaf && leaf < entry, "{:?}", plan.add);
}

#[test]
fn what_the_host_lacks_is_a_condition_and_the_rest_is_done() {
    let (tree, mut host) = (tree(false), host());
    let mut missing = tenant(1, "    - { to: 198.51.100.0/24, interface: eth7 }\n");
    missing.spec.interfaces.push(serde_json::from_value(serde_json::json!({ "name": "eth7" })).unwrap());
    let mut taken = tenant(2, "");
    taken.spec.interfaces[0].addresses = vec!["192.0.2.1/24".parse().unwrap()];
    let (plan, desired) = planned(&tree, &[(1, missing), (2, taken)], &mut host);
    let reasons =
        |n| desired[&Slot::new(n).unwrap()].conditions.iter().map(|c| c.reason.as_str()).collect::<Vec<_>>();
    assert_eq!(reasons(1), ["DeviceMissing"]);
    assert_eq!(reasons(2), ["AddressTaken"]);
    assert!(
        plan.add.iter().any(|c| matches!(c, Change::AddAddress(a) if a.net.addr().to_string() == "10.1.0.2"))
    );
    assert!(!plan.entries.own4.values().any(|owner| owner.slot == 2), "the host keeps its own address");
}

#[test]
fn a_gateway_behind_an_address_that_is_not_to_be_had_is_not_tried() {
    let (tree, mut host) = (tree(false), host());
    let mut absent = tenant(1, "");
    absent.spec.interfaces[0].manage = false;
    for (tenant, routes) in [(tenant(1, ""), 1), (absent, 0)] {
        let (plan, _) = planned(&tree, &[(1, tenant)], &mut host);
        let by_gateway = |c: &&Change| matches!(c, Change::SetRoute(r) if r.via.is_some());
        assert_eq!(plan.add.iter().filter(by_gateway).count(), routes);
    }
}

/// A tenant with a VRF: the same addresses whatever its number, on `eth0` or `eth1`.
fn with_vrf(number: u16) -> Tenant {
    let mut tenant = tenant(1, "");
    tenant.metadata.name = format!("t{number}");
    tenant.spec.isolation = fief_model::Isolation::Vrf;
    tenant.spec.interfaces[0].name = format!("eth{}", number - 1);
    tenant
}

/// Carries plans out until nothing is left to do.
fn settle_in_rounds(tree: &Tree, tenants: &[(u16, Tenant)], host: &mut FakeHost) -> Plan {
    for _ in 0..5 {
        let (plan, _) = planned(tree, tenants, host);
        if plan.is_quiet() {
            return plan;
        }
        for change in plan.add.iter().chain(&plan.remove) {
            host.change(std::slice::from_ref(change)).remove(0).unwrap();
        }
    }
    panic!("five rounds are not enough");
}

#[test]
fn vrfs_have_one_address_each_and_leave_nothing_behind() {
    for move_local in [false, true] {
        let tree = tree(move_local);
        let (mut host, before) = (host(), host());
        let both = [(1, with_vrf(1)), (2, with_vrf(2))];
        let plan = settle_in_rounds(&tree, &both, &mut host);
        let vrf =
            |host: &FakeHost, name: &str| host.listing.links.iter().find(|l| l.name == name).map(|l| l.index);
        let masters: Vec<_> = host.listing.links.iter().filter_map(|link| link.master).collect();
        assert_eq!(
            masters.into_iter().map(Some).collect::<Vec<_>>(),
            [vrf(&host, "vrf1"), vrf(&host, "vrf2")]
        );
        assert!(host.listing.vrf_rules.is_empty(), "the kernel's rule came with ours");
        let of_vrfs = |(_, rule): &&(Family, Rule)| rule.action == fief_host::RuleAction::Vrf;
        assert_eq!(host.listing.rules.iter().filter(of_vrfs).count(), 2);
        assert!(
            plan.entries.own4.values().all(|owner| owner.slot == 0),
            "a VRF's address is nobody else's business"
        );
        assert_eq!(plan.entries.vrf_own.len(), 4);
        assert_eq!(plan.entries.devices[&2] >> ALONE_SHIFT, 1);
        let local = |route: &&Route| route.kind == fief_host::RouteKind::Local;
        assert_eq!(host.listing.routes.iter().filter(local).count(), 0, "the kernel makes those");
        // One becomes a plain tenant, and goes, and then the other.
        settle_in_rounds(&tree, &[(1, tenant(1, "")), (2, with_vrf(2))], &mut host);
        assert!(vrf(&host, "vrf1").is_none() && vrf(&host, "vrf2").is_some());
        settle_in_rounds(&tree, &[(2, with_vrf(2))], &mut host);
        settle_in_rounds(&tree, &[], &mut host);
        assert_eq!(host.listing.links, before.listing.links);
        assert_eq!(host.listing.addresses, before.listing.addresses);
        assert!(host.listing.rules.is_empty() && host.listing.routes.is_empty());
    }
}

#[test]
fn what_is_in_the_way_of_a_vrf_is_left_alone_and_told() {
    let (tree, mut host) = (tree(false), host());
    host.listing.links[1].master = Some(3);
    let plain = Link { index: 9, name: "vrf2".into(), up: true, ..Link::default() };
    host.listing.links.push(plain);
    settle_in_rounds(&tree, &[(1, with_vrf(1)), (2, with_vrf(2))], &mut host);
    let (plan, desired) = planned(&tree, &[(1, with_vrf(1)), (2, with_vrf(2))], &mut host);
    let reasons =
        |n| desired[&Slot::new(n).unwrap()].conditions.iter().map(|c| c.reason.as_str()).collect::<Vec<_>>();
    assert_eq!((reasons(1), reasons(2)), (vec!["DeviceEnslaved"], vec!["VrfTaken"]));
    assert!(plan.is_quiet() && host.listing.links[1].master == Some(3));
    assert!(
        host.listing.addresses.iter().all(|address| !address.ours),
        "no address is added outside of a VRF"
    );
}
