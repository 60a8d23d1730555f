//! Judging in tenants' places: what ports' programs are told, from when on rules count, and whose port is whose.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use fief_api::Condition;
use fief_datapath::DatapathError;
use fief_datapath::policy::Policy;
use fief_datapath::ports::{Conversing, Ports};
use fief_host::conntrack::{self, Connection};
use rustix::time::{ClockId, clock_gettime};

use super::Networks;
use super::occupants::{Subjects, Told};
use super::space::Standing;
use super::wanted::{Wanted, condition};

/// A port.
#[derive(Debug, Clone, Copy)]
pub struct PortPlace<'a> {
    /// The tenant on whose networks it is.
    pub space: &'a str,
    /// The endpoint, by its key.
    pub endpoint: &'a str,
}

impl Networks {
    /// The programs at ports where nothing is judged.
    pub fn plain_ports(&self) -> Option<&Ports> {
        self.ports.as_ref().and_then(Option::as_ref)
    }

    /// Whose port a device is.
    pub fn port_at(&self, device: u32) -> Option<PortPlace<'_>> {
        self.spaces.iter().find_map(|(space, standing)| {
            let name = standing.ports.iter().find(|(_, number)| **number == device)?.0;
            let port = standing.space.segments.values().find_map(|segment| segment.ports.get(name))?;
            Some(PortPlace { space, endpoint: &port.endpoint })
        })
    }

    /// The endpoint that has an address on a tenant's networks.
    pub fn whose(&self, space: &str, address: IpAddr) -> Option<&str> {
        let device = self.told.get(space)?.port_of(address)?;
        Some(self.port_at(device)?.endpoint)
    }

    /// Do any ports have programs that judge?
    pub fn is_judged(&self) -> bool {
        self.spaces.values().any(|standing| standing.is_judged)
    }

    /// Others judge from now on: ports get them in the next round. Where rules count, they go on to.
    pub fn judge_by_others(&mut self, policy: &mut Policy) {
        for standing in self.spaces.values_mut().filter(|standing| standing.is_judged) {
            policy.enforce(standing.space.slot.number());
            standing.is_judged = false;
        }
        // Whom the former ones knew went with them.
        self.told.values_mut().for_each(Told::forget_judges);
    }

    /// Tells the programs at ports who is there; then the rules count where they did not yet.
    pub(super) fn tell(
        &mut self,
        subjects: Subjects,
        rebuilt: &BTreeSet<String>,
        policy: Option<&mut Policy>,
    ) {
        let plain = self.ports.as_ref().and_then(Option::as_ref);
        let failed =
            |error: DatapathError| tracing::error!(%error, "programs at ports know less than they should");
        let spaces = &self.spaces;
        self.told.retain(|tenant, told| {
            let stays = spaces.contains_key(tenant);
            if !stays {
                told.end(plain, policy.as_deref()).unwrap_or_else(failed);
            }
            stays
        });
        let mut changed = BTreeSet::new();
        let is_same = self.subjects == subjects;
        let is_new = |tenant: &String| !is_same || rebuilt.contains(tenant);
        // Of one that is not as it is wanted nobody knows what still stands.
        let is_whole = |tenant: &String| !self.trouble.contains_key(tenant);
        for (tenant, standing) in self.spaces.iter().filter(|(tenant, _)| is_new(tenant) && is_whole(tenant))
        {
            let told = self.told.entry(tenant.clone()).or_default();
            match told.tell(standing, &subjects, plain, policy.as_deref()) {
                Ok(true) => drop(changed.insert(standing.space.slot.number())),
                Ok(false) => {}
                Err(error) => failed(error),
            }
        }
        let Some(policy) = policy else {
            self.subjects = subjects;
            return;
        };
        policy.renew(&changed);
        for (tenant, standing) in self.spaces.iter().filter(|(_, standing)| standing.is_judged) {
            let slot = standing.space.slot.number();
            if !policy.is_enforced(slot) {
                self.told.get(tenant).into_iter().for_each(|told| recall(standing, policy, told));
                policy.enforce(slot);
            }
        }
        subjects.judged.iter().for_each(|slot| policy.enforce(*slot));
        self.subjects = subjects;
    }
}

/// Slots where rules count.
pub(super) fn judged_slots(wanted: &Wanted, subjects: &Subjects) -> BTreeSet<u16> {
    let spaces = wanted.spaces.values().filter(|space| subjects.judges(space));
    spaces.map(|space| space.slot.number()).chain(subjects.judged.iter().copied()).collect()
}

/// Connections that go on at ports which nobody watched till now, so that their answers pass.
fn recall(standing: &Standing, policy: &Policy, told: &Told) {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    let zone = standing.space.slot.number();
    let recalled = conntrack::list(&standing.namespace).map_err(|error| error.to_string()).and_then(|list| {
        let ours = list.iter().filter(|connection| connection.zone == zone);
        let ends = ours.flat_map(|connection| {
            let Connection { protocol, original, reply, .. } = *connection;
            [(original, true), (reply, false)].map(|([own, other], begun_here)| Conversing {
                protocol,
                own,
                other,
                begun_here,
            })
        });
        let mut at = ends.filter_map(|known| Some((told.port_of(known.own.ip())?, known)));
        at.try_for_each(|(device, known)| policy.ports().remember(device, now, &known))
            .map_err(|error| error.to_string())
    });
    if let Err(error) = recalled {
        tracing::warn!(error, "connections from before a tenant's first policy are not known");
    }
}

pub(super) fn policies_missing() -> Condition {
    condition("PoliciesMissing", "the programs that carry policies out are not loaded; see the daemon's log")
}
