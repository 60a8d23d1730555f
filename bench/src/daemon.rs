//! What the daemon itself costs: memory and processor time, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MIB: f64 = 1024.0 * 1024.0;

/// Memory of a daemon in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Its proportional set size.
    pub process: f64,
    /// What its bpf maps hold in the kernel.
    pub maps: f64,
}

impl Memory {
    /// Of the process `pid` and the maps it has open.
    pub fn of(pid: u32) -> Memory {
        let rollup = read(format!("/proc/{pid}/smaps_rollup").into());
        let pss = number(&rollup, "Pss:").expect("smaps_rollup has a Pss line") * 1024.0;
        // A map may be open more than once; its number tells.
        let mut maps = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
            let text = read(entry.path());
            if let (Some(id), Some(bytes)) = (number(&text, "map_id:"), number(&text, "memlock:")) {
                maps.insert(id as u64, bytes);
            }
        }
        Memory { process: pss / MIB, maps: maps.values().sum::<f64>() / MIB }
    }

    /// Both together.
    pub fn total(self) -> f64 {
        self.process + self.maps
    }
}

/// How many percent of one processor the process uses over `time`.
pub fn load(pid: u32, time: Duration) -> f64 {
    let (begin, before) = (Instant::now(), running(pid));
    fief_testkit::attempt(time, || Err::<(), String>(String::new())).ok();
    (running(pid) - before) / begin.elapsed().as_secs_f64() * 100.0
}

/// Seconds that the threads of a process have run; finer than the ticks of /proc/PID/stat.
fn running(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_one = |path: PathBuf| {
        let text = read(path.join("schedstat"));
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default()
    };
    threads.map(|thread| of_one(thread.path())).sum::<f64>() / 1e9
}

/// A file of /proc that may vanish while we look.
fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number behind a word at the beginning of a line.
fn number(text: &str, word: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_word() {
        let text = "pos:\t0\nmap_id:\t17\nmemlock:\t4096\n";
        assert_eq!((number(text, "map_id:"), number(text, "memlock:")), (Some(17.0), Some(4096.0)));
        assert_eq!(number(text, "Pss:"), None);
    }

    #[test]
    fn a_process_has_memory_and_threads_that_run() {
        let own = std::process::id();
        assert!(Memory::of(own).process > 0.1);
        assert!(running(own) > 0.0);
    }
}
