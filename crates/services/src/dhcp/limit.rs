//! How much one client may send.

use std::time::SystemTime;

/// Enough for several boots in a row.
const BURST: f32 = 16.0;
const PER_SECOND: f32 = 2.0;

/// A token bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f32,
    at: SystemTime,
}

impl Bucket {
    /// Full.
    pub(super) fn new(now: SystemTime) -> Bucket {
        Bucket { tokens: BURST, at: now }
    }

    /// Takes one token if there is one. A clock that was set back gives none and takes none.
    pub(super) fn take(&mut self, now: SystemTime) -> bool {
        let passed = now.duration_since(self.at).unwrap_or_default();
        self.tokens = (self.tokens + passed.as_secs_f32() * PER_SECOND).min(BURST);
        self.at = now;
        let admitted = self.tokens >= 1.0;
        if admitted {
            self.tokens -= 1.0;
        }
        admitted
    }
}
