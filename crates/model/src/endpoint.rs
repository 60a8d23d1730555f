//! `kind: Endpoint`: a workload's attachment to networks.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Mac, OwnedMetadata};

/// An endpoint as a person wrote it, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Which one it is; its labels say what it is to policies.
    pub metadata: OwnedMetadata,
    /// Where it is attached.
    pub spec: EndpointSpec,
}

/// Where an endpoint is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// The networks that the workload is on, one interface each.
    pub networks: Vec<Attachment>,
    /// What the workload is.
    pub attach: Attach,
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

fn eth0() -> String {
    "eth0".into()
}

fn is_eth0(name: &str) -> bool {
    name == "eth0"
}
