//! The same addresses on both sides of a wall, and zones that keep what is the same apart.

use std::net::Ipv4Addr;

use super::{Evenet, NI1_GATEWAY};
use crate::app::App;
use crate::conntrack::{all_in, opened};
use crate::node::http;
use crate::town::Town;

#[test]
pub fn evenet_e20() {
    let Some(scene) = Evenet::open("e20", "") else { return };
    let (node, town) = (&scene.node, &scene.node.town);
    let twin = Ipv4Addr::new(10, 10, 1, 20);
    let twins = ["ni1", "ni3"].map(|tenant| node.place(tenant, "twin", twin));
    let _served = [town.serve(&twins[0].ns, "twin in NI1"), town.serve(&twins[1].ns, "twin in NI3")];
    let asker = node.place("ni3", "asker", Ipv4Addr::new(10, 10, 1, 21));
    scene.app1.reaches(&http(twin), "twin in NI1");
    asker.reaches(&http(twin), "twin in NI3");

    // NI2 has the subnet of the segment of eth1, and two stations there an address of each.
    let here = Ipv4Addr::new(192, 168, 1, 177);
    let inside = node.place("ni2", "same", here);
    let [outside, lone] = [("n177", 177), ("n178", 178)].map(|(name, last)| town.neighbour(1, name, last));
    let _served_too = [
        town.serve(&inside.ns, "NI2"),
        town.serve(&outside, "the segment"),
        town.serve(&lone, "the lone one"),
    ];
    let host = App::of(town, town.host.clone());
    scene.app2.reaches(&http(here), "NI2");
    host.reaches(&http(here), "the segment");
    let there = http(Ipv4Addr::new(192, 168, 1, 178));
    host.reaches(&there, "the lone one");
    scene.app2.is_refused(&there);
}

#[test]
pub fn evenet_e21() {
    let Some(scene) = Evenet::open("e21", "") else { return };
    let node = &scene.node;
    assert_eq!(scene.app1.dig(NI1_GATEWAY, "app1"), [scene.one.address]);
    assert_eq!(scene.app1.dig(NI1_GATEWAY, "site.example"), [Town::SITE]);
    // Questions leave in letters of random size, which whoever forges an answer would have to guess.
    let asked = node.town.asked().to_lowercase();
    assert!(asked.contains("site.example from 192.168.0.2"), "{asked}");
    scene.app1.reaches("http://site.example/", "site");
    let (entries, zone) = (node.entries("ni1"), node.slot("ni1"));
    let of = |to: Ipv4Addr| {
        let wanted = |entry: &&_| is_question(entry, to);
        entries.iter().filter(wanted).collect::<Vec<_>>()
    };
    all_in("app1's questions", &of(NI1_GATEWAY), zone);
    all_in("the resolver's own", &of(Town::RESOLVER), zone);
    all_in("a connection", &opened(&entries, Town::SITE, 80), zone);
    all_in("everything of NI1", &entries.iter().collect::<Vec<_>>(), zone);
    // The host has the upstream question, translated, and nothing with an address of NI1.
    let host = node.host_entries();
    let outer: Vec<_> = host.iter().filter(|entry| is_question(entry, Town::RESOLVER)).collect();
    all_in("the uplink", &outer, 0);
    let ours = |address: Ipv4Addr| address.octets()[..3] == [10, 10, 1];
    let leaked = host.iter().find(|entry| {
        [entry.there.from, entry.there.to, entry.back.from, entry.back.to].into_iter().any(ours)
    });
    assert_eq!(leaked, None);
}

fn is_question(entry: &crate::conntrack::Entry, to: Ipv4Addr) -> bool {
    entry.protocol == "udp" && entry.there.to == to && entry.there.to_port == 53
}
