//! Devices of the host as ports of switches: what else may use them.
//!
//! A port takes every frame of its device that has no tag, so nobody else gets one: no second switch, no tenant with an
//! interface there, and no network that leaves behind the device's address. A VLAN of it is another matter.

use std::collections::HashMap;

use super::Findings;
use crate::{Network, Tenant};

/// Who uses which device how, so far.
#[derive(Default)]
pub(super) struct Ports<'a> {
    by_device: HashMap<&'a str, Held<'a>>,
}

/// Who uses one device. Thousands of tenants may share it, and one of them is enough to know.
#[derive(Default)]
struct Held<'a> {
    untagged: Option<Use<'a>>,
    vlans: HashMap<u16, Use<'a>>,
    shared: Option<Use<'a>>,
}

/// A use of a device.
struct Use<'a> {
    how: How,
    /// A network's key or a tenant's name.
    who: String,
    device: &'a str,
    path: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Port of a switch, frames without a tag.
    Untagged,
    /// Port of a switch, frames of a VLAN.
    Vlan(u16),
    /// Uplink of a local network.
    Uplink,
    /// Interface of a tenant.
    Interface,
}

impl<'a> Ports<'a> {
    /// Notes what a network uses, and complains of what is used otherwise already.
    pub(super) fn claim_network(&mut self, network: &'a Network, findings: Option<&mut Findings<'_>>) {
        let how = match (network.is_switch(), network.spec.vlan) {
            (false, _) => How::Uplink,
            (true, None) => How::Untagged,
            (true, Some(vlan)) => How::Vlan(vlan),
        };
        let uses = network.spec.uplinks.iter().enumerate().map(|(index, device)| Use {
            how,
            who: network.metadata.key(),
            device,
            path: format!("spec.uplinks[{index}]"),
        });
        self.claim(uses, findings);
    }

    /// The same of a tenant's interfaces.
    pub(super) fn claim_tenant(&mut self, tenant: &'a Tenant, findings: Option<&mut Findings<'_>>) {
        let uses = tenant.spec.interfaces.iter().enumerate().map(|(index, interface)| Use {
            how: How::Interface,
            who: tenant.metadata.name.clone(),
            device: &interface.name,
            path: format!("spec.interfaces[{index}].name"),
        });
        self.claim(uses, findings);
    }

    fn claim(&mut self, uses: impl Iterator<Item = Use<'a>>, mut findings: Option<&mut Findings<'_>>) {
        for own in uses {
            let held = self.by_device.entry(own.device).or_default();
            let is_other = |held: &&Use<'a>| held.who != own.who;
            if let (Some(other), Some(findings)) = (held.against(own.how).find(is_other), &mut findings) {
                let message = format!("`{}` {}", own.device, other.describe());
                findings.refuse(&own.path, message, remedy(own.how, other.how));
            }
            match own.how {
                How::Untagged => drop(held.untagged.get_or_insert(own)),
                How::Vlan(vlan) => drop(held.vlans.entry(vlan).or_insert(own)),
                How::Uplink | How::Interface => drop(held.shared.get_or_insert(own)),
            }
        }
    }
}

impl<'a> Held<'a> {
    /// Those that cannot be at once with such a use.
    fn against(&self, how: How) -> impl Iterator<Item = &Use<'a>> {
        let (untagged, shared) = (self.untagged.iter(), self.shared.iter());
        let (vlan, untagged, shared) = match how {
            How::Vlan(vlan) => (self.vlans.get(&vlan), None, None),
            How::Untagged => (None, Some(untagged), Some(shared)),
            How::Uplink | How::Interface => (None, Some(untagged), None),
        };
        vlan.into_iter().chain(untagged.into_iter().flatten()).chain(shared.into_iter().flatten())
    }
}

impl Use<'_> {
    fn describe(&self) -> String {
        let who = &self.who;
        match self.how {
            How::Untagged => format!("is a port of switch `{who}` already"),
            How::Vlan(vlan) => format!("carries switch `{who}` as VLAN {vlan} already"),
            How::Uplink => format!("is an uplink of network `{who}`, which needs the host's address there"),
            How::Interface => format!("is an interface of tenant `{who}`"),
        }
    }
}

fn remedy(own: How, other: How) -> &'static str {
    match (own, other) {
        (How::Vlan(_), _) => "write another VLAN, or attach the endpoints to that network",
        (How::Untagged, How::Untagged) => {
            "give one of the two a `vlan`, or attach the endpoints of both to one network"
        }
        (How::Untagged, _) => "write another device, or a `vlan` of this one",
        _ => "write another device, or give the switch a `vlan`",
    }
}
