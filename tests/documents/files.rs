//! Documents in etc/fief: the set `files`.

use std::fs;
use std::time::Duration;

use fief_testkit::{DaemonOptions, Families, Lab, Street, eventually};
use fief_tests::scene::Scene;
use nix::sys::signal::Signal;

fn names(scene: &Scene) -> String {
    let views = scene.daemon.cli(&["get", "tenants", "-o", "json"]).ok().json();
    let view = |view: &serde_json::Value| {
        let (name, set) = (&view["tenant"]["metadata"]["name"], &view["set"]);
        format!("{}/{}", set.as_str().unwrap(), name.as_str().unwrap())
    };
    views.as_array().unwrap().iter().map(view).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn becomes(scene: &Scene, wanted: &str) {
    eventually(Duration::from_secs(2), || match names(scene) {
        now if now == wanted => Ok(()),
        now => Err(format!("{now} instead of {wanted}\n{}", scene.daemon.log())),
    });
}

#[test]
fn files_are_read_at_boot_and_on_reload_and_a_mistake_stops_nobody() {
    // A street of the same shape, for its documents.
    let Some(lab) = Lab::new("files-plan") else { return };
    let plan = Street::sparse(&lab, 4, &[], Families::Both);
    let files = vec![("10-a.yaml".to_owned(), plan.yaml(0)), ("20-b.yml".to_owned(), plan.yaml(1))];
    let ignored =
        [("note.txt".to_owned(), "nonsense: [".to_owned()), ("fiefd.yaml".to_owned(), "# ours\n".to_owned())];
    let files = files.into_iter().chain(ignored).collect();
    let options = DaemonOptions { files, ..DaemonOptions::default() };
    drop(lab);
    let Some(mut scene) = Scene::with("files", 4, &[0, 1, 2], options) else { return };
    becomes(&scene, "files/t0 files/t1");
    (0..2).for_each(|tenant| scene.answered(tenant).unwrap());
    // Another set is beside it, whatever the files say.
    scene.daemon.apply(&scene.street.yaml(3)).ok();

    let directory = scene.daemon.root().join("etc/fief");
    fs::write(directory.join("30-c.yaml"), scene.street.yaml(2)).unwrap();
    scene.daemon.signal(Signal::SIGHUP);
    becomes(&scene, "files/t0 files/t1 files/t2 default/t3");
    eventually(Duration::from_secs(1), || scene.answered(2));
    // What is no longer in a file goes.
    fs::remove_file(directory.join("20-b.yml")).unwrap();
    scene.daemon.signal(Signal::SIGHUP);
    becomes(&scene, "files/t0 files/t2 default/t3");

    // A typing mistake keeps what was, on reload and over a restart, and the log names the place.
    fs::write(directory.join("10-a.yaml"), scene.street.yaml(0).replace("addresses", "adresses")).unwrap();
    fs::remove_file(directory.join("30-c.yaml")).unwrap();
    scene.daemon.signal(Signal::SIGHUP);
    eventually(Duration::from_secs(2), || {
        let log = scene.daemon.log();
        if log.contains("refused") && log.contains("adresses") { Ok(()) } else { Err(log) }
    });
    for restart in [false, true] {
        if restart {
            scene.daemon.restart();
        }
        becomes(&scene, "files/t0 files/t2 default/t3");
        [0, 2].iter().for_each(|tenant| scene.answered(*tenant).unwrap());
    }
    // An empty directory changes nothing: a file system that is not mounted yet must not delete everybody.
    fs::remove_file(directory.join("10-a.yaml")).unwrap();
    scene.daemon.restart();
    becomes(&scene, "files/t0 files/t2 default/t3");
    // Put right, it is as the files say.
    fs::write(directory.join("10-a.yaml"), scene.street.yaml(0)).unwrap();
    scene.daemon.signal(Signal::SIGHUP);
    becomes(&scene, "files/t0 default/t3");
    scene.answered(0).unwrap();
}
