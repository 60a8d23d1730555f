//! The overlay's part of the daemon: who may be on which segment of the LAN, and the sockets for it.
//!
//! The broker makes sockets that are guarded by programs in the kernel (`bpf/segment.bpf.c`) and hands them over; a frame
//! never passes the daemon, and what was handed over goes on without it. The fast path gives namespaces interfaces on
//! segments, whose frames the kernel carries (`bpf/overlay.bpf.c`).

pub mod broker;
pub mod fast;
mod joins;
mod sockets;
pub mod who;

pub use joins::Joins;
