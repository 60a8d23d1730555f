//! `fief explain`

use std::process::ExitCode;

use crate::args::ExplainArgs;
use crate::context::Context;

pub fn run(args: ExplainArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let it = context.client()?.alias(args.address)?;
    if !context.print_data(&it)? {
        context.out.print(&format!(
            "{} is {} of tenant {}, who called {} port {} and was last heard of or answered {} s ago\n",
            it.alias, it.sender, it.tenant, it.called, it.port, it.idle_seconds
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
