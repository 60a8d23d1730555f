//! Whose networks may be wanted otherwise than before.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use fief_model::{Endpoint, Mac};

/// Tenants whose places are to be thought over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// Are all of them?
    pub all: bool,
    /// These, by name.
    pub tenants: BTreeSet<String>,
}

impl Stale {
    /// Everything is.
    pub fn all() -> Stale {
        Stale { all: true, ..Stale::default() }
    }

    /// A tenant's own document changes.
    pub fn tenant(&mut self, tenant: &str) {
        if !self.all {
            self.tenants.insert(tenant.to_owned());
        }
    }

    /// The document of an endpoint changes from this or to this: so do the places of all networks that it names.
    pub fn endpoint(&mut self, endpoint: &Endpoint) {
        let networks = endpoint.spec.networks.iter().map(|attachment| endpoint.network_of(attachment));
        networks.for_each(|key| self.tenant(tenant_of(&key)));
    }

    /// Documents of networks change, those of these keys; `endpoints` are all that there are. By which of its networks the
    /// default route of an endpoint is, depends on all of them.
    pub fn networks<'a>(&mut self, keys: &BTreeSet<String>, endpoints: impl Iterator<Item = &'a Endpoint>) {
        keys.iter().for_each(|key| self.tenant(tenant_of(key)));
        if keys.is_empty() {
            return;
        }
        let is_on = |e: &&Endpoint| e.spec.networks.iter().any(|a| keys.contains(&e.network_of(a)));
        let several = endpoints.filter(|endpoint| endpoint.spec.networks.len() > 1);
        several.filter(is_on).for_each(|endpoint| self.endpoint(endpoint));
    }

    /// Leases, by network and Ethernet address, are others than before.
    pub fn leases(
        &mut self,
        before: &HashMap<(String, Mac), Ipv4Addr>,
        after: &HashMap<(String, Mac), Ipv4Addr>,
    ) {
        let came = after.iter().filter(|(key, address)| before.get(*key) != Some(*address));
        let went = before.iter().filter(|(key, _)| !after.contains_key(*key));
        came.chain(went).for_each(|((network, _), _)| self.tenant(tenant_of(network)));
    }
}

/// The tenant of a network or an endpoint, by the key of that.
pub fn tenant_of(key: &str) -> &str {
    key.split_once('/').map_or(key, |(tenant, _)| tenant)
}
