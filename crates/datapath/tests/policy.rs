//! The verdict machine in bpf, asked through BPF_PROG_TEST_RUN: it says what the tables say, and names the same rule.
//! The programs are attached nowhere, and no packet is sent.

#[path = "policy/changes.rs"]
mod changes;
#[path = "policy/frames.rs"]
mod frames;
#[path = "policy/machine.rs"]
mod machine;
#[path = "policy/matrix.rs"]
mod matrix;
#[path = "policy/properties.rs"]
mod properties;
