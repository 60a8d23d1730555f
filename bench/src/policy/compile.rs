//! Compiling, in this process: all identities, endpoints and policies of an imagined tenant at once.

use std::time::Instant;

use fief_policy::{Compiler, Sizes};
use fief_policykit::shapes::{SHAPES, Shape};

use super::POLICIES;
use crate::compare::median;

const ROUNDS: usize = 3;

/// Seconds for each shape, by its name.
pub fn seconds() -> Vec<(&'static str, f64)> {
    let of_one = |shape: &Shape| (shape.name, median((0..ROUNDS).map(|_| once(shape)).collect()));
    SHAPES.iter().map(of_one).collect()
}

fn once(shape: &Shape) -> f64 {
    let changes = shape.changes(0..POLICIES);
    let mut compiler = Compiler::new(Sizes::ENDLESS);
    let begin = Instant::now();
    let delta = compiler.update(changes).expect("there is room for everything");
    let took = begin.elapsed().as_secs_f64();
    assert!(delta.len() > POLICIES, "{} makes no tables", shape.name);
    took
}
