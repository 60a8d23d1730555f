//! Two who fight over an object, and a daemon that has nothing to do.

use std::time::{Duration, Instant};

use fief_testkit::{DaemonOptions, eventually};
use fief_tests::scene::Scene;

#[test]
fn two_who_fight_over_a_route_come_to_rest() {
    let Some(scene) = Scene::new("fight", 2) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    // Deletes tenant 0's default route every 20 ms for 8 s, and says how often it was there to be deleted.
    let enemy = "n=0; end=$(($(date +%s) + 8)); while [ $(date +%s) -lt $end ]; do \
                 ip route del default table 256000001 dev eth0 2>/dev/null && n=$((n+1)); sleep 0.02; done; echo $n";
    let deleted: u32 = scene.street.host.sh(enemy).ok().stdout.trim().parse().unwrap();
    assert!(deleted >= 4, "it was put back at once a few times: {deleted}");
    assert!(
        deleted <= 9,
        "fief does not fight on at this speed: {deleted} repairs in 8 s\n{}",
        scene.daemon.log()
    );
    let log = scene.daemon.log();
    let line = log.lines().find(|line| line.contains("again and again")).unwrap_or_else(|| panic!("{log}"));
    for part in ["0.0.0.0/0 via 198.19.1.1", "table 256000001", "the next time is in"] {
        assert!(line.contains(part), "{line}");
    }
    let status = scene.daemon.cli(&["status"]).ok().stdout;
    assert!(status.contains("Contended"), "{status}");
    // Only what is fought over waits: the other tenant is served and repaired at once meanwhile.
    scene.answered(1).unwrap();
    scene.street.host.sh("ip route del default table 256000002 dev eth0").ok();
    eventually(Duration::from_secs(1), || scene.answered(1));
    // The fight is over: it is made again when its pause is, at the latest.
    eventually(Duration::from_secs(17), || scene.answered(0));
}

/// User and system time in ticks, and how often its threads went to sleep of their own will (proc_pid_stat(5)).
fn cost(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let switches = tasks.filter_map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    (ticks, switches.sum())
}

#[test]
fn an_idle_daemon_does_nothing_at_all() {
    let Some(scene) = Scene::with("idle", 50, &[0], DaemonOptions::default()) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    let pid = scene.daemon.pid();
    // Ten quiet seconds after a change everything is listed once more, in case an event lied.
    settle(Duration::from_secs(12));
    let (ticks, switches) = cost(pid);
    settle(Duration::from_secs(3));
    let (ticks_after, switches_after) = cost(pid);
    assert_eq!(ticks_after - ticks, 0, "an idle daemon uses CPU");
    assert_eq!(switches_after - switches, 0, "an idle daemon wakes up");
    // The positive control: the same measure sees a daemon that works.
    scene.daemon.cli(&["get", "all"]).ok();
    assert!(cost(pid).1 > switches_after);
    // Others' traffic and others' routes do not concern it either; a device of a tenant does.
    scene.answered(0).unwrap();
}

fn settle(time: Duration) {
    let end = Instant::now() + time;
    eventually(time * 2, || if Instant::now() >= end { Ok(()) } else { Err(String::new()) });
}
