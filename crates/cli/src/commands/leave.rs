//! `fief leave`

use std::process::ExitCode;

use crate::args::LeaveArgs;
use crate::context::Context;

pub fn run(args: LeaveArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let left = context.client()?.leave(&args.dev)?;
    if !context.print_data(&left)? {
        context.out.print(&format!("{} is gone from the segment of group {}\n", args.dev, left.group))?;
    }
    Ok(ExitCode::SUCCESS)
}
