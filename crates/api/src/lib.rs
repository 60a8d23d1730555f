//! What the daemon and its users say to each other: JSON over HTTP/1.1 on a Unix socket.
#![forbid(unsafe_code)]

pub mod client;
pub mod overlays;
pub mod paths;
pub mod types;

pub use client::{Client, ClientError};
pub use overlays::{JoinRequest, OverlayCounters, OverlayView};
pub use paths::Paths;
pub use types::*;
