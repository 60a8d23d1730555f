//! What still runs in a set of network namespaces, and its end.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::stat;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::poll::attempt;

/// Kills every process in the namespaces with these inode numbers, ourselves excepted, and names them.
///
/// A grandchild outlives the parent-death signal of its parent; its namespace gives it away.
pub(crate) fn reap(namespaces: &HashSet<u64>) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let quiet = attempt(Duration::from_secs(5), || {
        let found = inhabitants(namespaces);
        for pid in &found {
            let name = comm(*pid);
            if end(*pid, namespaces) {
                seen.entry(pid.as_raw_nonzero()).or_insert(name);
            }
        }
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?} cannot be killed")) }
    });
    let killed = seen.into_iter().map(|(pid, name)| format!("process {pid} {name}"));
    killed.chain(quiet.err()).collect()
}

/// Kills `pid` if it is still one of those; looked at through a pidfd, so that the number cannot have changed hands.
fn end(pid: Pid, namespaces: &HashSet<u64>) -> bool {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    inside(pid, namespaces) && pidfd_send_signal(pidfd, Signal::KILL).is_ok()
}

fn inhabitants(namespaces: &HashSet<u64>) -> Vec<Pid> {
    let own = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let others = pids.filter(|pid| *pid != own).filter_map(Pid::from_raw);
    others.filter(|pid| inside(*pid, namespaces)).collect()
}

/// A zombie has no namespace any more, so it does not count.
fn inside(pid: Pid, namespaces: &HashSet<u64>) -> bool {
    let path = format!("/proc/{}/ns/net", pid.as_raw_nonzero());
    stat(Path::new(&path)).is_ok_and(|found| namespaces.contains(&found.st_ino))
}

fn comm(pid: Pid) -> String {
    let text = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
    text.unwrap_or_default().trim_end().to_owned()
}
