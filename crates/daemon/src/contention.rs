//! Two who fight over an object: each repair of the same object is waited for longer, up to a minute.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Repairs of one object that are made at once.
const PATIENCE: u32 = 5;
const LONGEST: Duration = Duration::from_secs(60);
/// An object that nobody touched for this long is trusted again.
const FORGIVEN: Duration = Duration::from_secs(120);

/// What was repaired lately.
#[derive(Debug, Default)]
pub struct Contention<K> {
    objects: HashMap<K, Record>,
    /// What is waited at least between two repairs of one object: `ip route flush` deletes in rounds until nothing is
    /// left, and whoever puts back faster than that fights with it.
    breath: Duration,
}

#[derive(Debug)]
struct Record {
    repairs: u32,
    last: Instant,
}

impl<K: Hash + Eq + Clone> Contention<K> {
    /// Waits at least this long between two repairs of one object.
    pub fn with_breath(breath: Duration) -> Contention<K> {
        Contention { objects: HashMap::new(), breath }
    }

    /// May this object be put back now? `Err` says when.
    pub fn may_repair(&self, object: &K, now: Instant) -> Result<(), Instant> {
        let Some(record) = self.objects.get(object) else { return Ok(()) };
        let due = record.last + record.pause().max(self.breath);
        if now >= due { Ok(()) } else { Err(due) }
    }

    /// Notes that it was put back; returns the pause before the next time once there is one.
    pub fn repaired(&mut self, object: K, now: Instant) -> Option<Duration> {
        let record = self.objects.entry(object).or_insert(Record { repairs: 0, last: now });
        if now.duration_since(record.last) > FORGIVEN {
            record.repairs = 0;
        }
        record.repairs += 1;
        record.last = now;
        Some(record.pause()).filter(|pause| !pause.is_zero())
    }

    /// Trusts an object again at once.
    pub fn forget(&mut self, object: &K) {
        self.objects.remove(object);
    }

    /// How many objects are waited for.
    pub fn contended(&self, now: Instant) -> usize {
        self.objects.values().filter(|r| now < r.last + r.pause()).count()
    }

    /// Forgets what was quiet for long.
    pub fn forgive(&mut self, now: Instant) {
        self.objects.retain(|_, record| now.duration_since(record.last) <= FORGIVEN);
    }
}

impl Record {
    fn pause(&self) -> Duration {
        match self.repairs.checked_sub(PATIENCE) {
            None => Duration::ZERO,
            Some(over) => Duration::from_secs(1 << over.min(6)).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_converges_to_a_minute_and_is_forgiven() {
        let mut contention = Contention::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            match contention.may_repair(&"route", now) {
                Ok(()) => {}
                Err(due) => now = due,
            }
            pauses.push(contention.repaired("route", now).map_or(0, |p| p.as_secs()));
        }
        assert_eq!(pauses, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(contention.may_repair(&"route", now).is_err());
        assert!(contention.may_repair(&"another", now).is_ok(), "only the object fought over waits");
        now += Duration::from_secs(200);
        contention.forgive(now);
        assert_eq!(contention.repaired("route", now), None);
    }
}
