//! The cells that every kind of isolation has, as functions of a room. What they expect of each kind they say themselves;
//! `isolation` asks `fib`, and `vm` asks `vrf` where there is one.
#![allow(dead_code, reason = "each test executable uses its own part")]

pub mod arriving;
pub mod cells;
pub mod leaving;
pub mod receiving;
