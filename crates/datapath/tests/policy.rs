//! The verdict machine in bpf, asked through BPF_PROG_TEST_RUN: it says what the tables say, and names the same rule.
//! The programs are attached nowhere, and no packet is sent; the tests of networks attach them.

#[path = "policy/changes.rs"]
mod changes;
#[path = "policy/frames.rs"]
mod frames;
#[path = "policy/lies.rs"]
mod lies;
#[path = "policy/machine.rs"]
mod machine;
#[path = "policy/matrix.rs"]
mod matrix;
#[path = "policy/properties.rs"]
mod properties;
#[path = "policy/shares.rs"]
mod shares;
#[path = "policy/tracking.rs"]
mod tracking;
