//! `fief apply`

use std::process::ExitCode;

use fief_api::ApplyRequest;

use crate::args::{ApplyArgs, Selection};
use crate::complaints::Refused;
use crate::context::Context;
use crate::outcomes::{self, Telling};
use crate::sources::{self, SourceError};

pub fn run(args: ApplyArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let ApplyArgs { selection, dry_run, verbose } = args;
    let request = ApplyRequest { dry_run, ..request(selection)? };
    let applied = context.client()?.apply(&request);
    let response = applied.map_err(|error| Refused::explain(error, request.sources))?;
    outcomes::print(&response, Telling { dry_run, verbose, name_deleted: request.prune }, context)?;
    Ok(ExitCode::SUCCESS)
}

/// What to ask the daemon, with the documents read.
pub fn request(selection: Selection) -> Result<ApplyRequest, SourceError> {
    let Selection { files, set, tenant, prune } = selection;
    Ok(ApplyRequest { sources: sources::read(&files.files)?, set, tenant, prune, dry_run: false })
}
