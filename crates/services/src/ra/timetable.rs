//! When advertisements leave (RFC 4861, 6.2.4 and 6.2.6; the numbers are of its section 10).

use std::time::{Duration, Instant};

/// The pause between two that nobody asked for: something between these.
const SHORTEST: Duration = Duration::from_secs(200);
/// See [`SHORTEST`].
pub(super) const LONGEST: Duration = Duration::from_secs(600);
/// The first ones follow each other sooner.
const FIRST: u8 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(16);
/// The longest that an answer is put off, so that others can ask meanwhile.
const PUT_OFF: Duration = Duration::from_millis(500);
/// The shortest pause between any two.
const LEAST: Duration = Duration::from_secs(3);

/// When the next advertisement of a network leaves.
#[derive(Debug)]
pub(crate) struct Timetable {
    next: Instant,
    last: Option<Instant>,
    /// How many of the first ones there are to come.
    first: u8,
}

impl Timetable {
    /// Of a network whose configuration is new: the next one leaves at once.
    pub(crate) fn new(now: Instant) -> Timetable {
        Timetable { next: now, last: None, first: FIRST }
    }

    /// What is advertised has changed (RFC 4861, 6.2.4): as soon as one may leave it does, and the first ones begin anew.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.first = FIRST;
        self.next = self.not_before(now);
    }

    /// When the next one leaves.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Somebody has asked. `chance` is anything from 0 to 1.
    pub(crate) fn asked(&mut self, now: Instant, chance: f32) {
        let answer = self.not_before(now + PUT_OFF.mul_f32(chance));
        self.next = self.next.min(answer);
    }

    /// One has left. `chance` is anything from 0 to 1.
    pub(crate) fn sent(&mut self, now: Instant, chance: f32) {
        self.last = Some(now);
        self.first = self.first.saturating_sub(1);
        let pause = SHORTEST + (LONGEST - SHORTEST).mul_f32(chance);
        self.next = now + if self.first > 0 { pause.min(FIRST_PAUSE) } else { pause };
    }

    fn not_before(&self, time: Instant) -> Instant {
        self.last.map_or(time, |last| time.max(last + LEAST))
    }
}
