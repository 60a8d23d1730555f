//! Policies, identities, and what becomes of a packet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fief_model::NetworkPolicy;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Condition, Phase};

/// A policy with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// The document.
    #[schema(value_type = Object)]
    pub policy: NetworkPolicy,
    /// The set that made it.
    pub set: String,
    /// Where it stands.
    pub status: PolicyStatus,
}

/// Where a policy stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// `Ready` or `Pending`.
    pub phase: Phase,
    /// Why it stands there.
    pub conditions: Vec<Condition>,
    /// `enforce` or `audit`: its tenant's.
    pub mode: String,
    /// How many endpoints it selects.
    pub endpoints: usize,
    /// Its rules, and where they are written.
    pub rules: Vec<RuleView>,
}

/// A rule, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// Its policy, `NetworkPolicy NAMESPACE/NAME`.
    pub policy: String,
    /// The file, as whoever applied it called it.
    pub file: String,
    /// The line in it.
    pub line: u32,
    /// Its path in the document: `spec.ingress[0]`, or `spec.podSelector` for what is denied by default.
    pub path: String,
}

/// Endpoints that are the same to every rule, `GET /v1/identities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityView {
    /// The tenant.
    pub tenant: String,
    /// The number, which is the tenant's.
    pub identity: u32,
    /// The namespace.
    pub namespace: String,
    /// The labels of the namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// The labels that count.
    pub labels: BTreeMap<String, String>,
    /// Ports with names.
    pub ports: Vec<NamedPortView>,
    /// The endpoints, `TENANT/NAME`. Without any, the number waits to be free.
    pub endpoints: Vec<String>,
    /// When the number was given, in seconds of the Unix epoch.
    pub since: u64,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedPortView {
    /// The name.
    pub name: String,
    /// The port.
    pub port: u16,
    /// The protocol: `tcp`, `udp`, `sctp`.
    pub protocol: String,
}

/// `POST /v1/policies/test`: what would become of a packet?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTestRequest {
    /// Who calls: `[TENANT/]ENDPOINT`, or an address.
    pub from: String,
    /// Who is called: the same.
    pub to: String,
    /// What is called: `80/tcp`, `53/udp`, `80` (TCP), a name of a port of the called endpoint, or `icmp`.
    pub port: String,
    /// The tenant of endpoints that are written without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTestResponse {
    /// Who calls.
    pub from: EndView,
    /// Who is called.
    pub to: EndView,
    /// The protocol: `tcp`, `udp`, `sctp`, `icmp`.
    pub protocol: String,
    /// The port; 0 of `icmp`.
    pub port: u16,
    /// Do both sides let it pass?
    pub allowed: bool,
    /// What each side says that is an endpoint; who calls comes first.
    pub sides: Vec<SideView>,
}

/// One end of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndView {
    /// The endpoint, `TENANT/NAME`, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The address; an endpoint that waits for one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

/// What one side says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SideView {
    /// The endpoint, `TENANT/NAME`.
    pub endpoint: String,
    /// `egress` for who calls, `ingress` for who is called.
    pub direction: String,
    /// Does it let the packet pass?
    pub allowed: bool,
    /// The rule that decided; without it no policy is about this endpoint in this direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleView>,
    /// Its identity.
    pub identity: u32,
    /// The other end's, as it sees it; 2 is the world.
    pub peer: u32,
    /// Its tenant only records what is denied.
    pub audit: bool,
    /// The tables and the documents do not say the same, which is a mistake of fief's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<String>,
}
