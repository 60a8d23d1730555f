//! `fief ps`, `fief identify`, `fief pids`

use std::process::ExitCode;

use crate::args::{IdentifyArgs, PidsArgs, PsArgs};
use crate::context::Context;
use crate::table::Table;

pub fn ps(args: PsArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let tasks = context.client()?.processes(args.tenant.as_deref())?;
    if !context.print_data(&tasks)? {
        let mut table = Table::new(&["TENANT", "PID", "TID", "COMMAND"]);
        for it in tasks {
            table.row([it.tenant, it.pid.to_string(), it.tid.to_string(), it.command]);
        }
        context.out.print(&table.render())?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn identify(args: IdentifyArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let pid = args.pid.unwrap_or_else(std::os::unix::process::parent_id);
    let task = context.client()?.process(pid)?;
    if !context.print_data(&task)? && !task.tenant.is_empty() {
        context.out.print(&format!("{}\n", task.tenant))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub fn pids(args: PidsArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let mut tasks = context.client()?.processes(Some(&args.tenant))?;
    tasks.dedup_by_key(|task| task.pid);
    if !context.print_data(&tasks)? {
        let lines: String = tasks.iter().map(|it| format!("{}  {}\n", it.pid, it.command)).collect();
        context.out.print(&lines)?;
    }
    Ok(ExitCode::SUCCESS)
}
