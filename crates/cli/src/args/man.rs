use clap::Args;

/// `fief man`
#[derive(Debug, Args)]
#[command(after_help = "Read it with `fief man | man -l -`.")]
pub struct ManArgs {
    /// The subcommand whose page to print [default: that of fief itself]
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}
