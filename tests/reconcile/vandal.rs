//! Somebody with root deletes what fief made.

use std::time::Duration;

use fief_testkit::{Snapshot, eventually};
use fief_tests::scene::{Made, SOON, Scene};

/// Does `harm`, sees that it harmed, and waits until everything is as before and all clients are answered.
#[track_caller]
fn put_back(scene: &Scene, before: &Made, harm: &str) {
    let repairs = scene.daemon.cli(&["status", "-o", "json"]).ok().json()["repairs"].as_u64();
    scene.street.host.sh(harm).ok();
    whole_again(scene, before, harm);
    let after = scene.daemon.cli(&["status", "-o", "json"]).ok().json()["repairs"].as_u64();
    assert!(after > repairs, "{harm}: nothing was repaired, so nothing was harmed");
}

#[track_caller]
fn whole_again(scene: &Scene, before: &Made, harm: &str) {
    eventually(SOON, || match before.differs(&scene.made()) {
        None => Ok(()),
        Some(text) => Err(format!("after {harm}:\n{text}\n{}", scene.daemon.log())),
    });
    (0..2).for_each(|tenant| eventually(Duration::from_secs(2), || scene.answered(tenant)));
}

fn ready(name: &str) -> Option<(Scene, Made)> {
    let scene = Scene::new(name, 2)?;
    scene.daemon.apply(&scene.street.documents()).ok();
    (0..2).for_each(|tenant| scene.answered(tenant).expect("the scene works before it is harmed"));
    let made = scene.made();
    Some((scene, made))
}

#[test]
fn deleted_rules_come_back() {
    let Some((scene, made)) = ready("rules") else { return };
    for family in ["-4", "-6"] {
        let rules = made.section(&format!("ip {family} rule show"));
        let ours: Vec<&str> = rules.lines().filter(|l| l.contains("proto")).collect();
        // The entry, the aliases' table, two leaves, the guard behind their bucket, the end.
        assert_eq!(ours.len(), 6, "{rules}");
        for rule in ours {
            let (preference, selector) = rule.split_once(":\t").unwrap();
            let selector = selector.replace("[unresolved]", "");
            put_back(&scene, &made, &format!("ip {family} rule del pref {preference} {selector}"));
        }
        put_back(&scene, &made, &format!("ip {family} rule flush proto {}", protocol(&made)));
    }
}

#[test]
fn a_flush_of_all_rules_is_survived() {
    let Some((scene, made)) = ready("ruleflush") else { return };
    for family in ["-4", "-6"] {
        // It takes main and default along, which are not ours to put back.
        let restore = format!(
            "ip {family} rule add pref 32766 lookup main; ip {family} rule add pref 32767 lookup default"
        );
        scene.street.host.sh(&format!("ip {family} rule flush")).ok();
        eventually(SOON, || {
            let rules = scene.street.host.sh(&format!("ip {family} rule show")).ok().stdout;
            let ours = rules.lines().filter(|line| line.contains("proto")).count();
            if ours >= 5 { Ok(()) } else { Err(rules) }
        });
        (0..2).for_each(|tenant| eventually(Duration::from_secs(1), || scene.answered(tenant)));
        scene.street.host.sh(&restore).ok();
    }
    // The host's own two are marked as somebody's now; everything of ours is as before.
    let ours = |made: &Made, family: &str| -> Vec<String> {
        let rules = made.section(&format!("ip {family} rule show")).lines().map(str::to_owned);
        rules.filter(|line| !line.starts_with("3276")).collect()
    };
    let now = scene.made();
    ["-4", "-6"].iter().for_each(|family| assert_eq!(ours(&made, family), ours(&now, family)));
}

#[test]
fn deleted_routes_come_back() {
    let Some((scene, made)) = ready("routes") else { return };
    for family in ["-4", "-6"] {
        let table = "256000001";
        put_back(&scene, &made, &format!("ip {family} route del default table {table} dev eth0"));
        put_back(
            &scene,
            &made,
            &format!("ip {family} route del unreachable default table {table} metric 4294967295"),
        );
        put_back(&scene, &made, &format!("ip {family} route flush table {table}"));
        // Replaced, not deleted: the answer would go astray.
        let nowhere = if family == "-4" { "198.19.99.99" } else { "fd00:18::b:99" };
        let metric = if family == "-4" { "" } else { "metric 1024" };
        let replace =
            format!("ip {family} route replace default via {nowhere} dev eth0 table {table} {metric}");
        put_back(&scene, &made, &replace);
    }
    // Two tenants at once, and a stranger's route beside ours, which stays theirs.
    scene.street.host.sh("ip route add 203.0.113.0/24 dev eth0 table 256000001 proto static").ok();
    let made = scene.made();
    put_back(&scene, &made, "ip route del default table 256000001; ip route del default table 256000002");
}

#[test]
fn deleted_addresses_come_back() {
    let Some((scene, made)) = ready("addresses") else { return };
    put_back(&scene, &made, "ip addr del 198.18.1.1/32 dev eth0");
    put_back(&scene, &made, "ip addr del fd00:18::a:1/128 dev eth0");
    // With the host's own ones; those are put back by whoever owns them.
    scene.street.host.sh("ip addr flush dev eth0 scope global").ok();
    scene.street.host.ip("addr add 198.18.0.1/15 dev eth0\naddr add fd00:18::1/64 dev eth0 nodad\n");
    eventually(SOON, || {
        let now = scene.made();
        let text = now.section("ip -o addr show");
        let all = ["198.18.1.1/32", "198.18.1.2/32", "fd00:18::a:1/128", "fd00:18::a:2/128"];
        if all.iter().all(|a| text.contains(a)) { Ok(()) } else { Err(text.to_owned()) }
    });
    (0..2).for_each(|tenant| eventually(Duration::from_secs(2), || scene.answered(tenant)));
}

#[test]
fn the_guard_survives_a_flush_of_nft_and_comes_back_when_its_links_are_removed() {
    let Some((scene, made)) = ready("guard") else { return };
    let host = &scene.street.host;
    host.nft("table inet theirs { chain c { type filter hook input priority 0; counter accept; }; }");
    host.sh("nft flush ruleset").ok();
    // The positive control: the flush did flush.
    assert!(!host.sh("nft list ruleset").ok().stdout.contains("theirs"));
    whole_again(&scene, &made, "nft flush ruleset");
    // A removed link tells nobody; it is found at the next look, ten seconds after the last change.
    let links = format!("{}/sys/fs/bpf/fief/links", scene.daemon.root().display());
    host.sh(&format!("rm {links}/leaving4-* {links}/delivered6-* {links}/connect4-*")).ok();
    assert!(made.differs(&scene.made()).is_some(), "they are gone");
    host.ip("link add other type veth peer name other2\nlink set other up\n");
    eventually(Duration::from_secs(15), || {
        made.section("links")
            .eq(scene.made().section("links"))
            .then_some(())
            .ok_or_else(|| "links are missing".to_owned())
    });
    host.ip("link del other\n");
    whole_again(&scene, &made, "links removed");
}

#[test]
fn what_is_taken_away_while_the_daemon_is_dead_its_successor_makes_again() {
    let Some((mut scene, made)) = ready("orphan") else { return };
    scene.daemon.kill9();
    assert_eq!(made.differs(&scene.made()), None, "everything stays when the daemon dies");
    (0..2).for_each(|tenant| scene.answered(tenant).expect("the datapath works without a daemon"));
    scene
        .street
        .host
        .sh(&format!(
            "rm {}/sys/fs/bpf/fief/links/leaving*; ip rule del pref 10; ip -6 rule del pref 10",
            scene.daemon.root().display()
        ))
        .ok();
    scene.daemon.restart();
    whole_again(&scene, &made, "a flush while nobody looked");
}

#[test]
fn a_switch_that_somebody_turned_is_turned_again_at_the_next_occasion() {
    let Some((scene, made)) = ready("switch") else { return };
    // Sysctls tell nobody when they change, so this is found at the next reconciliation, not within a second.
    scene.street.host.set_sysctl("net.ipv4.tcp_fwmark_accept", 0);
    scene.street.host.ip("link add other type veth peer name other2\nlink set other up\n");
    eventually(Duration::from_secs(12), || {
        let now = scene.street.host.sysctl("net.ipv4.tcp_fwmark_accept");
        if now == "1" { Ok(()) } else { Err(now) }
    });
    scene.street.host.ip("link del other\n");
    whole_again(&scene, &made, "a switch");
}

#[test]
fn deleting_every_tenant_leaves_the_host_as_it_was() {
    let Some(scene) = Scene::new("nothing", 3) else { return };
    let before = Snapshot::of(&scene.street.host);
    for _ in 0..3 {
        scene.daemon.apply(&scene.street.documents()).ok();
        // A router may be asking for the address at this moment, and asks once a second.
        (0..3).for_each(|tenant| eventually(Duration::from_secs(3), || scene.answered(tenant)));
        let with = Snapshot::of(&scene.street.host);
        assert!(before.diff(&with).is_some(), "an apply is seen");
        let documents = scene.street.documents();
        scene.daemon.cli_command(&["delete", "-f", "-"]).input(documents).run().ok();
        before.assert_same(&Snapshot::of(&scene.street.host));
        let pins = scene.street.host.sh(&format!("ls -A {}/sys/fs/bpf/fief", scene.daemon.root().display()));
        assert_eq!(pins.stdout, "", "pins stay");
    }
}

/// The number or name under which this host's ip(8) shows our routing protocol.
fn protocol(made: &Made) -> String {
    let rules = made.section("ip -4 rule show");
    let line = rules.lines().find(|line| line.contains("proto")).expect("our rules name their protocol");
    line.split("proto ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a protocol").to_owned()
}
