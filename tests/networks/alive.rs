//! What runs goes on: while the daemon is dead, while the same is applied again, while others are changed.

use std::net::Ipv4Addr;

use fief_testkit::eventually;

use crate::app::App;
use crate::flow::{Flow, Talk};
use crate::node::{Node, by_dhcp, endpoint, http, network, tenant};
use crate::room::SOON;
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
/// Where echo servers listen.
const ECHO: u16 = 7000;

/// Every document of a tenant with two endpoints and a port map to the second one's echo.
fn documents(a: &App, b: &App) -> Vec<String> {
    let map = format!("portMaps: [{{ uplink: eth0, port: {ECHO}, to: \"b:{ECHO}\", protocol: tcp }}]");
    let spec = ["uplinks: [eth0]", "dns: { servers: [192.0.2.53] }", &map];
    vec![
        tenant("ni1"),
        network("ni1", "10.10.1.0/24", &spec),
        endpoint("ni1", "a", &[crate::node::at(A)], &a.attach()),
        endpoint("ni1", "b", &[crate::node::at(B)], &b.attach()),
    ]
}

#[test]
fn connections_and_flows_outlive_the_daemon() {
    let Some(mut node) = Node::open("killed", 1) else { return };
    let [a, b] = ["a", "b"].map(|name| node.workload("ni1", name));
    node.apply(&documents(&a, &b));
    let site = App::of(&node.town, node.town.site.clone());
    let _echoes = [site.echo(ECHO), b.echo(ECHO)];
    let gateway = node.town.gateways[0].clone();
    let mut talks = [
        Talk::open(&a.ns, (Town::SITE, ECHO).into()),
        Talk::open(&a.ns, (B, ECHO).into()),
        Talk::open(&gateway, (Town::host_address(0), ECHO).into()),
    ];
    let flows = [Flow::start(&a.ns, (Town::SITE, ECHO).into()), Flow::start(&a.ns, (B, ECHO).into())];
    let zone = node.slot("ni1");
    for _ in 0..3 {
        node.daemon.kill9();
        talks.iter_mut().for_each(Talk::goes_on);
        // New connections need no daemon either.
        assert_eq!(a.reaches(&http(Town::SITE), "site"), Town::host_address(0));
        drop(Talk::open(&gateway, (Town::host_address(0), ECHO).into()));
        node.daemon.restart();
        talks.iter_mut().for_each(Talk::goes_on);
        assert_eq!(node.slot("ni1"), zone);
        eventually(SOON, || {
            let found = a.dig(GATEWAY, "b");
            if found == [B] { Ok(()) } else { Err(format!("b is at {found:?}")) }
        });
        assert_eq!(a.dig(GATEWAY, "site.example"), [Town::SITE]);
    }
    node.daemon.stop();
    talks.iter_mut().for_each(Talk::goes_on);
    node.daemon.restart();
    let status = node.daemon.cli(&["status", "-o", "json"]).ok().json();
    assert_eq!(status["repairs"], 0, "nothing was wrong: {}", node.daemon.log());
    flows.into_iter().for_each(|flow| println!("{:?}", flow.lost_nothing()));
}

#[test]
fn the_same_again_changes_nothing_and_loses_nothing() {
    let Some(node) = Node::open("again", 1) else { return };
    let [a, b] = ["a", "b"].map(|name| node.workload("ni1", name));
    let documents = documents(&a, &b);
    let created = node.apply(&documents).stdout;
    assert_eq!(created.lines().filter(|line| line.ends_with(" created")).count(), 4, "{created}");
    let _echoes = [App::of(&node.town, node.town.site.clone()).echo(ECHO), b.echo(ECHO)];
    let flows = [Flow::start(&a.ns, (Town::SITE, ECHO).into()), Flow::start(&a.ns, (B, ECHO).into())];
    let host = fief_testkit::Snapshot::of(&node.town.host);
    for _ in 0..5 {
        let said = node.apply(&documents).stdout;
        let unchanged = said.lines().filter(|line| line.ends_with(" unchanged")).count();
        assert_eq!((unchanged, said.lines().count()), (4, 4), "{said}");
    }
    host.assert_same(&fief_testkit::Snapshot::of(&node.town.host));
    flows.into_iter().for_each(|flow| println!("{:?}", flow.lost_nothing()));
}

#[test]
fn changes_of_one_network_cost_another_no_packet() {
    let Some(node) = Node::open("changes", 2) else { return };
    let [a, b] = ["a", "b"].map(|name| node.workload("ni1", name));
    node.apply(&documents(&a, &b));
    let [first, second] = ["first", "second"].map(|name| node.workload("ni2", name));
    let net = |range: &str, port: u16, uplinks: &str| {
        let map = format!("portMaps: [{{ uplink: eth0, port: {port}, to: \"first:80\", protocol: tcp }}]");
        let dhcp = format!("dhcp: {{ range: {range}, lease: 60m }}");
        network("ni2", "10.10.1.0/24", &[&format!("uplinks: [{uplinks}]"), &dhcp, &map])
    };
    let low = "10.10.1.50-10.10.1.99";
    node.apply(&[
        tenant("ni2"),
        net(low, 8080, "eth0, eth1"),
        endpoint("ni2", "first", &[by_dhcp("net", "eth0")], &first.attach()),
        endpoint("ni2", "second", &[by_dhcp("net", "eth0")], &second.attach()),
    ]);
    let lease = first.udhcpc("eth0");
    assert!((50..=99).contains(&lease.address.octets()[3]), "{}", lease.address);
    let _served = node.town.serve(&first.ns, "first");
    let _echoes = [App::of(&node.town, node.town.site.clone()).echo(ECHO), b.echo(ECHO)];
    let outside = App::of(&node.town, node.town.gateways[0].clone());
    outside.reaches("http://192.168.0.2:8080/", "first");
    assert_eq!(first.reaches(&http(Town::SITE), "site"), Town::host_address(0));
    let flows = [Flow::start(&a.ns, (Town::SITE, ECHO).into()), Flow::start(&a.ns, (B, ECHO).into())];

    let high = "10.10.1.150-10.10.1.199";
    node.apply(&[net(high, 8080, "eth0, eth1")]);
    let later = second.udhcpc("eth0");
    assert!((150..=199).contains(&later.address.octets()[3]), "{}", later.address);
    node.apply(&[net(high, 8081, "eth0, eth1")]);
    outside.reaches("http://192.168.0.2:8081/", "first");
    outside.is_refused("http://192.168.0.2:8080/");
    node.apply(&[net(high, 8081, "eth1, eth0")]);
    eventually(SOON, || match second.get(&http(Town::SITE))?.from {
        seen if seen == Town::host_address(1) => Ok(()),
        seen => Err(format!("the site sees {seen}")),
    });
    flows.into_iter().for_each(|flow| println!("{:?}", flow.lost_nothing()));
}

#[test]
fn the_field_in_the_marks_moves_under_networks() {
    if fief_testkit::is_markless() {
        return fief_testkit::skip("where fief writes no marks there is no field");
    }
    let Some(node) = Node::open("moved", 2) else { return };
    let [a, b] = ["a", "b"].map(|name| node.workload("ni1", name));
    node.apply(&documents(&a, &b));
    let site = App::of(&node.town, node.town.site.clone());
    let _echoes = [site.echo(ECHO), b.echo(ECHO)];
    let mut talk = Talk::open(&a.ns, (Town::SITE, ECHO).into());
    let mut call = Talk::open(&node.town.gateways[0], (Town::host_address(0), ECHO).into());
    for to in ["0xffff0000", "0x0000ffff"] {
        node.daemon.cli(&["marks", "move", "--to", to]).ok();
        eventually(SOON, || {
            let status = node.daemon.cli(&["status", "-o", "json"]).ok().json();
            if status["markMask"].as_str().and_then(hex) == hex(to) {
                Ok(())
            } else {
                Err(format!("{}", status["markMask"]))
            }
        });
        talk.goes_on();
        call.goes_on();
        assert_eq!(a.reaches(&http(Town::SITE), "site"), Town::host_address(0));
        node.daemon.cli(&["marks", "check"]).ok();
    }
}

fn hex(mask: &str) -> Option<u32> {
    u32::from_str_radix(mask.trim_start_matches("0x"), 16).ok()
}
