//! Networks in the engine's round: what they need is built before the plan, and opened behind it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use fief_api::{
    Condition, EndpointStatus, EndpointView, InterfaceStatus, NetworkStatus, NetworkView, Phase, Standing,
    UplinkStatus,
};
use fief_datapath::Device;
use fief_host::{Family, sysctl};
use fief_model::{Slot, Tenant};
use ipnet::IpNet;

use super::Engine;
use crate::networks::{Documents, Ground, Layered, Stale, Ways, forwarding, lacking};
use crate::plan::backend::{Backend, Vrf};
use crate::plan::desire::{LIBERAL, desire};
use crate::store::{StoreError, Stored, StoredEndpoint, StoredNetwork};

impl Engine {
    /// Builds what networks need, and says what tenants and uplinks need of the host. Returns whether anything was done.
    pub(super) fn desire(&mut self) -> bool {
        if self.leased.swap(false, Ordering::AcqRel) {
            self.look_at_leases();
        }
        let ports = self.networks.values().flat_map(|stored| stored.network.ports());
        let asked = self.uplinks.keys().chain(ports).cloned().collect();
        if self.observed.ask(asked) && self.list().is_err() {
            self.clocks.wake_by(std::time::Instant::now() + std::time::Duration::from_secs(1));
        }
        let (stale, mut wanted) = (std::mem::take(&mut self.stale), self.segments.lend_wanted());
        let documents = self.documents();
        wanted.renew(&documents, &self.observed, &self.ground(), &stale);
        let links = wanted.links();
        let (tree, observed) = (&self.tree, &self.observed);
        let has_vrf =
            |stored: &Stored| self.isolation_among(&stored.tenant, false, &self.overlapping) == Vrf.name();
        let of_host = self.tenants.iter().filter(|(name, _)| !wanted.spaces.contains_key(*name));
        let mut desired: std::collections::HashMap<_, _> = of_host
            .map(|(_, stored)| (stored.slot, desire(tree, stored, observed, has_vrf(stored))))
            .collect();
        desired.extend(wanted.exits(observed));
        (self.desired, self.links) = (desired, links);
        self.segments.probe(&wanted, &self.config.uplinks);
        let switched = self.switched();
        let kept = match self.observed.asks_vrfs_first() {
            true => self.mind_vrf_rule_of_networks(),
            false => Ok(()),
        };
        if let Err(error) = &kept {
            tracing::error!(%error, "no VRF is made");
        }
        let vrfs = self.observed.asks_vrfs_first() && kept.is_ok();
        self.build_networks(wanted, &switched, vrfs)
    }

    /// Takes in who has which address now.
    fn look_at_leases(&mut self) {
        let before = std::mem::replace(&mut self.leases, self.segments.leases());
        self.stale.leases(&before, &self.leases);
    }

    /// By what uplinks are told apart.
    pub(super) fn ways(&self) -> Ways {
        let stands = || self.observed.rules(Family::V4).any(|rule| rule == self.tree.entry_by_source());
        match self.positions() {
            Some(positions) => Ways::Marks(positions),
            None if stands() => Ways::Sources,
            None => Ways::Missing,
        }
    }

    /// Opens links, unless the host is not ready for what comes from there.
    pub(super) fn open_links(&mut self) -> bool {
        let observed = &self.observed;
        self.trouble.is_empty() && self.segments.open(|name| observed.link(name).is_some_and(|link| link.up))
    }

    /// Puts programs at uplinks, so that tenants' packets may take a short way past the host's stack; what went that way
    /// before asks again, because something may have changed. Connection tracking must not mind what it does not see.
    pub(super) fn shorten(&mut self) -> bool {
        let is_blind = self.tree.short_way && sysctl::read(LIBERAL).is_ok_and(|value| value.trim() == "1");
        let uplinks = if is_blind { self.segments.uplinks() } else { Vec::new() };
        let uplinks = uplinks.into_iter().filter(|uplink| self.observed.is_ethernet(*uplink));
        let device = |index| Device { index, name: self.observed.link_name(index).to_owned() };
        let uplinks: Vec<Device> = uplinks.map(device).collect();
        self.segments.shorten(&uplinks)
    }

    /// Which uplinks tenants' packets pass by the short way, and which they do not; `None` where they are to take the whole
    /// one.
    pub(crate) fn short_ways(&self) -> Option<[Vec<&str>; 2]> {
        let short = self.segments.shortened();
        let whole: Vec<u32> = self.segments.uplinks().into_iter().filter(|at| !short.contains(at)).collect();
        let names = |of: Vec<u32>| of.into_iter().map(|index| self.observed.link_name(index)).collect();
        self.tree.short_way.then(|| [short, whole].map(names))
    }

    /// Every slot that a tenant or an uplink has.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        let tenants = self.tenants.values().map(|stored| stored.slot);
        tenants.chain(self.uplinks.values().map(|uplink| uplink.slot))
    }

    /// Every document.
    pub(super) fn documents(&self) -> Documents<'_> {
        Documents {
            tenants: Layered::of(&self.tenants),
            networks: Layered::of(&self.networks),
            endpoints: Layered::of(&self.endpoints),
            uplinks: &self.uplinks,
            markless: self.is_markless(),
        }
    }

    pub(super) fn ground(&self) -> Ground<'_> {
        Ground {
            links: self.segments.links(),
            leases: &self.leases,
            table_base: self.tree.table_base,
            uplinks: &self.config.uplinks,
            silent: self.segments.silent(),
        }
    }

    /// Believes the store.
    pub(super) fn recall(&mut self) -> Result<(), StoreError> {
        self.tenants = self.store.tenants()?;
        self.networks = self.store.networks()?;
        self.endpoints = self.store.endpoints()?;
        self.network_policies = self.store.policies()?;
        self.uplinks = self.store.uplinks()?;
        self.stale = Stale::all();
        self.note_overlapping();
        Ok(())
    }

    /// Has this tenant a namespace?
    pub(super) fn is_segmented(&self, tenant: &Tenant) -> bool {
        let prefix = format!("{}/", tenant.metadata.name);
        self.is_markless()
            || tenant.spec.isolation == fief_model::Isolation::Netns
            || self.networks.range(prefix.clone()..).next().is_some_and(|(key, _)| key.starts_with(&prefix))
    }

    /// What fief takes for itself: prefixes, the words for what, and the keys of fiefd.yaml that move them.
    pub(super) fn reserved_networks(&self) -> Vec<(IpNet, &'static str, &'static str)> {
        let aliases = self.alias_networks().map(|net| (net, "aliases of UDP senders", "aliasRange"));
        let links = (IpNet::V4(self.segments.links().0), "links to tenants' namespaces", "linkRange");
        aliases.into_iter().chain([links]).collect()
    }

    /// The switches of uplinks that fief has set.
    fn switched(&self) -> BTreeSet<String> {
        if self.uplinks.is_empty() {
            return BTreeSet::new();
        }
        let ours: BTreeSet<String> = self.uplinks.keys().map(|device| forwarding(device)).collect();
        let known = self.store.switches().unwrap_or_default();
        known.into_keys().filter(|name| ours.contains(name)).collect()
    }

    /// Every network as stored, by `TENANT/NAME`.
    pub(crate) fn stored_networks(&self) -> impl Iterator<Item = &StoredNetwork> {
        self.networks.values()
    }

    /// Every endpoint as stored, by `TENANT/NAME`.
    pub(crate) fn stored_endpoints(&self) -> impl Iterator<Item = &StoredEndpoint> {
        self.endpoints.values()
    }

    /// Where a network stands.
    pub(super) fn network_standing(&self, stored: &StoredNetwork) -> Standing {
        standing(self.troubled(self.segments.lacking_of_network(&stored.network.metadata.key())))
    }

    /// Where an endpoint stands.
    pub(super) fn endpoint_standing(&self, stored: &StoredEndpoint) -> Standing {
        let mut lacking = lacking(&stored.endpoint, &self.networks);
        lacking.extend(self.segments.lacking_of_endpoint(&stored.endpoint));
        standing(self.troubled(lacking))
    }

    /// A network with where it stands.
    pub(crate) fn view_network(&self, stored: &StoredNetwork) -> NetworkView {
        let key = stored.network.metadata.key();
        let Standing { phase, conditions } = self.network_standing(stored);
        let (place, is_vrf, bridge, uplink) = self.segments.place_of(&key);
        let (namespace, vrf) = if is_vrf { (None, Some(place)) } else { (Some(place), None) };
        let uplinks = stored.network.spec.uplinks.iter().map(|device| UplinkStatus {
            device: device.clone(),
            lacks: self.segments.lacking_of_uplink(device),
        });
        let uplinks = uplinks.collect();
        let slot = self.tenants.get(&stored.network.metadata.tenant).map_or(0, |tenant| tenant.slot.number());
        let (trunk, ports) = self.segments.ports_of(&key).unzip();
        let leases = self.leases.keys().filter(|(network, _)| *network == key).count();
        NetworkView {
            network: stored.network.clone(),
            set: stored.set.clone(),
            status: NetworkStatus {
                phase,
                conditions,
                zone: slot,
                namespace,
                vrf,
                bridge,
                uplink,
                uplinks,
                leases,
                trunk,
                ports: ports.unwrap_or_default(),
            },
        }
    }

    /// An endpoint with where it stands.
    pub(crate) fn view_endpoint(&self, stored: &StoredEndpoint) -> EndpointView {
        let endpoint = &stored.endpoint;
        let Standing { phase, conditions } = self.endpoint_standing(stored);
        let interfaces = endpoint.spec.networks.iter().map(|attachment| {
            let network = endpoint.network_of(attachment);
            let mac = endpoint.mac_of(attachment);
            let leased = self.leases.get(&(network.clone(), mac)).copied();
            InterfaceStatus {
                network,
                interface: attachment.interface.clone(),
                mac: mac.to_string(),
                address: attachment.address.or(leased.map(Into::into)),
            }
        });
        EndpointView {
            endpoint: endpoint.clone(),
            set: stored.set.clone(),
            status: EndpointStatus { phase, conditions, interfaces: interfaces.collect() },
        }
    }

    fn troubled(&self, own: Vec<Condition>) -> Vec<Condition> {
        self.trouble.iter().cloned().chain(own).collect()
    }
}

fn standing(conditions: Vec<Condition>) -> Standing {
    let phase = if conditions.is_empty() { Phase::Ready } else { Phase::Pending };
    Standing { phase, conditions }
}
