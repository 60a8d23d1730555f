use std::path::PathBuf;

use clap::Args;

/// Documents to read.
#[derive(Debug, Args)]
pub struct Files {
    /// A file, a directory (its *.yaml and *.yml, by name, without its subdirectories), or - for standard input;
    /// may be given again
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
}
