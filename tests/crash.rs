//! The daemon dies, or the kernel refuses it something, at any moment: afterwards everything is old or everything is
//! new, nothing is left over, and who was not touched has lost no packet.

#[path = "crash/alive.rs"]
mod alive;
#[path = "crash/inject.rs"]
mod inject;
#[path = "crash/store.rs"]
mod store;
#[path = "crash/strace.rs"]
mod strace;
