//! What policies add to a new endpoint: one comes and goes in a tenant that has policies, and in one that has none.

use std::time::Duration;

use super::place::{FRONT, Place, Tenant};
use crate::compare::median;

/// Pairs; which of the two comes first changes.
const ROUNDS: usize = 40;

/// Medians in milliseconds: with policies, without, and of the differences within a pair.
#[derive(Debug, Clone, Copy)]
pub struct Added {
    /// With policies.
    pub ruled: f64,
    /// Without.
    pub free: f64,
    /// The difference.
    pub difference: f64,
}

/// With labels that others have, or each time with some that nobody has had.
pub fn measure(place: &Place, are_new: bool) -> Added {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let role = if are_new { format!("late{round}") } else { FRONT.to_owned() };
        let once = |tenant: &Tenant| {
            let document = tenant.late(&role);
            let took = place.told("apply", document.clone());
            place.told("delete", document);
            ms(took)
        };
        let (ruled, free) = (&place.ruled, &place.free);
        times.push(if round % 2 == 0 {
            (once(ruled), once(free))
        } else {
            let second = once(free);
            (once(ruled), second)
        });
    }
    let difference = median(times.iter().map(|(ruled, free)| ruled - free).collect());
    let (ruled, free) = times.into_iter().unzip();
    Added { ruled: median(ruled), free: median(free), difference }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
