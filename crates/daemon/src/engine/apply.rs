//! From documents to the store: everything is checked before anything is kept, and kept before anything is done.

use std::collections::{BTreeMap, BTreeSet};

use fief_api::{Action, ApplyRequest, ApplyResponse, DeleteRequest, Outcome, SourceText};
use fief_datapath::maps::CAPACITY;
use fief_model::{Diagnostic, Document, Located, Slot, Source, Tenant};
use ipnet::IpNet;
use similar::TextDiff;

use super::Engine;
use crate::members;
use crate::plan::desire::desire;
use crate::plan::{backend, plan};
use crate::slots;
use crate::store::{MemberIds, Stored};

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

/// What a request would do.
struct Intent {
    put: Vec<Stored>,
    delete: Vec<String>,
    outcomes: Vec<Outcome>,
}

impl Engine {
    /// Makes the documents true, or says what that would do.
    pub(crate) fn apply(&mut self, request: &ApplyRequest) -> Applied {
        let intent = self.intend(request)?;
        if request.dry_run {
            return Ok(self.rehearse(intent));
        }
        self.commit(intent)
    }

    /// Says what apply would change, as differences of documents.
    pub(crate) fn diff(&mut self, request: &ApplyRequest) -> Applied {
        let intent = self.intend(request)?;
        Ok(ApplyResponse { outcomes: intent.outcomes, steps: Vec::new() })
    }

    /// Deletes what the documents name.
    pub(crate) fn delete(&mut self, request: &DeleteRequest) -> Applied {
        let documents = parse(&request.sources)?;
        let names: Vec<String> = documents.iter().map(|l| l.document.name().to_owned()).collect();
        self.delete_names(names)
    }

    /// Deletes tenants by name.
    pub(crate) fn delete_names(&mut self, names: Vec<String>) -> Applied {
        let absent: Vec<&String> = names.iter().filter(|n| !self.tenants.contains_key(*n)).collect();
        if let Some(name) = absent.first() {
            let more =
                if absent.len() > 1 { format!(" (and {} more)", absent.len() - 1) } else { String::new() };
            return Err(Refusal::Missing(format!("there is no tenant {name}{more}; nothing was deleted")));
        }
        let unique: BTreeSet<String> = names.into_iter().collect();
        let outcomes = unique.iter().map(|name| outcome(name, Action::Delete)).collect();
        self.commit(Intent { put: Vec::new(), delete: unique.into_iter().collect(), outcomes })
    }

    fn intend(&self, request: &ApplyRequest) -> Result<Intent, Refusal> {
        let documents = parse(&request.sources)?;
        let set = request.set.as_deref().unwrap_or(DEFAULT_SET);
        let named: BTreeSet<&str> = documents.iter().map(|l| l.document.name()).collect();
        let delete = self.surplus(request.prune.then_some(set), &named)?;
        let is_kept = |name: &str| !named.contains(name) && !delete.iter().any(|d| d == name);
        let kept: Vec<&Tenant> =
            self.tenants.iter().filter(|(name, _)| is_kept(name)).map(|(_, s)| &s.tenant).collect();
        let mut complaints = fief_model::validate(&documents, &kept);
        let members = resolve_members(&documents, &mut complaints);
        choose_backends(&documents, &mut complaints);
        keep_off(&documents, &self.alias_networks(), &mut complaints);
        if !complaints.is_empty() {
            return Err(Refusal::Documents(complaints));
        }
        let tenants: Vec<Tenant> = documents.into_iter().map(|l| tenant_of(l.document)).collect();
        let mut fresh = self.fresh_slots(&tenants)?.into_iter();
        let mut intent = Intent { put: Vec::new(), delete, outcomes: Vec::new() };
        for (tenant, (members, selected)) in tenants.into_iter().zip(members) {
            let old = self.tenants.get(&tenant.metadata.name);
            let slot = match old {
                Some(old) => old.slot,
                None => fresh.next().ok_or_else(|| Refusal::Conflict("no slot is free".into(), None))?,
            };
            let stored = Stored { tenant, set: set.to_owned(), slot, members, selected };
            intent.outcomes.push(compare(old, &stored));
            if old != Some(&stored) {
                intent.put.push(stored);
            }
        }
        self.check_capacity(&intent)?;
        intent.outcomes.extend(intent.delete.iter().map(|name| outcome(name, Action::Delete)));
        Ok(intent)
    }

    /// Refuses what the datapath's maps could not hold, before anything is kept.
    fn check_capacity(&self, intent: &Intent) -> Result<(), Refusal> {
        let replaced: BTreeSet<&str> = intent.put.iter().map(|s| s.tenant.metadata.name.as_str()).collect();
        let gone: BTreeSet<&str> = intent.delete.iter().map(String::as_str).collect();
        let kept = self
            .tenants
            .iter()
            .filter(|(name, _)| !replaced.contains(name.as_str()) && !gone.contains(name.as_str()));
        let kept = kept.map(|(_, stored)| stored);
        let (mut addresses, mut neighbours) = (0, 0);
        for stored in kept.chain(&intent.put) {
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

    /// What a prune of this set deletes.
    fn surplus(&self, set: Option<&str>, named: &BTreeSet<&str>) -> Result<Vec<String>, Refusal> {
        let Some(set) = set else { return Ok(Vec::new()) };
        let of_set = self.tenants.iter().filter(|(_, s)| s.set == set);
        let surplus: Vec<String> =
            of_set.map(|(name, _)| name.clone()).filter(|name| !named.contains(name.as_str())).collect();
        if named.is_empty() && !surplus.is_empty() {
            return Err(Refusal::Conflict(
                format!("pruning would leave nothing of set {set} ({} tenants)", surplus.len()),
                Some("if that is meant, delete them by name: fief delete tenant NAME".into()),
            ));
        }
        Ok(surplus)
    }

    fn fresh_slots(&self, tenants: &[Tenant]) -> Result<Vec<Slot>, Refusal> {
        let count = tenants.iter().filter(|t| !self.tenants.contains_key(&t.metadata.name)).count();
        if count == 0 {
            return Ok(Vec::new());
        }
        // Slots of tenants that go in the same request are not reused at once: their packets may still be on the way.
        let taken: BTreeSet<Slot> = self.tenants.values().map(|s| s.slot).collect();
        let read = self.settings.positions.read;
        let sockets = fief_host::sockets::list().map_err(|e| Refusal::Store(e.to_string()))?;
        let by_tasks = self.carried_by_tasks().into_iter().filter_map(|slot| u16::try_from(slot).ok());
        let carried: BTreeSet<u16> = sockets.iter().map(|s| read.number(s.mark)).chain(by_tasks).collect();
        slots::allocate(self.field.narrowest(), &taken, &carried, count)
            .map_err(|e| Refusal::Conflict(e.to_string(), None))
    }

    fn rehearse(&mut self, intent: Intent) -> ApplyResponse {
        let mut tenants: BTreeMap<&str, &Stored> =
            self.tenants.iter().map(|(n, s)| (n.as_str(), s)).collect();
        tenants.retain(|name, _| !intent.delete.iter().any(|d| d == name));
        tenants.extend(intent.put.iter().map(|s| (s.tenant.metadata.name.as_str(), s)));
        let (tree, observed) = (&self.tree, &self.observed);
        let desired = tenants.values().map(|s| (s.slot, desire(tree, s, observed))).collect();
        let steps = self.describe(&plan(tree, &desired, observed));
        ApplyResponse { outcomes: intent.outcomes, steps }
    }

    fn commit(&mut self, intent: Intent) -> Applied {
        let put: Vec<&Stored> = intent.put.iter().collect();
        let delete: Vec<&str> = intent.delete.iter().map(String::as_str).collect();
        if let Err(error) = self.store.change_tenants(&put, &delete) {
            // A commit whose sync failed may be on the disk after all: what the store says from now on is what counts.
            if let Ok(tenants) = self.store.tenants() {
                self.tenants = tenants;
            }
            return Err(Refusal::Store(error.to_string()));
        }
        let removed: Vec<Stored> =
            intent.delete.iter().filter_map(|name| self.tenants.remove(name)).collect();
        let gone: BTreeSet<u16> = removed.iter().map(|s| s.slot.number()).collect();
        for stored in intent.put {
            self.tenants.insert(stored.tenant.metadata.name.clone(), stored);
        }
        self.clear_tasks(&gone);
        self.close_sockets(&gone);
        self.clear_aliases(&gone);
        self.reconcile();
        forget_connections(&removed);
        self.touch();
        let mut outcomes = intent.outcomes;
        for outcome in outcomes.iter_mut().filter(|o| o.action != Action::Delete) {
            outcome.status = self.tenants.get(&outcome.name).map(|stored| self.status_of(stored));
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
        let layout = self.settings.positions.read;
        match fief_host::sockets::destroy(|socket| gone.contains(&layout.number(socket.mark))) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "closed sockets of deleted tenants"),
            Err(error) => tracing::warn!(%error, "sockets of deleted tenants stay open"),
        }
    }
}

/// Whoever gets such an address next shall not find connections that were another's.
fn forget_connections(gone: &[Stored]) {
    let addresses =
        gone.iter().flat_map(|stored| stored.tenant.addresses()).map(|(_, net)| net.addr()).collect();
    match fief_host::conntrack::forget(&addresses) {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "forgot the tracked connections of deleted tenants' addresses"),
        Err(error) => tracing::warn!(%error, "connections of deleted tenants are tracked on"),
    }
}

fn parse(sources: &[SourceText]) -> Result<Vec<Located>, Refusal> {
    let sources: Vec<Source> =
        sources.iter().map(|s| Source { name: s.name.clone(), text: s.text.clone() }).collect();
    fief_model::parse(&sources).map_err(Refusal::Documents)
}

fn tenant_of(document: Document) -> Tenant {
    match document {
        Document::Tenant(tenant) => tenant,
    }
}

/// Each tenant's members, and whom it selects.
fn resolve_members(documents: &[Located], complaints: &mut Vec<Diagnostic>) -> Vec<(MemberIds, MemberIds)> {
    let resolve = |located: &Located| {
        let Document::Tenant(tenant) = &located.document;
        let (members, selected, unknown) = members::resolve(&tenant.spec);
        for (path, message, help) in unknown {
            complaints.push(complaint(located, &path, message, help));
        }
        (members, selected)
    };
    documents.iter().map(resolve).collect()
}

fn choose_backends(documents: &[Located], complaints: &mut Vec<Diagnostic>) {
    for located in documents {
        let Document::Tenant(tenant) = &located.document;
        if let Err(reason) = backend::choose(tenant) {
            let message = format!("no isolation can hold this tenant: {reason}");
            complaints.push(complaint(located, "spec.isolation", message, "see `fief doctor`".into()));
        }
    }
}

/// Addresses and destinations that aliases are taken from belong to nobody.
fn keep_off(documents: &[Located], aliases: &[IpNet], complaints: &mut Vec<Diagnostic>) {
    for located in documents {
        let Document::Tenant(tenant) = &located.document;
        let is_taken = |net: &IpNet| aliases.iter().find(|taken| taken.contains(net) || net.contains(*taken));
        let addresses = tenant.spec.interfaces.iter().enumerate().flat_map(|(i, interface)| {
            let path = move |n: usize| format!("spec.interfaces[{i}].addresses[{n}]");
            interface.addresses.iter().enumerate().map(move |(n, net)| (path(n), IpNet::from(net.addr())))
        });
        let routes = tenant.spec.routes.iter().enumerate().filter_map(|(n, route)| {
            let prefix = route.prefix().filter(|p| p.prefix_len() > 0)?;
            Some((format!("spec.routes[{n}].to"), prefix))
        });
        for (path, net) in addresses.chain(routes) {
            if let Some(taken) = is_taken(&net) {
                let message = format!("{net} lies in {taken}, from which fief takes aliases of UDP senders");
                let help = "write another one, or move `aliasRange` in fiefd.yaml".to_owned();
                complaints.push(complaint(located, &path, message, help));
            }
        }
    }
}

fn complaint(located: &Located, path: &str, message: String, help: String) -> Diagnostic {
    let (line, column) = located.positions.at(path);
    Diagnostic { source: located.source.to_string(), line, column, message, help: Some(help) }
}

fn compare(old: Option<&Stored>, new: &Stored) -> Outcome {
    let name = &new.tenant.metadata.name;
    let Some(old) = old else { return outcome(name, Action::Create) };
    if old.tenant == new.tenant {
        let action = if old == new { Action::Unchanged } else { Action::Change };
        return outcome(name, action);
    }
    let (before, after) = (yaml(&old.tenant), yaml(&new.tenant));
    let diff = TextDiff::from_lines(&before, &after).unified_diff().header("stored", "applied").to_string();
    Outcome { diff: Some(diff), ..outcome(name, Action::Change) }
}

fn yaml(tenant: &Tenant) -> String {
    Document::Tenant(tenant.clone()).to_yaml()
}

fn outcome(name: &str, action: Action) -> Outcome {
    Outcome { kind: "Tenant".into(), name: name.into(), action, diff: None, status: None }
}
