//! The same where fief writes no packet marks at all: `markMask: none`.

use std::net::Ipv4Addr;

use fief_testkit::{Capture, Daemon, DaemonOptions, Snapshot, eventually, skip, without_marks};

use super::{apart, inside, ports};
use crate::app::App;
use crate::flow::{Flow, Talk};
use crate::node::{Node, endpoint, http, in_vrfs, network, tenant};
use crate::room::SOON;
use crate::town::Town;

const A: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 11);
const B: Ipv4Addr = Ipv4Addr::new(10, 10, 1, 12);
const NONE: &str = "markMask: none\n";
const AUTO: &str = "markMask: auto\n";
/// Where servers listen.
const PORT: u16 = 7000;
/// From outside to `b`, by the second uplink.
const PORT_MAP: &str = "http://192.168.1.2:8080/";

/// A scenario that runs with namespaces only: the virtual machine has no time for all of them.
fn in_namespaces(scenario: fn()) {
    if in_vrfs() {
        return skip("with VRFs a part of the scenarios runs without marks");
    }
    without_marks(scenario);
}

#[test]
fn markless_evenet_e01() {
    in_namespaces(inside::evenet_e01);
}

#[test]
fn markless_evenet_e02() {
    without_marks(inside::evenet_e02);
}

#[test]
fn markless_evenet_e04() {
    in_namespaces(inside::evenet_e04);
}

#[test]
fn markless_evenet_e05() {
    without_marks(ports::evenet_e05);
}

#[test]
fn markless_evenet_e06() {
    in_namespaces(ports::evenet_e06);
}

#[test]
fn markless_evenet_e07() {
    in_namespaces(inside::evenet_e07);
}

#[test]
fn markless_evenet_e09() {
    in_namespaces(inside::evenet_e09);
}

#[test]
fn markless_evenet_e10() {
    without_marks(ports::evenet_e10);
}

#[test]
fn markless_evenet_e18() {
    in_namespaces(inside::evenet_e18);
}

#[test]
fn markless_evenet_e19() {
    in_namespaces(ports::evenet_e19);
}

#[test]
fn markless_evenet_e20() {
    in_namespaces(apart::evenet_e20);
}

#[test]
fn markless_evenet_e21() {
    in_namespaces(apart::evenet_e21);
}

/// Two tenants with one subnet, `a` behind the first uplink and `b` behind the second.
#[track_caller]
fn two(name: &str, config: &str) -> Option<(Node, App, App)> {
    let town = Town::open(name, 2)?;
    if in_vrfs() {
        town.host.set_sysctl("net.bridge.bridge-nf-call-iptables", 0);
    }
    let node = Node::in_town(town, config);
    let map = "portMaps: [{ uplink: eth1, port: 8080, to: \"b:80\" }]";
    node.apply(&[
        tenant("ni1"),
        tenant("ni2"),
        network("ni1", "10.10.1.0/24", &["uplinks: [eth0]"]),
        network("ni2", "10.10.1.0/24", &["uplinks: [eth1]", map]),
    ]);
    let (a, b) = (node.place("ni1", "a", A), node.place("ni2", "b", B));
    Some((node, a, b))
}

/// Starts the daemon again with another configuration.
#[track_caller]
fn restart(node: &mut Node, config: &str) {
    let file = node.daemon.root().join("etc/fief/fiefd.yaml");
    std::fs::write(file, config).expect("the lab's directory is writable");
    node.daemon.restart();
}

/// Everything of fief's on the host, and in a tenant's namespace, that reads or writes a mark.
#[track_caller]
fn marks(node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    for line in node.town.host.sh("ip rule; ip -6 rule").ok().stdout.lines() {
        if line.contains("fwmark") {
            found.push(format!("rule {line}"));
        }
    }
    let list = ["nft", "-j", "list", "ruleset"];
    let mut rules = vec![node.town.host.run(&list).ok().stdout];
    if !in_vrfs() {
        rules.push(node.run_inside("ni1", &list).ok().stdout);
    }
    for listed in rules {
        assert!(listed.contains("\"fief"), "these are not fief's rules: {listed}");
        if listed.contains("\"key\": \"mark\"") {
            found.push(format!("nft {listed}"));
        }
    }
    // Programs are the machine's, and others are at work there; fief's stay only by their pins.
    let pins = node.daemon.root().join("sys/fs/bpf/fief");
    if pins.exists() {
        found.push(format!("programs below {}", pins.display()));
    }
    let scanned = node.daemon.cli(&["marks", "scan", "--here", "-o", "json"]).ok().json();
    let uses = scanned["uses"].as_array().expect("a list").iter();
    let of_programs = |found: &&serde_json::Value| found["subsystem"] != "bpf";
    found.extend(uses.filter(of_programs).map(|found| format!("scan {found}")));
    for switch in ["fwmark_reflect", "tcp_fwmark_accept", "conf.all.src_valid_mark"] {
        if node.town.host.sysctl(&format!("net.ipv4.{switch}")).trim() != "0" {
            found.push(format!("switch {switch}"));
        }
    }
    found
}

#[test]
fn marks_go_and_come_and_no_packet_takes_another_way() {
    let Some((mut node, a, b)) = two("markless-switch", AUTO) else { return };
    let site = App::of(&node.town, node.town.site.clone());
    let _served = [node.town.serve(&a.ns, "a"), node.town.serve(&b.ns, "b")];
    let _echoes = [site.echo(PORT), b.echo(PORT)];
    let outside = App::of(&node.town, node.town.gateways[0].clone());
    let mut talks = [&a, &b].map(|app| Talk::open(&app.ns, (Town::SITE, PORT).into()));
    let all_goes_on = |talks: &mut [Talk; 2]| {
        talks.iter_mut().for_each(Talk::goes_on);
        assert_eq!(a.reaches(&http(Town::SITE), "site"), Town::host_address(0));
        assert_eq!(b.reaches(&http(Town::SITE), "site"), Town::host_address(1));
        outside.reaches(PORT_MAP, "b");
        outside.is_refused(&http(B));
    };
    all_goes_on(&mut talks);
    let with = marks(&node);
    for sign in ["rule ", "nft ", "programs ", "scan ", "switch "] {
        assert!(with.iter().any(|mark| mark.starts_with(sign)), "{sign} shows nothing: {with:#?}");
    }
    // An emulated processor takes a minute to load the programs.
    let configs = if in_vrfs() { &[NONE][..] } else { &[NONE, AUTO, NONE] };
    for config in configs.iter().copied() {
        // Nothing of b's is seen on the other uplink at any time.
        let wire = Capture::on(&node.town.gateways[0], "eth0");
        let flow = Flow::start(&b.ns, (Town::SITE, PORT).into());
        let pings = b.ns.spawn(&["ping", "-i0.005", "-s999", "192.0.2.80"]);
        restart(&mut node, config);
        all_goes_on(&mut talks);
        println!("{config}: {:?}", flow.finish());
        drop(pings);
        // 999 bytes, 8 of ICMP and 20 of IPv4 in a frame of Ethernet; a's own is elsewhere.
        let is_bs = |length: usize| length == 14 + 20 + 8 + 999;
        assert_eq!(wire.count(|frame| is_bs(frame.bytes.len())), 0, "{config}: it left by the other uplink");
        let shown = node.daemon.cli(&["status", "-o", "json"]).ok().json();
        match config {
            NONE => assert_eq!((marks(&node), &shown["markMask"]), (Vec::new(), &"none".into())),
            _ => assert_eq!(marks(&node).len(), with.len()),
        }
    }
    // What was told what: there is no field to ask for, to move, or to be in anybody's way.
    let said = |words: &[&str]| node.daemon.cli(words).fails().stderr;
    let moved = said(&["marks", "move", "--to", "0xff00"]);
    assert!(moved.contains("fief writes no marks") && moved.contains("markMask: auto"), "{moved}");
    assert!(said(&["marks", "header"]).contains("fief writes no marks"));
    let checked = node.daemon.cli(&["marks", "check"]).ok().stdout;
    assert!(checked.starts_with("fief writes no marks on this host"), "{checked}");
    let doctor = node.daemon.cli(&["doctor"]).stdout;
    assert!(doctor.contains("fief writes no marks") && doctor.contains("not used"), "{doctor}");
    for name in ["ni1", "ni2"] {
        node.daemon.cli(&["delete", "tenant", name]).ok();
    }
    let rules = node.town.host.sh("ip rule").ok().stdout;
    assert!(!rules.contains("248.0.0.0") && !rules.contains("256000"), "{rules}");
}

#[test]
fn the_way_back_is_asked_for_by_the_source() {
    let Some((node, _a, b)) = two("markless-back", NONE) else { return };
    // Strictly: an answer by the second uplink is believed only if the way there is by the second uplink.
    for device in ["all", "eth0", "eth1"] {
        node.town.host.set_sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), 1);
    }
    let _served = node.town.serve(&b.ns, "b");
    assert_eq!(b.reaches(&http(Town::SITE), "site"), Town::host_address(1));
    App::of(&node.town, node.town.gateways[1].clone()).reaches(PORT_MAP, "b");
    // The host itself has no such rule.
    let ping = ["ping", "-c1", "-W1", "-I", "eth1", "192.0.2.80"];
    node.town.host.run(&ping).fails();
    for device in ["all", "eth1"] {
        node.town.host.set_sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), 0);
    }
    node.town.host.run(&ping).ok();
}

#[test]
fn rules_that_somebody_takes_away_come_back() {
    if in_vrfs() {
        return skip("this asks nothing of VRFs");
    }
    let Some((node, a, b)) = two("markless-vandal", NONE) else { return };
    let lines =
        |text: &str| text.lines().filter(|line| line.contains("98304") || line.contains("98305")).count();
    let rules = || lines(&node.town.host.sh("ip rule").ok().stdout);
    let before = rules();
    assert_eq!(before, 5, "one that leads there, two uplinks, the host, the end");
    for pref in [10, 12, 98_304, 98_305] {
        node.town.host.ip(&format!("rule del pref {pref}\n"));
        eventually(SOON, || match rules() {
            now if now == before => Ok(()),
            now => Err(format!("{now} rules without {pref}")),
        });
        eventually(SOON, || a.get(&http(Town::SITE)));
        assert_eq!(b.reaches(&http(Town::SITE), "site"), Town::host_address(1), "{pref}");
    }
    // Another tenant costs no rule.
    node.apply(&[tenant("ni3"), network("ni3", "10.10.1.0/24", &["uplinks: [eth1]"])]);
    node.place("ni3", "c", A).reaches(&http(Town::SITE), "site");
    assert_eq!(rules(), before);
}

/// A tenant's document with a spec.
fn with_spec(name: &str, spec: &str) -> String {
    format!("apiVersion: fief/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

#[test]
fn who_needs_marks_is_refused_and_told_why() {
    if in_vrfs() {
        return skip("this asks nothing of VRFs");
    }
    let Some((mut node, a, _b)) = two("markless-refused", NONE) else { return };
    let eth = "interfaces: [{ name: eth0, addresses: [198.51.100.7/24] }]";
    for (isolation, spec) in [
        ("fib", format!("{{ isolation: fib, {eth} }}")),
        ("auto", format!("{{ {eth} }}")),
        ("vrf", format!("{{ isolation: vrf, {eth} }}")),
        ("fib", "{ isolation: fib }".to_owned()),
    ] {
        let told = node.daemon.apply(&with_spec("blue", &spec)).fails().stderr;
        let reasons = told.matches("`markMask: none` in fiefd.yaml says that fief writes none").count();
        assert!(reasons == 1 && told.contains("set it to `auto`"), "{isolation}: {told}");
    }
    // A tenant whose networks come later gets its place.
    node.apply(&[with_spec("later", "{}")]);
    let view = node.daemon.cli(&["get", "tenant", "later", "-o", "json"]).ok().json();
    let view = if view.is_array() { view[0].clone() } else { view };
    assert_eq!((&view["status"]["isolation"], &view["status"]["mark"]), (&"netns".into(), &"none".into()));
    assert!(node.inside("later").exists());
    node.apply(&[network("later", "10.10.1.0/24", &["uplinks: [eth0]"])]);
    let app = node.workload("later", "app");
    let card = format!("{{ network: net, interface: eth0, address: {A} }}");
    node.apply(&[endpoint("later", "app", &[card], &app.attach())]);
    eventually(SOON, || app.get(&http(Town::SITE)));

    // With marks the same is taken; and then it stands in the way of none, and nothing is touched.
    restart(&mut node, AUTO);
    node.apply(&[with_spec("blue", &format!("{{ {eth} }}"))]);
    node.daemon.stop();
    let before = Snapshot::of(&node.town.host);
    let options = DaemonOptions { config_yaml: Some(NONE.to_owned()), ..DaemonOptions::default() };
    let told = Daemon::refused(&node.town.lab, &node.town.host, options);
    let said = told.stdout.clone() + &told.stderr;
    assert!(said.contains("tenant blue stands in the way of `markMask: none`"), "{told}");
    before.assert_same(&Snapshot::of(&node.town.host));
    restart(&mut node, AUTO);
    node.daemon.cli(&["delete", "tenant", "blue"]).ok();
    restart(&mut node, NONE);
    a.reaches(&http(Town::SITE), "site");
    assert_eq!(marks(&node), [] as [String; 0]);
}
