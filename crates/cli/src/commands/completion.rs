//! `fief completion`

use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::{Cli, CompletionArgs};
use crate::context::Context;

pub fn run(args: CompletionArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fief", &mut script);
    context.out.print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
