//! `fief doctor`: of use also when nobody answers.

use std::process::ExitCode;

use fief_api::{Check, ClientError, Verdict};

use crate::args::Format;
use crate::context::Context;
use crate::screen::{Colour, Screen};
use crate::text::visible;

pub fn run(context: &mut Context) -> anyhow::Result<ExitCode> {
    let checks = match context.client()?.doctor() {
        Err(error) if error.is_not_running() => return absent(&error, context),
        answer => answer?,
    };
    if !context.print_data(&checks)? {
        print(&checks, &mut context.out)?;
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// No daemon: that is the one thing to say.
fn absent(error: &ClientError, context: &mut Context) -> anyhow::Result<ExitCode> {
    let check =
        Check { name: "daemon".into(), verdict: Verdict::Fail, seen: error.to_string(), remedy: None };
    match context.format {
        Format::Table => print(&[check], &mut context.out)?,
        Format::Json | Format::Yaml => drop(context.print_data(&[check])?),
    }
    Ok(ExitCode::FAILURE)
}

fn print(checks: &[Check], out: &mut Screen) -> anyhow::Result<()> {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    for Check { name, verdict, seen, remedy } in checks {
        let mark = match verdict {
            Verdict::Ok => out.paint(Colour::Good, "ok  "),
            Verdict::Warn => out.paint(Colour::Odd, "warn"),
            Verdict::Fail => out.paint(Colour::Bad, "FAIL"),
        };
        let said = visible(&format!("{name:<width$}  {seen}"));
        out.line(format!("{mark}  {said}").trim_end())?;
        if let Some(remedy) = remedy {
            out.line(&format!("      {:<width$}  {}", "", visible(remedy)))?;
        }
    }
    Ok(())
}
