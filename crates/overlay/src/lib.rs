//! The overlay: every group of users has one Ethernet segment on a LAN, whatever hosts its members are on.
//!
//! A segment is a number, the group's; its frames travel in UDP as VXLAN does (RFC 7348), and the multicast group that
//! unknown and broadcast frames go to ends in the number. vxvde, of VirtualSquare, is the same on the wire.
//!
//! Architecture invariant: this room is pure. No socket, no clock, no file: bytes, numbers and times come in, answers go
//! out. Sockets and programs in the kernel are the daemon's and the datapath's.
#![forbid(unsafe_code)]

pub mod fuzz;
mod header;
mod lro;
mod macs;
mod segment;
mod url;
mod who;

pub use header::{HEADER_SIZE, Header, PORT, Payload, SHORTEST_FRAME, read};
pub use lro::join;
pub use macs::{LIFETIME, Mac, Macs, SLOTS, is_group, source};
pub use segment::{GROUP4, GROUP6, MOST_NETWORKS, Segment};
pub use url::{BadUrl, GroupName, Url};
pub use who::{Asker, Refused, Rules, SubordinateGroups, segment_for};
