//! What each subcommand does, one file each.

pub mod apply;
pub mod completion;
pub mod delete;
pub mod diff;
pub mod doctor;
pub mod exec;
pub mod explain;
pub mod flows;
pub mod get;
pub mod join;
pub mod leave;
pub mod man;
pub mod marks;
pub mod policy;
pub mod processes;
pub mod schema;
pub mod sockets;
pub mod status;
pub mod validate;
