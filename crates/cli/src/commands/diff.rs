//! `fief diff`

use std::process::ExitCode;

use fief_api::{Action, Outcome};

use super::apply;
use crate::args::DiffArgs;
use crate::complaints::Refused;
use crate::context::Context;
use crate::outcomes;
use crate::screen::{Colour, Screen};
use crate::text::visible;

pub fn run(args: DiffArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let request = apply::request(args.selection)?;
    let compared = context.client()?.diff(&request);
    let response = compared.map_err(|error| Refused::explain(error, request.sources))?;
    let mut differing =
        response.outcomes.iter().filter(|outcome| outcome.action != Action::Unchanged).peekable();
    let status = if differing.peek().is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS };
    if !context.print_data(&response)? {
        differing.try_for_each(|outcome| print(outcome, &mut context.out))?;
    }
    Ok(status)
}

fn print(outcome: &Outcome, out: &mut Screen) -> anyhow::Result<()> {
    out.line(&format!("{} {}", outcomes::object(outcome), outcomes::done(outcome.action, true)))?;
    let diff = outcome.diff.as_deref().unwrap_or_default();
    for line in diff.lines().map(visible) {
        let line = match line.as_bytes().first() {
            Some(b'+') => out.paint(Colour::Good, &line),
            Some(b'-') => out.paint(Colour::Bad, &line),
            _ => line,
        };
        out.line(&line)?;
    }
    Ok(())
}
