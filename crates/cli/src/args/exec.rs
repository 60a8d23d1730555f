use std::ffi::OsString;

use clap::Args;

/// `fief exec`
#[derive(Debug, Args)]
#[command(
    after_help = "The command takes the place of fief itself: its arguments, terminal, signals, environment and \
    credentials are the caller's, and its exit status is what the caller sees. The caller must be a member of the \
    tenant, or an administrator of the host.\n\
    Exit status: 125 fief could not enter the tenant, 126 the command cannot be run, 127 there is no such command."
)]
pub struct ExecArgs {
    /// The tenant whose sockets the command makes
    #[arg(value_name = "TENANT", required_unless_present = "all", conflicts_with = "all")]
    pub tenant: Option<String>,
    /// No tenant: a service of every tenant, wherever this is called; its soft limit of open files rises to the hard one
    #[arg(long)]
    pub all: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}
