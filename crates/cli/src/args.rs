//! What a user types. Nothing here does anything.

mod apply;
mod completion;
mod delete;
mod exec;
mod explain;
mod files;
mod flows;
mod get;
mod join;
mod man;
mod marks;
mod policy;
mod processes;
mod sockets;
mod validate;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use apply::{ApplyArgs, DiffArgs, Selection};
pub use completion::CompletionArgs;
pub use delete::{DeleteArgs, DeleteKind};
pub use exec::ExecArgs;
pub use explain::ExplainArgs;
pub use files::Files;
pub use flows::FlowsArgs;
pub use get::{GetArgs, GetKind};
pub use join::{JoinArgs, LeaveArgs};
pub use man::ManArgs;
pub use marks::{MarksArgs, MarksCommand};
pub use policy::{PolicyArgs, PolicyCommand, PolicyTestArgs};
pub use processes::{IdentifyArgs, PidsArgs, PsArgs};
pub use sockets::SocketsArgs;
pub use validate::ValidateArgs;

/// Many tenants on one Linux host, each with addresses, routes and members of its own.
#[derive(Debug, Parser)]
#[command(name = "fief", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage. `fief diff` has those of diff(1), and \
    `fief policy test` says 1 for denied."
)]
pub struct Cli {
    /// The directory below which the daemon keeps its state, configuration and socket
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub root: Option<PathBuf>,
    /// How to print what was found
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        help_heading = "Everywhere"
    )]
    pub output: Format,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns and sentences, for people
    Table,
    /// JSON, with status; complaints are JSON as well
    Json,
    /// YAML; of documents it is what can be applied again
    Yaml,
}

/// The subcommands, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make documents true
    Apply(ApplyArgs),
    /// Show what an apply would change
    Diff(DiffArgs),
    /// Check documents without a daemon
    Validate(ValidateArgs),
    /// Delete what documents name, or objects by name
    Delete(DeleteArgs),
    /// List objects, or watch them
    Get(GetArgs),
    /// Show how the daemon is
    Status,
    /// Look the host over and say what to mend
    Doctor,
    /// Run a command whose sockets are a tenant's
    Exec(ExecArgs),
    /// Give this network namespace an interface on the segment of a group
    Join(JoinArgs),
    /// Take such an interface away
    Leave(LeaveArgs),
    /// List processes and threads with their tenants
    Ps(PsArgs),
    /// Say whose a process is
    Identify(IdentifyArgs),
    /// List the processes of a tenant
    Pids(PidsArgs),
    /// List sockets with their tenants
    Sockets(SocketsArgs),
    /// List packets that did not pass at the ports of endpoints, and which rules say so
    Flows(FlowsArgs),
    /// Say whom an alias of a UDP sender stands for
    Explain(ExplainArgs),
    /// Ask policies
    Policy(PolicyArgs),
    /// Say who uses which bits of the packet mark
    Marks(MarksArgs),
    /// Print the JSON schema of the documents
    Schema,
    /// Print a shell's completion script
    Completion(CompletionArgs),
    /// Print the manual page
    Man(ManArgs),
}
