//! A host full of other people's things: none of them is touched, and nothing of ours stays.

#[path = "foreign/bpf.rs"]
mod bpf;
#[path = "foreign/crowd.rs"]
mod crowd;
#[path = "foreign/sysctl.rs"]
mod sysctl;
