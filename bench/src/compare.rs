//! Two things measured in turn, so that whatever else the machine does happens to both.

use std::time::Duration;

/// Rounds of each comparison; in each, both sides run twice: A B B A.
const ROUNDS: usize = 15;

/// What a comparison found, each a median over the rounds.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// Nanoseconds an operation of the thing in question, or whatever the closures give.
    pub subject: f64,
    /// The same of what it is compared with.
    pub baseline: f64,
    /// The first divided by the second, within a round.
    pub ratio: f64,
}

/// Measures both in turn, on one processor. Each closure does many operations and gives nanoseconds an operation.
pub fn compare(subject: impl FnMut() -> f64, baseline: impl FnMut() -> f64) -> Compared {
    let _pinned = Pinned::here();
    compare_free(subject, baseline)
}

/// The same, on whichever processors: of what several threads and processes do together.
pub fn compare_free(mut subject: impl FnMut() -> f64, mut baseline: impl FnMut() -> f64) -> Compared {
    // Caches, and whatever is made on first use.
    subject();
    baseline();
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let first = subject();
        let second = baseline() + baseline();
        let (one, other) = ((first + subject()) / 2.0, second / 2.0);
        a.push(one);
        b.push(other);
        ratios.push(one / other);
    }
    Compared { subject: median(a), baseline: median(b), ratio: median(ratios) }
}

/// The middle of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[middle] } else { (numbers[middle - 1] + numbers[middle]) / 2.0 }
}

/// Nanoseconds an operation that `work` takes for `count` of them.
///
/// The thread's processor time: what others do in between does not count, and what the kernel does for our packets
/// does, because a veth pair delivers within the send call, on this thread.
pub fn cost(count: u32, work: impl FnOnce()) -> f64 {
    let begin = processor_time();
    work();
    (processor_time() - begin).as_nanos() as f64 / f64::from(count)
}

/// One system call that does nothing: what a nanosecond is worth on this machine today.
pub fn yardstick() -> f64 {
    median((0..ROUNDS).map(|_| yardstick_once()).collect())
}

/// The same, measured once.
pub fn yardstick_once() -> f64 {
    const CALLS: u32 = 100_000;
    cost(CALLS, || {
        for _ in 0..CALLS {
            // SAFETY: getppid(2) takes nothing and cannot fail; libc does not cache it.
            unsafe { libc::getppid() };
        }
    })
}

/// A thread kept on one processor, and its packets with it, until this is dropped. A machine that refuses only measures
/// less well.
struct Pinned(Option<nix::sched::CpuSet>);

impl Pinned {
    fn here() -> Pinned {
        let own = nix::unistd::Pid::from_raw(0);
        let before = nix::sched::sched_getaffinity(own).ok();
        let mut set = nix::sched::CpuSet::new();
        // SAFETY: sched_getcpu(3) takes nothing.
        let here = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0);
        if set.set(here).is_ok() {
            nix::sched::sched_setaffinity(own, &set).ok();
        }
        Pinned(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let own = nix::unistd::Pid::from_raw(0);
        self.0.map(|before| nix::sched::sched_setaffinity(own, &before));
    }
}

fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_no_mean() {
        assert_eq!(median(vec![1.0, 100.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let mut drift = 1.0;
        let found = compare(
            || {
                drift *= 1.0001;
                drift * 2.0
            },
            || 1.0,
        );
        assert!((found.ratio - 2.0).abs() < 0.02, "{found:?}");
    }
}
