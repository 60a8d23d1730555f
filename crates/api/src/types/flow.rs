//! What became of packets at the ports of endpoints.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RuleView;

/// Packets of one kind that did not pass, or would not have: `GET /v1/flows`. The host keeps so many kinds, those that were
/// seen last, and of one port only so many new ones in a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowView {
    /// The endpoint's tenant.
    pub tenant: String,
    /// The endpoint, `TENANT/NAME`.
    pub endpoint: String,
    /// `dropped`, or `audited`: a rule forbids it, and it passed, for its tenant's policies are only recorded.
    pub verdict: String,
    /// `ingress`: it was to reach the endpoint; `egress`: it came from there.
    pub direction: String,
    /// Why: `rule`; `spoofed`: its sender said that it was somebody else; `unreadable`; `unknown`: the endpoint had just
    /// come.
    pub reason: String,
    /// The rule that decided; none where none did, or it is gone since.
    pub rule: Option<RuleView>,
    /// `tcp`, `udp`, `sctp`, `icmp`, or a number.
    pub protocol: String,
    /// The port that was called; of ICMP the type.
    pub port: u16,
    /// The endpoint's address, if the packet could be read.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The other's address.
    #[schema(value_type = Option<String>)]
    pub peer_address: Option<IpAddr>,
    /// The other, `TENANT/NAME`, if that is an endpoint on the same tenant's networks.
    pub peer: Option<String>,
    /// How many packets.
    pub packets: u64,
    /// When the first of them came, in seconds of the Unix epoch.
    pub first: u64,
    /// And the last.
    pub last: u64,
}
