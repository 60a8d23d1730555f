//! Nothing here: every test is a file of its own beside this one, listed in Cargo.toml.
