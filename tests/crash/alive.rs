//! Without a daemon the datapath works on.

use std::time::Duration;

use fief_testkit::eventually;
use fief_tests::scene::Scene;
use fief_tests::stream::Stream;

#[test]
fn a_killed_daemon_costs_no_packet() {
    let Some(mut scene) = Scene::new("alive", 3) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let made = scene.made();
    let stream = Stream::start(&scene, 0);
    for _ in 0..5 {
        scene.daemon.kill9();
        // New connections are served as well while nobody watches.
        (0..3).for_each(|tenant| scene.answered(tenant).expect("no daemon is needed for a packet"));
        scene.daemon.restart();
        assert_eq!(made.differs(&scene.made()), None);
        scene.daemon.cli(&["delete", "tenant", "t2"]).ok();
        scene.daemon.apply(&scene.street.documents()).ok();
        eventually(Duration::from_secs(1), || scene.answered(2));
    }
    scene.daemon.stop();
    assert_eq!(made.differs(&scene.made()), None, "a clean stop leaves the tenants served");
    scene.daemon.restart();
    println!("untouched tenant: {:?}", stream.lost_nothing());
}

#[test]
fn the_stream_sees_what_is_lost() {
    let Some(scene) = Scene::new("control", 1) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let stream = Stream::start(&scene, 0);
    eventually(Duration::from_secs(5), || {
        let received = scene.status_of("t0")["counters"]["rxPackets"].as_u64().unwrap_or(0);
        if received > 200 { Ok(()) } else { Err(format!("{received} packets")) }
    });
    // The positive control of every `lost_nothing`: a blink of the wire is seen.
    scene.street.wire.ns.sh("ip link set p0 down; sleep 0.1; ip link set p0 up").ok();
    eventually(Duration::from_secs(5), || scene.answered(0));
    let tally = stream.finish();
    assert!(tally.received < tally.sent, "{tally:?}");
}
