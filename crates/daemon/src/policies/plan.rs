//! A request on its way: what it changes is compiled, then committed or abandoned.

use std::collections::BTreeMap;

use fief_model::{Endpoint, Slot, Tenant};
use fief_policy::{Change, Delta, Identity, PolicyKey, network_policy};

use super::{Facts, MOST_POLICIES, MOST_RULES, Member, Now, Policies, Refused};
use crate::store::{StoredIdentity, StoredPolicy};

/// What a request changes, and nothing else.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// Tenants that come or change.
    pub tenants: Vec<(&'a Tenant, Slot)>,
    /// Endpoints that come or change; those whose namespace got other labels, too.
    pub endpoints: Vec<&'a Endpoint>,
    /// Policies that come or change.
    pub policies: Vec<&'a StoredPolicy>,
    /// Tenants that go, and with them all that is theirs and named below.
    pub no_tenants: Vec<&'a str>,
    /// Endpoints that go, by `TENANT/NAME`.
    pub no_endpoints: Vec<&'a str>,
    /// Policies that go, by `TENANT/NAMESPACE/NAME`.
    pub no_policies: Vec<&'a str>,
}

/// A request that fits. To be committed or abandoned before anything else is asked.
#[derive(Debug)]
#[must_use]
pub struct Planned {
    compiled: Option<fief_policy::Planned>,
    /// Facts of tenants as they were.
    before: Vec<(String, Option<Facts>)>,
    /// Numbers that endpoints get, as they were acquired.
    gains: Vec<Gain>,
    endpoints: Vec<String>,
    tenants: Vec<String>,
    policies: BTreeMap<PolicyKey, Option<usize>>,
    now: Now,
}

#[derive(Debug)]
struct Gain {
    tenant: String,
    /// `TENANT/NAME`.
    endpoint: String,
    identity: Identity,
    is_new: bool,
}

impl Planned {
    /// How many kinds of endpoints get other rules.
    pub fn subjects(&self) -> usize {
        self.compiled.as_ref().map_or(0, fief_policy::Planned::subjects)
    }
}

impl Policies {
    /// Compiles a request, and changes nothing if it does not fit.
    pub fn plan(&mut self, request: &Request<'_>, now: Now) -> Result<Planned, Refused> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut planned = Planned {
            compiled: None,
            before: Vec::new(),
            gains: Vec::new(),
            endpoints: owned(&request.no_endpoints),
            tenants: owned(&request.no_tenants),
            policies: BTreeMap::new(),
            now,
        };
        match self.draft(request, &mut planned) {
            Ok(()) => Ok(planned),
            Err(refused) => {
                self.abandon(planned);
                Err(refused)
            }
        }
    }

    fn draft(&mut self, request: &Request<'_>, planned: &mut Planned) -> Result<(), Refused> {
        for (tenant, slot) in &request.tenants {
            let (name, facts) = (&tenant.metadata.name, Facts::of(tenant, *slot));
            self.names.insert(*slot, name.clone());
            let before = match self.tenants.get_mut(name) {
                Some(member) => Some(std::mem::replace(&mut member.facts, facts)),
                None => {
                    self.tenants.insert(name.clone(), Member::new(facts, self.settings.clone()));
                    None
                }
            };
            planned.before.push((name.clone(), before));
        }
        let mut changes = Vec::new();
        for endpoint in &request.endpoints {
            self.acquire(endpoint, planned, &mut changes)?;
        }
        self.draft_policies(request, planned, &mut changes)?;
        for member in request.no_tenants.iter().filter_map(|name| self.tenants.get(*name)) {
            let numbers = member.identities.numbers();
            changes.extend(numbers.map(|(identity, _)| Change::NoIdentity(member.facts.slot, identity)));
        }
        let compiled = self.compiler.plan(changes).map_err(|refused| self.refused(&refused))?;
        planned.compiled = Some(compiled);
        Ok(())
    }

    fn acquire(
        &mut self,
        endpoint: &Endpoint,
        planned: &mut Planned,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refused> {
        let (tenant, key) = (&endpoint.metadata.tenant, endpoint.metadata.key());
        let Some(member) = self.tenants.get_mut(tenant) else { return Ok(()) };
        let workload = member.facts.workload(endpoint);
        let acquired = member.identities.acquire(workload).map_err(|e| Refused::exhausted(tenant, e))?;
        let identity = acquired.identity;
        if self.endpoints.get(&key) == Some(&identity) {
            // It is what it was, and uses its number once.
            member.identities.release(identity, planned.now.seconds);
            return Ok(());
        }
        planned.gains.push(Gain { tenant: tenant.clone(), endpoint: key, identity, is_new: acquired.is_new });
        changes.push(Change::Identity(member.facts.slot, identity, acquired.workload));
        changes.push(Change::Subject(member.facts.slot, identity));
        Ok(())
    }

    fn draft_policies(
        &self,
        request: &Request<'_>,
        planned: &mut Planned,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refused> {
        let slot = |tenant: &str| self.tenants.get(tenant).map(|member| member.facts.slot);
        let gone = request.no_policies.iter().filter_map(|key| {
            let mut parts = key.splitn(3, '/');
            let (tenant, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Some(PolicyKey { tenant: slot(tenant)?, kind: network_policy::KIND, namespace, name })
        });
        for key in gone {
            changes.push(Change::NoPolicy(key.clone()));
            planned.policies.insert(key, None);
        }
        for stored in &request.policies {
            let Some(slot) = slot(stored.policy.tenant().unwrap_or_default()) else { continue };
            let policy = network_policy::rules(slot, &stored.policy, &stored.places);
            planned.policies.insert(policy.key.clone(), Some(policy.rules.len()));
            changes.push(Change::Policy(policy));
        }
        let (mut count, mut rules) = (self.policies.len(), self.rules);
        for (key, after) in &planned.policies {
            let before = self.policies.get(key).copied();
            count = count + usize::from(after.is_some()) - usize::from(before.is_some());
            rules = rules + after.unwrap_or(0) - before.unwrap_or(0);
        }
        // Whoever has too many may still have fewer.
        if count > MOST_POLICIES.max(self.policies.len()) {
            return Err(Refused::too_many_policies(count));
        }
        if rules > MOST_RULES.max(self.rules) {
            return Err(Refused::too_many_rules(rules));
        }
        Ok(())
    }

    /// What the disk must hold before a plan is committed: numbers that are new.
    pub fn new_numbers<'p>(
        &'p self,
        planned: &'p Planned,
    ) -> impl Iterator<Item = (&'p str, Identity, StoredIdentity)> {
        planned.gains.iter().filter(|gain| gain.is_new).filter_map(|gain| {
            let workload = self.tenants.get(&gain.tenant)?.identities.workload(gain.identity)?;
            let stored = StoredIdentity::Given { workload: (**workload).clone(), since: planned.now.unix };
            Some((gain.tenant.as_str(), gain.identity, stored))
        })
    }

    /// Numbers that the disk need not hold any more.
    pub fn old_numbers<'p>(&'p self, planned: &'p Planned) -> impl Iterator<Item = (&'p str, Identity)> {
        planned.tenants.iter().filter_map(|name| Some((name, self.tenants.get(name)?))).flat_map(
            |(name, member)| {
                let all = Identity::FIRST.0..member.identities.fresh().0;
                all.map(move |number| (name.as_str(), Identity(number)))
            },
        )
    }

    /// Puts a plan into force, and says what becomes of the tables.
    pub fn commit(&mut self, planned: Planned) -> Delta {
        let Planned { compiled, gains, endpoints, tenants, policies, now, .. } = planned;
        let delta = compiled.map(|compiled| self.compiler.commit(compiled)).unwrap_or_default();
        self.tables.apply(&delta);
        for Gain { tenant, endpoint, identity, .. } in gains {
            self.let_go(&endpoint, now);
            if let Some(member) = self.tenants.get_mut(&tenant) {
                let given = member.given.entry(identity).or_default();
                given.since = if given.since == 0 { now.unix } else { given.since };
                given.users += 1;
            }
            self.endpoints.insert(endpoint, identity);
        }
        endpoints.iter().for_each(|endpoint| self.let_go(endpoint, now));
        for name in tenants {
            if let Some(member) = self.tenants.remove(&name) {
                self.names.remove(&member.facts.slot);
            }
        }
        for (key, after) in policies {
            let before = match after {
                Some(count) => self.policies.insert(key, count),
                None => self.policies.remove(&key),
            };
            self.rules = self.rules + after.unwrap_or(0) - before.unwrap_or(0);
        }
        delta
    }

    /// An endpoint has its number no more.
    fn let_go(&mut self, endpoint: &str, now: Now) {
        let Some(identity) = self.endpoints.remove(endpoint) else { return };
        let tenant = endpoint.split_once('/').map_or(endpoint, |(tenant, _)| tenant);
        let Some(member) = self.tenants.get_mut(tenant) else { return };
        member.identities.release(identity, now.seconds);
        if let Some(given) = member.given.get_mut(&identity) {
            given.users = given.users.saturating_sub(1);
        }
    }

    /// Is again as before the plan.
    pub fn abandon(&mut self, planned: Planned) {
        let Planned { compiled, before, gains, now, .. } = planned;
        if let Some(compiled) = compiled {
            self.compiler.abandon(compiled);
        }
        for gain in gains.into_iter().rev() {
            let Some(member) = self.tenants.get_mut(&gain.tenant) else { continue };
            match gain.is_new {
                true => member.identities.revoke(gain.identity),
                false => member.identities.release(gain.identity, now.seconds),
            }
        }
        for (name, facts) in before.into_iter().rev() {
            match facts {
                Some(facts) => {
                    if let Some(member) = self.tenants.get_mut(&name) {
                        member.facts = facts;
                    }
                }
                None => {
                    if let Some(member) = self.tenants.remove(&name) {
                        self.names.remove(&member.facts.slot);
                    }
                }
            }
        }
    }
}
