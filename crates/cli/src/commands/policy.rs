//! `fief policy`

use std::process::ExitCode;

use fief_api::{EndView, PolicyTestRequest, PolicyTestResponse, SideView};

use crate::args::{PolicyArgs, PolicyCommand, PolicyTestArgs};
use crate::context::Context;
use crate::screen::{Colour, Screen};
use crate::table::Table;
use crate::text::visible;

pub fn run(args: PolicyArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    match args.command {
        PolicyCommand::Test(args) => test(args, context),
    }
}

/// Says 0 for what is allowed, and 1 for what is denied.
fn test(args: PolicyTestArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let PolicyTestArgs { from, to, port, tenant } = args;
    let answer = context.client()?.test_policy(&PolicyTestRequest { from, to, port, tenant })?;
    if !context.print_data(&answer)? {
        tell(&answer, &mut context.out)?;
    }
    let bugs: Vec<&str> = answer.sides.iter().filter_map(|side| side.bug.as_deref()).collect();
    if !bugs.is_empty() {
        anyhow::bail!("THIS IS A BUG OF FIEF, please report it with your documents: {}", bugs.join("; and "));
    }
    Ok(if answer.allowed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn tell(answer: &PolicyTestResponse, out: &mut Screen) -> anyhow::Result<()> {
    let mut table = Table::new(&["DIRECTION", "ENDPOINT", "VERDICT", "WRITTEN AT", "RULE"]);
    for side in &answer.sides {
        let rule = side.rule.as_ref();
        table.row([
            side.direction.clone(),
            visible(&side.endpoint),
            verdict(side.allowed).into(),
            rule.map_or_else(String::new, |rule| visible(&format!("{}:{}", rule.file, rule.line))),
            rule.map_or_else(
                || "no policy is about it".into(),
                |rule| visible(&format!("{} {}", rule.policy, rule.path)),
            ),
        ]);
    }
    out.print(&table.render())?;
    let what = match answer.port {
        0 => answer.protocol.clone(),
        port => format!("{port}/{}", answer.protocol),
    };
    let colour = if answer.allowed { Colour::Good } else { Colour::Bad };
    let said = out.paint(colour, verdict(answer.allowed));
    out.line(&format!("{what} from {} to {}: {said}", end(&answer.from), end(&answer.to)))?;
    let audited = |side: &&SideView| side.audit && !side.allowed;
    for side in answer.sides.iter().filter(audited) {
        let text = format!("{} only records it: policyMode of its tenant is `audit`", side.endpoint);
        out.line(&visible(&text))?;
    }
    Ok(())
}

fn verdict(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

/// `blue/app1 (10.10.1.20)`
fn end(end: &EndView) -> String {
    let text = match (&end.endpoint, end.address) {
        (Some(endpoint), Some(address)) => format!("{endpoint} ({address})"),
        (Some(endpoint), None) => endpoint.clone(),
        (None, address) => address.map(|address| address.to_string()).unwrap_or_default(),
    };
    visible(&text)
}
