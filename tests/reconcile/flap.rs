//! Devices that fall, vanish, return and change their names.

use std::time::{Duration, Instant};

use fief_testkit::{DaemonOptions, eventually};
use fief_tests::scene::{Made, SOON, Scene, soak};

fn ready(name: &str) -> Option<(Scene, Made)> {
    let scene = Scene::new(name, 2)?;
    scene.daemon.apply(&scene.street.documents()).ok();
    (0..2).for_each(|tenant| scene.answered(tenant).expect("the scene works before it is harmed"));
    let made = scene.made();
    Some((scene, made))
}

#[track_caller]
fn routed(scene: &Scene, made: &Made) {
    for family in ["-4", "-6"] {
        eventually(SOON, || {
            let title = format!("ip {family} route show table all");
            let wanted: Vec<&str> =
                made.section(&title).lines().filter(|l| l.contains("table 256")).collect();
            let now = scene.made();
            let missing: Vec<&&str> = wanted.iter().filter(|l| !now.section(&title).contains(**l)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:#?}\n{}", scene.daemon.log())) }
        });
    }
    let state =
        || scene.street.host.sh("ip -6 addr show dev eth0; ip -6 route show table local; ip neigh").stdout;
    let answered = |tenant| scene.answered(tenant).map_err(|why| format!("{why}\n{}", state()));
    (0..2).for_each(|tenant| eventually(Duration::from_secs(2), || answered(tenant)));
}

#[test]
fn a_device_that_falls_and_rises_has_its_routes_again() {
    let Some((scene, made)) = ready("flap") else { return };
    for _ in 0..3 {
        scene.street.host.ip("link set eth0 down\n");
        eventually(SOON, || match scene.reasons("t0") {
            reasons if reasons.contains(&"LinkDown".to_owned()) => Ok(()),
            reasons => Err(format!("{reasons:?}")),
        });
        scene.street.host.ip("link set eth0 up\n");
        routed(&scene, &made);
        scene.wait_ready("t0", SOON);
    }
    // Faster than anybody can look.
    scene.street.host.ip(&"link set eth0 down\nlink set eth0 up\n".repeat(20));
    routed(&scene, &made);
    scene.wait_ready("t0", SOON);
}

/// What the kernel leaves behind when its work on an address comes too late (net/ipv6/addrconf.c, addrconf_dad_work).
#[test]
fn an_address_that_the_kernel_does_not_listen_to_is_added_again() {
    let Some((scene, made)) = ready("deaf") else { return };
    let address = scene.street.local6(0);
    let host = &scene.street.host;
    host.ip(&format!("route del local {address} dev eth0 table local\n"));
    let listens =
        || host.sh("ip -6 route show table local").ok().stdout.contains(&format!("local {address} "));
    assert!(!listens(), "it was put back at once, whoever did that");
    let shown = host.sh("ip -6 -o addr show dev eth0").stdout;
    assert!(shown.contains(&format!("{address}/128")), "{shown}");
    routed(&scene, &made);
    assert_eq!(scene.daemon.log().matches("no route to it").count(), 1, "{}", scene.daemon.log());
    // And an address that has its route is left alone.
    scene.street.host.ip("link set eth0 down\nlink set eth0 up\n");
    routed(&scene, &made);
    fief_testkit::attempt(Duration::from_secs(2), || Err::<(), _>(String::new())).expect_err("it is waited");
    assert_eq!(scene.daemon.log().matches("no route to it").count(), 1, "{}", scene.daemon.log());
}

#[test]
fn a_device_that_several_make_fall_and_rise_at_once_has_its_addresses_again() {
    let Some((scene, made)) = ready("several") else { return };
    let rounds = if soak() { 60 } else { 12 };
    let line = "for p in 1 2 3; do (for i in $(seq 30); do echo 'link set eth0 down'; echo 'link set eth0 up'; done | \
                ip -batch -) & done; wait; ip link set eth0 up";
    for _ in 0..rounds {
        scene.street.host.sh(line).ok();
        routed(&scene, &made);
    }
    let healed = scene.daemon.log().matches("no route to it").count();
    println!("{healed} addresses without a route in {rounds} rounds");
    scene.wait_ready("t0", SOON);
}

#[test]
fn a_device_without_carrier_is_told_and_forgiven() {
    let Some((scene, made)) = ready("carrier") else { return };
    scene.street.wire.ns.ip("link set p0 down\n");
    eventually(SOON, || match scene.reasons("t1") {
        reasons if reasons == ["NoCarrier"] => Ok(()),
        reasons => Err(format!("{reasons:?}")),
    });
    scene.street.wire.ns.ip("link set p0 up\n");
    scene.wait_ready("t1", SOON);
    routed(&scene, &made);
}

#[test]
fn a_device_that_is_deleted_and_made_again_is_taken_again() {
    let Some((scene, _)) = ready("replug") else { return };
    for _ in 0..2 {
        scene.street.host.ip("link del eth0\n");
        eventually(SOON, || match scene.reasons("t0") {
            reasons if reasons == ["DeviceMissing"] => Ok(()),
            reasons => Err(format!("{reasons:?}")),
        });
        scene.street.wire.attach_as(&scene.street.host, "eth0", scene.street.host_mac());
        scene.wait_ready("t0", SOON);
        scene.wait_ready("t1", SOON);
        (0..2).for_each(|tenant| eventually(Duration::from_secs(3), || scene.answered(tenant)));
    }
}

#[test]
fn a_device_that_is_renamed_away_and_back() {
    let Some((scene, made)) = ready("rename") else { return };
    assert_eq!(scene.street.host.sysctl("net.ipv4.conf.eth0.accept_local"), "1");
    scene.street.host.ip("link set eth0 name wan0\n");
    eventually(SOON, || match scene.reasons("t0") {
        reasons if reasons == ["DeviceMissing"] => Ok(()),
        reasons => Err(format!("{reasons:?}")),
    });
    // The name went, so the tenant is nowhere: nothing of it answers, and its addresses are gone.
    eventually(SOON, || {
        let now = scene.made();
        let addresses = now.section("ip -o addr show");
        if addresses.contains("198.18.1.1/32") { Err(addresses.to_owned()) } else { Ok(()) }
    });
    scene.answered(0).expect_err("a tenant without a device is not reached");
    // Nor is its switch left behind, under whatever name.
    assert_eq!(scene.street.host.sysctl("net.ipv4.conf.wan0.accept_local"), "0");
    scene.street.host.ip("link set wan0 name eth0\n");
    routed(&scene, &made);
    scene.wait_ready("t0", SOON);
}

#[test]
fn ipv6_switched_off_and_on_again_on_a_device() {
    let Some((scene, made)) = ready("v6off") else { return };
    scene.street.host.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", 1);
    eventually(SOON, || match scene.status_of("t0") {
        status if status["phase"] == "Pending" => Ok(()),
        status => Err(status.to_string()),
    });
    // Long enough for somebody who asks again and again to have lost patience.
    eventually(Duration::from_secs(6), || {
        let log = scene.daemon.log();
        if log.matches("refused by the kernel").count() >= 4 { Ok(()) } else { Err(log) }
    });
    scene.street.host.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", 0);
    scene.street.host.ip(&format!("addr add {}/64 dev eth0 nodad\n", fief_testkit::Street::HOST_V6));
    routed(&scene, &made);
    scene.wait_ready("t0", SOON);
}

/// Every device event of a host with many tenants: how long until the last tenant is whole again.
#[track_caller]
fn flap_with(tenants: usize, most: Duration) {
    let present = [0, tenants / 2, tenants - 1];
    let Some(scene) = Scene::with("many", tenants, &present, DaemonOptions::default()) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    present.iter().for_each(|tenant| scene.answered(*tenant).unwrap());
    let flaps = [
        ("down and up", "link set eth0 down\nlink set eth0 up\n"),
        ("renamed away and back", "link set eth0 name wan0\nlink set wan0 name eth0\n"),
    ];
    for (name, lines) in flaps {
        scene.street.host.ip(lines);
        let began = Instant::now();
        whole(&scene, &present, most);
        println!("{tenants} tenants, {name}: whole again after {:.2} s", began.elapsed().as_secs_f64());
    }
    // ip(8) flushes in rounds until nothing is left; fief may well be faster, and then it gives up.
    drop(scene.street.host.sh("ip addr flush dev eth0 scope global; ip addr replace 198.18.0.1/15 dev eth0"));
    let began = Instant::now();
    whole(&scene, &present, most);
    println!(
        "{tenants} tenants, addresses flushed: whole again after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    scene.street.host.ip("link del eth0\n");
    scene.street.wire.attach_as(&scene.street.host, "eth0", scene.street.host_mac());
    let began = Instant::now();
    whole(&scene, &present, most);
    println!(
        "{tenants} tenants, vanished and returned: whole again after {:.2} s",
        began.elapsed().as_secs_f64()
    );
}

#[track_caller]
fn whole(scene: &Scene, present: &[usize], most: Duration) {
    eventually(most, || {
        let status = scene.daemon.cli(&["status", "-o", "json"]).ok().json();
        let ready = status["ready"].as_u64().unwrap_or(0) as usize;
        if ready == scene.street.tenants {
            Ok(())
        } else {
            Err(format!("{status}\n{}", tail(&scene.daemon.log())))
        }
    });
    present.iter().for_each(|tenant| eventually(most, || scene.answered(*tenant)));
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[test]
fn a_flap_with_500_tenants_is_repaired() {
    flap_with(500, Duration::from_secs(10));
}

#[test]
#[ignore = "a minute; `make soak` runs it"]
fn a_flap_with_4096_tenants_is_repaired() {
    flap_with(4096, Duration::from_secs(if soak() { 60 } else { 120 }));
}
