//! What there is of networks, and what they lack, in words.

use std::collections::BTreeSet;

use fief_api::{Condition, PortStatus};
use fief_model::Endpoint;

use super::rules::TABLE;
use super::space::Standing;
use super::vrf::TABLE as VRF_TABLE;
use super::wanted::{Space, condition, tenant_of};
use super::{Networks, Wanted, links, switch};

impl Networks {
    /// What would be done, in words.
    pub fn describe(&self, wanted: &Wanted) -> Vec<String> {
        let mut steps = Vec::new();
        for (tenant, space) in &wanted.spaces {
            let before = self.spaces.get(tenant).map(|standing| &standing.space);
            if before == Some(space) {
                continue;
            }
            let place = self.place(tenant, space);
            if before.is_none() {
                steps.push(format!("create {place}"));
            }
            for (key, segment) in &space.segments {
                let old = before.and_then(|before| before.segments.get(key));
                if old == Some(segment) {
                    continue;
                }
                let verb = if old.is_some() { "change" } else { "create" };
                steps.push(format!("{verb} bridge {} of network {key}", segment.bridge));
                let is_new = |name: &String| old.is_none_or(|old| !old.ports.contains_key(name));
                for (name, port) in segment.ports.iter().filter(|(name, _)| is_new(name)) {
                    steps.push(format!("attach endpoint {} as port {name}", port.endpoint));
                }
            }
            steps.push(match space.vrf {
                Some(_) => format!("set elements of {place} in nftables table {VRF_TABLE} on the host"),
                None => format!("set nftables table {TABLE} in {}", self.path(tenant).display()),
            });
        }
        for (tenant, standing) in &self.spaces {
            let space = &standing.space;
            if wanted.spaces.get(tenant).is_none_or(|wanted| wanted.vrf != space.vrf) {
                steps.push(format!("remove {}", self.place(tenant, space)));
            }
        }
        steps.extend(self.trunks.describe(&wanted.trunks));
        if !steps.is_empty() && !wanted.exits.is_empty() {
            steps.push(format!("set nftables table {TABLE} on the host"));
        }
        steps
    }

    fn place(&self, tenant: &str, space: &Space) -> String {
        match space.vrf {
            Some(table) => format!("VRF {} with table {table}", links::vrf(space.slot)),
            None => format!("network namespace {}", self.path(tenant).display()),
        }
    }

    /// What a tenant's namespace lacks as a whole.
    pub fn trouble_of(&self, tenant: &str) -> Option<&Condition> {
        self.trouble.get(tenant).map(|(_, reason)| reason)
    }

    /// What a network lacks.
    pub fn lacking_of_network(&self, key: &str) -> Vec<Condition> {
        let tenant = tenant_of(key);
        let own = self.wanted.networks.get(key).cloned().unwrap_or_default();
        let on_host = self.trunks.lacking_of(key).iter().cloned();
        own.into_iter().chain(self.trouble_of(tenant).cloned()).chain(on_host).collect()
    }

    /// What an endpoint lacks where it is attached.
    pub fn lacking_of_endpoint(&self, endpoint: &Endpoint) -> Vec<Condition> {
        let key = endpoint.metadata.key();
        let networks = endpoint.spec.networks.iter().map(|attachment| endpoint.network_of(attachment));
        let places: BTreeSet<String> = networks.map(|network| tenant_of(&network).to_owned()).collect();
        let places: Vec<&Standing> = places.iter().filter_map(|place| self.spaces.get(place)).collect();
        let built = places.iter().filter_map(|standing| standing.lacking.get(&key));
        built.flatten().cloned().chain(guarded(&places, &key)).collect()
    }

    /// A switch's bridge on the host, and its ports; of another network nothing.
    pub fn ports_of(&self, key: &str) -> Option<(String, Vec<PortStatus>)> {
        self.trunks.view(key)
    }

    /// Why an uplink does not work; `None` if it does.
    pub fn lacking_of_uplink(&self, device: &str) -> Option<String> {
        self.wanted.exits.get(device)?.lacks.clone()
    }

    /// A network's place: its namespace or, with `true`, its VRF; its bridge; the uplink in use.
    pub fn place_of(&self, key: &str) -> (String, bool, String, Option<String>) {
        let tenant = tenant_of(key);
        let space = self.spaces.get(tenant).map(|standing| &standing.space);
        let vrf = self.wanted.spaces.get(tenant).filter(|space| space.vrf.is_some());
        let place = vrf.map(|space| links::vrf(space.slot));
        let (is_vrf, path) = (place.is_some(), self.path(tenant).display().to_string());
        let segment = space.and_then(|space| space.segments.get(key));
        let bridge = segment.map(|segment| segment.bridge.clone()).unwrap_or_default();
        let index = segment.and_then(|segment| segment.exit).and_then(|exit| {
            space?.transit.iter().find(|(_, address)| **address == exit).map(|(index, _)| *index)
        });
        let exit = self.wanted.exits.iter().find(|(_, exit)| Some(exit.uplink.index) == index);
        (place.unwrap_or(path), is_vrf, bridge, exit.map(|(name, _)| name.clone()))
    }
}

/// Which of an endpoint's ports are shut because of what it said.
fn guarded(places: &[&Standing], key: &str) -> Vec<Condition> {
    let mut shut = Vec::new();
    for standing in places.iter().filter(|standing| standing.frames.is_some()) {
        let switches = standing.space.segments.iter().filter(|(_, segment)| segment.cable.is_some());
        for (network, segment) in switches {
            for (port, _) in segment.ports.iter().filter(|(_, port)| port.endpoint == key) {
                if switch::is_guarded(&standing.namespace, port).unwrap_or(false) {
                    let minutes = switch::PAUSE.as_secs() / 60;
                    let text = format!(
                        "it spoke the language of the spanning tree (BPDU) on {network}, so its port {port} is shut; \
                         stop that, then delete the endpoint and apply it again, or wait {minutes} minutes"
                    );
                    shut.push(condition("BpduSeen", text));
                }
            }
        }
    }
    shut
}
