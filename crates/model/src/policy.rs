//! `networking.k8s.io/v1`, `kind: NetworkPolicy`: who may talk to whom, by labels.
//!
//! The schema is Kubernetes' own, read by types of ours: a field that they do not know is refused by name, for a
//! policy that is read in part is a hole. What the API server writes beside it, and what says nothing about
//! traffic, is read and forgotten ([`Ignored`]).

mod places;

use std::fmt;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

pub use places::Places;

/// The `apiVersion` of network policies.
pub const NETWORK_POLICY_VERSION: &str = "networking.k8s.io/v1";

/// The label that says which tenant a policy belongs to.
pub const TENANT_LABEL: &str = "fief/tenant";

/// The label that every namespace has: its name.
pub const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The namespace of what does not name one.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A network policy as a person wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Which one it is.
    pub metadata: PolicyMetadata,
    /// Whom it selects, and what those may do.
    #[serde(default)]
    pub spec: NetworkPolicySpec,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    status: Ignored,
}

/// Name, namespace and labels of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyMetadata {
    /// A DNS subdomain (RFC 1123). Unique in its tenant and namespace.
    pub name: String,
    /// A namespace of its tenant.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Free labels; [`TENANT_LABEL`] names the tenant.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    annotations: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    creation_timestamp: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    finalizers: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    generation: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    managed_fields: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    owner_references: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    resource_version: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    self_link: Ignored,
    #[serde(default, skip_serializing)]
    #[schemars(with = "serde_json::Value")]
    uid: Ignored,
}

/// Whom a policy selects, and what those may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicySpec {
    /// The pods of its namespace that it is about; empty, all of them.
    #[serde(default)]
    pub pod_selector: LabelSelector,
    /// Who may call them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Whom they may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressRule>,
    /// The directions that it is about; see [`NetworkPolicySpec::isolates`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_types: Vec<PolicyType>,
}

/// A direction that a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyType {
    /// What arrives at the selected pods.
    Ingress,
    /// What leaves them.
    Egress,
}

/// Traffic to the selected pods that is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngressRule {
    /// From whom; empty, from anybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<PolicyPeer>,
    /// To which ports; empty, to anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// Traffic from the selected pods that is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressRule {
    /// To whom; empty, to anybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<PolicyPeer>,
    /// To which ports; empty, to anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PolicyPort>,
}

/// The other side: pods by their labels and those of their namespace, or a block of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyPeer {
    /// Pods of the policy's namespace, or of those that `namespaceSelector` selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces of the same tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses, whoever has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// A block of addresses with holes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpBlock {
    /// The block.
    #[schemars(with = "String")]
    pub cidr: IpNet,
    /// The holes, inside of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub except: Vec<IpNet>,
}

/// Ports of one protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyPort {
    /// The protocol.
    #[serde(default)]
    pub protocol: Transport,
    /// The port, or the first of several; left out, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// The last of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
}

/// A port by its number, or by the name that the endpoint gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PortName {
    /// 1..=65535.
    Number(u16),
    /// A name of an endpoint's `ports`.
    Name(String),
}

/// A transport protocol with ports, as Kubernetes writes it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Labels that must be there, or must not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// More, all of which must hold too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// What must hold for one label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelExpression {
    /// The label's name.
    pub key: String,
    /// What must hold.
    pub operator: LabelOperator,
    /// Values, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What must hold for a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// A field that is allowed, whatever is in it, and means nothing here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ignored;

impl NetworkPolicy {
    /// The tenant that its label names.
    pub fn tenant(&self) -> Option<&str> {
        self.metadata.labels.get(TENANT_LABEL).map(String::as_str)
    }

    /// `TENANT/NAMESPACE/NAME`, which is unique on a host.
    pub fn key(&self) -> String {
        let PolicyMetadata { namespace, name, .. } = &self.metadata;
        format!("{}/{namespace}/{name}", self.tenant().unwrap_or_default())
    }
}

impl NetworkPolicySpec {
    /// Is what goes this way forbidden unless a rule allows it? As Kubernetes has it: where `policyTypes` is left out
    /// or empty, ingress always is, and egress is if there are rules for it.
    pub fn isolates(&self, direction: PolicyType) -> bool {
        match (self.policy_types.is_empty(), direction) {
            (true, PolicyType::Ingress) => true,
            (true, PolicyType::Egress) => !self.egress.is_empty(),
            (false, direction) => self.policy_types.contains(&direction),
        }
    }
}

impl Transport {
    /// Its number (RFC 9293, RFC 768, RFC 9260).
    pub fn number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortName::Number(number) => number.fmt(f),
            PortName::Name(name) => name.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortName, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PortName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port's number or name")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortName, E> {
                u16::try_from(number).map(PortName::Number).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<PortName, E> {
                Ok(PortName::Name(name.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ignored, D::Error> {
        deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Ignored)
    }
}

impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.into()
}
