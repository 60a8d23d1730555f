//! `fief man`

use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{Cli, ManArgs};
use crate::context::Context;

pub fn run(args: ManArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut fief = Cli::command();
    // Gives the subcommands their full names and the options that are everyone's.
    fief.build();
    let command = match &args.command {
        None => &fief,
        Some(name) => fief
            .find_subcommand(name)
            .with_context(|| format!("`{name}` is not a command of fief; `fief help` lists them"))?,
    };
    let mut page = Vec::new();
    Man::new(command.clone())
        .manual("fief")
        .source(concat!("fief ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)?;
    context.out.print(&String::from_utf8(page)?)?;
    Ok(ExitCode::SUCCESS)
}
