//! The daemon's own life: restarts, another configuration, a second daemon.

use std::time::Duration;

use fief_testkit::{Daemon, DaemonOptions, Lab, Snapshot, eventually};
use fief_tests::scene::{SOON, Scene};

fn slot(scene: &Scene, tenant: &str) -> u64 {
    scene.status_of(tenant)["slot"].as_u64().expect("a tenant has a slot")
}

#[test]
fn a_restart_changes_nothing_and_keeps_the_slots() {
    let Some(mut scene) = Scene::new("restart", 3) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    scene.daemon.cli(&["delete", "tenant", "t0"]).ok();
    let slots = [slot(&scene, "t1"), slot(&scene, "t2")];
    assert_eq!(slots, [2, 3], "a deleted neighbour moves nobody");
    let made = scene.made();
    for kill in [false, true] {
        if kill {
            scene.daemon.kill9();
        }
        scene.daemon.restart();
        assert_eq!([slot(&scene, "t1"), slot(&scene, "t2")], slots);
        assert_eq!(made.differs(&scene.made()), None);
        [1, 2].iter().for_each(|tenant| scene.answered(*tenant).unwrap());
        let status = scene.daemon.cli(&["status", "-o", "json"]).ok().json();
        assert_eq!(status["repairs"], 0, "nothing was wrong: {}", scene.daemon.log());
    }
}

#[test]
fn another_mark_field_and_local_rule_take_the_place_of_the_old_ones() {
    let Some(mut scene) = Scene::new("layout", 2) else { return };
    let empty = Snapshot::of(&scene.street.host);
    scene.daemon.apply(&scene.street.documents()).ok();
    let first = scene.made();
    let config = scene.daemon.root().join("etc/fief/fiefd.yaml");
    for (text, mask, preferences) in [
        ("markMask: \"0xff0000\"\nlocalRule: keep\n", "/0xff0000", "0:"),
        ("markMask: \"0xff0000\"\nlocalRule: move\n", "/0xff0000", "11:"),
        ("markMask: \"0xfff0\"\nlocalRule: move\n", "/0xfff0", "11:"),
        ("", "/0xffff", "0:"),
    ] {
        std::fs::write(&config, text).unwrap();
        scene.daemon.restart();
        // The old field serves until the new one stands.
        for family in ["-4", "-6"] {
            eventually(Duration::from_secs(2), || {
                let made = scene.made();
                let rules = made.section(&format!("ip {family} rule show"));
                let marked: Vec<&str> = rules.lines().filter(|line| line.contains("fwmark")).collect();
                let local: Vec<&str> = rules.lines().filter(|line| line.contains("lookup local")).collect();
                let is_new = !marked.is_empty() && marked.iter().all(|l| l.contains(mask));
                let is_placed = local.len() == 1 && local[0].starts_with(preferences);
                if is_new && is_placed { Ok(()) } else { Err(format!("{text}: {rules}")) }
            });
        }
        (0..2).for_each(|tenant| eventually(Duration::from_secs(2), || scene.answered(tenant)));
    }
    eventually(Duration::from_secs(2), || match first.differs(&scene.made()) {
        None => Ok(()),
        Some(text) => Err(text),
    });
    scene.daemon.cli(&["delete", "tenant", "t0", "t1"]).ok();
    empty.assert_same(&Snapshot::of(&scene.street.host));
}

#[test]
fn the_moved_local_rule_goes_back_with_the_last_tenant() {
    let options = DaemonOptions { config_yaml: Some("localRule: move\n".into()), ..DaemonOptions::default() };
    let Some(scene) = Scene::with("moved", 2, &[0, 1], options) else { return };
    let before = Snapshot::of(&scene.street.host);
    scene.daemon.apply(&scene.street.documents()).ok();
    (0..2).for_each(|tenant| scene.answered(tenant).unwrap());
    assert!(scene.street.host.sh("ip rule show").ok().stdout.contains("11:\tfrom all lookup local"));
    // Somebody puts rule 0 back, or takes the moved one away: neither stays.
    let made = scene.made();
    for harm in
        ["ip rule add pref 0 lookup local", "ip -6 rule add pref 0 lookup local", "ip rule del pref 11"]
    {
        scene.street.host.sh(harm).ok();
        eventually(SOON, || {
            made.differs(&scene.made()).map_or(Ok(()), |text| Err(format!("{harm}: {text}")))
        });
    }
    scene.daemon.cli(&["delete", "tenant", "t0", "t1"]).ok();
    before.assert_same(&Snapshot::of(&scene.street.host));
}

#[test]
fn a_second_daemon_in_the_namespace_is_refused_and_told_who_the_first_is() {
    let Some(lab) = Lab::new("second") else { return };
    let (here, there) = (lab.ns("here"), lab.ns("there"));
    let first = Daemon::start(&lab, &here, DaemonOptions::default());
    let before = Snapshot::of(&here);
    let other = DaemonOptions { root: "other".into(), ..DaemonOptions::default() };
    let said = Daemon::refused(&lab, &here, other.clone()).stderr;
    assert!(said.contains(&format!("process {}", first.pid())) && said.contains("stop it first"), "{said}");
    before.assert_same(&Snapshot::of(&here));
    first.cli(&["status"]).ok();
    // Beside it, in a namespace of its own, it runs.
    let second = Daemon::start(&lab, &there, other);
    second.cli(&["status"]).ok();
    assert_ne!(first.pid(), second.pid());
    first.cli(&["status"]).ok();
}

#[test]
fn two_daemons_in_two_namespaces_do_not_touch_each_other() {
    let Some(scene) = Scene::new("beside", 1) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let (made, other) = (scene.made(), scene.lab.ns("other"));
    scene.street.wire.attach(&other, "eth0");
    let options = DaemonOptions { root: "other".into(), ..DaemonOptions::default() };
    let second = Daemon::start(&scene.lab, &other, options);
    // The far end is up a moment later.
    eventually(SOON, || {
        let link = other.sh("ip link show eth0").ok().stdout;
        if link.contains("state UP") { Ok(()) } else { Err(link) }
    });
    let empty = Snapshot::of(&other);
    second.apply(&scene.street.yaml(0).replace("198.18.1.1", "198.18.9.9").replace("::a:1", "::a:99")).ok();
    assert_eq!(made.differs(&scene.made()), None);
    scene.answered(0).unwrap();
    second.cli(&["delete", "tenant", "t0"]).ok();
    empty.assert_same(&Snapshot::of(&other));
    assert_eq!(made.differs(&scene.made()), None);
    scene.answered(0).unwrap();
}

#[test]
fn a_deleted_tenants_slot_goes_to_nobody_who_could_hear_its_sockets() {
    let Some(scene) = Scene::new("reuse", 3) else { return };
    scene.daemon.apply(&scene.street.documents_of(0..2)).ok();
    let freed = slot(&scene, "t0");
    // A socket that fief did not make and cannot close in time: one of the host's, which carries the slot by itself.
    let number = u32::try_from(freed).unwrap();
    let carrier = scene.street.host.enter(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
    scene.daemon.cli(&["delete", "tenant", "t0"]).ok();
    fief_testkit::set_mark(&carrier, number).unwrap();
    scene.daemon.apply(&scene.street.documents_of(2..3)).ok();
    assert_ne!(slot(&scene, "t2"), freed, "somebody's socket still carries slot {freed}");
    scene.answered(2).unwrap();
    // The positive control: without that socket the lowest slot is given again.
    drop(carrier);
    scene.daemon.apply(&scene.street.documents_of(0..1)).ok();
    assert_eq!(slot(&scene, "t0"), freed);
    scene.answered(0).unwrap();
}
