//! What several suites share; every suite is a file of its own beside this one, listed in Cargo.toml.

pub mod peers;
pub mod scene;
pub mod stream;
