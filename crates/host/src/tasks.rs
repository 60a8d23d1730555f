//! Processes and threads (proc(5)), and their pidfds (pidfd_open(2)).

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// PIDFD_THREAD (Linux 6.9): the descriptor is one of a thread, not of a thread group.
const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);

/// The ids of all processes there are, ascending.
pub fn processes() -> Vec<u32> {
    numbers("/proc")
}

/// The ids of a process's threads, ascending; none if it is gone.
pub fn threads(pid: u32) -> Vec<u32> {
    numbers(&format!("/proc/{pid}/task"))
}

/// The pidfd of a thread; `None` if it is gone.
pub fn pidfd(tid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(tid.cast_signed())?, THREAD).ok()
}

/// The effective user a process runs as, and its name (`/proc/PID/comm`, at most 15 bytes); `None` if it is gone.
pub fn user_and_command(pid: u32) -> Option<(u32, String)> {
    let user = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((user, command.trim_end().to_owned()))
}

/// What a process can be selected by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its control group's path (version 2), from the root of the reader's hierarchy.
    pub cgroup: String,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
}

/// Where a process is; `None` if it is gone.
pub fn place(pid: u32) -> Option<Place> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // `Uid: real effective saved file-system` (proc_pid_status(5))
    let effective = |field: &str| {
        status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().nth(1)?.parse().ok()
    };
    Some(Place { cgroup, user: effective("Uid:")?, group: effective("Gid:")? })
}

fn numbers(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}
