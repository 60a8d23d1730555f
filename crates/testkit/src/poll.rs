//! Waiting for something, never longer than agreed.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How many times longer everything takes here: an emulated processor is as much slower.
pub fn slowness() -> u32 {
    if std::env::var_os("FIEF_TEST_VM").is_some() { 6 } else { 1 }
}

/// Calls `probe` until it succeeds, and fails the test with its last complaint when `timeout` is over.
#[track_caller]
pub fn eventually<T>(timeout: Duration, probe: impl FnMut() -> Result<T, String>) -> T {
    match attempt(timeout, probe) {
        Ok(value) => value,
        Err(last) => panic!("not within {timeout:?}: {last}"),
    }
}

/// Calls `probe` until it succeeds, or gives its last complaint when `timeout` is over. It is called once at least.
pub fn attempt<T>(timeout: Duration, mut probe: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let end = Instant::now() + timeout * slowness();
    let mut pause = FIRST_PAUSE;
    loop {
        let complaint = match probe() {
            Ok(value) => return Ok(value),
            Err(complaint) => complaint,
        };
        if Instant::now() >= end {
            return Err(complaint);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What work gives, and how long this thread has computed for it (CLOCK_THREAD_CPUTIME_ID): what other programs of a busy
/// machine do meanwhile does not count.
pub fn computed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let begin = now();
    let made = work();
    (made, now().saturating_sub(begin))
}
