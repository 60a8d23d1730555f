//! Leases, names, metadata, ways out; the zones they are kept in.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::{Evenet, NI1_GATEWAY, NI2_GATEWAY};
use crate::app::App;
use crate::conntrack::{all_in, opened};
use crate::node::{http, in_vrfs};
use crate::town::Town;

/// Is the address in NI1's or NI2's range?
fn in_range(address: Ipv4Addr, subnet: [u8; 3]) -> bool {
    address.octets()[..3] == subnet && (50..=150).contains(&address.octets()[3])
}

#[test]
pub fn evenet_e01() {
    let Some(scene) = Evenet::open("e01", "") else { return };
    assert!(in_range(scene.one.address, [10, 10, 1]), "{}", scene.one.address);
    assert!(in_range(scene.other.address, [192, 168, 1]), "{}", scene.other.address);
    assert!(in_range(scene.second.address, [192, 168, 1]), "{}", scene.second.address);
    assert_ne!(scene.other.address, scene.second.address, "one network, two leases");
    assert_eq!(scene.app1.address("eth0"), Some(scene.one.address));
    assert_eq!(scene.app1.address("eth1"), Some(scene.other.address));
    assert_eq!(scene.one.said("router"), Some("10.10.1.1"));
    // Its second network is no way out: a default route by each would leave the choice to chance.
    assert_eq!(scene.other.said("router"), None);
    assert_eq!(scene.one.said("lease"), Some("3600"));
}

#[test]
pub fn evenet_e02() {
    let Some(scene) = Evenet::open("e02", "") else { return };
    let seen = scene.app1.reaches("http://site.example/", "site");
    assert_eq!(seen, Town::host_address(0), "translated to the uplink's address");
    let entries = scene.node.entries("ni1");
    let ours = opened(&entries, Town::SITE, 80);
    all_in("NI1", &ours, scene.node.slot("ni1"));
    assert!(ours.iter().all(|entry| entry.there.from == scene.one.address), "{ours:#?}");
    let entries = scene.node.host_entries();
    let outer = opened(&entries, Town::SITE, 80);
    all_in("uplink", &outer, 0);
    assert!(outer.iter().all(|entry| entry.back.to == Town::host_address(0)), "{outer:#?}");
    let other = scene.node.entries("ni2");
    assert!(opened(&other, Town::SITE, 80).is_empty(), "{other:#?}");
}

#[test]
pub fn evenet_e04() {
    let Some(scene) = Evenet::open("e04", "") else { return };
    scene.app1.resolve_as_leased("eth1");
    for url in ["http://app2/", "http://app2.net.ni2.internal/"] {
        assert_eq!(scene.app1.reaches(url, "app2"), scene.other.address, "{url}: straight, not translated");
    }
    let app2 = scene.second.address;
    let entries = scene.node.entries("ni2");
    all_in("NI2", &opened(&entries, app2, 80), scene.node.slot("ni2"));
    for (what, entries) in [("NI1", scene.node.entries("ni1")), ("uplink", scene.node.host_entries())] {
        assert!(opened(&entries, app2, 80).is_empty(), "{what}: {entries:#?}");
    }
    // The name is NI2's: NI1's resolver, which knows its own, has never heard of it.
    assert_eq!(scene.app1.dig(NI1_GATEWAY, "app1"), [scene.one.address]);
    assert_eq!(scene.app1.dig(NI1_GATEWAY, "app2"), [] as [Ipv4Addr; 0]);
    assert_eq!(scene.app1.dig(NI2_GATEWAY, "app2"), [app2]);
}

#[test]
pub fn evenet_e07() {
    let Some(scene) = Evenet::open("e07", "") else { return };
    let about = |app: &App| -> Value {
        let text = app.fetch("http://169.254.169.254/fief/v1/endpoint").unwrap_or_else(|e| panic!("{e}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    };
    let is = |app: &App, tenant: &str, name: &str, address: Ipv4Addr| {
        let said = about(app);
        let host = app.fetch("http://169.254.169.254/latest/meta-data/local-hostname");
        assert_eq!(host.as_deref().map(|host| host.split('.').next().unwrap_or_default()), Ok(name));
        assert_eq!((&said["tenant"], &said["endpoint"]), (&tenant.into(), &name.into()), "{said}");
        let text = said["address"].as_str().unwrap_or_default();
        assert_eq!(text.split('/').next(), Some(address.to_string().as_str()), "{said}");
        said
    };
    is(&scene.app2, "ni2", "app2", scene.second.address);
    is(&scene.app1, "ni1", "app1", scene.one.address);
    // The same question by its other leg is NI2's to answer.
    scene.app1.ns.ip(&format!("route add 169.254.169.254 via {NI2_GATEWAY} dev eth1\n"));
    is(&scene.app1, "ni1", "app1", scene.other.address);
}

#[test]
pub fn evenet_e09() {
    let Some(scene) = Evenet::open("e09", "") else { return };
    let (app3, lease, _machine) = scene.app3();
    assert!(in_range(lease.address, [10, 10, 1]), "{}", lease.address);
    assert_eq!(app3.reaches("http://site.example/", "site"), Town::host_address(1), "by its own uplink");
    assert!(app3.pings(NI1_GATEWAY) && app3.pings(Town::SITE));
    let entries = scene.node.entries("ni3");
    all_in("NI3", &opened(&entries, Town::SITE, 80), scene.node.slot("ni3"));
    // NI1 has the same subnet and the other uplink.
    assert_eq!(scene.app1.reaches("http://site.example/", "site"), Town::host_address(0));
}

/// A socket of the host's that is bound to the tenant's VRF is in it.
#[track_caller]
fn is_reached_by_the_device(scene: &Evenet, ask: &[&str]) {
    let (host, node) = (&scene.node.town.host, &scene.node);
    let of = |tenant: &str, words: &[&str], option: &str| {
        let vrf = node.vrf(tenant);
        let (program, rest) = words.split_first().expect("words");
        host.run(&[&[*program, option, &vrf], rest].concat())
    };
    let seen = of("ni1", ask, "--interface").ok();
    assert!(seen.stdout.starts_with("app1 sees "), "{seen}");
    let address = scene.one.address.to_string();
    let ping = ["ping", "-n", "-c", "1", "-W", "5", &address];
    of("ni1", &ping, "-I").ok();
    // The address is app1's in NI1 only: in NI3, with the same subnet, nobody has it, and outside of VRFs neither.
    of("ni3", ask, "--interface").fails();
    host.run(ask).fails();
}

#[test]
pub fn evenet_e18() {
    let Some(scene) = Evenet::open("e18", "") else { return };
    let (node, url) = (&scene.node, http(scene.one.address));
    let curl = node.town.tools.curl.display().to_string();
    let ask = [curl.as_str(), "-sS", "--fail", "--noproxy", "*", "--max-time", "2", url.as_str()];
    let by_fief = node.daemon.cli(&[&["exec", "ni1", "--"], &ask[..]].concat()).ok();
    assert!(by_fief.stdout.starts_with("app1 sees "), "{by_fief}");
    if in_vrfs() {
        is_reached_by_the_device(&scene, &ask);
    } else {
        let by_hand = node.run_inside("ni1", &ask).ok();
        assert_eq!(by_hand.stdout, by_fief.stdout);
    }
    let ping = ["ping", "-n", "-c", "1", "-W", "1", &scene.one.address.to_string()].map(str::to_owned);
    let ping = ping.each_ref().map(String::as_str);
    node.daemon.cli(&[&["exec", "ni1", "--"], &ping[..]].concat()).ok();
    // The address is app1's in NI1 only: in NI3, with the same subnet, nobody has it.
    node.daemon.cli(&[&["exec", "ni3", "--"], &ask[..]].concat()).fails();
}
