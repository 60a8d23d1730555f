//! Whose documents are: `fief apply --tenant T`.

use super::{Document, Located};
use crate::Diagnostic;
use crate::policy::TENANT_LABEL;

/// Says that all documents are this tenant's: policies without a tenant get it, and what is somebody else's is a
/// mistake, of whatever kind it is.
pub fn claim(documents: &mut [Located], tenant: &str) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for located in documents {
        if let Document::NetworkPolicy(policy) = &mut located.document
            && policy.tenant().is_none()
        {
            policy.metadata.labels.insert(TENANT_LABEL.to_owned(), tenant.to_owned());
        }
        let whose = located.document.tenant();
        if whose == tenant {
            continue;
        }
        let path = match &located.document {
            Document::Tenant(_) => "metadata.name".to_owned(),
            Document::Network(_) | Document::Endpoint(_) => "metadata.tenant".to_owned(),
            Document::NetworkPolicy(_) => format!("metadata.labels[\"{TENANT_LABEL}\"]"),
        };
        let (line, column) = located.positions.at(&path);
        diagnostics.push(Diagnostic {
            source: located.source.to_string(),
            line,
            column,
            message: format!("this is tenant `{whose}`'s, and all of it was to be `{tenant}`'s"),
            help: Some(format!("take it out, or leave `--tenant {tenant}` out")),
        });
    }
    diagnostics
}
