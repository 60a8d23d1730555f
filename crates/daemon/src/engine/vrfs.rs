//! VRFs in the engine: does this kernel have them, which tenants have one, and whose is the kernel's rule for them.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use fief_host::Change;
use fief_model::{Tenant, overlapping};

use super::Engine;
use crate::plan::Plan;
use crate::plan::backend::{self, Around};
use crate::store::{StoreError, Stored, StoredNetwork};

impl Engine {
    /// Why this kernel makes no VRFs. It is asked again if it last made none: a module may be there by now.
    pub(crate) fn no_vrf(&self) -> Option<String> {
        self.no_vrf.as_ref().and_then(|_| ask_for_vrfs())
    }

    /// Notes which tenants need a VRF because of others' addresses.
    pub(super) fn note_overlapping(&mut self) {
        let tenants = self.tenants.values().map(|stored| &stored.tenant);
        self.overlapping = overlapping(tenants).into_iter().map(str::to_owned).collect();
    }

    /// The kind of isolation that a stored tenant has, whatever the kernel has lost since.
    pub(crate) fn isolation_of(&self, tenant: &Tenant) -> &'static str {
        self.isolation_among(tenant, self.is_segmented(tenant), &self.overlapping)
    }

    /// The kind of isolation that a tenant's document gets among others.
    pub(super) fn isolation_among<S: Borrow<str> + Hash + Eq>(
        &self,
        tenant: &Tenant,
        segmented: bool,
        overlapping: &HashSet<S>,
    ) -> &'static str {
        let overlapped = overlapping.contains(tenant.metadata.name.as_str());
        let around = Around { segmented, overlapped, no_vrf: None, no_mark: self.is_markless() };
        backend::choose(tenant, around).map_or("none", |backend| backend.name())
    }

    /// To be called before a plan is carried out: is the kernel about to make its rule for VRFs because of us, or is that
    /// over?
    pub(super) fn mind_vrf_rule(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let is_first = plan.add.iter().any(|change| matches!(change, Change::AddVrf(_)))
            && self.observed.links().all(|link| link.vrf.is_none());
        let of_networks = self.links.iter().any(|link| link.vrf.is_some());
        let is_over = self.observed.links().all(|link| link.vrf.is_none()) && !is_first && !of_networks;
        let is_gone = self.observed.vrf_rules.is_empty();
        let is_ours = match self.tree.vrf_rule_is_ours {
            false => is_first && is_gone,
            true => !(is_over && is_gone),
        };
        self.keep_vrf_rule_is_ours(is_ours)
    }

    /// To be called before VRFs of networks are made: if the first one of this namespace is among them, it brings the rule.
    pub(super) fn mind_vrf_rule_of_networks(&mut self) -> Result<(), StoreError> {
        let is_first = self.links.iter().any(|link| link.vrf.is_some())
            && self.observed.links().all(|link| link.vrf.is_none())
            && self.observed.vrf_rules.is_empty();
        self.keep_vrf_rule_is_ours(is_first || self.tree.vrf_rule_is_ours)
    }

    fn keep_vrf_rule_is_ours(&mut self, is_ours: bool) -> Result<(), StoreError> {
        if is_ours != self.tree.vrf_rule_is_ours {
            self.store.keep_vrf_rule_is_ours(is_ours)?;
            self.tree.vrf_rule_is_ours = is_ours;
        }
        Ok(())
    }
}

/// Asks the kernel whether it makes VRFs; the reason if not, with a remedy.
pub(super) fn ask_for_vrfs() -> Option<String> {
    fief_host::devices::has_vrf().err().map(|error| match error.errno() {
        Some(libc::EOPNOTSUPP) => {
            "this kernel has no VRFs; load their module (modprobe vrf), or boot one with CONFIG_NET_VRF"
                .into()
        }
        _ => format!("this kernel makes no VRF: {error}"),
    })
}

/// Refuses to begin without marks where a stored tenant needs them; everything stays as it is.
pub(super) fn need_no_marks(
    tenants: &BTreeMap<String, Stored>,
    networks: &BTreeMap<String, StoredNetwork>,
) -> anyhow::Result<()> {
    let segmented: HashSet<&str> =
        networks.values().map(|stored| stored.network.metadata.tenant.as_str()).collect();
    for (name, stored) in tenants {
        let segmented = segmented.contains(name.as_str());
        let around = Around { segmented, overlapped: false, no_vrf: None, no_mark: true };
        if let Err(reason) = backend::choose(&stored.tenant, around) {
            anyhow::bail!(
                "tenant {name} stands in the way of `markMask: none`: {reason}; or delete it first, with the markMask \
                 of before"
            );
        }
    }
    Ok(())
}
