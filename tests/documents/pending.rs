//! What the host lacks just now.

use std::time::Duration;

use fief_testkit::eventually;
use fief_tests::scene::{SOON, Scene};

#[test]
fn a_missing_device_is_waited_for() {
    let Some(scene) = Scene::new("device", 2) else { return };
    let text = scene.street.yaml(0).replace("name: eth0", "name: eth7");
    let said = scene.daemon.apply(&text).ok();
    assert!(said.stdout.contains("Pending: device eth7 is not there"), "{said}");
    scene.daemon.apply(&scene.street.yaml(1)).ok();
    scene.answered(1).unwrap();
    assert_eq!(scene.reasons("t0"), ["DeviceMissing"]);
    scene.answered(0).expect_err("a pending tenant is not reached");
    // Its traffic goes nowhere, not by somebody else's way.
    let way = |mark: u32| scene.street.host.sh(&format!("ip route get 192.0.2.9 mark {mark}"));
    assert!(way(1).fails().stderr.contains("No route to host"));
    way(2).ok();
    scene.street.wire.attach(&scene.street.host, "eth7");
    scene.wait_ready("t0", SOON);
    eventually(Duration::from_secs(2), || scene.answered(0));
    scene.answered(1).unwrap();
}

#[test]
fn an_address_that_somebody_has_is_waited_for() {
    let Some(scene) = Scene::new("taken", 1) else { return };
    scene.street.host.ip("link add other type veth peer name other2\naddr add 198.18.1.1/32 dev other\n");
    let said = scene.daemon.apply(&scene.street.documents()).ok();
    assert!(said.stdout.contains("198.18.1.1 is on device other already"), "{said}");
    assert_eq!(scene.reasons("t0"), ["AddressTaken"]);
    scene.street.host.ip("addr del 198.18.1.1/32 dev other\n");
    scene.wait_ready("t0", SOON);
    scene.answered(0).unwrap();
    // It was theirs and it is ours now: the delete takes ours away only.
    scene.street.host.ip("addr add 203.0.113.5/32 dev other\n");
    scene.daemon.cli(&["delete", "tenant", "t0"]).ok();
    let addresses = scene.street.host.sh("ip -o -4 addr show").ok().stdout;
    assert!(addresses.contains("203.0.113.5") && !addresses.contains("198.18.1.1/"), "{addresses}");
}

#[test]
fn an_address_that_fief_does_not_manage_must_be_there_and_stays() {
    let Some(scene) = Scene::new("manage", 1) else { return };
    let text = scene.street.documents().replace("name: eth0, ", "name: eth0, manage: false, ");
    scene.daemon.apply(&text).ok();
    assert_eq!(scene.reasons("t0"), ["AddressMissing", "AddressMissing"]);
    let addresses = |scene: &Scene| scene.street.host.sh("ip -o addr show dev eth0").ok().stdout;
    assert!(!addresses(&scene).contains("198.18.1.1/"));
    scene.street.host.ip("addr add 198.18.1.1/32 dev eth0\naddr add fd00:18::a:1/128 dev eth0 nodad\n");
    scene.wait_ready("t0", SOON);
    scene.answered(0).unwrap();
    scene.daemon.cli(&["delete", "tenant", "t0"]).ok();
    assert!(addresses(&scene).contains("198.18.1.1/32"), "what fief did not add it does not remove");
}

#[test]
fn what_the_kernel_refuses_is_told_and_forgotten_with_its_document() {
    let Some(scene) = Scene::new("kernel", 1) else { return };
    scene.street.host.set_sysctl("net.ipv6.conf.eth0.disable_ipv6", 1);
    let said = scene.daemon.apply(&scene.street.documents()).ok();
    assert!(said.stdout.contains("Pending") && said.stdout.contains("fd00:18::a:1"), "{said}");
    assert!(scene.reasons("t0").contains(&"Refused".to_owned()));
    // The same tenant without IPv6: the complaint goes with what it was about.
    let text = scene.street.documents();
    let four: Vec<&str> = text.lines().filter(|line| !line.contains("fd00:18::b")).collect();
    let four = four.join("\n").replace(", \"fd00:18::a:1/64\"", "") + "\n";
    scene.daemon.apply(&four).ok();
    assert_eq!(scene.reasons("t0"), [""; 0]);
}
