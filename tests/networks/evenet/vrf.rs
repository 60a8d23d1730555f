//! What is there, stays and goes where tenants have VRFs: in the host's own stack, beside what is the host's.

use std::net::Ipv4Addr;

use fief_testkit::{Snapshot, eventually};

use crate::app::App;
use crate::conntrack::{all_in, opened};
use crate::flow::Talk;
use crate::node::{Node, at, endpoint, http, in_vrfs, network, network_named, tenant};
use crate::room::SOON;
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 1);
/// The first one's. In full: `a` alone is a type of record to dig(1).
const NAME: &str = "a.net.ni1.internal";
/// Where servers listen.
const PORT: u16 = 7000;

/// A node whose tenants have VRFs; `None`, with a word, elsewhere. Bridges of the host leave netfilter alone, as most
/// hosts have it, so that it is not a switch of the host that makes fief's bridges call it.
#[track_caller]
fn open(name: &str) -> Option<Node> {
    if !in_vrfs() {
        fief_testkit::skip("tenants with namespaces are elsewhere; `make test-vm` runs it");
        return None;
    }
    let node = Node::open(name, 1)?;
    node.town.host.set_sysctl("net.bridge.bridge-nf-call-iptables", 0);
    Some(node)
}

/// Two tenants with one subnet and one uplink, an endpoint each.
#[track_caller]
fn two(node: &Node) -> [App; 2] {
    let map = "portMaps: [{ uplink: eth0, port: 8080, to: \"b:80\" }]";
    node.apply(&[
        tenant("ni1"),
        tenant("ni2"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"]),
        network("ni2", "10.10.1.0/24", &["uplinks: [eth0]", map]),
    ]);
    [node.place("ni1", "a", A), node.place("ni2", "b", B)]
}

#[test]
fn a_host_without_vrfs_is_as_it_was() {
    let Some(node) = open("vrf-gone") else { return };
    let host = &node.town.host;
    // The rule that the kernel adds with the first VRF of a namespace goes with fief's last one, since fief's brought it.
    let rules = || host.sh("ip rule; ip -6 rule").stdout;
    let of_vrfs = |text: &str| text.lines().filter(|line| line.starts_with("1000:")).count();
    assert_eq!(of_vrfs(&rules()), 0);
    let before = Snapshot::of(host);
    for round in 0..2 {
        let [a, b] = two(&node);
        a.reaches(&http(Town::SITE), "site");
        b.reaches(&http(Town::SITE), "site");
        let text = host.sh("ip -d link; ip rule; nft list tables").stdout;
        assert!(text.contains("fief tenant ni1") && text.contains("inet fief-vrf"), "{text}");
        assert!(!text.contains("0:\tfrom all lookup local\n"), "the VRFs' rule comes first: {text}");
        let view = node.view("network", "ni1", "net");
        assert_eq!(view["status"]["vrf"], node.vrf("ni1"), "{view}");
        let shown = node.daemon.cli(&["get", "networks"]).ok().stdout;
        assert!(shown.contains(&format!("vrf {}", node.vrf("ni2"))), "{shown}");
        for name in ["ni1", "ni2"] {
            node.daemon.cli(&["delete", "tenant", name]).ok();
        }
        eventually(SOON, || match before.diff(&Snapshot::of(host)) {
            None => Ok(()),
            Some(diff) => Err(format!("round {round}: {diff}")),
        });
        assert!(!a.has("eth0") && !b.has("eth0"));
        assert_eq!(node.host_entries().iter().filter(|entry| entry.zone != Some(0)).count(), 0);
    }
    assert_eq!(of_vrfs(&rules()), 0);
    // Somebody else's that comes while there are fief's keeps a rule when those go.
    let [a, _b] = two(&node);
    host.ip("link add other type vrf table 77\n");
    for name in ["ni1", "ni2"] {
        node.daemon.cli(&["delete", "tenant", name]).ok();
    }
    eventually(SOON, || if a.has("eth0") { Err("it is there".to_owned()) } else { Ok(()) });
    assert_eq!(of_vrfs(&rules()), 2, "the kernel never adds it again, so it is fief's to leave");
    host.ip("link del other\n");
    eventually(SOON, || before.diff(&Snapshot::of(host)).map_or(Ok(()), Err));
}

#[test]
fn a_rule_that_was_there_before_stays() {
    let Some(node) = open("vrf-before") else { return };
    let host = &node.town.host;
    host.ip("link add first type vrf table 77\nlink del first\n");
    let before = Snapshot::of(host);
    assert!(host.sh("ip rule").stdout.contains("1000:"), "the kernel leaves it");
    let [a, _b] = two(&node);
    a.reaches(&http(Town::SITE), "site");
    for name in ["ni1", "ni2"] {
        node.daemon.cli(&["delete", "tenant", name]).ok();
    }
    eventually(SOON, || before.diff(&Snapshot::of(host)).map_or(Ok(()), Err));
}

#[test]
fn a_restarted_daemon_adopts_what_stands() {
    let Some(mut node) = open("vrf-killed") else { return };
    let [a, _b] = two(&node);
    let site = App::of(&node.town, node.town.site.clone());
    let _echo = site.echo(PORT);
    let mut talk = Talk::open(&a.ns, (Town::SITE, PORT).into());
    let before = Snapshot::of(&node.town.host);
    node.daemon.kill9();
    talk.goes_on();
    a.reaches(&http(Town::SITE), "site");
    node.daemon.restart();
    talk.goes_on();
    eventually(SOON, || match a.dig(GATEWAY, NAME) {
        found if found == [A] => Ok(()),
        found => Err(format!("a is at {found:?}")),
    });
    eventually(SOON, || before.diff(&Snapshot::of(&node.town.host)).map_or(Ok(()), Err));
    let status = node.daemon.cli(&["status", "-o", "json"]).ok().json();
    assert_eq!(status["repairs"], 0, "nothing was wrong: {}", node.daemon.log());
    // A daemon that finds what nobody wants any more takes it away.
    node.daemon.kill9();
    node.town.host.ip("link add stray type bridge\nlink set stray group 15794275\n");
    node.daemon.restart();
    eventually(SOON, || {
        let shown = node.town.host.sh("ip link show stray");
        if shown.success() { Err("slot 99 has a device".to_owned()) } else { Ok(()) }
    });
    a.reaches(&http(Town::SITE), "site");
}

#[test]
fn what_somebody_takes_away_comes_back() {
    let Some(node) = open("vrf-vandal") else { return };
    let [a, b] = two(&node);
    let bridge = node.view("network", "ni1", "net")["status"]["bridge"].as_str().map(str::to_owned);
    let bridge = bridge.expect("a network has a bridge");
    let vrf = node.vrf("ni1");
    let inner = vrf.replace("vrf", "t");
    for taken in [
        format!("link del {inner}"),
        format!("link del {bridge}"),
        format!("link del {vrf}"),
        format!("link set {inner} down\nlink set {inner} name elsewhere\nlink set elsewhere up"),
        format!("link set {vrf} down\nlink set {vrf} name elsewhere\nlink set elsewhere up"),
        format!("route del default table {}", 256_000_000 + node.slot("ni1")),
        "rule del pref 8".to_owned(),
        "rule del pref 9".to_owned(),
    ] {
        println!("{taken}");
        node.town.host.ip(&format!("{taken}\n"));
        eventually(SOON, || a.get(&http(Town::SITE)));
        assert_eq!(a.dig(GATEWAY, NAME), [A], "{taken}");
        assert!(b.get(&http(Town::SITE)).is_ok(), "{taken}");
    }
}

#[test]
fn a_server_of_the_host_is_not_there_for_endpoints() {
    let Some(node) = open("vrf-server") else { return };
    let [a, _b] = two(&node);
    // So a server that is bound to no device is there for every VRF (ip-sysctl.rst).
    for switch in ["tcp_l3mdev_accept", "udp_l3mdev_accept"] {
        node.town.host.set_sysctl(&format!("net.ipv4.{switch}"), 1);
    }
    let host = App::of(&node.town, node.town.host.clone());
    let _echo = host.echo(PORT);
    let heard = |from: &App, address: Ipv4Addr| from.hears((address, PORT).into(), SOON);
    let gateway = App::of(&node.town, node.town.gateways[0].clone());
    heard(&gateway, Town::host_address(0)).unwrap_or_else(|error| panic!("from outside it is: {error}"));
    for address in [GATEWAY, Town::host_address(0), Ipv4Addr::new(248, 0, 0, 1)] {
        let to = (address, PORT).into();
        assert!(a.hears(to, crate::room::NEVER).is_err(), "{address} over UDP");
        assert!(a.ns.enter(|| fief_testkit::Dial::to(to).tcp(b"hello")).is_err(), "{address} over TCP");
    }
    assert_eq!(a.dig(GATEWAY, NAME), [A], "the services are");
}

#[test]
fn a_source_of_another_network_does_not_pass() {
    let Some(node) = open("vrf-home") else { return };
    node.apply(&[
        tenant("ni1"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"]),
        network_named("ni1", "other", "10.10.2.0/24", &[]),
    ]);
    let a = node.place("ni1", "a", A);
    let other = node.workload("ni1", "other");
    let there = Ipv4Addr::new(10, 10, 2, 11);
    let card = format!("{{ network: other, interface: eth0, address: {there} }}");
    node.apply(&[endpoint("ni1", "other", &[card], &other.attach())]);
    other.wait_for("eth0");
    assert!(other.pings(A), "they are one tenant's");
    let told = other.ns.run(&["ping", "-c1", "-W1", &Town::SITE.to_string()]).fails().stdout;
    assert!(told.contains("Unreachable"), "silence: {told}");
    // As a neighbour of a's it reaches neither a nor what a reaches.
    other.ns.ip("addr add 10.10.1.77/32 dev lo\n");
    let wire = fief_testkit::Capture::on(&a.ns, "eth0");
    for to in [A, Town::SITE] {
        other.ns.run(&["ping", "-c1", "-W1", "-I", "10.10.1.77", &to.to_string()]).fails();
    }
    assert_eq!(wire.count(|frame| frame.bytes.get(26..30) == Some(&[10, 10, 1, 77])), 0, "it came through");
    a.reaches(&http(Town::SITE), "site");
}

#[test]
fn only_root_enters() {
    let Some(node) = open("vrf-users") else { return };
    let [a, _b] = two(&node);
    let gateway = &node.town.gateways[0];
    let _served = [node.town.serve(&a.ns, "a"), node.town.serve(gateway, "outside")];
    let curl = node.town.tools.curl.display().to_string();
    let ask = |user: u32, device: &str, address: Ipv4Addr| {
        let (device, url) = (format!("if!{device}"), http(address));
        let words = [curl.as_str(), "-sS", "--noproxy", "*", "--max-time", "3", "--interface", &device, &url];
        node.town.host.command(&words).user(user, user).run()
    };
    const NOBODY: u32 = 65_534;
    assert!(ask(NOBODY, "eth0", Town::gateway_address(0)).ok().stdout.starts_with("outside"));
    assert!(ask(0, &node.vrf("ni1"), A).ok().stdout.starts_with("a sees"));
    ask(NOBODY, &node.vrf("ni1"), A).fails();
}

#[test]
fn a_mark_of_the_hosts_does_not_cross_a_link() {
    let Some(node) = open("vrf-mark") else { return };
    let [a, b] = two(&node);
    let _served = node.town.serve(&b.ns, "b");
    // A link inside one namespace keeps marks; what comes in by it has been marked for its uplink on the host.
    node.town.host.nft(
        "table inet watch {
           chain every { type filter hook prerouting priority -310; iifname \"t*\" counter comment \"all\"; }
           chain marked { type filter hook prerouting priority -310; iifname \"t*\" meta mark != 0 counter; }
         }",
    );
    a.reaches(&http(Town::SITE), "site");
    let gateway = App::of(&node.town, node.town.gateways[0].clone());
    gateway.reaches("http://192.168.0.2:8080/", "b");
    a.reaches("http://192.168.0.2:8080/", "b");
    let listed = node.town.host.sh("nft list table inet watch").ok().stdout;
    let counted =
        |part: &str| listed.lines().find(|line| line.contains(part)).map(|line| line.contains("packets 0 "));
    assert_eq!((counted("all\""), counted("meta mark")), (Some(false), Some(true)), "{listed}");
}

#[test]
fn an_address_of_the_hosts_may_be_an_endpoints_too() {
    let Some(node) = open("vrf-hosts") else { return };
    let own = Town::host_address(0);
    node.apply(&[
        tenant("ni1"),
        network("ni1", "192.168.0.0/24", &[]),
        network_named("ni1", "other", "10.10.2.0/24", &["uplinks: [eth0]"]),
    ]);
    let app = node.place("ni1", "app", own);
    let other = node.workload("ni1", "other");
    let card = "{ network: other, interface: eth0, address: 10.10.2.11 }".to_owned();
    node.apply(&[endpoint("ni1", "other", &[card], &other.attach())]);
    other.wait_for("eth0");
    let _served = [node.town.serve(&node.town.host, "the host"), node.town.serve(&app.ns, "the endpoint")];
    // Routed, where the host's own address would come first.
    assert_eq!(other.reaches(&http(own), "the endpoint"), Ipv4Addr::new(10, 10, 2, 11));
    other.reaches(&http(Town::SITE), "site");
    App::of(&node.town, node.town.gateways[0].clone()).reaches(&http(own), "the host");
}

#[test]
fn an_address_may_be_another_tenants_too() {
    let Some(node) = open("vrf-same") else { return };
    let [a, _b] = two(&node);
    let c = node.place("ni1", "c", B);
    let _served = node.town.serve(&c.ns, "c");
    // A tenant that has c's address on the host itself.
    let spec = format!("spec: {{ isolation: fib, interfaces: [{{ name: eth0, addresses: [{B}/32] }}] }}\n");
    node.apply(&[format!("apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: blue }}\n{spec}")]);
    node.town.host.sh(&format!("ip -o addr show dev eth0 | grep -q {B}")).ok();
    assert_eq!(a.reaches(&http(B), "c"), A);
    assert_eq!(c.reaches(&http(Town::SITE), "site"), Town::host_address(0));
}

#[test]
fn a_kernel_without_vrfs_is_told_so_and_serves_the_others() {
    let Some(node) = Node::open("vrf-none", 1) else { return };
    if node.town.host.sh("ip link add probe type vrf table 77 && ip link del probe").success() {
        return fief_testkit::skip("this kernel has VRFs");
    }
    let before = Snapshot::of(&node.town.host);
    let [with, without] = ["vrf", "netns"].map(|isolation| {
        format!(
            "apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: in-{isolation} }}\n\
             spec: {{ isolation: {isolation} }}\n"
        )
    });
    let net = |tenant: &str| network(tenant, "10.10.1.0/24", &["uplinks: [eth0]"]);
    let refused = node.daemon.apply(&[with, net("in-vrf")].join("---\n")).fails().stderr;
    assert!(refused.contains("this kernel has no VRFs; load their module (modprobe vrf)"), "{refused}");
    node.apply(&[without, net("in-netns")]);
    node.place("in-netns", "a", A).reaches(&http(Town::SITE), "site");
    node.daemon.cli(&["delete", "tenant", "in-netns"]).ok();
    eventually(SOON, || before.diff(&Snapshot::of(&node.town.host)).map_or(Ok(()), Err));
}

#[test]
fn a_name_that_the_host_has_given_is_not_taken() {
    let Some(node) = open("vrf-name") else { return };
    node.town.host.ip("link add first type vrf table 77\nlink del first\n");
    let there = Snapshot::of(&node.town.host);
    node.town.host.ip("link add vm3 type bridge\n");
    node.apply(&[
        tenant("ni1"),
        network("ni1", "10.10.1.0/24", &[]),
        endpoint("ni1", "guest", &[at(A)], "attach: { tap: vm3 }"),
    ]);
    let status = node.wait_phase("endpoint", "ni1", "guest", "Pending");
    assert_eq!(status["conditions"][0]["reason"], "NameTaken", "{status}");
    node.town.host.sh("ip -o link show vm3 | grep -q 'master' && exit 1; exit 0").ok();
    node.town.host.ip("link del vm3\n");
    node.wait_phase("endpoint", "ni1", "guest", "Ready");
    node.daemon.cli(&["delete", "tenant", "ni1"]).ok();
    // A bridge's, too: then the network is not there, and nothing of it is left when it goes.
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &[])]);
    let bridge = node.wait_phase("network", "ni1", "net", "Ready")["bridge"].clone();
    node.daemon.cli(&["delete", "tenant", "ni1"]).ok();
    let bridge = bridge.as_str().expect("a network has a bridge").to_owned();
    node.town.host.ip(&format!("link add {bridge} type bridge\n"));
    node.apply(&[tenant("ni1"), network("ni1", "10.10.1.0/24", &[])]);
    let status = node.wait_phase("network", "ni1", "net", "Pending");
    assert_eq!(status["conditions"][0]["reason"], "VrfIncomplete", "{status}");
    node.daemon.cli(&["delete", "tenant", "ni1"]).ok();
    node.town.host.ip(&format!("link del {bridge}\n"));
    eventually(SOON, || there.diff(&Snapshot::of(&node.town.host)).map_or(Ok(()), Err));
}

#[test]
fn both_kinds_stand_side_by_side_and_one_becomes_the_other() {
    let Some(node) = open("vrf-both") else { return };
    let of_kind = |name: &str, isolation: &str| {
        tenant(name).replace("isolation: vrf", &format!("isolation: {isolation}"))
    };
    node.apply(&[
        of_kind("ni1", "vrf"),
        of_kind("ni2", "netns"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"]),
        network("ni2", "10.10.1.0/24", &["uplinks: [eth0]"]),
    ]);
    let [a, b] = ["ni1", "ni2"].map(|tenant| node.place(tenant, "app", A));
    let all_reach = || {
        for app in [&a, &b] {
            eventually(SOON, || app.get(&http(Town::SITE)));
        }
    };
    all_reach();
    let entries = node.entries("ni1");
    all_in("ni1", &opened(&entries, Town::SITE, 80), node.slot("ni1"));
    let zones = |node: &Node| node.entries("ni2").len();
    assert_eq!(zones(&node), 0, "the other's are in its namespace");
    node.apply(&[of_kind("ni1", "netns"), of_kind("ni2", "vrf")]);
    eventually(SOON, || if node.inside("ni1").exists() { Ok(()) } else { Err("no namespace".into()) });
    all_reach();
    assert!(zones(&node) > 0 && !node.inside("ni2").exists());
}
