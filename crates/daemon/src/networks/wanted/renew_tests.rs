//! What is renewed is what would be made anew.

use super::tests::{Stock, host};
use super::*;

const TENANTS: [&str; 4] = ["a", "a-b", "blue", "red"];

/// Numbers that look random, the same each time (a linear congruential generator).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

fn tenant(name: &str) -> String {
    format!("apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\n")
}

fn network(dice: &mut Dice, tenant: &str, name: &str) -> String {
    let third = if name == "web" { 1 } else { 2 };
    let uplinks = ["[]", "[eth0]", "[eth0, eth1]"][dice.roll(3)];
    let map = match (uplinks, dice.roll(2)) {
        ("[]", _) | (_, 0) => String::new(),
        _ => format!(", portMaps: [{{ uplink: eth0, port: {}, to: \"app0:80\" }}]", 8000 + dice.roll(9)),
    };
    let allowed = ["[]", "[a]", "[red, a-b]"][dice.roll(3)];
    format!(
        "apiVersion: fief/v1alpha1\nkind: Network\nmetadata: {{ name: {name}, tenant: {tenant} }}\n\
         spec: {{ subnets: [10.10.{third}.0/24], uplinks: {uplinks}, dhcp: {{}}, allowEndpoints: {allowed}{map} }}\n"
    )
}

fn endpoint(dice: &mut Dice, tenant: &str, name: &str) -> String {
    let mut networks: Vec<String> = ["web", "lan"]
        .iter()
        .flat_map(|network| TENANTS.iter().map(move |of| format!("{of}/{network}")))
        .filter(|_| dice.roll(3) == 0)
        .collect();
    networks.push(format!("{tenant}/web"));
    networks.dedup();
    let networks: BTreeSet<String> = networks.into_iter().collect();
    let list: Vec<String> = (0..)
        .zip(networks)
        .map(|(at, network)| format!("{{ network: {network}, interface: eth{at} }}"))
        .collect();
    format!(
        "apiVersion: fief/v1alpha1\nkind: Endpoint\nmetadata: {{ name: {name}, tenant: {tenant} }}\n\
         spec: {{ networks: [{}], attach: {{ netns: {name} }} }}\n",
        list.join(", ")
    )
}

/// One document changes, comes or goes, as a request does it.
fn change(dice: &mut Dice, stock: &mut Stock, stale: &mut Stale) {
    let of = TENANTS[dice.roll(TENANTS.len())];
    let goes = dice.roll(3) == 0;
    match dice.roll(3) {
        0 => {
            let name = ["web", "lan"][dice.roll(2)];
            let key = format!("{of}/{name}");
            let endpoints = stock.endpoints.values().map(|stored| &stored.endpoint);
            stale.networks(&[key.clone()].into(), endpoints);
            match goes {
                true => drop(stock.networks.remove(&key)),
                false => stock.add(&network(dice, of, name)),
            }
        }
        1 => {
            let name = ["app0", "app1"][dice.roll(2)];
            let key = format!("{of}/{name}");
            stock.endpoints.get(&key).into_iter().for_each(|stored| stale.endpoint(&stored.endpoint));
            stock.endpoints.remove(&key);
            if !goes {
                stock.add(&endpoint(dice, of, name));
                stale.endpoint(&stock.endpoints[&key].endpoint);
            }
        }
        _ => {
            let mut leases = stock.leases.clone();
            let stored: Vec<&StoredEndpoint> = stock.endpoints.values().collect();
            if let Some(stored) = stored.get(dice.roll(stored.len().max(1))) {
                let attachment = &stored.endpoint.spec.networks[0];
                let key = (stored.endpoint.network_of(attachment), stored.endpoint.mac_of(attachment));
                match goes {
                    true => drop(leases.remove(&key)),
                    false => drop(leases.insert(key, Ipv4Addr::new(10, 10, 1, dice.roll(250) as u8))),
                }
            }
            stale.leases(&stock.leases, &leases);
            stock.leases = leases;
        }
    }
}

#[test]
fn what_is_renewed_is_what_would_be_made_anew() {
    let mut dice = Dice(7);
    let mut stock = Stock::of(&TENANTS.map(tenant).join("---\n"));
    let (mut renewed, mut stale) = (Wanted::default(), Stale::all());
    let (mut shared, mut ported) = (0, 0);
    for _ in 0..2000 {
        let carriers = [dice.roll(20) != 0, true];
        let observed = host(carriers);
        for _ in 0..dice.roll(3) {
            change(&mut dice, &mut stock, &mut stale);
        }
        let before = renewed.spaces.clone();
        stock.renew(&mut renewed, &observed, &std::mem::take(&mut stale));
        let anew = stock.wanted(&observed, &stock.leases.clone());
        assert_eq!(renewed.spaces, anew.spaces);
        assert_eq!((&renewed.exits, &renewed.networks), (&anew.exits, &anew.networks));
        let is_shared = |(name, space): (&String, &Arc<Space>)| {
            before.get(name).is_some_and(|before| Arc::ptr_eq(before, space))
        };
        shared += renewed.spaces.iter().filter(|entry| is_shared(*entry)).count();
        ported += renewed.spaces.values().filter(|space| !space.mapped.is_empty()).count();
    }
    assert!(shared > 2000 && ported > 500, "{shared} were left alone, {ported} had port maps");
}
