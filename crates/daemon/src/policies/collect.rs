//! Numbers that nobody uses any more, and when to look for them.

use fief_policy::{Change, Delta, Identity};

use super::{Now, Policies};
use crate::store::StoredIdentity;

/// After a refusal, the next try is so many seconds later.
const PAUSE: u64 = 30;

/// Numbers that are free again.
#[derive(Debug, Default)]
pub struct Collected {
    /// By tenant, with what the disk is to hold.
    pub numbers: Vec<(String, Identity, StoredIdentity)>,
    /// What becomes of the tables.
    pub delta: Delta,
}

impl Policies {
    /// The second in which the next number gets free, if one will.
    pub fn due(&self) -> Option<u64> {
        let due = self.tenants.values().filter_map(|member| member.identities.due()).min();
        due.map(|due| due.max(self.collect_from))
    }

    /// Takes numbers out of the tables that nobody uses and whose time is over.
    pub fn collect(&mut self, now: Now) -> Collected {
        if self.due().is_none_or(|due| due > now.seconds) {
            return Collected::default();
        }
        let over = self.tenants.values().flat_map(|member| {
            let gone = |identity| Change::NoIdentity(member.facts.slot, identity);
            member.identities.over(now.seconds).into_iter().map(gone)
        });
        let changes: Vec<Change> = over.collect();
        let delta = match self.compiler.update(changes) {
            Ok(delta) => delta,
            // Names of ports mean less without them, and the sets that say so do not fit beside the old ones.
            Err(refused) => {
                tracing::warn!(%refused, "unused identities stay for now");
                self.collect_from = now.seconds + PAUSE;
                return Collected::default();
            }
        };
        self.tables.apply(&delta);
        let mut numbers = Vec::new();
        for (name, member) in &mut self.tenants {
            for identity in member.identities.collect(now.seconds) {
                member.given.remove(&identity);
                let place = member.next_place;
                member.next_place += 1;
                numbers.push((name.clone(), identity, StoredIdentity::Free { place }));
            }
        }
        Collected { numbers, delta }
    }
}
