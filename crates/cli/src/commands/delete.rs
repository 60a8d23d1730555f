//! `fief delete`

use std::process::ExitCode;

use fief_api::{ApplyResponse, Client, ClientError, DeleteRequest};

use crate::args::{DeleteArgs, DeleteKind};
use crate::complaints::Refused;
use crate::context::Context;
use crate::outcomes::{self, Telling};
use crate::{report, sources};

pub fn run(args: DeleteArgs, context: &mut Context) -> anyhow::Result<ExitCode> {
    let telling = Telling { verbose: args.verbose, ..Telling::default() };
    let client = context.client()?;
    let Some(kind) = args.kind else {
        let request = DeleteRequest { sources: sources::read(&args.files)?, tenant: args.tenant };
        let deleted = client.delete(&request);
        let response = deleted.map_err(|error| Refused::explain(error, request.sources))?;
        outcomes::print(&response, telling, context)?;
        return Ok(ExitCode::SUCCESS);
    };
    let (response, mut errors) = delete(&client, kind, &args.names);
    if !response.outcomes.is_empty() {
        outcomes::print(&response, telling, context)?;
    }
    let Some(last) = errors.pop() else { return Ok(ExitCode::SUCCESS) };
    for error in errors {
        report::print(&error.into(), context.format, ExitCode::FAILURE);
    }
    Err(last.into())
}

/// Deletes one after the other. What is refused does not keep the next from going; a daemon that is gone does.
fn delete(client: &Client, kind: DeleteKind, names: &[String]) -> (ApplyResponse, Vec<ClientError>) {
    let (mut response, mut errors) = (ApplyResponse::default(), Vec::new());
    for name in names {
        let deleted = match kind {
            DeleteKind::Tenant => client.delete_tenant(name),
            DeleteKind::Network => client.delete_network(name),
            DeleteKind::Endpoint => client.delete_endpoint(name),
            DeleteKind::Policy => client.delete_policy(name),
        };
        match deleted {
            Ok(deleted) => {
                response.outcomes.extend(deleted.outcomes);
                response.steps.extend(deleted.steps);
            }
            Err(error) => {
                let refused = error.status().is_some();
                errors.push(error);
                if !refused {
                    break;
                }
            }
        }
    }
    (response, errors)
}
