//! When the engine looks without being told. While no clock runs it sleeps until something happens.

use std::time::{Duration, Instant};

/// A full listing is made once things have been quiet for this long, in case an event lied.
const QUIET: Duration = Duration::from_secs(10);

/// Those that run.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// For the next reconciliation.
    pub wake: Option<Instant>,
    /// For the listing when all is quiet.
    pub verify: Option<Instant>,
    /// When memory goes back: what was applied needed for a moment a multiple of what stays.
    pub rest: Option<Instant>,
    /// When to look for idle aliases, while there are any.
    pub sweep: Option<Instant>,
}

impl Clocks {
    /// The next reconciliation is no later than this.
    pub fn wake_by(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |other| other.min(at)));
    }

    /// Something was done: the quiet begins anew.
    pub fn quiet(&mut self) {
        self.verify = Some(Instant::now() + QUIET);
        self.rest = self.verify;
    }

    /// Memory was needed for a moment: it goes back when it is quiet.
    pub fn rest(&mut self) {
        self.rest = Some(Instant::now() + QUIET);
    }

    /// The one that rings first.
    pub fn earliest(&self) -> Option<Instant> {
        [self.wake, self.verify, self.rest, self.sweep].into_iter().flatten().min()
    }
}

/// Has it rung?
pub(super) fn is_due(clock: Option<Instant>, now: Instant) -> bool {
    clock.is_some_and(|at| at <= now)
}
