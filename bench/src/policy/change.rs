//! How long it takes until a packet sees that the labels of an endpoint have changed.

use std::path::Path;
use std::time::{Duration, Instant};

use fief_api::{ApplyRequest, Client, Paths, SourceText};

use super::place::{FRONT, Place, address};
use super::probe::Probe;
use crate::compare::median;

/// Changes by `fief apply`, and before them some that do not count; half of them allow.
const CHANGES: usize = 240;
const WARM: usize = 10;
/// Changes asked over the daemon's socket.
const ASKED: usize = 60;
/// A program that does nothing is started once in so many changes.
const YARDSTICK: usize = 5;

/// What was found, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Changed {
    /// From the call of `fief apply` until a packet sees it.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// Starting `true`, until it has ended.
    pub process: f64,
    /// From the daemon's being asked until a packet sees it.
    pub daemon: f64,
    /// The same, until it answers.
    pub answered: f64,
}

/// Takes the right to call from an endpoint and gives it back, by one label.
pub fn measure(place: &Place) -> Changed {
    let workloads = &place.ruled.workloads;
    let mut probe = Probe::between([0, 1].map(|n| (&workloads[n], address(n))));
    let heard = probe.until(|| true, true);
    assert!(heard.is_ok(), "what is allowed is not heard:\n{}", place.daemon.log());
    let (mut seen, mut processes) = (Vec::new(), Vec::new());
    for n in 0..WARM + CHANGES {
        let command = place.command("apply", document(place, n));
        let (at, _) = observed(place, &mut probe, n, || {
            let begin = Instant::now();
            command.run().ok();
            begin
        });
        if n >= WARM {
            seen.push(at);
        }
        if n.is_multiple_of(YARDSTICK) {
            let begin = Instant::now();
            place.host.run(&["true"]).ok();
            processes.push(ms(begin.elapsed()));
        }
    }
    // The lab's directory is mounted where the daemon is, and not here.
    let root = format!("/proc/{}/root{}", place.daemon.pid(), place.daemon.root().display());
    let paths = Paths::new(Some(Path::new(&root)));
    let asked = (0..ASKED).map(|n| {
        let n = WARM + CHANGES + n;
        let source = SourceText { name: "-".into(), text: document(place, n) };
        let request = ApplyRequest { sources: vec![source], ..ApplyRequest::default() };
        let client = Client::new(&paths).expect("a thread may have a runtime");
        observed(place, &mut probe, n, move || {
            let begin = Instant::now();
            client.apply(&request).expect("a daemon that answers");
            begin
        })
    });
    let (daemon, answered): (Vec<f64>, Vec<f64>) = asked.unzip();
    seen.sort_by(f64::total_cmp);
    let at = |percent: usize| seen[(seen.len() * percent).div_ceil(100) - 1];
    Changed {
        p50: at(50),
        p99: at(99),
        process: median(processes),
        daemon: median(daemon),
        answered: median(answered),
    }
}

/// The caller's document; each second one forbids, and by a label that nobody has had.
fn document(place: &Place, n: usize) -> String {
    let role = if allows(n) { FRONT.to_owned() } else { format!("other{n}") };
    place.ruled.endpoint(0, &role)
}

fn allows(n: usize) -> bool {
    n % 2 == 1
}

/// Milliseconds from when `change` says that it began: until a packet saw it, and until it returned.
fn observed(
    place: &Place,
    probe: &mut Probe,
    n: usize,
    change: impl FnOnce() -> Instant + Send,
) -> (f64, f64) {
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let begin = change();
            (begin, begin.elapsed())
        });
        let at = probe.until(|| changing.is_finished(), allows(n));
        let (begin, took) = changing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let at = at.unwrap_or_else(|why| panic!("change {n}: {why}\n{}", place.daemon.log()));
        (ms(at.saturating_duration_since(begin)), ms(took))
    })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
