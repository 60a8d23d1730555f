//! The overlay's part of the daemon: who may be on which segment of the LAN.

pub mod fast;
mod joins;
pub mod who;

pub use joins::Joins;
