use clap::Args;
use clap_complete::Shell;

/// `fief completion`
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell that is to complete
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}
