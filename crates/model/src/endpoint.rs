//! `kind: Endpoint`: a workload's attachment to networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Mac;
use crate::policy::{DEFAULT_NAMESPACE, Transport};

/// An endpoint as a person wrote it, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Which one it is; its labels say what it is to policies.
    pub metadata: EndpointMetadata,
    /// Where it is attached.
    pub spec: EndpointSpec,
}

/// Name, tenant, namespace and labels of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointMetadata {
    /// A DNS label (RFC 1123): 1..=63 of `a-z0-9-`, no hyphen at either end. Unique among the tenant's endpoints.
    pub name: String,
    /// The tenant that it belongs to.
    pub tenant: String,
    /// The part of the tenant that it belongs to, for policies.
    #[serde(default = "default_namespace", skip_serializing_if = "is_default_namespace")]
    pub namespace: String,
    /// Free labels, with the syntax Kubernetes gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl EndpointMetadata {
    /// `TENANT/NAME`, which is unique on a host.
    pub fn key(&self) -> String {
        format!("{}/{}", self.tenant, self.name)
    }
}

/// Where an endpoint is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// The networks that the workload is on, one interface each.
    pub networks: Vec<Attachment>,
    /// What the workload is.
    pub attach: Attach,
    /// Names of its ports, for policies that call them by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointPort {
    /// The name (IANA_SVC_NAME, RFC 6335): 1..=15 of `a-z0-9-`, one letter at least.
    pub name: String,
    /// The port.
    pub port: u16,
    /// TCP, UDP or SCTP.
    #[serde(default, with = "LowerCase")]
    #[schemars(with = "LowerCase")]
    pub protocol: Transport,
}

/// Transports as documents of ours write them.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Transport", rename_all = "lowercase")]
enum LowerCase {
    Tcp,
    Udp,
    Sctp,
}

/// One interface of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachment {
    /// `NETWORK` of the endpoint's own tenant, or `TENANT/NETWORK` of one that allows it.
    pub network: String,
    /// The interface's name in the workload's namespace (IFNAMSIZ: 1..=15 bytes).
    #[serde(default = "eth0", skip_serializing_if = "is_eth0")]
    pub interface: String,
    /// Its address, set on the interface; left out, the workload asks by DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its Ethernet address, and the only one that may send; left out, fief gives one that stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// What a workload is: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attach {
    /// A network namespace: a name for ip-netns(8), or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// The network namespace of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// A TAP device of this name in the tenant's namespace, for a virtual machine: `fief exec TENANT -- qemu ...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
}

impl Endpoint {
    /// The key, `TENANT/NAME`, of the network that an interface is on.
    pub fn network_of(&self, attachment: &Attachment) -> String {
        match attachment.network.contains('/') {
            true => attachment.network.clone(),
            false => format!("{}/{}", self.metadata.tenant, attachment.network),
        }
    }

    /// The Ethernet address of an interface: the one that is written, or one made of the names, so that it stays the
    /// same whatever is deleted and made again. Locally administered (IEEE 802, 48-bit).
    pub fn mac_of(&self, attachment: &Attachment) -> Mac {
        attachment.mac.unwrap_or_else(|| {
            let names = format!("{}\n{}", self.metadata.key(), self.network_of(attachment));
            let digest = Sha256::digest(names.as_bytes());
            let mut mac = [0x02, 0, 0, 0, 0, 0];
            mac[1..].iter_mut().zip(digest).for_each(|(byte, drawn)| *byte = drawn);
            Mac(mac)
        })
    }
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.into()
}

fn is_default_namespace(name: &str) -> bool {
    name == DEFAULT_NAMESPACE
}

fn eth0() -> String {
    "eth0".into()
}

fn is_eth0(name: &str) -> bool {
    name == "eth0"
}
