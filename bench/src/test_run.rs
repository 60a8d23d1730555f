//! A program of tc run by the kernel on a frame, and how long that took.

use std::io;
use std::os::fd::AsFd;

use fief_testkit::bpf::{self, Ran};

/// Where `struct __sk_buff` (linux/bpf.h) has the device's index, and its size.
const IFINDEX: usize = 40;
const CONTEXT: usize = 192;

/// Runs a program on a frame that seems to be at this device of the thread's network namespace.
pub fn run(program: &impl AsFd, frame: &[u8], device: u32, repeat: u32) -> io::Result<Ran> {
    let mut context = [0_u8; CONTEXT];
    context[IFINDEX..][..4].copy_from_slice(&device.to_ne_bytes());
    bpf::test_run(program, frame, &context, repeat, 0)
}
