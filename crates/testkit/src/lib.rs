//! Network namespaces as a test language.
//!
//! A test opens a [`Lab`], draws its topology with [`Ns`], [`Lab::veth`], [`Wire`] or a whole [`Street`], starts the
//! shipped daemon with [`Daemon`], and speaks to it as any program would:
//!
//! ```no_run
//! # use fief_testkit::{Daemon, DaemonOptions, Families, Lab, Street};
//! let Some(lab) = Lab::new("reach") else { return };
//! let street = Street::new(&lab, 2, Families::Both);
//! let daemon = Daemon::start(&lab, &street.host, DaemonOptions::default());
//! daemon.apply(&street.documents()).ok();
//! ```
//!
//! Nothing outside the lab changes: its names live in a mount namespace of their own, and all of it goes with the
//! process, even when that is killed. What is deliberately absent: fief's own crates. The kit knows the product only
//! as a user does, by its binaries and documents.
#![expect(
    clippy::disallowed_methods,
    reason = "a test kit starts programs and waits; the daemon may do neither"
)]

pub mod bpf;
mod capture;
mod cgroup;
mod child;
mod command;
mod daemon;
mod dial;
mod echo;
mod flood;
pub mod frame;
mod lab;
mod link;
mod markless;
mod neighbours;
mod ns;
mod nursery;
mod poll;
mod privilege;
mod reaper;
mod snapshot;
mod socket;
mod street;

pub use capture::{Capture, Captured, inject, inject_all};
pub use child::{Child, Output};
pub use command::Command;
pub use daemon::{Daemon, DaemonOptions, bin, peer};
pub use dial::{Dial, tcp_exchange};
pub use echo::{Echo, EchoOptions};
pub use flood::Flood;
pub use frame::Frame;
pub use lab::Lab;
pub use link::Wire;
pub use markless::{is_markless, without_marks};
pub use ns::Ns;
pub use poll::{attempt, computed, eventually, slowness};
pub use privilege::{missing, skip};
pub use snapshot::Snapshot;
pub use socket::{bind_device, mark, sctp, set_mark};
pub use street::{Families, Street};
