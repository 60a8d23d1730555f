//! The store: damaged, or with no room left.

use std::fs;
use std::path::PathBuf;

use fief_testkit::{Daemon, DaemonOptions, Families, Lab, Snapshot, Street};
use fief_tests::scene::Scene;

fn store(daemon: &Daemon) -> PathBuf {
    daemon.root().join("var/lib/fief/store.redb")
}

#[test]
fn a_damaged_store_is_one_clear_error_and_touches_nothing() {
    let Some(mut scene) = Scene::new("damaged", 1) else { return };
    scene.daemon.apply(&scene.street.documents()).ok();
    scene.daemon.stop();
    let (path, made) = (store(&scene.daemon), scene.made());
    let good = fs::read(&path).unwrap();
    let half = good[..good.len() / 2].to_vec();
    let garbage = b"this is no database ".repeat(good.len() / 20);
    let mut scratched = good.clone();
    scratched[..512].fill(0xa5);
    for (what, bytes) in
        [("half", half), ("garbage", garbage), ("scratched", scratched), ("one byte", vec![1])]
    {
        fs::write(&path, &bytes).unwrap();
        let output = Daemon::refused(&scene.lab, &scene.street.host, DaemonOptions::default());
        let said = format!("{}{}", output.stdout, output.stderr);
        let errors = said.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).count();
        assert_eq!(errors, 1, "{what}: {said}");
        assert!(said.contains("open the store") && said.contains("store.redb"), "{what}: {said}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: the evidence is left as it is");
        assert_eq!(made.differs(&scene.made()), None, "{what}");
        scene.answered(0).expect("the tenants are served meanwhile");
    }
    // The positive control.
    fs::write(&path, &good).unwrap();
    scene.daemon.restart();
    assert_eq!(made.differs(&scene.made()), None);
    // No store at all is a new host: nothing is remembered, so nothing of ours may stay.
    scene.daemon.stop();
    fs::remove_file(&path).unwrap();
    scene.daemon.restart();
    assert_eq!(scene.daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout, "");
    let rules =
        scene.street.host.sh("ip rule; ip -6 rule; nft list ruleset; ip route show table all").ok().stdout;
    assert!(!rules.contains("fwmark") && !rules.contains("fief") && !rules.contains("256000001"), "{rules}");
}

#[test]
fn a_full_disk_refuses_the_apply_and_changes_nothing() {
    let Some(lab) = Lab::new("full-disk") else { return };
    let street = Street::sparse(&lab, 600, &[], Families::Both);
    let state = lab.dir().join("root/var/lib/fief");
    fs::create_dir_all(&state).unwrap();
    let (host, at) = (&street.host, state.display());
    host.sh(&format!("mount -t tmpfs -o size=8m tmpfs {at}")).ok();
    let daemon = Daemon::start(&lab, host, DaemonOptions::default());
    daemon.apply(&street.documents_of(0..2)).ok();
    let (before, dump) = (Snapshot::of(host), daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout);

    // It fails, for want of room; that is what it is for.
    host.sh(&format!("head -c 16M /dev/zero > {at}/ballast")).fails();
    let said = daemon.apply(&street.documents()).fails();
    assert!(said.stderr.contains("store") && said.stderr.contains("nothing was changed"), "{said}");
    before.assert_same(&Snapshot::of(host));
    assert_eq!(daemon.cli(&["get", "all", "-o", "yaml"]).ok().stdout, dump);

    // With room again it goes on without a restart.
    fs::remove_file(state.join("ballast")).unwrap();
    daemon.apply(&street.documents()).ok();
    let status = daemon.cli(&["status", "-o", "json"]).ok().json();
    assert_eq!(status["ready"], 600, "{status}");
}
