//! Policies and identities as rows and as documents.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use fief_api::{IdentityView, NamedPortView, PolicyView};
use fief_model::Document;
use fief_model::policy::PolicyType;

use crate::networks::phase;
use crate::table::Table;

/// The table of policies.
pub fn policies(views: &[PolicyView]) -> Table {
    let mut table =
        Table::new(&["POLICY", "DIRECTIONS", ">ENDPOINTS", ">RULES", "MODE", "PHASE", "WRITTEN AT"]);
    for view in views {
        let (spec, status) = (&view.policy.spec, &view.status);
        let directions = [(PolicyType::Ingress, "ingress"), (PolicyType::Egress, "egress")];
        let directions = directions.iter().filter(|(kind, _)| spec.isolates(*kind)).map(|(_, word)| *word);
        table.row([
            view.policy.key(),
            directions.collect::<Vec<_>>().join(","),
            status.endpoints.to_string(),
            status.rules.len().to_string(),
            status.mode.clone(),
            phase(status.phase).into(),
            status.rules.last().map_or_else(String::new, |rule| format!("{}:{}", rule.file, rule.line)),
        ]);
    }
    table
}

/// The table of identities.
pub fn identities(views: &[IdentityView]) -> Table {
    let mut table = Table::new(&["TENANT", ">IDENTITY", "NAMESPACE", "LABELS", "PORTS", "ENDPOINTS", ">AGE"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for view in views {
        let prefix = format!("{}/", view.tenant);
        let endpoints = view.endpoints.iter().map(|key| key.strip_prefix(&prefix).unwrap_or(key));
        table.row([
            view.tenant.clone(),
            view.identity.to_string(),
            view.namespace.clone(),
            labels(&view.labels),
            view.ports.iter().map(port).collect::<Vec<_>>().join(","),
            endpoints.collect::<Vec<_>>().join(","),
            age(now.saturating_sub(view.since)),
        ]);
    }
    table
}

/// The documents that make these again.
pub fn documents(policies: &[PolicyView]) -> Vec<String> {
    policies.iter().map(|view| Document::NetworkPolicy(view.policy.clone()).to_yaml()).collect()
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn port(port: &NamedPortView) -> String {
    format!("{}={}/{}", port.name, port.port, port.protocol)
}

/// Seconds in one unit.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_row() {
        let view = IdentityView {
            tenant: "blue".into(),
            identity: 256,
            namespace: "shop".into(),
            namespace_labels: BTreeMap::new(),
            labels: [("app".into(), "front".into()), ("tier".into(), "1".into())].into(),
            ports: vec![NamedPortView { name: "http".into(), port: 8080, protocol: "tcp".into() }],
            endpoints: vec!["blue/a".into(), "blue/b".into()],
            since: 0,
        };
        let text = identities(&[view]).render();
        assert!(text.contains("256  shop       app=front,tier=1  http=8080/tcp  a,b"), "{text}");
        assert_eq!([0, 119, 120, 7199, 7200, 172_800].map(age), ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
