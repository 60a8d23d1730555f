//! The daemon dies at any moment: policies are as before or as asked, and numbers are those they were.

use std::time::Duration;

use fief_testkit::{DaemonOptions, eventually};
use fief_tests::scene::soak;

use crate::shop::{Shop, WEB, blue, endpoint, policy, tenant};

#[test]
fn numbers_are_the_same_after_the_daemon_was_killed() {
    let Some(mut shop) = Shop::open("policy-killed", DaemonOptions::default()) else { return };
    // The order of arrival is not the order of names, so that numbers given anew would be others.
    shop.apply(&[], &(tenant("blue") + &endpoint("blue", "other", "app: other", "10.1.0.3"))).ok();
    shop.apply(&[], &(blue() + WEB)).ok();
    let before = (shop.identities(), shop.dump());
    assert_eq!(
        before.0.iter().map(|(name, number)| (name.as_str(), *number)).collect::<Vec<_>>(),
        [("blue/back", 258), ("blue/front", 257), ("blue/other", 256)]
    );
    for _ in 0..3 {
        shop.daemon.kill9();
        shop.daemon.restart();
        assert_eq!((shop.identities(), shop.dump()), before);
        assert_eq!(
            (shop.test("front", "back", "http").code(), shop.test("other", "back", "http").code()),
            (0, 1)
        );
    }
    // A number that was in use waits for its labels, and is nobody else's meanwhile.
    shop.daemon.cli(&["delete", "endpoint", "blue/other"]).ok();
    shop.daemon.kill9();
    shop.daemon.restart();
    shop.apply(&[], &endpoint("blue", "new", "app: new", "10.1.0.4")).ok();
    assert!(shop.identities().contains(&("blue/new".into(), 259)), "{:?}", shop.identities());
    shop.apply(&[], &endpoint("blue", "other", "app: other", "10.1.0.3")).ok();
    assert!(shop.identities().contains(&("blue/other".into(), 256)), "{:?}", shop.identities());
}

#[test]
fn a_number_is_free_after_half_a_minute_and_one_policy_costs_what_it_changes() {
    let env = vec![("FIEF_LOG".to_owned(), "debug".to_owned())];
    let options = DaemonOptions { env, ..DaemonOptions::default() };
    let Some(shop) = Shop::open("policy-cost", options) else { return };
    let endpoints: String = (0..50)
        .map(|n| endpoint("blue", &format!("e{n}"), &format!("app: a{n}"), &format!("10.1.0.{n}")))
        .collect();
    let of = |n: usize, port: usize| {
        let spec = format!(
            "{{ podSelector: {{ matchLabels: {{ app: a{} }} }}, ingress: [{{ ports: [{{ port: {port} }}] }}] }}",
            n % 50
        );
        policy("blue", &format!("p{n}"), &spec)
    };
    let all: String = (0..1000).map(|n| of(n, 1 + n)).collect();
    shop.apply(&[], &(tenant("blue") + &endpoints + &all)).ok();
    shop.apply(&[], &of(7, 9999)).ok();
    let log = shop.daemon.log();
    let entries =
        |line: &str| line.split("entries=").nth(1).and_then(|rest| rest.trim().parse::<usize>().ok());
    let sizes: Vec<usize> = log.lines().filter_map(entries).collect();
    let [whole, one] = sizes[..] else { panic!("{sizes:?}\n{log}") };
    println!("1,000 policies are {whole} entries, and a change of one {one}");
    assert!(one > 0 && one * 10 < whole, "{one} of {whole}");
    if soak() {
        shop.daemon.cli(&["delete", "endpoint", "blue/e49"]).ok();
        let known = |shop: &Shop| shop.daemon.cli(&["get", "identities", "-o", "json"]).ok().json();
        assert_eq!(known(&shop).as_array().map(Vec::len), Some(50), "it waits");
        eventually(Duration::from_secs(40), || match known(&shop).as_array().map(Vec::len) {
            Some(49) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
fn an_apply_that_was_cut_off_was_all_or_nothing() {
    let Some(mut shop) = Shop::furnished("policy-cut") else { return };
    let of = |round: usize, n: usize| {
        policy(
            "blue",
            &format!("p{n}"),
            &format!("{{ podSelector: {{}}, ingress: [{{ ports: [{{ port: {} }}] }}] }}", 1 + round),
        )
    };
    let (mut old, mut new) = (0, 0);
    for round in 0..12 {
        let documents: String = (0..300).map(|n| of(round, n)).collect();
        let words = ["apply", "-f", "-", "--set", "cut"];
        let mut apply = shop.daemon.cli_command(&words).input(documents).spawn();
        // Between nothing at all and longer than it takes.
        crate::shop::pause(Duration::from_millis(round as u64 * 25));
        shop.daemon.kill9();
        apply.wait(Duration::from_secs(20));
        shop.daemon.restart();
        let views = shop.daemon.cli(&["get", "policies", "-o", "json"]).ok().json();
        let of_round = views.as_array().unwrap().iter().filter(|view| {
            view["policy"]["spec"]["ingress"][0]["ports"][0]["port"] == serde_json::json!(1 + round)
        });
        match of_round.count() {
            0 => old += 1,
            300 => new += 1,
            some => panic!("{some} of 300 after round {round}"),
        }
        assert_eq!(shop.test("front", "back", "http").code(), 0, "round {round}");
    }
    println!("{old} rounds were as before, {new} as asked");
    assert!(old > 0, "no round was cut off");
    eventually(Duration::from_secs(10), || {
        shop.apply(&["--set", "cut"], &of(99, 0)).ok();
        if shop.policies().len() <= 301 { Ok(()) } else { Err(format!("{:?}", shop.policies().len())) }
    });
}

#[test]
fn a_full_disk_refuses_a_policy_and_nothing_has_changed() {
    let Some(mut shop) = Shop::open("policy-disk", DaemonOptions::default()) else { return };
    let (host, state) = (shop.lab.ns("host"), shop.daemon.root().join("var/lib/fief"));
    shop.daemon.stop();
    host.sh(&format!("mount -t tmpfs -o size=8m tmpfs {}", state.display())).ok();
    shop.daemon.restart();
    shop.apply(&[], &(blue() + WEB)).ok();
    let before = (shop.identities(), shop.dump());
    // It fails, for want of room; that is what it is for.
    host.sh(&format!("head -c 16M /dev/zero > {}/ballast", state.display())).fails();
    let new = endpoint("blue", "new", "app: front", "10.1.0.4")
        + &endpoint("blue", "more", "app: more", "10.1.0.5");
    let open = WEB.replace("app: front", "app: other");
    let many: String = (0..2000).map(|n| policy("blue", &format!("p{n}"), "{ podSelector: {} }")).collect();
    let said = shop.apply(&[], &(new.clone() + &many + &open)).fails();
    assert!(said.stderr.contains("store") && said.stderr.contains("nothing was changed"), "{said}");
    assert_eq!((shop.identities(), shop.dump()), before);
    assert_eq!(
        (shop.test("front", "back", "http").code(), shop.test("other", "back", "http").code()),
        (0, 1)
    );
    // With room again it goes on without a restart, and the number that was promised is given.
    std::fs::remove_file(state.join("ballast")).unwrap();
    shop.apply(&[], &(new + &open)).ok();
    assert_eq!(
        (shop.test("front", "back", "http").code(), shop.test("other", "back", "http").code()),
        (1, 0)
    );
    assert!(shop.identities().contains(&("blue/more".into(), 259)), "{:?}", shop.identities());
    shop.daemon.kill9();
    shop.daemon.restart();
    assert!(shop.identities().contains(&("blue/more".into(), 259)), "{:?}", shop.identities());
}
