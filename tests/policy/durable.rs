//! The daemon dies at any moment: policies are as before or as asked, and numbers are those they were.

use std::time::Duration;

use fief_testkit::{DaemonOptions, eventually};

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
