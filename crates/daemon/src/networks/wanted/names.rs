//! The names of devices in a tenant's namespace; on the host, where all tenants' with VRFs are, they are made of keys.

use fief_model::{Endpoint, Network};
use sha2::{Digest, Sha256};

/// The name of an endpoint's port: as people call it where that fits.
pub(super) fn device_name(prefix: &str, network: &Network, endpoint: &Endpoint, on_host: bool) -> String {
    let key = endpoint.metadata.key();
    let names = format!("{key} {}", network.metadata.key());
    let is_own = endpoint.metadata.tenant == network.metadata.tenant && endpoint.spec.networks.len() == 1;
    match is_own && !on_host {
        true => short_name(prefix, &endpoint.metadata.name, &names),
        false => hashed(prefix, &names),
    }
}

/// `n-web`, or where that is too long for a device a name made of the key.
pub(super) fn short_name(prefix: &str, name: &str, key: &str) -> String {
    let short = format!("{prefix}-{name}");
    // Names that look like hashed ones are hashed, so that no two can be the same.
    if short.len() <= 15 && name.len() != 12 { short } else { hashed(prefix, key) }
}

/// `n-` and twelve digits of the key's digest.
pub(super) fn hashed(prefix: &str, key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}-{hex}")
}
