//! The few switches that must be set: restored, unless somebody else has turned them since.

use std::time::{Duration, Instant};

use fief_testkit::{DaemonOptions, Snapshot, eventually};
use fief_tests::scene::{SOON, Scene};

const REFLECT: &str = "net.ipv4.fwmark_reflect";
const ACCEPT: &str = "net.ipv4.tcp_fwmark_accept";
const VALID: &str = "net.ipv4.conf.all.src_valid_mark";

#[test]
fn switches_are_listed_and_restored_over_a_restart_and_a_crash() {
    let Some(mut scene) = Scene::with("restore", 1, &[0], DaemonOptions::default()) else { return };
    scene.street.host.set_sysctl("net.ipv4.conf.all.rp_filter", 1);
    // This one is on already: it is not fief's to switch off.
    scene.street.host.set_sysctl(ACCEPT, 1);
    let before = Snapshot::of(&scene.street.host);
    scene.daemon.apply(&scene.street.documents()).ok();
    scene.answered(0).expect("strict reverse-path filters do not drop a tenant's client");
    let status = scene.daemon.cli(&["status"]).ok().stdout;
    for name in [REFLECT, "net.ipv6.fwmark_reflect", VALID] {
        assert_eq!(scene.street.host.sysctl(name), "1");
        assert!(status.contains(&format!("{name} = 1 (was 0)")), "{status}");
    }
    assert!(!status.contains(ACCEPT), "{status}");
    scene.daemon.kill9();
    scene.daemon.restart();
    scene.daemon.restart();
    scene.daemon.cli(&["delete", "tenant", "t0"]).ok();
    before.assert_same(&Snapshot::of(&scene.street.host));
    assert_eq!(scene.street.host.sysctl(ACCEPT), "1");
    assert_eq!(scene.street.host.sysctl(REFLECT), "0");
}

#[test]
fn a_switch_that_somebody_turned_since_is_left_alone() {
    let Some(scene) = Scene::with("theirs", 1, &[0], DaemonOptions::default()) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    assert_eq!(scene.street.host.sysctl(REFLECT), "1");
    // Until the daemon has nothing to do any more: at its next occasion it would turn it again, for its tenants' sake.
    let settled = Instant::now() + Duration::from_millis(500);
    eventually(SOON, || if Instant::now() > settled { Ok(()) } else { Err(String::new()) });
    // Another value than both of ours.
    scene.street.host.set_sysctl(REFLECT, 2);
    let set = scene.street.host.sysctl(REFLECT);
    if set != "2" {
        fief_testkit::skip("this kernel knows only 0 and 1 for fwmark_reflect");
        return;
    }
    scene.daemon.cli(&["delete", "tenant", "t0"]).ok();
    assert_eq!(scene.street.host.sysctl(REFLECT), "2", "what somebody changed since is theirs");
    assert_eq!(scene.street.host.sysctl(ACCEPT), "0", "the others are put back");
}
