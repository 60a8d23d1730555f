use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Files;

/// Documents, and the set they belong to.
#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    pub files: Files,
    /// The set the documents belong to [default: default]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub set: Option<String>,
    /// The tenant that all of it belongs to: policies without one get it, and what is another's is refused
    #[arg(long, value_name = "TENANT", value_parser = NonEmptyStringValueParser::new())]
    pub tenant: Option<String>,
    /// Also delete what earlier applies of the same set made and these documents do not name
    #[arg(long, requires = "set")]
    pub prune: bool,
}

/// `fief apply`
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line an object; of more than 20 objects only the counts, unless -v is given.\n\
    An object that waits for something the host lacks is Pending: accepted, with the reason, and exit status 0."
)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub selection: Selection,
    /// Say what would be done, step by step, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print every object and step, however many there are
    #[arg(short, long)]
    pub verbose: bool,
}

/// `fief diff`
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 nothing differs, 1 something differs, 2 trouble.")]
pub struct DiffArgs {
    #[command(flatten)]
    pub selection: Selection,
}
