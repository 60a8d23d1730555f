//! Many tenants with the same addresses and the same names at once.

use std::net::Ipv4Addr;

use fief_testkit::Child;

use crate::app::App;
use crate::node::{Node, at, endpoint, http, network, tenant};
use crate::town::Town;

const TENANTS: usize = 8;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 10, 1, 11), Ipv4Addr::new(10, 10, 1, 12)];
const NAMES: [&str; 2] = ["a", "b"];

#[test]
fn eight_tenants_with_one_subnet_reach_their_own_only() {
    let Some(node) = Node::open("eight", 1) else { return };
    let names: Vec<String> = (0..TENANTS).map(|i| format!("t{i}")).collect();
    let mut documents = Vec::new();
    let mut apps: Vec<[App; 2]> = Vec::new();
    for name in &names {
        let pair = NAMES.map(|short| node.workload(name, short));
        documents.push(tenant(name));
        // A name that only this tenant has, beside those that all have.
        let own = format!("dns: {{ names: {{ only-{name}: 10.10.1.12 }} }}");
        documents.push(network(name, "10.10.1.0/24", &["uplinks: [eth0]", &own]));
        for ((short, address), app) in NAMES.iter().zip(ADDRESSES).zip(&pair) {
            documents.push(endpoint(name, short, &[at(address)], &app.attach()));
            app.resolve_by(&[GATEWAY]);
        }
        apps.push(pair);
    }
    node.apply(&documents);
    let who = |tenant: &str, short: &str| format!("{short} of {tenant}");
    let serve = |(name, pair): (&String, &[App; 2])| {
        [0, 1].map(|i| {
            pair[i].wait_for("eth0");
            node.town.serve(&pair[i].ns, &who(name, NAMES[i]))
        })
    };
    let _servers: Vec<[Child; 2]> = names.iter().zip(&apps).map(serve).collect();
    for (i, (name, pair)) in names.iter().zip(&apps).enumerate() {
        for (own, other) in [(0, 1), (1, 0)] {
            let (app, peer) = (&pair[own], NAMES[other]);
            let seen = app.reaches(&http(ADDRESSES[other]), &who(name, peer));
            assert_eq!(seen, ADDRESSES[own]);
            app.reaches(&format!("http://{peer}/"), &who(name, peer));
            app.reaches(&format!("http://{peer}.net.{name}.internal/"), &who(name, peer));
        }
        let [asker, _] = pair;
        let next = &names[(i + 1) % TENANTS];
        assert_eq!(asker.dig(GATEWAY, &format!("only-{name}")), [ADDRESSES[1]]);
        for foreign in [format!("only-{next}"), format!("b.net.{next}.internal")] {
            assert_eq!(asker.dig(GATEWAY, &foreign), [] as [Ipv4Addr; 0], "{name} asked for {foreign}");
        }
        assert_eq!(asker.reaches(&http(Town::SITE), "site"), Town::host_address(0));
    }
    // Each in a zone of its own.
    let mut zones: Vec<u32> = names.iter().map(|name| node.slot(name)).collect();
    for (name, zone) in names.iter().zip(&zones) {
        let entries = node.entries(name);
        crate::conntrack::all_in(name, &entries.iter().collect::<Vec<_>>(), *zone);
    }
    zones.sort_unstable();
    zones.dedup();
    assert_eq!(zones.len(), TENANTS);
}
