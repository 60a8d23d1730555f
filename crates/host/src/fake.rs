//! A host in memory, for tests of what only decides.

use std::collections::BTreeMap;

use crate::{Change, Host, HostError, Listing, RouteKey};

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
                    (other.preference, other.mark, other.mask, other.invert)
                        == (rule.preference, rule.mark, rule.mask, rule.invert)
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
        }
    }
}
