//! Killed, or refused something, at every k-th call.

use std::time::Duration;

use fief_testkit::{Output, Snapshot, eventually};
use fief_tests::scene::{Made, Scene};
use fief_tests::stream::Stream;

use crate::strace::{Strace, count, points};

/// How soon a restarted daemon must have converged.
const CONVERGED: Duration = Duration::from_secs(2);

fn apply(scene: &Scene, tenants: std::ops::Range<usize>) -> Output {
    scene.daemon.apply(&scene.street.documents_of(tenants))
}

fn delete(scene: &Scene, tenants: std::ops::Range<usize>) -> Output {
    let documents = scene.street.documents_of(tenants);
    scene.daemon.cli_command(&["delete", "-f", "-"]).input(documents).run()
}

/// Does `work` with the daemon killed in its `k`-th `call`; starts it again. False if it never came to that call.
#[track_caller]
fn killed(scene: &mut Scene, (call, k): (&str, usize), work: impl FnOnce(&Scene) -> Output) -> bool {
    let inject = format!("inject={call}:signal=SIGKILL:when={k}");
    let trace = format!("trace={call}");
    let mut strace = Strace::attach(scene, &["-o", "/dev/null", "-e", &trace, "-e", &inject]);
    let answer = work(scene);
    // A daemon that has answered may still die of what it does afterwards.
    let patience = if answer.success() { 200 } else { 5000 };
    let died = strace.saw_death(Duration::from_millis(patience));
    if died {
        scene.daemon.kill9();
        scene.daemon.restart();
    } else {
        strace.detach();
        answer.ok();
    }
    died
}

/// Waits until what is there is one of the two, all of it.
#[track_caller]
fn either(scene: &Scene, old: &Made, new: &Made, at: &str) {
    eventually(CONVERGED, || {
        let now = scene.made();
        match (old.differs(&now), new.differs(&now)) {
            (Some(old), Some(new)) => {
                Err(format!("{at}: neither old:\n{old}\nnor new:\n{new}\n{}", scene.daemon.log()))
            }
            _ => Ok(()),
        }
    });
}

#[track_caller]
fn same(scene: &Scene, wanted: &Made, within: Duration, at: &str) {
    eventually(within, || match wanted.differs(&scene.made()) {
        Some(text) => Err(format!("{at}: {text}\n{}", scene.daemon.log())),
        None => Ok(()),
    });
}

#[test]
fn killed_in_any_call_of_an_apply_or_a_delete() {
    let Some(mut scene) = Scene::with("killed", 4, &[0], fief_testkit::DaemonOptions::default()) else {
        return;
    };
    apply(&scene, 0..1).ok();
    let old = scene.made();
    let of_apply = count(&scene, || drop(apply(&scene, 1..4).ok()));
    let new = scene.made();
    let of_delete = count(&scene, || drop(delete(&scene, 1..4).ok()));
    same(&scene, &old, CONVERGED, "uninjected");
    println!("calls of an apply: {of_apply:?}\ncalls of a delete: {of_delete:?}");
    assert!(of_apply.contains_key("sendto") && of_apply.contains_key("bpf"), "{of_apply:?}");

    let stream = Stream::start(&scene, 0);
    let mut deaths = 0;
    for point in points(&of_apply, 14) {
        let at = format!("killed in {point:?} of apply");
        deaths += usize::from(killed(&mut scene, point, |scene| apply(scene, 1..4)));
        either(&scene, &old, &new, &at);
        // What was acknowledged is kept; what was not can be asked for again.
        apply(&scene, 1..4).ok();
        same(&scene, &new, CONVERGED, &at);
        delete(&scene, 1..4).ok();
        same(&scene, &old, CONVERGED, &at);
    }
    for point in points(&of_delete, 10) {
        let at = format!("killed in {point:?} of delete");
        apply(&scene, 1..4).ok();
        deaths += usize::from(killed(&mut scene, point, |scene| delete(scene, 1..4)));
        either(&scene, &old, &new, &at);
        drop(delete(&scene, 1..4));
        same(&scene, &old, CONVERGED, &at);
    }
    let tally = stream.lost_nothing();
    println!("{deaths} deaths; untouched tenant: {tally:?}");
    assert!(deaths >= 12, "only {deaths} of the points were reached");
    scene.answered(0).unwrap();
}

#[test]
fn killed_in_any_call_of_the_first_apply_or_the_last_delete() {
    let Some(mut scene) = Scene::new("ends", 1) else { return };
    let before = Snapshot::of(&scene.street.host);
    let nothing = scene.made();
    let of_apply = count(&scene, || drop(apply(&scene, 0..1).ok()));
    let new = scene.made();
    let of_delete = count(&scene, || drop(delete(&scene, 0..1).ok()));
    println!("calls of the first apply: {of_apply:?}\ncalls of the last delete: {of_delete:?}");
    before.assert_same(&Snapshot::of(&scene.street.host));
    let mut deaths = 0;
    for point in points(&of_apply, 14) {
        let at = format!("killed in {point:?} of the first apply");
        deaths += usize::from(killed(&mut scene, point, |scene| apply(scene, 0..1)));
        either(&scene, &nothing, &new, &at);
        apply(&scene, 0..1).ok();
        same(&scene, &new, CONVERGED, &at);
        delete(&scene, 0..1).ok();
        if let Some(text) = before.diff(&Snapshot::of(&scene.street.host)) {
            panic!("{at}: {text}\n{}", scene.daemon.log());
        }
    }
    for point in points(&of_delete, 12) {
        let at = format!("killed in {point:?} of the last delete");
        apply(&scene, 0..1).ok();
        deaths += usize::from(killed(&mut scene, point, |scene| delete(scene, 0..1)));
        either(&scene, &nothing, &new, &at);
        drop(delete(&scene, 0..1));
        if let Some(text) = before.diff(&Snapshot::of(&scene.street.host)) {
            panic!("{at}: {text}\n{}", scene.daemon.log());
        }
    }
    println!("{deaths} deaths");
    assert!(deaths >= 15, "only {deaths} of the points were reached");
    apply(&scene, 0..1).ok();
    scene.answered(0).unwrap();
}

#[test]
fn refused_in_any_call_it_says_so_and_tries_again() {
    let Some(scene) = Scene::with("refused", 3, &[0], fief_testkit::DaemonOptions::default()) else { return };
    apply(&scene, 0..1).ok();
    let old = scene.made();
    let counts = count(&scene, || drop(apply(&scene, 1..3).ok()));
    let new = scene.made();
    delete(&scene, 1..3).ok();
    let stream = Stream::start(&scene, 0);
    let calls: Vec<_> =
        points(&counts, 16).into_iter().filter(|(call, _)| ["sendto", "bpf"].contains(call)).collect();
    for (turn, (call, k)) in calls.into_iter().enumerate() {
        let errno = ["ENOMEM", "ENOBUFS", "EPERM"][turn % 3];
        let at = format!("{call} number {k} refused with {errno}");
        let inject = format!("inject={call}:error={errno}:when={k}");
        let trace = format!("trace={call}");
        let mut strace = Strace::attach(&scene, &["-o", "/dev/null", "-e", &trace, "-e", &inject]);
        let said = scene.daemon.log().len();
        let answer = apply(&scene, 1..3);
        assert!(!strace.saw_death(Duration::ZERO), "{at}: the daemon died\n{}", scene.daemon.log());
        strace.detach();
        if answer.success() {
            // Accepted: whatever was refused on the way is said, and made in the end.
            same(&scene, &new, Duration::from_secs(8), &at);
        } else {
            assert!(!answer.stderr.trim().is_empty(), "{at}: refused without a word");
            same(&scene, &old, CONVERGED, &at);
            apply(&scene, 1..3).ok();
            same(&scene, &new, CONVERGED, &at);
        }
        let log = scene.daemon.log();
        let news = log.get(said..).unwrap_or_default();
        let loud = news.contains("WARN") || news.contains("ERROR") || !answer.success();
        println!("{at}: answer {}, {}", answer.code(), if loud { "said" } else { "harmless" });
        delete(&scene, 1..3).ok();
        same(&scene, &old, Duration::from_secs(8), &at);
    }
    println!("untouched tenant: {:?}", stream.lost_nothing());
}
