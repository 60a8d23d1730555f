//! Memory that networks hold: the daemon's, and the kernel's for their namespaces.

use std::fs;

use crate::daemon::Memory;

/// What is held at one moment, in kB.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The daemon's proportional set and its bpf maps.
    pub daemon: f64,
    /// What the kernel cannot give back of its slab, and what it holds for each processor: the whole machine's.
    pub kernel: f64,
    /// What it gives back when memory is short (SReclaimable in proc_meminfo(5)): inodes and names of files, those of
    /// /proc/sys above all, which whoever looks at them leaves there.
    pub cache: f64,
}

impl Held {
    /// Now, with the daemon of this process id.
    pub fn now(pid: u32) -> Held {
        let text = fs::read_to_string("/proc/meminfo").expect("Linux has a /proc/meminfo");
        let of = |name: &str| number(&text, name).unwrap_or_default();
        let kernel = of("SUnreclaim:") + of("Percpu:");
        Held { daemon: Memory::of(pid).total() * 1024.0, kernel, cache: of("SReclaimable:") }
    }

    /// What each of `n` networks holds, if nothing else has changed since.
    pub fn each(self, before: Held, n: usize) -> Held {
        let share = |now: f64, then: f64| (now - then) / n as f64;
        Held {
            daemon: share(self.daemon, before.daemon),
            kernel: share(self.kernel, before.kernel),
            cache: share(self.cache, before.cache),
        }
    }
}

fn number(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_out() {
        let before = Held { daemon: 100.0, kernel: 1000.0, cache: 10.0 };
        let each = Held { daemon: 300.0, kernel: 5000.0, cache: 20.0 }.each(before, 10);
        assert_eq!((each.daemon, each.kernel, each.cache), (20.0, 400.0, 1.0));
    }

    #[test]
    fn the_kernel_says_what_it_holds() {
        let held = Held::now(std::process::id());
        assert!(held.kernel > 1000.0 && held.daemon > 100.0, "{held:?}");
    }
}
