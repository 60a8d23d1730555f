//! What policies add to a new endpoint: one comes and goes in a tenant that has policies, and in one that has none.

use std::time::Duration;

use super::place::{FRONT, Place, Tenant};
use crate::compare::median;

/// Rounds; in each, both sides come twice: A B B A. Devices come and go in milliseconds, which vary: of 50 rounds the median
/// came out anywhere within two milliseconds, where the goal is one.
const ROUNDS: usize = 200;

/// Medians in milliseconds: with policies, without, and of the differences within a round.
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
    let (mut times, mut count) = (Vec::new(), 0);
    let mut once = |tenant: &Tenant| {
        count += 1;
        let role = if are_new { format!("late{count}") } else { FRONT.to_owned() };
        let document = tenant.late(&role);
        let took = place.told("apply", document.clone());
        place.told("delete", document);
        ms(took)
    };
    for _ in 0..ROUNDS {
        let first = once(&place.ruled);
        let free = (once(&place.free) + once(&place.free)) / 2.0;
        times.push(((first + once(&place.ruled)) / 2.0, free));
    }
    let difference = median(times.iter().map(|(ruled, free)| ruled - free).collect());
    let (ruled, free) = times.into_iter().unzip();
    Added { ruled: median(ruled), free: median(free), difference }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
