//! VRFs in the engine: does this kernel have them, which tenants have one, and whose is the kernel's rule for them.

use std::collections::HashSet;

use fief_host::Change;
use fief_model::{Tenant, overlapping};

use super::Engine;
use crate::plan::Plan;
use crate::plan::backend::{self, Around};
use crate::store::StoreError;

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
        isolation(tenant, self.is_segmented(tenant), &self.overlapping)
    }

    /// To be called before a plan is carried out: is the kernel about to make its rule for VRFs because of us, or is that
    /// over?
    pub(super) fn mind_vrf_rule(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let is_first = plan.add.iter().any(|change| matches!(change, Change::AddVrf(_)))
            && self.observed.links().all(|link| link.vrf.is_none());
        let is_over = self.observed.links().all(|link| link.vrf.is_none()) && !is_first;
        let is_gone = self.observed.vrf_rules.is_empty();
        let is_ours = match self.tree.vrf_rule_is_ours {
            false => is_first && is_gone,
            true => !(is_over && is_gone),
        };
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

/// The kind of isolation that a tenant's document gets among all others.
pub(super) fn isolation<S: std::borrow::Borrow<str> + std::hash::Hash + Eq>(
    tenant: &Tenant,
    segmented: bool,
    overlapping: &HashSet<S>,
) -> &'static str {
    let overlapped = overlapping.contains(tenant.metadata.name.as_str());
    backend::choose(tenant, Around { segmented, overlapped, no_vrf: None }).map_or("none", |b| b.name())
}
