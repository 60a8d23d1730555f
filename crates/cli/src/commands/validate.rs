//! `fief validate`: needs no daemon.

use std::process::ExitCode;

use fief_api::SourceText;
use fief_model::{Diagnostic, Kept, Source};
use serde::Serialize;

use crate::args::ValidateArgs;
use crate::complaints::Refused;
use crate::context::Context;
use crate::sources;
use crate::text::counted;

/// The good news.
#[derive(Debug, Serialize)]
struct Valid {
    documents: usize,
}

pub fn run(args: ValidateArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let sources = sources::read(&args.files.files)?;
    let documents =
        check(&sources, args.tenant.as_deref()).map_err(|diagnostics| Refused::new(diagnostics, sources))?;
    if !context.print_data(&Valid { documents })? {
        let verb = if documents == 1 { "is" } else { "are" };
        context.out.line(&format!("{} {verb} valid", counted(documents, "document")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How many documents there are, if nothing is wrong with them.
fn check(sources: &[SourceText], tenant: Option<&str>) -> Result<usize, Vec<Diagnostic>> {
    let source = |source: &SourceText| Source { name: source.name.clone(), text: source.text.clone() };
    let mut documents = fief_model::parse(&Vec::from_iter(sources.iter().map(source)))?;
    let mut diagnostics = tenant.map(|t| fief_model::claim(&mut documents, t)).unwrap_or_default();
    diagnostics.extend(fief_model::validate(&documents, &Kept { unknown: true, ..Kept::default() }));
    if diagnostics.is_empty() { Ok(documents.len()) } else { Err(diagnostics) }
}
