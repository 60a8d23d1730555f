//! From documents to the store: everything is checked before anything is kept, and kept before anything is done.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use fief_api::{Action, ApplyRequest, ApplyResponse, DeleteRequest, SourceText};
use fief_datapath::maps::CAPACITY;
use fief_model::{Diagnostic, Document, Kept, Located, Source};
use ipnet::IpNet;

use super::Engine;
use super::intent::{Intent, Kind, Object, outcome};
use crate::members;
use crate::networks;
use crate::plan::backend::{self, Around, Backend, Vrf};
use crate::plan::desire::desire;
use crate::plan::plan;
use crate::policies::Planned;
use crate::store::{Changes, MemberIds, Stored};

/// The set that documents belong to when nobody names one.
const DEFAULT_SET: &str = "default";

/// Why a request was refused. Nothing was changed.
#[derive(Debug)]
pub enum Refusal {
    /// The documents are wrong.
    Documents(Vec<Diagnostic>),
    /// The request cannot be granted; with a remedy.
    Conflict(String, Option<String>),
    /// There is no such object.
    Missing(String),
    /// The store failed.
    Store(String),
}

/// The answer to apply, delete and diff.
pub type Applied = Result<ApplyResponse, Refusal>;

impl Engine {
    /// Makes the documents true, or says what that would do.
    pub(crate) fn apply(&mut self, request: &ApplyRequest) -> Applied {
        let intent = self.intend(request)?;
        let planned = self.plan_policies(&intent)?;
        if request.dry_run {
            let steps = self.abandon_policies(planned);
            return Ok(self.rehearse(intent, steps));
        }
        self.commit(intent, planned)
    }

    /// Says what apply would change, as differences of documents.
    pub(crate) fn diff(&mut self, request: &ApplyRequest) -> Applied {
        let intent = self.intend(request)?;
        let planned = self.plan_policies(&intent)?;
        self.abandon_policies(planned);
        Ok(ApplyResponse { outcomes: intent.outcomes, steps: Vec::new() })
    }

    /// Deletes what the documents name.
    pub(crate) fn delete(&mut self, request: &DeleteRequest) -> Applied {
        let documents = parse(&request.sources, request.tenant.as_deref())?;
        self.delete_objects(documents.iter().map(|located| Object::of(&located.document)).collect())
    }

    /// Deletes objects, and what belongs to them.
    pub(crate) fn delete_objects(&mut self, objects: BTreeSet<Object>) -> Applied {
        let absent: Vec<&Object> = objects.iter().filter(|object| !self.has(object)).collect();
        if let Some(object) = absent.first() {
            let more =
                if absent.len() > 1 { format!(" (and {} more)", absent.len() - 1) } else { String::new() };
            return Err(Refusal::Missing(format!("there is no {object}{more}; nothing was deleted")));
        }
        let delete = self.with_belongings(objects);
        let outcomes = delete.iter().map(|object| outcome(object, Action::Delete)).collect();
        let mut intent = Intent { delete, outcomes, ..Intent::default() };
        intent.uplinks = self.uplinks_after(&intent)?;
        let planned = self.plan_policies(&intent)?;
        self.commit(intent, planned)
    }

    fn intend(&self, request: &ApplyRequest) -> Result<Intent, Refusal> {
        let documents = parse(&request.sources, request.tenant.as_deref())?;
        let set = request.set.as_deref().unwrap_or(DEFAULT_SET);
        let named: BTreeSet<Object> = documents.iter().map(|l| Object::of(&l.document)).collect();
        let delete = self.surplus(request.prune.then_some(set), &named)?;
        let stays = |kind, name: &str| {
            let object = Object { kind, name: name.to_owned() };
            !named.contains(&object) && !delete.contains(&object)
        };
        let tenants = self.tenants.iter().filter(|(name, _)| stays(Kind::Tenant, name));
        let networks = self.networks.iter().filter(|(name, _)| stays(Kind::Network, name));
        let endpoints = self.endpoints.iter().filter(|(name, _)| stays(Kind::Endpoint, name));
        let kept = Kept {
            tenants: tenants.map(|(_, stored)| &stored.tenant).collect(),
            networks: networks.map(|(_, stored)| &stored.network).collect(),
            endpoints: endpoints.map(|(_, stored)| &stored.endpoint).collect(),
            unknown: false,
        };
        let mut complaints = fief_model::validate(&documents, &kept);
        let members = resolve_members(&documents, &mut complaints);
        let flaws = complaints.len();
        let no_mark = self.is_markless();
        choose_backends(&documents, &kept, (self.no_vrf.as_deref(), no_mark), &mut complaints);
        if complaints.len() > flaws && self.no_vrf.is_some() {
            complaints.truncate(flaws);
            choose_backends(&documents, &kept, (self.no_vrf().as_deref(), no_mark), &mut complaints);
        }
        keep_off(&documents, &self.reserved_networks(), &mut complaints);
        self.check_labels(&documents, &mut complaints);
        if !complaints.is_empty() {
            return Err(Refusal::Documents(complaints));
        }
        let intent = self.compared(documents, members, set, delete)?;
        self.check_capacity(&intent)?;
        Ok(intent)
    }

    /// Refuses what the datapath's maps could not hold, before anything is kept.
    fn check_capacity(&self, intent: &Intent) -> Result<(), Refusal> {
        let replaced: BTreeSet<&str> =
            intent.tenants.iter().map(|s| s.tenant.metadata.name.as_str()).collect();
        let gone = intent.deleted(Kind::Tenant);
        let kept = self
            .tenants
            .iter()
            .filter(|(name, _)| !replaced.contains(name.as_str()) && !gone.contains(name.as_str()));
        let kept = kept.map(|(_, stored)| stored);
        let (mut addresses, mut neighbours) = (0, 0);
        for stored in kept.chain(&intent.tenants) {
            for interface in &stored.tenant.spec.interfaces {
                addresses += interface.addresses.len();
                neighbours += interface.neighbours.as_ref().map_or(0, Vec::len);
            }
        }
        let largest = addresses.max(neighbours);
        if largest <= CAPACITY {
            return Ok(());
        }
        let text = format!("{largest} addresses or neighbours; the datapath holds {CAPACITY} of each");
        Err(Refusal::Conflict(text, Some("spread the tenants over several hosts".into())))
    }

    fn rehearse(&mut self, intent: Intent, of_policies: Vec<String>) -> ApplyResponse {
        let after = self.documents_after(&intent);
        let wanted = networks::wanted(&after, &self.observed, &self.ground());
        let links = wanted.links();
        let (tree, observed) = (&self.tree, &self.observed);
        let overlapping = fief_model::overlapping(after.tenants.values().map(|stored| &stored.tenant));
        let has_vrf = |s: &Stored| self.isolation_among(&s.tenant, false, &overlapping) == Vrf.name();
        let of_host = after.tenants.values().filter(|s| !after.is_segmented(&s.tenant));
        let mut desired: std::collections::HashMap<_, _> =
            of_host.map(|s| (s.slot, desire(tree, s, observed, has_vrf(s)))).collect();
        desired.extend(wanted.exits(observed));
        let mut steps = of_policies;
        steps.extend(self.segments.describe(&wanted));
        steps.extend(self.describe(&plan(tree, &desired, &links, observed)));
        ApplyResponse { outcomes: intent.outcomes, steps }
    }

    fn commit(&mut self, intent: Intent, planned: Planned) -> Applied {
        let mut changes = Changes::default();
        intent.tenants.iter().for_each(|stored| changes.put_tenant(stored));
        intent.networks.iter().for_each(|stored| changes.put_network(stored));
        intent.endpoints.iter().for_each(|stored| changes.put_endpoint(stored));
        intent.policies.iter().for_each(|stored| changes.put_policy(stored));
        for Object { kind, name } in &intent.delete {
            match kind {
                Kind::Tenant => changes.delete_tenant(name),
                Kind::Network => changes.delete_network(name),
                Kind::Endpoint => changes.delete_endpoint(name),
                Kind::Policy => changes.delete_policy(name),
            }
        }
        self.write_numbers(&planned, &mut changes);
        for (device, uplink) in &intent.uplinks {
            if self.uplinks.get(device) != Some(uplink) {
                changes.put_uplink(device, uplink);
            }
        }
        let gone = self.uplinks.keys().filter(|device| !intent.uplinks.contains_key(*device));
        gone.for_each(|device| changes.delete_uplink(device));
        if let Err(error) = self.store.change(changes) {
            // A commit whose sync failed may be on the disk after all: what the store says from now on is what counts.
            self.abandon_policies(planned);
            if self.recall().is_ok() {
                self.recall_policies();
            }
            return Err(Refusal::Store(error.to_string()));
        }
        self.note_stale(&intent);
        let removed: Vec<Stored> =
            intent.deleted(Kind::Tenant).iter().filter_map(|name| self.tenants.remove(*name)).collect();
        let gone: BTreeSet<u16> = removed.iter().map(|s| s.slot.number()).collect();
        intent.deleted(Kind::Network).iter().for_each(|name| drop(self.networks.remove(*name)));
        intent.deleted(Kind::Endpoint).iter().for_each(|name| drop(self.endpoints.remove(*name)));
        intent.deleted(Kind::Policy).iter().for_each(|name| drop(self.network_policies.remove(*name)));
        self.adopt(&intent);
        self.note_overlapping();
        self.clear_tasks(&gone);
        self.close_sockets(&gone);
        self.clear_aliases(&gone);
        self.commit_policies(planned);
        self.reconcile();
        self.clocks.rest();
        forget_connections(&removed, self.tenants.values());
        self.touch();
        let mut outcomes = intent.outcomes;
        for outcome in outcomes.iter_mut().filter(|o| o.action != Action::Delete) {
            match outcome.kind.as_str() {
                "Network" => {
                    outcome.standing = self.networks.get(&outcome.name).map(|s| self.network_standing(s))
                }
                "Endpoint" => {
                    outcome.standing = self.endpoints.get(&outcome.name).map(|s| self.endpoint_standing(s))
                }
                "NetworkPolicy" => outcome.standing = Some(self.policy_standing()),
                _ => outcome.status = self.tenants.get(&outcome.name).map(|stored| self.status_of(stored)),
            }
        }
        Ok(ApplyResponse { outcomes, steps: Vec::new() })
    }
}

impl Engine {
    /// Closes the sockets of tenants that are gone, while their slots still lead somewhere: their peers hear of it,
    /// and no socket is left that carries a slot which nobody has.
    fn close_sockets(&self, gone: &BTreeSet<u16>) {
        if gone.is_empty() {
            return;
        }
        let Some(layout) = self.positions().map(|positions| positions.read) else { return };
        match fief_host::sockets::destroy(|socket| gone.contains(&layout.number(socket.mark))) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "closed sockets of deleted tenants"),
            Err(error) => tracing::warn!(%error, "sockets of deleted tenants stay open"),
        }
    }
}

/// Whoever gets such an address next shall not find connections that were another's.
///
/// Of two tenants with VRFs and one address, the one that stays keeps its connections.
fn forget_connections<'a>(gone: &[Stored], staying: impl Iterator<Item = &'a Stored>) {
    let mut addresses: HashSet<IpAddr> =
        gone.iter().flat_map(|stored| stored.tenant.addresses()).map(|(_, net)| net.addr()).collect();
    if !addresses.is_empty() {
        staying.flat_map(|stored| stored.tenant.addresses()).for_each(|(_, net)| {
            addresses.remove(&net.addr());
        });
    }
    match fief_host::conntrack::forget(&addresses) {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "forgot the tracked connections of deleted tenants' addresses"),
        Err(error) => tracing::warn!(%error, "connections of deleted tenants are tracked on"),
    }
}

/// The documents; with a tenant, all of them are to be that one's.
fn parse(sources: &[SourceText], tenant: Option<&str>) -> Result<Vec<Located>, Refusal> {
    let sources: Vec<Source> =
        sources.iter().map(|s| Source { name: s.name.clone(), text: s.text.clone() }).collect();
    let mut documents = fief_model::parse(&sources).map_err(Refusal::Documents)?;
    let strangers = tenant.map(|tenant| fief_model::claim(&mut documents, tenant)).unwrap_or_default();
    if strangers.is_empty() { Ok(documents) } else { Err(Refusal::Documents(strangers)) }
}

/// Each tenant's members, and whom it selects, by its name.
fn resolve_members(
    documents: &[Located],
    complaints: &mut Vec<Diagnostic>,
) -> BTreeMap<String, (MemberIds, MemberIds)> {
    let mut all = BTreeMap::new();
    for located in documents {
        let Document::Tenant(tenant) = &located.document else { continue };
        let (members, selected, unknown) = members::resolve(&tenant.spec);
        for (path, message, help) in unknown {
            complaints.push(complaint(located, &path, message, help));
        }
        all.insert(tenant.metadata.name.clone(), (members, selected));
    }
    all
}

fn choose_backends(
    documents: &[Located],
    kept: &Kept<'_>,
    (no_vrf, no_mark): (Option<&str>, bool),
    complaints: &mut Vec<Diagnostic>,
) {
    let coming = documents.iter().filter_map(|located| match &located.document {
        Document::Network(network) => Some(network.metadata.tenant.as_str()),
        _ => None,
    });
    let staying = kept.networks.iter().map(|network| network.metadata.tenant.as_str());
    let segmented: BTreeSet<&str> = coming.chain(staying).collect();
    let coming = documents.iter().filter_map(|located| match &located.document {
        Document::Tenant(tenant) => Some(tenant),
        _ => None,
    });
    let overlapping = fief_model::overlapping(coming.chain(kept.tenants.iter().copied()));
    for located in documents {
        let Document::Tenant(tenant) = &located.document else { continue };
        let name = tenant.metadata.name.as_str();
        let (segmented, overlapped) = (segmented.contains(name), overlapping.contains(name));
        let around = Around { segmented, overlapped, no_vrf, no_mark };
        if let Err(reason) = backend::choose(tenant, around) {
            let message = format!("no isolation can hold this tenant: {reason}");
            complaints.push(complaint(located, "spec.isolation", message, "see `fief doctor`".into()));
        }
    }
}

/// Addresses and destinations that fief takes for itself belong to nobody: each with the word for what, and the key of
/// fiefd.yaml that moves it.
fn keep_off(documents: &[Located], reserved: &[(IpNet, &str, &str)], complaints: &mut Vec<Diagnostic>) {
    for located in documents {
        let Document::Tenant(tenant) = &located.document else { continue };
        let is_taken =
            |net: &IpNet| reserved.iter().find(|(taken, ..)| taken.contains(net) || net.contains(taken));
        let addresses = tenant.spec.interfaces.iter().enumerate().flat_map(|(i, interface)| {
            let path = move |n: usize| format!("spec.interfaces[{i}].addresses[{n}]");
            interface.addresses.iter().enumerate().map(move |(n, net)| (path(n), IpNet::from(net.addr())))
        });
        let routes = tenant.spec.routes.iter().enumerate().filter_map(|(n, route)| {
            let prefix = route.prefix().filter(|p| p.prefix_len() > 0)?;
            Some((format!("spec.routes[{n}].to"), prefix))
        });
        for (path, net) in addresses.chain(routes) {
            if let Some((taken, what, key)) = is_taken(&net) {
                let message = format!("{net} lies in {taken}, from which fief takes {what}");
                let help = format!("write another one, or move `{key}` in fiefd.yaml");
                complaints.push(complaint(located, &path, message, help));
            }
        }
    }
}

pub(super) fn complaint(located: &Located, path: &str, message: String, help: String) -> Diagnostic {
    let (line, column) = located.positions.at(path);
    Diagnostic { source: located.source.to_string(), line, column, message, help: Some(help) }
}
