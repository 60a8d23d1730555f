//! A host in memory, for tests of what only decides.

use std::collections::BTreeMap;

use crate::{Change, Family, GROUP, Host, HostError, Link, Listing, RouteKey};

/// A host that does as it is told and remembers every change in order.
#[derive(Debug, Default)]
pub struct FakeHost {
    /// What is there.
    pub listing: Listing,
    /// What was asked.
    pub changes: Vec<Change>,
}

impl Host for FakeHost {
    fn list(&mut self) -> Result<Listing, HostError> {
        Ok(self.listing.clone())
    }

    fn change(&mut self, changes: &[Change]) -> Vec<Result<(), HostError>> {
        changes.iter().map(|change| self.make(change)).collect()
    }
}

impl FakeHost {
    fn make(&mut self, change: &Change) -> Result<(), HostError> {
        self.changes.push(change.clone());
        let listing = &mut self.listing;
        let missing = |found: bool| {
            if found { Ok(()) } else { Err(HostError::Missing(format!("not there: {change:?}"))) }
        };
        match change {
            Change::AddRule(family, rule) => {
                let behind =
                    listing.rules.iter().rposition(|(f, r)| f == family && r.preference <= rule.preference);
                listing.rules.insert(behind.map_or(0, |at| at + 1), (*family, *rule));
                Ok(())
            }
            Change::DeleteRule(family, rule) => {
                // As fib_rules does: the first with this preference, selector and kind of action.
                let same = |other: &crate::Rule| {
                    (other.preference, other.mark, other.mask, other.source, other.invert)
                        == (rule.preference, rule.mark, rule.mask, rule.source, rule.invert)
                        && std::mem::discriminant(&other.action) == std::mem::discriminant(&rule.action)
                };
                let at = listing.rules.iter().position(|(f, r)| f == family && same(r));
                missing(at.map(|at| listing.rules.remove(at)).is_some())
            }
            Change::SetRoute(route) => {
                let mut routes: BTreeMap<RouteKey, _> =
                    listing.routes.drain(..).map(|r| (r.key(), r)).collect();
                routes.insert(route.key(), route.clone());
                listing.routes = routes.into_values().collect();
                Ok(())
            }
            Change::DeleteRoute(route) => {
                let before = listing.routes.len();
                listing.routes.retain(|r| r.key() != route.key());
                missing(listing.routes.len() < before)
            }
            Change::AddAddress(address) => {
                listing.addresses.push(*address);
                Ok(())
            }
            Change::DeleteAddress(address) => {
                let before = listing.addresses.len();
                listing.addresses.retain(|a| (a.device, a.net) != (address.device, address.net));
                missing(listing.addresses.len() < before)
            }
            Change::LocalRuleFirst(family) => {
                listing.local_first.push(*family);
                Ok(())
            }
            Change::LocalRuleAway(family) => {
                listing.local_first.retain(|f| f != family);
                Ok(())
            }
            Change::AddVrf(vrf) => {
                if listing.links.iter().all(|link| link.vrf.is_none()) {
                    listing.vrf_rules = Family::BOTH.to_vec();
                }
                let index = listing.links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
                let (name, group, vrf) = (vrf.name.clone(), GROUP, Some(vrf.table));
                let link = Link { index, name, group, vrf, up: true, carrier: true, ..Link::default() };
                listing.links.push(link);
                Ok(())
            }
            Change::DeleteVrf(vrf) => {
                let before = listing.links.len();
                listing.links.retain(|link| link.name != vrf.name);
                missing(listing.links.len() < before)
            }
            Change::RaiseVrf(index) => {
                listing.links.iter_mut().filter(|link| link.index == *index).for_each(|link| link.up = true);
                Ok(())
            }
            Change::Enslave(device, _) | Change::Release(device, _) => {
                let master = match change {
                    Change::Enslave(_, vrf) => Some(*vrf),
                    _ => None,
                };
                let link = listing.links.iter_mut().find(|link| link.index == *device);
                missing(link.map(|link| link.master = master).is_some())
            }
            Change::VrfRuleAway(family) => {
                listing.vrf_rules.retain(|f| f != family);
                Ok(())
            }
        }
    }
}
