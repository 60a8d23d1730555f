use clap::Args;

use super::Files;

/// `fief validate`
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at the documents alone: whether the host has what they name is for `fief apply` to see."
)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub files: Files,
}
