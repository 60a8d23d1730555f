//! What documents contradict by themselves or among each other.
//!
//! Nothing in here asks the host: a device that does not exist just now is no contradiction. What is refused is
//! what no host could ever do, and what could only be done by guessing.

mod across;
mod addresses;
mod members;
mod names;
mod routes;

use crate::document::MAX_DIAGNOSTICS;
use crate::{Diagnostic, Document, Located, Tenant};
use across::Claims;

/// Everything that is wrong with `incoming`, given that `stored` stays as it is.
///
/// `stored` are the tenants that the incoming documents neither replace nor delete. A stored tenant whose
/// name comes in again is passed over, since it is on its way out.
pub fn validate(incoming: &[Located], stored: &[&Tenant]) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut claims = Claims::new(incoming, stored);
    for located in incoming {
        let mut findings = Findings { located, diagnostics: &mut diagnostics };
        let Document::Tenant(tenant) = &located.document;
        names::check(tenant, &mut findings);
        addresses::check(tenant, &mut findings);
        routes::check(tenant, &mut findings);
        members::check(&tenant.spec, &mut findings);
        claims.check(located, tenant, &mut findings);
        if diagnostics.len() >= MAX_DIAGNOSTICS {
            break;
        }
    }
    diagnostics
}

/// Where complaints about one document go.
struct Findings<'a> {
    located: &'a Located,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Findings<'_> {
    fn refuse(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let (line, column) = self.located.positions.at(path);
        self.diagnostics.push(Diagnostic {
            source: self.located.source.to_string(),
            line,
            column,
            message: message.into(),
            help: Some(help.into()),
        });
    }

    /// The line of a field, for complaints that mention a second place in the same document.
    fn line(&self, path: &str) -> u32 {
        self.located.positions.at(path).0
    }
}
