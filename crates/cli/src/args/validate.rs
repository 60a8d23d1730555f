use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Files;

/// `fief validate`
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at the documents alone: whether the host has what they name is for `fief apply` to see."
)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub files: Files,
    /// The tenant that all of it belongs to: policies without one get it, and what is another's is refused
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
}
