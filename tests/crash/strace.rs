//! strace(1) at a running daemon: counts its calls, kills it in one, makes one fail.

use std::collections::BTreeMap;
use std::time::Duration;

use fief_testkit::{Child, attempt};
use fief_tests::scene::{Scene, soak};
use nix::sys::signal::Signal;

/// The calls by which the daemon changes the world outside of its memory.
pub const CALLS: &[&str] = &[
    "sendto",
    "bpf",
    "mount",
    "pwrite64",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "setsockopt",
    "sendmsg",
];

/// strace, attached to the daemon.
pub struct Strace(Child);

impl Strace {
    /// Attaches with these options.
    #[track_caller]
    pub fn attach(scene: &Scene, options: &[&str]) -> Strace {
        let pid = scene.daemon.pid().to_string();
        let head = ["strace", "-f", "-p", &pid];
        let argv: Vec<&str> = head.iter().chain(options).copied().collect();
        let mut child = scene.lab.ns("watcher").spawn(&argv);
        child.wait_for_output("attached", Duration::from_secs(10));
        Strace(child)
    }

    /// Has the daemon died under it?
    pub fn saw_death(&mut self, wait: Duration) -> bool {
        attempt(wait, || self.0.ended().map(drop).ok_or_else(String::new)).is_ok()
    }

    /// Lets go of the daemon.
    #[track_caller]
    pub fn detach(mut self) -> String {
        self.0.signal(Signal::SIGTERM);
        self.0.wait(Duration::from_secs(10));
        self.0.output()
    }
}

/// How often the busiest thread makes each of [`CALLS`] during `work`.
#[track_caller]
pub fn count(scene: &Scene, work: impl FnOnce()) -> BTreeMap<&'static str, usize> {
    let trace = format!("trace={}", CALLS.join(","));
    let strace = Strace::attach(scene, &["-e", &trace, "-e", "signal=none"]);
    work();
    let text = strace.detach();
    let mut counts: BTreeMap<(&str, &'static str), usize> = BTreeMap::new();
    for line in text.lines() {
        // `[pid 4711] sendto(3, ...`, once a second thread was seen.
        let (pid, rest) =
            line.strip_prefix("[pid ").and_then(|rest| rest.split_once("] ")).unwrap_or(("", line));
        let name = rest.trim_start().split('(').next().unwrap_or_default();
        if let Some(call) = CALLS.iter().find(|call| **call == name) {
            *counts.entry((pid.trim(), call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), number) in counts {
        let entry: &mut usize = most.entry(call).or_default();
        *entry = number.max(*entry);
    }
    most
}

/// The points to try: every one in the soak run, else about `budget` of them, each call's first and last included.
pub fn points(counts: &BTreeMap<&'static str, usize>, budget: usize) -> Vec<(&'static str, usize)> {
    let total: usize = counts.values().sum();
    let mut points = Vec::new();
    for (call, number) in counts {
        let share = if soak() { *number } else { (budget * number / total.max(1)).clamp(1, *number) };
        let mut of_call: Vec<usize> = match share {
            1 => vec![(number / 2).max(1)],
            share => (0..share).map(|i| 1 + i * (number - 1) / (share - 1)).collect(),
        };
        of_call.dedup();
        points.extend(of_call.into_iter().map(|k| (*call, k)));
    }
    points
}
