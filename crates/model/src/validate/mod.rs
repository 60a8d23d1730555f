//! What documents contradict by themselves or among each other.
//!
//! Nothing in here asks the host: a device that does not exist just now is no contradiction. What is refused is
//! what no host could ever do, and what could only be done by guessing.

mod across;
mod addresses;
mod belonging;
mod endpoints;
mod members;
mod names;
mod networks;
mod policies;
mod ports;
mod routes;
mod switches;

use std::collections::BTreeMap;

use crate::document::MAX_DIAGNOSTICS;
use crate::document::Positions;
use crate::{Diagnostic, Document, Endpoint, Located, Network, Tenant};
use across::Claims;
use belonging::Belongings;

/// What stays as it is: the documents that the incoming ones neither replace nor delete. One whose name comes in again
/// is passed over, since it is on its way out.
#[derive(Debug, Clone, Default)]
pub struct Kept<'a> {
    /// Tenants.
    pub tenants: Vec<&'a Tenant>,
    /// Networks.
    pub networks: Vec<&'a Network>,
    /// Endpoints.
    pub endpoints: Vec<&'a Endpoint>,
    /// May there be more that nobody looked up? Then a tenant that is not found is no mistake.
    pub unknown: bool,
}

/// Everything that is wrong with `incoming`, given what is kept beside it.
pub fn validate(incoming: &[Located], kept: &Kept<'_>) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut claims = Claims::new(incoming, &kept.tenants);
    let mut belongings = Belongings::new(incoming, kept);
    for located in incoming {
        let mut findings = Findings::new(located, &mut diagnostics);
        match &located.document {
            Document::Tenant(tenant) => {
                let metadata = &tenant.metadata;
                names::check_name("metadata.name", &metadata.name, "a tenant", &mut findings);
                names::check_labels("metadata.labels", &metadata.labels, &mut findings);
                names::check_namespaces(&tenant.spec.namespaces, &mut findings);
                addresses::check(tenant, &mut findings);
                routes::check(tenant, &mut findings);
                members::check(&tenant.spec, &mut findings);
                claims.check(located, tenant, &mut findings);
                belongings.check_tenant(tenant, &mut findings);
            }
            Document::Network(network) => {
                networks::check(network, &mut findings);
                belongings.check_network(located, network, &mut findings);
            }
            Document::Endpoint(endpoint) => {
                endpoints::check(endpoint, &mut findings);
                belongings.check_endpoint(located, endpoint, &mut findings);
            }
            Document::NetworkPolicy(policy) => {
                policies::check(policy, &mut findings);
                belongings.check_policy(located, policy, &mut findings);
            }
        }
        if diagnostics.len() >= MAX_DIAGNOSTICS {
            break;
        }
    }
    diagnostics
}

fn tenant_in(located: &Located) -> Option<&Tenant> {
    match &located.document {
        Document::Tenant(tenant) => Some(tenant),
        _ => None,
    }
}

/// Where complaints about one document go.
struct Findings<'a> {
    source: &'a str,
    positions: &'a Positions,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> Findings<'a> {
    fn new(located: &'a Located, diagnostics: &'a mut Vec<Diagnostic>) -> Findings<'a> {
        Findings { source: &located.source, positions: &located.positions, diagnostics }
    }

    fn refuse(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            return;
        }
        let (line, column) = self.positions.at(path);
        self.diagnostics.push(Diagnostic {
            source: self.source.to_owned(),
            line,
            column,
            message: message.into(),
            help: Some(help.into()),
        });
    }

    /// Name, tenant and labels of what belongs to a tenant.
    fn check_owned(&mut self, name: &str, tenant: &str, labels: &BTreeMap<String, String>, noun: &str) {
        names::check_name("metadata.name", name, noun, self);
        names::check_name("metadata.tenant", tenant, "a tenant", self);
        names::check_labels("metadata.labels", labels, self);
    }

    /// The line of a field, for complaints that mention a second place in the same document.
    fn line(&self, path: &str) -> u32 {
        self.positions.at(path).0
    }
}
