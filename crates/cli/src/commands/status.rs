//! `fief status`

use std::process::ExitCode;

use fief_api::DaemonStatus;

use crate::context::Context;
use crate::screen::Colour;
use crate::text::visible;

pub fn run(context: &mut Context) -> anyhow::Result<ExitCode> {
    let status = context.client()?.status()?;
    if !context.print_data(&status)? {
        print(&status, context)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(status: &DaemonStatus, context: &mut Context) -> anyhow::Result<()> {
    for (name, value) in facts(status) {
        context.out.line(&visible(&format!("{name:<10}  {value}")))?;
    }
    for condition in &status.conditions {
        let reason = context.out.paint(Colour::Bad, &visible(&condition.reason));
        context.out.line(&format!("{reason}: {}", visible(&condition.message)))?;
    }
    Ok(())
}

fn facts(status: &DaemonStatus) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("fiefd", format!("{}, pid {}", status.version, status.pid)),
        ("root", status.root.clone()),
        ("cgroup", status.cgroup.clone()),
        ("mark mask", status.mark_mask.clone()),
        ("local rule", status.local_rule.clone()),
        ("tenants", format!("{} Ready, {} Pending", status.ready, status.pending)),
        ("reconciled", format!("in {:.1} ms, {} put back", status.last_reconcile_ms, status.repairs)),
    ];
    let switches = status.sysctls.iter();
    facts.extend(switches.map(|it| ("sysctl", format!("{} = {} (was {})", it.name, it.now, it.before))));
    facts
}
