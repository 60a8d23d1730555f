//! What a request would do: objects that come, change and go, and the numbers they need.

use std::collections::{BTreeMap, BTreeSet};

use fief_api::{Action, Outcome};
use fief_model::{Document, Located, Places, Slot};
use similar::TextDiff;

use super::Engine;
use super::apply::Refusal;
use crate::networks::Documents;
use crate::networks::links::UPLINKS;
use crate::slots;
use crate::store::{MemberIds, Stored, StoredEndpoint, StoredNetwork, StoredPolicy, Uplink};

/// The kind of an object. Tenants are before what belongs to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the words of documents")]
pub enum Kind {
    Tenant,
    Network,
    Endpoint,
    Policy,
}

/// An object by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// `NAME` of a tenant, `TENANT/NAME` of what belongs to one, `TENANT/NAMESPACE/NAME` of a policy.
    pub name: String,
}

/// What a request would do.
#[derive(Debug, Default)]
pub(super) struct Intent {
    /// Tenants that come or change.
    pub(super) tenants: Vec<Stored>,
    /// Networks that come or change.
    pub(super) networks: Vec<StoredNetwork>,
    /// Endpoints that come or change.
    pub(super) endpoints: Vec<StoredEndpoint>,
    /// Policies that come, change or stand elsewhere.
    pub(super) policies: Vec<StoredPolicy>,
    /// What goes.
    pub(super) delete: BTreeSet<Object>,
    /// The uplinks as they are afterwards.
    pub(super) uplinks: BTreeMap<String, Uplink>,
    /// What to tell the caller.
    pub(super) outcomes: Vec<Outcome>,
}

impl Object {
    /// The object that a document describes.
    pub(super) fn of(document: &Document) -> Object {
        let kind = match document {
            Document::Tenant(_) => Kind::Tenant,
            Document::Network(_) => Kind::Network,
            Document::Endpoint(_) => Kind::Endpoint,
            Document::NetworkPolicy(_) => Kind::Policy,
        };
        Object { kind, name: document.name().into_owned() }
    }

    /// The tenant that it is or belongs to.
    fn tenant(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(tenant, _)| tenant)
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Tenant => "tenant",
            Kind::Network => "network",
            Kind::Endpoint => "endpoint",
            Kind::Policy => "policy",
        };
        write!(f, "{kind} {}", self.name)
    }
}

impl Intent {
    /// The names of what goes, of one kind.
    pub(super) fn deleted(&self, kind: Kind) -> BTreeSet<&str> {
        self.delete.iter().filter(|o| o.kind == kind).map(|o| o.name.as_str()).collect()
    }
}

impl Engine {
    /// Is there such an object?
    pub(super) fn has(&self, object: &Object) -> bool {
        match object.kind {
            Kind::Tenant => self.tenants.contains_key(&object.name),
            Kind::Network => self.networks.contains_key(&object.name),
            Kind::Endpoint => self.endpoints.contains_key(&object.name),
            Kind::Policy => self.network_policies.contains_key(&object.name),
        }
    }

    /// Every object with the set that made it.
    fn objects(&self) -> impl Iterator<Item = (Object, &str)> {
        let object = |kind| move |name: &String| Object { kind, name: name.clone() };
        let tenants = self.tenants.iter().map(move |(n, s)| (object(Kind::Tenant)(n), s.set.as_str()));
        let networks = self.networks.iter().map(move |(n, s)| (object(Kind::Network)(n), s.set.as_str()));
        let endpoints = self.endpoints.iter().map(move |(n, s)| (object(Kind::Endpoint)(n), s.set.as_str()));
        let policies = self.network_policies.iter();
        let policies = policies.map(move |(n, s)| (object(Kind::Policy)(n), s.set.as_str()));
        tenants.chain(networks).chain(endpoints).chain(policies)
    }

    /// These, and the networks, endpoints and policies of tenants among them.
    pub(super) fn with_belongings(&self, objects: BTreeSet<Object>) -> BTreeSet<Object> {
        let tenants: BTreeSet<String> =
            objects.iter().filter(|o| o.kind == Kind::Tenant).map(|o| o.name.clone()).collect();
        if tenants.is_empty() {
            return objects;
        }
        let belong = self.objects().map(|(object, _)| object).filter(|o| tenants.contains(o.tenant()));
        let belong: Vec<Object> = belong.collect();
        objects.into_iter().chain(belong).collect()
    }

    /// What a prune of this set deletes.
    pub(super) fn surplus(
        &self,
        set: Option<&str>,
        named: &BTreeSet<Object>,
    ) -> Result<BTreeSet<Object>, Refusal> {
        let Some(set) = set else { return Ok(BTreeSet::new()) };
        let of_set = self.objects().filter(|(_, made_by)| *made_by == set);
        let surplus: BTreeSet<Object> =
            of_set.map(|(object, _)| object).filter(|object| !named.contains(object)).collect();
        if named.is_empty() && !surplus.is_empty() {
            return Err(Refusal::Conflict(
                format!("pruning would leave nothing of set {set} ({} objects)", surplus.len()),
                Some("if that is meant, delete them by name: fief delete tenant NAME".into()),
            ));
        }
        let all = self.with_belongings(surplus.clone());
        let stranger = self
            .objects()
            .find(|(object, made_by)| *made_by != set && all.contains(object) && !surplus.contains(object));
        match stranger {
            None => Ok(all),
            Some((object, made_by)) => Err(Refusal::Conflict(
                format!(
                    "pruning would delete tenant {}, and with it {object} of set {made_by}",
                    object.tenant()
                ),
                Some(format!("delete {object} first, or leave the tenant in set {set}")),
            )),
        }
    }

    /// Compares documents with what is stored, and gives numbers to those that have none.
    pub(super) fn compared(
        &self,
        documents: Vec<Located>,
        mut members: BTreeMap<String, (MemberIds, MemberIds)>,
        set: &str,
        delete: BTreeSet<Object>,
    ) -> Result<Intent, Refusal> {
        let fresh = documents.iter().filter(|l| matches!(l.document, Document::Tenant(_)));
        let fresh = fresh.filter(|l| !self.tenants.contains_key(&*l.document.name())).count();
        let mut slots = self.fresh_slots(fresh, &BTreeSet::new())?.into_iter();
        let mut intent = Intent { delete, ..Intent::default() };
        let set = || set.to_owned();
        for located in documents {
            let object = Object::of(&located.document);
            let (before, is_same) = match located.document.clone() {
                Document::Tenant(tenant) => {
                    let old = self.tenants.get(&object.name);
                    let slot = match old {
                        Some(old) => old.slot,
                        None => {
                            slots.next().ok_or_else(|| Refusal::Conflict("no slot is free".into(), None))?
                        }
                    };
                    let (members, selected) = members.remove(&object.name).unwrap_or_default();
                    let stored = Stored { tenant, set: set(), slot, members, selected };
                    let is_same = old == Some(&stored);
                    if !is_same {
                        intent.tenants.push(stored);
                    }
                    (old.map(|old| Document::Tenant(old.tenant.clone())), is_same)
                }
                Document::Network(network) => {
                    let old = self.networks.get(&object.name);
                    let stored = StoredNetwork { network, set: set() };
                    let is_same = old == Some(&stored);
                    if !is_same {
                        intent.networks.push(stored);
                    }
                    (old.map(|old| Document::Network(old.network.clone())), is_same)
                }
                Document::Endpoint(endpoint) => {
                    let old = self.endpoints.get(&object.name);
                    let stored = StoredEndpoint { endpoint, set: set() };
                    let is_same = old == Some(&stored);
                    if !is_same {
                        intent.endpoints.push(stored);
                    }
                    (old.map(|old| Document::Endpoint(old.endpoint.clone())), is_same)
                }
                Document::NetworkPolicy(policy) => {
                    let old = self.network_policies.get(&object.name);
                    let places = Places::of(&policy, &located);
                    let stored = StoredPolicy { policy, set: set(), places };
                    // That it stands elsewhere is to be remembered, and no change of what it says.
                    let is_same = old.is_some_and(|old| old.policy == stored.policy && old.set == stored.set);
                    if old != Some(&stored) {
                        intent.policies.push(stored);
                    }
                    (old.map(|old| Document::NetworkPolicy(old.policy.clone())), is_same)
                }
            };
            intent.outcomes.push(compare(&object, before, &located.document, is_same));
        }
        intent.outcomes.extend(intent.delete.iter().map(|object| outcome(object, Action::Delete)));
        intent.uplinks = self.uplinks_after(&intent)?;
        Ok(intent)
    }

    /// The uplinks that networks name afterwards; new ones get a number.
    pub(super) fn uplinks_after(&self, intent: &Intent) -> Result<BTreeMap<String, Uplink>, Refusal> {
        let after = self.documents_after(intent);
        let named: BTreeSet<&str> =
            after.networks.values().flat_map(|s| s.network.exits().iter().map(String::as_str)).collect();
        let mut uplinks: BTreeMap<String, Uplink> = self
            .uplinks
            .iter()
            .filter(|(device, _)| named.contains(device.as_str()))
            .map(|(device, uplink)| (device.clone(), *uplink))
            .collect();
        let fresh: Vec<&str> = named.into_iter().filter(|name| !uplinks.contains_key(*name)).collect();
        let tenants: BTreeSet<Slot> = intent.tenants.iter().map(|stored| stored.slot).collect();
        let slots = self.fresh_slots(fresh.len(), &tenants)?;
        for (device, slot) in fresh.into_iter().zip(slots) {
            let is_free = |index: &u8| uplinks.values().all(|uplink| uplink.index != *index);
            let Some(index) = (0..UPLINKS).find(is_free) else {
                let text = format!("networks would name more than {UPLINKS} uplinks");
                return Err(Refusal::Conflict(text, Some("name fewer devices in `uplinks`".into())));
            };
            uplinks.insert(device.to_owned(), Uplink { slot, index });
        }
        Ok(uplinks)
    }

    /// Slots that nothing has and nothing carries, beside those that are `promised`.
    fn fresh_slots(&self, count: usize, promised: &BTreeSet<Slot>) -> Result<Vec<Slot>, Refusal> {
        if count == 0 {
            return Ok(Vec::new());
        }
        // Slots of tenants that go in the same request are not reused at once: their packets may still be on the way.
        let taken: BTreeSet<Slot> = self.slots().chain(promised.iter().copied()).collect();
        let read = self.positions().map(|positions| positions.read);
        let sockets = fief_host::sockets::list().map_err(|e| Refusal::Store(e.to_string()))?;
        let by_tasks = self.carried_by_tasks().into_iter().filter_map(|slot| u16::try_from(slot).ok());
        let carried: BTreeSet<u16> =
            sockets.iter().filter_map(|socket| Some(read?.number(socket.mark))).chain(by_tasks).collect();
        slots::allocate(self.field.as_ref().map(crate::store::Field::narrowest), &taken, &carried, count)
            .map_err(|e| Refusal::Conflict(e.to_string(), None))
    }

    /// All documents that networks are made of, as they are after this.
    pub(super) fn documents_after<'a>(&'a self, intent: &'a Intent) -> Documents<'a> {
        let mut after = self.documents();
        for Object { kind, name } in &intent.delete {
            match kind {
                Kind::Tenant => after.tenants.remove(name),
                Kind::Network => after.networks.remove(name),
                Kind::Endpoint => after.endpoints.remove(name),
                Kind::Policy => {}
            }
        }
        intent.tenants.iter().for_each(|s| after.tenants.put(s.tenant.metadata.name.clone(), s));
        intent.networks.iter().for_each(|s| after.networks.put(s.network.metadata.key(), s));
        intent.endpoints.iter().for_each(|s| after.endpoints.put(s.endpoint.metadata.key(), s));
        after.uplinks = &intent.uplinks;
        after
    }

    /// Notes whose networks may be wanted otherwise after this, while the documents of before are there.
    pub(super) fn note_stale(&mut self, intent: &Intent) {
        let stale = &mut self.stale;
        let tenants = intent.tenants.iter().map(|stored| stored.tenant.metadata.name.as_str());
        tenants.chain(intent.deleted(Kind::Tenant)).for_each(|name| stale.tenant(name));
        let coming = intent.networks.iter().map(|stored| stored.network.metadata.key());
        let going = intent.deleted(Kind::Network).into_iter().map(str::to_owned);
        let endpoints = self.endpoints.values().map(|stored| &stored.endpoint);
        stale.networks(&coming.chain(going).collect(), endpoints);
        let coming: Vec<String> = intent.endpoints.iter().map(|s| s.endpoint.metadata.key()).collect();
        let known = coming.iter().map(String::as_str).chain(intent.deleted(Kind::Endpoint));
        let before = known.filter_map(|key| self.endpoints.get(key));
        before.chain(&intent.endpoints).for_each(|stored| stale.endpoint(&stored.endpoint));
    }

    /// Makes what was stored the daemon's own.
    pub(super) fn adopt(&mut self, intent: &Intent) {
        let tenants = intent.tenants.iter().map(|s| (s.tenant.metadata.name.clone(), s.clone()));
        self.tenants.extend(tenants);
        self.networks.extend(intent.networks.iter().map(|s| (s.network.metadata.key(), s.clone())));
        self.endpoints.extend(intent.endpoints.iter().map(|s| (s.endpoint.metadata.key(), s.clone())));
        self.network_policies.extend(intent.policies.iter().map(|s| (s.policy.key(), s.clone())));
        self.uplinks.clone_from(&intent.uplinks);
    }
}

fn compare(object: &Object, before: Option<Document>, after: &Document, is_same: bool) -> Outcome {
    let Some(before) = before else { return outcome(object, Action::Create) };
    if before == *after {
        return outcome(object, if is_same { Action::Unchanged } else { Action::Change });
    }
    let (before, after) = (before.to_yaml(), after.to_yaml());
    let diff = TextDiff::from_lines(&before, &after).unified_diff().header("stored", "applied").to_string();
    Outcome { diff: Some(diff), ..outcome(object, Action::Change) }
}

pub(super) fn outcome(object: &Object, action: Action) -> Outcome {
    let kind = match object.kind {
        Kind::Tenant => "Tenant",
        Kind::Network => "Network",
        Kind::Endpoint => "Endpoint",
        Kind::Policy => "NetworkPolicy",
    };
    let name = object.name.clone();
    Outcome { kind: kind.into(), name, action, diff: None, status: None, standing: None }
}
