//! Many tenants from one file: the first, the middle and the last are reached, and a change touches little.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fief_testkit::{DaemonOptions, attempt, eventually};
use fief_tests::scene::Scene;
use fief_tests::stream::Stream;

const PATIENCE: Duration = Duration::from_secs(600);
const MIB: f64 = 1024.0 * 1024.0;

/// `n` tenants of whom the first, the middle and the last have clients, and one more with addresses only.
struct Many {
    scene: Scene,
    present: [usize; 3],
}

impl Many {
    /// Nobody is applied yet.
    fn open(name: &str, n: usize) -> Option<Many> {
        let present = [0, n / 2, n - 1];
        Some(Many { scene: Scene::with(name, n + 1, &present, DaemonOptions::default())?, present })
    }

    /// `fief VERB -f -`, and the seconds that took.
    #[track_caller]
    fn timed(&self, verb: &str, documents: &str) -> f64 {
        let begin = Instant::now();
        self.scene.daemon.cli_command(&[verb, "-f", "-"]).input(documents).timeout(PATIENCE).run().ok();
        begin.elapsed().as_secs_f64()
    }

    /// Seconds until all clients, which have the same address, are answered in both families.
    #[track_caller]
    fn answered(&self) -> f64 {
        let begin = Instant::now();
        let all = || self.present.into_iter().try_for_each(|i| self.scene.answered(i));
        attempt(PATIENCE, all).unwrap_or_else(|why| panic!("{why}\n{}", self.scene.daemon.log()));
        begin.elapsed().as_secs_f64()
    }

    /// How many lines a command on the host prints.
    #[track_caller]
    fn lines(&self, command: &str) -> usize {
        self.scene.street.host.sh(command).ok().stdout.lines().count()
    }

    /// The daemon's proportional set size and what its bpf maps hold, in MiB.
    fn memory(&self) -> (f64, f64) {
        let pid = self.scene.daemon.pid();
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let mut maps = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if let (Some(id), Some(bytes)) = (number(&text, "map_id:"), number(&text, "memlock:")) {
                maps.insert(id as u64, bytes);
            }
        }
        (number(&rollup, "Pss:").unwrap_or_default() * 1024.0 / MIB, maps.values().sum::<f64>() / MIB)
    }
}

fn number(text: &str, word: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(word))?.split_whitespace().next()?.parse().ok()
}

/// From one file through `fief apply`, and gone again without a trace.
fn from_one_file(name: &str, n: usize) {
    let Some(many) = Many::open(name, n) else { return };
    let documents = many.scene.street.documents_of(0..n);
    let create = many.timed("apply", &documents);
    many.answered();
    let (process, maps) = many.memory();
    let rules = many.lines("ip -4 rule");
    let delete = many.timed("delete", &documents);
    println!(
        "{n} tenants: create {create:.2} s, delete {delete:.2} s, fiefd {process:.1} MiB, its maps {maps:.1} MiB, \
         {rules} rules a family"
    );
    assert!(process + maps <= 64.0 || n > 4096, "{process} + {maps} MiB");
    assert!(rules < n + n / 4, "{rules} rules for {n} tenants");
    assert_eq!(many.lines("ip -4 rule; ip -6 rule"), 5, "rules are left");
    assert_eq!(many.lines("ip -4 route show table all proto 241; ip -6 route show table all proto 241"), 0);
    assert!(many.scene.answered(0).is_err(), "a deleted tenant is still answered");
}

/// The device of all tenants goes down and comes back.
fn link_flaps(name: &str, n: usize) {
    let Some(many) = Many::open(name, n) else { return };
    many.timed("apply", &many.scene.street.documents_of(0..n));
    many.answered();
    many.scene.street.host.ip("link set eth0 down\n");
    eventually(Duration::from_secs(60), || match many.scene.answered(0) {
        Ok(()) => Err("still answered over a device that is down".to_owned()),
        Err(_) => Ok(()),
    });
    many.scene.street.host.ip("link set eth0 up\n");
    let (repaired, (process, maps)) = (many.answered(), many.memory());
    println!(
        "{n} tenants: all answered {repaired:.2} s after the link is back; {process:.1} + {maps:.1} MiB"
    );
    // The kernel takes thousands of addresses away with the lock of all network configuration held: better here than
    // with the namespace, when the next test waits for that lock.
    let began = Instant::now();
    many.scene.street.host.command(&["ip", "link", "del", "eth0"]).timeout(PATIENCE).run().ok();
    println!("{n} tenants: the device is gone after {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn a_thousand_tenants_from_one_file() {
    from_one_file("scale", 1024);
}

#[test]
#[ignore = "takes a minute"]
fn four_thousand_tenants_from_one_file() {
    from_one_file("scale-4k", 4096);
}

#[test]
#[ignore = "takes minutes"]
fn sixteen_thousand_tenants_from_one_file() {
    // One less: the street has addresses for 16,384, and one is kept for another tenant.
    from_one_file("scale-16k", 16_383);
}

#[test]
fn a_thousand_tenants_return_with_their_link() {
    link_flaps("scale-flap", 1024);
}

#[test]
#[ignore = "takes a minute"]
fn four_thousand_tenants_return_with_their_link() {
    link_flaps("scale-flap-4k", 4096);
}

#[test]
#[ignore = "takes minutes"]
fn sixteen_thousand_tenants_return_with_their_link() {
    link_flaps("scale-flap-16k", 16_383);
}

/// One tenant more touches one bucket, and nobody else's packets.
#[test]
fn one_more_tenant_among_a_thousand_touches_one_bucket() {
    /// A rule of the test's own, by which it knows that the monitor listens.
    const OWN: &str = "0x7f000000";
    const N: usize = 1024;
    const TIMES: usize = 10;
    let Some(many) = Many::open("scale-one", N) else { return };
    let host = &many.scene.street.host;
    many.timed("apply", &many.scene.street.documents_of(0..N));
    many.answered();
    let mut monitor = host.spawn(&["ip", "monitor", "rule"]);
    eventually(Duration::from_secs(5), || {
        let rule = format!("fwmark {OWN} lookup main pref 32000");
        host.ip(&format!("rule add {rule}\nrule del {rule}\n"));
        if monitor.output().contains(OWN) { Ok(()) } else { Err("ip monitor is silent".to_owned()) }
    });
    let stream = Stream::start(&many.scene, 0);
    // More than once, so that there is traffic to be lost.
    let (mut create, mut delete) = (0.0, 0.0);
    for _ in 0..TIMES {
        create += many.timed("apply", &many.scene.street.yaml(N)) / TIMES as f64;
        delete += many.timed("delete", &many.scene.street.yaml(N)) / TIMES as f64;
    }
    let tally = stream.lost_nothing();
    monitor.kill();
    let output = monitor.output();
    let changes: Vec<&str> = output.lines().filter(|line| !line.contains(OWN)).collect();
    println!(
        "one more tenant: added in {create:.3} s, deleted in {delete:.3} s, {} changes of rules, {} packets meanwhile",
        changes.len(),
        tally.sent
    );
    // Its leaf comes and goes in two families; nobody else's does.
    let leaves = changes.iter().filter(|line| line.contains("lookup")).count();
    assert_eq!(leaves, 4 * TIMES, "{changes:#?}");
    // Beside it at most a guard, a node and, where the root moves, the old entry and the new one; there and back.
    assert!(changes.len() <= 4 * 5 * TIMES, "{changes:#?}");
}
