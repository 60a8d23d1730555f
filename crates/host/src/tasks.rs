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

fn numbers(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}
