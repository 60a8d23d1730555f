//! Policies in the engine: what a request means to them, and the one place that speaks to the programs that judge packets.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fief_api::{Condition, Phase, RuleView, Standing};
use fief_datapath::DatapathError;
use fief_datapath::policy::Policy;
use fief_datapath::ports::Denied;
use fief_host::teeth::is_off;
use fief_model::{Diagnostic, Document, Located, Slot};
use fief_policy::rule::Origin;
use fief_policy::{Delta, PolicyKey, Sizes};
use rustix::time::{ClockId, clock_gettime};

use super::Engine;
use super::apply::{Refusal, complaint};
use super::intent::{Intent, Kind};
use crate::networks::{Judging, Subject, Subjects, Wanted};
use crate::policies::{Now, Planned, Policies, Request};
use crate::store::{Changes, Store, Stored, StoredEndpoint, StoredPolicy};

/// After the programs could not be loaded, the next try is so much later, and twice as much each time, up to a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Conversations that are over are looked for so often, while there is any policy.
const SWEEP: Duration = Duration::from_secs(30);

/// The programs that judge packets, and when to look after policies again.
#[derive(Default)]
pub(super) struct Judges {
    /// Loaded while there is any policy, and till no port has them any more.
    programs: Option<Policy>,
    /// When conversations that are over are looked for.
    sweep_at: Option<Instant>,
    /// Why they are not.
    trouble: Option<String>,
    pause: Duration,
    /// When a number gets free, or the programs are to be loaded again.
    pub(super) look_at: Option<Instant>,
}

/// Policies as the store has them, compiled. Numbers that are new to it are written.
pub(super) fn compiled(
    store: &mut Store,
    tenants: &BTreeMap<String, Stored>,
    endpoints: &BTreeMap<String, StoredEndpoint>,
    documents: &BTreeMap<String, StoredPolicy>,
    now: Now,
) -> anyhow::Result<Policies> {
    let mut policies = Policies::new(room());
    policies.remember(tenants.values().map(|s| (&s.tenant, s.slot)), store.identities()?, now);
    let endpoints = endpoints.values().map(|stored| &stored.endpoint).collect();
    let request = Request { endpoints, policies: documents.values().collect(), ..Request::default() };
    let planned = policies.plan(&request, now).map_err(|refused| {
        anyhow::anyhow!("the stored policies do not fit any more: {refused}; {}", refused.help)
    })?;
    let mut changes = Changes::default();
    for (tenant, identity, stored) in policies.new_numbers(&planned) {
        changes.put_identity(tenant, identity, &stored);
    }
    store.change(changes)?;
    policies.commit(planned);
    Ok(policies)
}

/// What the clocks say.
pub(super) fn now(begun: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { seconds: begun.elapsed().as_secs(), unix }
}

impl Engine {
    /// Puts the store's policies into force.
    pub(super) fn begin_policies(&mut self) {
        self.judge_anew();
        self.note_due();
    }

    /// Compiles what a request does to policies; what does not fit is refused.
    pub(super) fn plan_policies(&mut self, intent: &Intent) -> Result<Planned, Refusal> {
        let mut request = Request {
            tenants: intent.tenants.iter().map(|s| (&s.tenant, s.slot)).collect(),
            endpoints: intent.endpoints.iter().map(|s| &s.endpoint).collect(),
            policies: intent.policies.iter().collect(),
            no_tenants: intent.deleted(Kind::Tenant).into_iter().collect(),
            no_endpoints: intent.deleted(Kind::Endpoint).into_iter().collect(),
            no_policies: intent.deleted(Kind::Policy).into_iter().collect(),
        };
        let coming: HashSet<String> = intent.endpoints.iter().map(|s| s.endpoint.metadata.key()).collect();
        let going: HashSet<&str> = request.no_endpoints.iter().copied().collect();
        // Labels of namespaces are those of every endpoint in them.
        for stored in &intent.tenants {
            let name = &stored.tenant.metadata.name;
            let same = self.tenants.get(name).map(|old| &old.tenant.spec.namespaces);
            if same == Some(&stored.tenant.spec.namespaces) {
                continue;
            }
            let prefix = format!("{name}/");
            let of_tenant =
                self.endpoints.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            let others = of_tenant.filter(|(key, _)| !coming.contains(*key) && !going.contains(key.as_str()));
            request.endpoints.extend(others.map(|(_, stored)| &stored.endpoint));
        }
        let now = now(self.begun);
        let planned = self.policies.plan(&request, now);
        planned.map_err(|refused| Refusal::Conflict(refused.to_string(), Some(refused.help.into())))
    }

    /// Forgets a plan; says what it would have done.
    pub(super) fn abandon_policies(&mut self, planned: Planned) -> Vec<String> {
        let subjects = planned.subjects();
        self.policies.abandon(planned);
        match subjects {
            0 => Vec::new(),
            _ => vec![format!("compile policies: endpoints of {subjects} identities get other rules")],
        }
    }

    /// What the disk must hold before a plan is in force.
    pub(super) fn write_numbers(&self, planned: &Planned, changes: &mut Changes) {
        for (tenant, identity) in self.policies.old_numbers(planned) {
            changes.delete_identity(tenant, identity);
        }
        if is_off("policy-numbers") {
            return;
        }
        for (tenant, identity, stored) in self.policies.new_numbers(planned) {
            changes.put_identity(tenant, identity, &stored);
        }
    }

    /// Puts a plan into force.
    pub(super) fn commit_policies(&mut self, planned: Planned) {
        let delta = self.policies.commit(planned);
        if !delta.is_empty() {
            tracing::debug!(entries = delta.len(), "policies are compiled");
        }
        for (tenant, usage) in self.policies.fresh_alarms() {
            tracing::warn!(
                tenant,
                used = usage.used,
                waiting = usage.waiting,
                most = usage.most,
                "few identities are left"
            );
        }
        self.judge_by(&delta);
        self.note_due();
    }

    /// Takes back numbers that nobody uses, when it is time for that, and mends what is not in force.
    pub(super) fn mind_policies(&mut self) {
        if self.judges.look_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.sweep();
        let collected = self.policies.collect(now(self.begun));
        let mut changes = Changes::default();
        for (tenant, identity, stored) in &collected.numbers {
            changes.put_identity(tenant, *identity, stored);
        }
        // A row that still says whose the number was only makes it wait again after a restart.
        if let Err(error) = self.store.change(changes) {
            tracing::warn!(%error, "free identities are not written down");
        }
        self.policies.fresh_alarms();
        self.judge_by(&collected.delta);
        self.note_due();
    }

    /// Believes the store.
    pub(super) fn recall_policies(&mut self) {
        let now = now(self.begun);
        match compiled(&mut self.store, &self.tenants, &self.endpoints, &self.network_policies, now) {
            Ok(policies) => self.policies = policies,
            Err(error) => tracing::error!(%error, "policies stay as they were"),
        }
        self.judge_anew();
        self.note_due();
    }

    /// Carries a change out. Programs that hold half of one are replaced by others that hold all.
    fn judge_by(&mut self, delta: &Delta) {
        match self.judges.programs.as_mut().map(|programs| programs.apply(delta)) {
            Some(Ok(())) => {}
            None if self.policies.is_empty() => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "policies are loaded anew");
                self.judge_anew();
            }
            None => self.judge_anew(),
        }
    }

    /// Loads the programs, if there is any policy, and gives them everything. Ports get them in the next round; until then
    /// those that they have go on.
    pub(super) fn judge_anew(&mut self) {
        if self.policies.is_empty() {
            self.retire();
            return;
        }
        match load(&self.known(), &self.policies.whole()) {
            Ok(mut programs) => {
                self.segments.judge_by_others(&mut programs);
                self.judges.programs = Some(programs);
                (self.judges.trouble, self.judges.pause) = (None, Duration::ZERO);
                self.judges.sweep_at = Some(Instant::now() + SWEEP);
                self.clocks.wake_by(Instant::now());
            }
            Err(error) => {
                tracing::warn!(%error, "policies are not in force");
                self.judges.programs = None;
                self.judges.trouble = Some(error.to_string());
                self.judges.pause = (self.judges.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            }
        }
    }

    /// Lets the programs go when there is no policy and no port has them any more.
    fn retire(&mut self) {
        if self.policies.is_empty() && !self.segments.is_judged() {
            self.judges = Judges::default();
            if let Err(error) = fief_datapath::remove_pins(&self.known()) {
                tracing::warn!(%error, "some bpf pins stay");
            }
        }
    }

    /// What was denied at ports, by whichever programs they have.
    pub(super) fn denied(&self) -> Vec<Denied> {
        let ports =
            self.judges.programs.as_ref().map(Policy::ports).into_iter().chain(self.segments.plain_ports());
        let denied = ports.filter_map(|ports| {
            let denied = ports.denied();
            denied.inspect_err(|error| tracing::warn!(%error, "what was denied is not known")).ok()
        });
        denied.flatten().collect()
    }

    /// Builds networks with whoever judges there.
    pub(super) fn build_networks(&mut self, wanted: Wanted, switched: &BTreeSet<String>, vrfs: bool) -> bool {
        let (subjects, ways) = (self.subjects(), self.ways());
        let is_there = |device: &str| self.observed.link(device).is_some();
        let judges = Judging { subjects, policy: self.judges.programs.as_mut() };
        let did = self.segments.build(wanted, ways, switched, vrfs, &is_there, judges);
        if self.judges.programs.is_some() {
            self.retire();
        }
        did
    }

    /// What ports are to know of endpoints; nothing where nothing is judged.
    fn subjects(&self) -> Subjects {
        if self.policies.is_empty() {
            return Subjects::default();
        }
        let subject = |key: &String| {
            let (tenant, name) = key.split_once('/')?;
            let (slot, identity) = self.policies.endpoint(tenant, name)?;
            let is_audited = self.policies.audits(slot);
            Some((key.clone(), Subject { slot: slot.number(), identity: identity.0, is_audited }))
        };
        let slots = self.tenants.values().map(|stored| stored.slot);
        Subjects {
            endpoints: self.endpoints.keys().filter_map(subject).collect(),
            judged: slots.filter(|s| self.policies.has_policies(*s)).map(Slot::number).collect(),
        }
    }

    /// Where conversations that ports know outlive a daemon.
    fn known(&self) -> PathBuf {
        self.paths.bpffs().join("fief-ports")
    }

    fn sweep(&mut self) {
        let Some(programs) = &self.judges.programs else { return };
        let now = Instant::now();
        if self.judges.sweep_at.is_some_and(|at| at > now) {
            return;
        }
        let since_start = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        if let Err(error) = programs.ports().sweep(since_start) {
            tracing::warn!(%error, "conversations that are over stay");
        }
        self.judges.sweep_at = Some(now + SWEEP);
    }

    fn note_due(&mut self) {
        let due = self.policies.due().and_then(|second| self.begun.checked_add(Duration::from_secs(second)));
        let again = self.judges.trouble.as_ref().map(|_| Instant::now() + self.judges.pause);
        let sweep = self.judges.programs.as_ref().and(self.judges.sweep_at);
        self.judges.look_at = [due, again, sweep].into_iter().flatten().min();
    }

    /// Refuses policies that select by a label that makes no identity: they would never match.
    pub(super) fn check_labels(&self, documents: &[Located], complaints: &mut Vec<Diagnostic>) {
        for located in documents {
            let Document::NetworkPolicy(policy) = &located.document else { continue };
            let hidden = self.policies.hides(policy).filter(|_| !is_off("policy-labels"));
            if let Some((path, label)) = hidden {
                let message = format!("label `{label}` makes no identity, so no rule can select by it");
                let help = "select by a label that several endpoints share, as in `app: shop`";
                complaints.push(complaint(located, &path, message, help.into()));
            }
        }
    }

    /// Where every policy stands.
    pub(super) fn policy_standing(&self) -> Standing {
        let trouble = self.judges.trouble.iter().map(|error| Condition {
            reason: "NotInForce".into(),
            message: format!("the programs that judge packets cannot be loaded: {error}; fief tries again"),
        });
        let conditions: Vec<Condition> = trouble.collect();
        let phase = if conditions.is_empty() { Phase::Ready } else { Phase::Pending };
        Standing { phase, conditions }
    }

    /// What the daemon says of identities.
    pub(super) fn identity_alarms(&self) -> impl Iterator<Item = Condition> {
        self.policies.alarms().map(|(tenant, usage)| Condition {
            reason: "IdentitiesLow".into(),
            message: format!(
                "tenant {tenant} uses {} of {} identities, and {} wait to be free; give fewer endpoints labels of their own",
                usage.used, usage.most, usage.waiting
            ),
        })
    }
}

/// A rule, for people.
pub(super) fn rule_view(policy: &PolicyKey, origin: &Origin) -> RuleView {
    RuleView {
        policy: policy.to_string(),
        file: origin.source.to_string(),
        line: origin.line,
        path: origin.path.to_string(),
    }
}

/// How much the tables hold.
fn room() -> Sizes {
    if is_off("policy-room") { Sizes::ENDLESS } else { Policy::ROOM }
}

fn load(known: &Path, whole: &Delta) -> Result<Policy, DatapathError> {
    let mounted = known.parent().map(fief_host::kernel::mount_bpffs).transpose();
    mounted.map_err(|error| DatapathError::Load(error.to_string()))?;
    let mut programs = Policy::load(&Policy::ROOM, Policy::CONVERSATIONS, Some(known))?;
    programs.apply(whole)?;
    Ok(programs)
}
