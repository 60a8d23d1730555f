//! Policies as they are in force: who has which identity, the compiler, and the tables that it made.
//!
//! Architecture invariant: this room is pure. It is told documents and the time, and hands out what the datapath and the
//! disk are to hold; a change is planned, and then committed or abandoned, so that what does not fit is refused before
//! anything is kept. A change costs what it changes, and not what there is.
//!
//! - `plan` is a request on its way. `collect` gives numbers back that nobody uses. `durable` is what survives a restart.
//! - `question` asks the tables and the reference what becomes of one packet.

mod collect;
mod durable;
mod plan;
mod question;
mod refused;

use std::collections::{BTreeMap, HashMap};

use fief_model::{Endpoint, Namespace, NetworkPolicy, Places, PolicyMode, Slot, Tenant};
use fief_policy::identity::{NamedPort, Settings, Usage};
use fief_policy::rule::Origin;
use fief_policy::selector::Selector;
use fief_policy::tables::RuleNumber;
use fief_policy::{
    Compiler, Delta, Identities, Identity, PolicyKey, Sizes, Tables, Workload, network_policy,
};

pub use plan::{Planned, Request};
pub use question::Side;
pub use refused::Refused;

/// The most policies that a host holds.
const MOST_POLICIES: usize = 65_536;
/// The most rules that they have together.
const MOST_RULES: usize = 262_144;

/// The time, by two clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Seconds that never go back.
    pub seconds: u64,
    /// Seconds of the Unix epoch.
    pub unix: u64,
}

/// Policies as they are in force.
pub struct Policies {
    settings: Settings,
    compiler: Compiler,
    /// What the compiler made: what the datapath holds.
    tables: Tables,
    tenants: BTreeMap<String, Member>,
    names: HashMap<Slot, String>,
    /// The identity of each endpoint, by `TENANT/NAME`.
    endpoints: HashMap<String, Identity>,
    /// How many rules each policy has.
    policies: BTreeMap<PolicyKey, usize>,
    rules: usize,
    /// Not before this second, after a refusal.
    collect_from: u64,
}

/// What is known of a tenant.
struct Member {
    facts: Facts,
    identities: Identities,
    given: BTreeMap<Identity, Given>,
    /// The place of the next number that gets free.
    next_place: u64,
    /// Was the alarm raised?
    alarmed: bool,
}

/// What its document says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    slot: Slot,
    namespaces: BTreeMap<String, Namespace>,
    mode: PolicyMode,
}

/// A number that was given.
#[derive(Debug, Clone, Default)]
struct Given {
    /// When, in seconds of the Unix epoch.
    since: u64,
    /// How many endpoints have it.
    users: usize,
}

/// An identity, for whoever wants to see it.
#[derive(Debug)]
pub struct Known<'a> {
    /// Its tenant.
    pub tenant: &'a str,
    /// Its number.
    pub identity: Identity,
    /// What it stands for.
    pub workload: &'a Workload,
    /// The endpoints that have it, by `TENANT/NAME`.
    pub endpoints: Vec<&'a str>,
    /// Since when it stands for that, in seconds of the Unix epoch.
    pub since: u64,
}

impl Policies {
    /// Nobody is known, and tables have room for so many entries.
    pub fn new(room: Sizes) -> Policies {
        Policies {
            settings: Settings::default(),
            compiler: Compiler::new(room),
            tables: Tables::default(),
            tenants: BTreeMap::new(),
            names: HashMap::new(),
            endpoints: HashMap::new(),
            policies: BTreeMap::new(),
            rules: 0,
            collect_from: 0,
        }
    }

    /// An endpoint as policies know it: its tenant's slot and its identity there.
    pub fn endpoint(&self, tenant: &str, endpoint: &str) -> Option<(Slot, Identity)> {
        let identity = self.endpoints.get(&format!("{tenant}/{endpoint}"))?;
        Some((self.tenants.get(tenant)?.facts.slot, *identity))
    }

    /// Has a tenant any policy?
    pub fn has_policies(&self, slot: Slot) -> bool {
        let first = PolicyKey { tenant: slot, kind: "", namespace: String::new(), name: String::new() };
        self.policies.range(first..).next().is_some_and(|(key, _)| key.tenant == slot)
    }

    /// Is what a tenant's policies deny only recorded?
    pub fn audits(&self, slot: Slot) -> bool {
        let member = self.names.get(&slot).and_then(|name| self.tenants.get(name));
        member.is_some_and(|member| member.facts.mode == PolicyMode::Audit)
    }

    /// Where a rule is written.
    pub fn rule(&self, number: RuleNumber) -> Option<(PolicyKey, Origin)> {
        let written = self.compiler.written(number)?;
        Some(((*written.policy).clone(), written.origin))
    }

    /// Is there no policy at all?
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Everything that the datapath is to hold, for one that holds nothing.
    pub fn whole(&self) -> Delta {
        Delta::whole(&self.tables)
    }

    /// How many endpoints a policy selects.
    pub fn selects(&self, policy: &NetworkPolicy) -> usize {
        let Some(member) = policy.tenant().and_then(|tenant| self.tenants.get(tenant)) else { return 0 };
        let selector = Selector::in_namespace(&policy.metadata.namespace, &policy.spec.pod_selector);
        let users = member.given.iter().filter_map(|(identity, given)| {
            let workload = member.identities.workload(*identity)?;
            let is_there = workload.namespace() == policy.metadata.namespace;
            (is_there && selector.selects(workload)).then_some(given.users)
        });
        users.sum()
    }

    /// The label by which a rule selects although it makes no identity, with the rule's place.
    pub fn hides(&self, policy: &NetworkPolicy) -> Option<(String, String)> {
        // Which slot the rules are for is the same to the filter.
        let rules = network_policy::rules(Slot::new(1)?, policy, &Places::default());
        let (rule, label) = self.settings.filter.hides(&rules)?;
        Some((rule.origin.path.to_string(), label.to_owned()))
    }

    /// The identities of all tenants, or of one.
    pub fn known<'a>(&'a self, tenant: Option<&'a str>) -> impl Iterator<Item = Known<'a>> {
        let mut users = HashMap::<(&str, Identity), Vec<&str>>::new();
        for (endpoint, identity) in &self.endpoints {
            let tenant = endpoint.split_once('/').map_or("", |(tenant, _)| tenant);
            users.entry((tenant, *identity)).or_default().push(endpoint);
        }
        let of = self.tenants.iter().filter(move |(name, _)| tenant.is_none_or(|tenant| tenant == *name));
        let all =
            of.flat_map(|(tenant, member)| member.given.iter().map(move |given| (tenant, member, given)));
        all.filter_map(move |(tenant, member, (identity, given))| {
            let workload = member.identities.workload(*identity)?;
            let mut endpoints = users.remove(&(tenant.as_str(), *identity)).unwrap_or_default();
            endpoints.sort_unstable();
            Some(Known { tenant, identity: *identity, workload, endpoints, since: given.since })
        })
    }

    /// Tenants that have few numbers left.
    pub fn alarms(&self) -> impl Iterator<Item = (&str, Usage)> {
        let usages = self.tenants.iter().map(|(name, member)| (name.as_str(), member.identities.usage()));
        usages.filter(|(_, usage)| usage.alarm)
    }

    /// Tenants of whom that was not said yet.
    pub fn fresh_alarms(&mut self) -> Vec<(String, Usage)> {
        let mut fresh = Vec::new();
        for (name, member) in &mut self.tenants {
            let usage = member.identities.usage();
            if usage.alarm && !member.alarmed {
                fresh.push((name.clone(), usage));
            }
            member.alarmed = usage.alarm;
        }
        fresh
    }
}

impl Member {
    fn new(facts: Facts, settings: Settings) -> Member {
        let identities = Identities::new(settings);
        Member { facts, identities, given: BTreeMap::new(), next_place: 0, alarmed: false }
    }
}

impl Facts {
    fn of(tenant: &Tenant, slot: Slot) -> Facts {
        Facts { slot, namespaces: tenant.spec.namespaces.clone(), mode: tenant.spec.policy_mode }
    }

    /// An endpoint as its rules see it.
    fn workload(&self, endpoint: &Endpoint) -> Workload {
        let namespace = &endpoint.metadata.namespace;
        let of_namespace = self.namespaces.get(namespace).map(|n| n.labels.clone()).unwrap_or_default();
        let ports = endpoint.spec.ports.iter().map(|port| NamedPort {
            name: port.name.clone(),
            protocol: port.protocol.number(),
            port: port.port,
        });
        Workload::new(namespace, of_namespace, endpoint.metadata.labels.clone(), ports)
    }
}

#[cfg(test)]
mod tests;
