//! What of the numbers survives a restart: a row for each that was ever given.

use std::collections::BTreeMap;

use fief_model::{Slot, Tenant};
use fief_policy::identity::Snapshot;
use fief_policy::{Identities, Identity};

use super::{Facts, Given, Member, Now, Policies};
use crate::store::StoredIdentity;

impl Policies {
    /// Tenants with their numbers as the disk has them. Nobody uses any yet: whoever does is to be planned next, and the
    /// grace period of the others begins now.
    pub fn remember<'a>(
        &mut self,
        tenants: impl Iterator<Item = (&'a Tenant, Slot)>,
        rows: BTreeMap<String, StoredIdentity>,
        now: Now,
    ) {
        let mut by_tenant: BTreeMap<String, Vec<(Identity, StoredIdentity)>> = BTreeMap::new();
        for (key, row) in rows {
            let Some((tenant, number)) = key.rsplit_once('/') else { continue };
            let Ok(number) = number.parse() else { continue };
            by_tenant.entry(tenant.to_owned()).or_default().push((Identity(number), row));
        }
        for (tenant, slot) in tenants {
            let name = &tenant.metadata.name;
            let mut member = Member::new(Facts::of(tenant, slot), self.settings.clone());
            if let Some(rows) = by_tenant.remove(name) {
                member.remember(rows, now);
            }
            self.names.insert(slot, name.clone());
            self.tenants.insert(name.clone(), member);
        }
    }
}

impl Member {
    fn remember(&mut self, rows: Vec<(Identity, StoredIdentity)>, now: Now) {
        let last = rows.iter().map(|(identity, _)| identity.0).max().unwrap_or(0);
        let fresh = Identity(last + 1).max(Identity::FIRST);
        // A number without a row was promised to a request that was not granted.
        let mut free: BTreeMap<Identity, u64> =
            (Identity::FIRST.0..fresh.0).map(|number| (Identity(number), 0)).collect();
        let mut numbers = Vec::new();
        for (identity, row) in rows {
            match row {
                StoredIdentity::Given { workload, since } => {
                    free.remove(&identity);
                    self.given.insert(identity, Given { since, ..Given::default() });
                    numbers.push((identity, workload));
                }
                StoredIdentity::Free { place } => {
                    self.next_place = self.next_place.max(place + 1);
                    free.insert(identity, place);
                }
            }
        }
        numbers.sort();
        let mut free: Vec<(u64, Identity)> =
            free.into_iter().map(|(identity, place)| (place, identity)).collect();
        free.sort();
        let free = free.into_iter().map(|(_, identity)| identity).collect();
        let settings = self.identities.settings().clone();
        self.identities = Identities::restore(settings, Snapshot { numbers, free, fresh }, now.seconds);
    }
}
