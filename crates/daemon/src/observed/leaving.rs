//! Multicast groups that a device has left and whose leaving the kernel still reports.
//!
//! Each IPv6 address is a member of a group. The group of an address that goes is remembered until its leaving was
//! reported (net/ipv6/mcast.c, `mld_add_delrec`), and each address that comes makes the kernel search all these for
//! every group of the device (`ipv6_mc_up`, `mld_del_delrec`): thousands that return at once take minutes. Reported it
//! is within about two seconds of a device that is up (RFC 3810, 6.1: robustness 2, an interval of one second), so
//! waiting is the shorter way.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// When the kernel is through with reporting.
const REPORTED: Duration = Duration::from_secs(3);
/// Steps of the kernel's search that take about as long as waiting does.
const WORTH_WAITING: usize = 500_000_000;

/// The IPv6 addresses that left each device lately: how many, and since when their reports can be on the way.
#[derive(Debug, Default)]
pub struct Leaving(HashMap<u32, (usize, Instant)>);

impl Leaving {
    /// An IPv6 address left a device.
    pub fn left(&mut self, device: u32, now: Instant) {
        let (count, since) = self.0.entry(device).or_insert((0, now));
        if now.duration_since(*since) > REPORTED {
            *count = 0;
        }
        *count += 1;
        *since = now;
    }

    /// A device rose: nothing was reported while it was down.
    pub fn rose(&mut self, device: u32, now: Instant) {
        if let Some((_, since)) = self.0.get_mut(&device) {
            *since = now;
        }
    }

    /// A device and its memory are gone.
    pub fn gone(&mut self, device: u32) {
        self.0.remove(&device);
    }

    /// When it is cheaper to add `adding` addresses to a device that has `present`; `None` for now.
    pub fn better_at(&self, device: u32, adding: usize, present: usize, now: Instant) -> Option<Instant> {
        let (left, since) = self.0.get(&device)?;
        let steps = adding.saturating_mul(present + adding / 2).saturating_mul(*left);
        let due = *since + REPORTED;
        (steps > WORTH_WAITING && due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_wait_for_the_reports_and_few_do_not() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        (0..4096).for_each(|_| leaving.left(7, now));
        assert_eq!(leaving.better_at(7, 4096, 0, now), Some(now + REPORTED));
        assert_eq!(leaving.better_at(7, 4096, 0, now + REPORTED), None);
        assert_eq!(leaving.better_at(7, 1, 4096, now), None, "one address more is soon there");
        assert_eq!(leaving.better_at(8, 4096, 0, now), None, "another device");
    }

    #[test]
    fn what_left_a_device_that_is_down_is_reported_when_it_rises() {
        let (mut leaving, down) = (Leaving::default(), Instant::now());
        (0..4096).for_each(|_| leaving.left(7, down));
        let up = down + Duration::from_secs(60);
        leaving.rose(7, up);
        assert_eq!(leaving.better_at(7, 4096, 0, up), Some(up + REPORTED));
        leaving.gone(7);
        assert_eq!(leaving.better_at(7, 4096, 0, up), None);
    }
}
