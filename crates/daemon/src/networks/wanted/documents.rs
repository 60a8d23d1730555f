//! Documents as they are stored, or as they would be after a request.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use fief_model::{Mac, Network, Tenant};

use super::super::links::Links;
use super::super::probe::Silence;
use crate::config::uplinks::Uplinks;
use crate::store::{Stored, StoredEndpoint, StoredNetwork, Uplink};

/// Every document that there is, or would be.
#[derive(Debug, Clone)]
pub struct Documents<'a> {
    /// Tenants by name.
    pub tenants: Layered<'a, Stored>,
    /// Networks by `TENANT/NAME`.
    pub networks: Layered<'a, StoredNetwork>,
    /// Endpoints by `TENANT/NAME`.
    pub endpoints: Layered<'a, StoredEndpoint>,
    /// Uplinks by device.
    pub uplinks: &'a BTreeMap<String, Uplink>,
    /// Does fief write no marks? Then no tenant shares the host's stack.
    pub markless: bool,
}

/// What networks are built from, beside documents and the host.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Addresses of links.
    pub links: Links,
    /// Leased addresses, by network and Ethernet address.
    pub leases: &'a HashMap<(String, Mac), Ipv4Addr>,
    /// How uplinks are probed.
    pub uplinks: &'a Uplinks,
    /// Uplinks that do not answer.
    pub silent: BTreeMap<String, Silence>,
    /// The table of slot n is this plus n.
    pub table_base: u32,
}

/// Documents of one kind by their names: those that are stored, and above them what a request changes. Nothing is copied,
/// however many are stored.
#[derive(Debug, Clone)]
pub struct Layered<'a, T> {
    stored: &'a BTreeMap<String, T>,
    /// `None`: it goes.
    changed: BTreeMap<String, Option<&'a T>>,
}

impl<'a, T> Layered<'a, T> {
    /// As they are stored.
    pub fn of(stored: &'a BTreeMap<String, T>) -> Layered<'a, T> {
        Layered { stored, changed: BTreeMap::new() }
    }

    /// One that comes or changes.
    pub fn put(&mut self, name: String, document: &'a T) {
        self.changed.insert(name, Some(document));
    }

    /// One that goes.
    pub fn remove(&mut self, name: &str) {
        self.changed.insert(name.to_owned(), None);
    }

    /// One by its name.
    pub fn get(&self, name: &str) -> Option<&'a T> {
        self.changed.get(name).copied().unwrap_or_else(|| self.stored.get(name))
    }

    /// All of them, with their names: first those that do not change.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a T)> {
        let stays = self.stored.iter().filter(|(name, _)| !self.changed.contains_key(*name));
        let stays = stays.map(|(name, document)| (name.as_str(), document));
        let changed = self.changed.iter();
        stays.chain(changed.filter_map(|(name, document)| Some((name.as_str(), (*document)?))))
    }

    /// All of them.
    pub fn values(&self) -> impl Iterator<Item = &'a T> {
        self.iter().map(|(_, document)| document)
    }

    /// Those of one tenant, in the order of their names.
    pub fn of_tenant(&self, tenant: &str) -> BTreeMap<&str, &'a T> {
        let prefix = format!("{tenant}/");
        let stored = self.stored.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        let mut found: BTreeMap<&str, &T> =
            stored.map(|(name, document)| (name.as_str(), document)).collect();
        let changed = self.changed.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
        for (name, document) in changed {
            match document {
                Some(document) => found.insert(name, document),
                None => found.remove(name.as_str()),
            };
        }
        found
    }
}

impl<'a> Documents<'a> {
    /// Has this tenant a namespace, or a VRF of its own kind?
    pub fn is_segmented(&self, tenant: &Tenant) -> bool {
        self.markless
            || tenant.spec.isolation == fief_model::Isolation::Netns
            || !self.networks.of_tenant(&tenant.metadata.name).is_empty()
    }

    /// The networks of a tenant, by their keys.
    pub(super) fn networks_of(&self, tenant: &str) -> BTreeMap<&str, &'a Network> {
        let networks = self.networks.of_tenant(tenant).into_iter();
        networks.map(|(key, stored)| (key, &stored.network)).collect()
    }
}
