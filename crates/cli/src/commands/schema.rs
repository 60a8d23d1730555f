//! `fief schema`

use std::process::ExitCode;

use crate::args::Format;
use crate::context::Context;

pub fn run(context: &mut Context) -> anyhow::Result<ExitCode> {
    // A schema has no columns: JSON, unless YAML was asked for.
    if context.format == Format::Table {
        context.format = Format::Json;
    }
    context.print_data(&fief_model::schema::schema())?;
    Ok(ExitCode::SUCCESS)
}
