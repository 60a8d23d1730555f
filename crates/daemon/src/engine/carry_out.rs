//! Carrying a plan out, in the one order in which nothing is ever open: switches, maps, programs, then what makes
//! packets come; and backwards when things go.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use fief_api::Condition;
use fief_datapath::{Datapath, DatapathError, Device};
use fief_host::{Address, Change, Family, Host, HostError, Programs, kernel};
use fief_model::Slot;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::Engine;
use super::switches::Scope;
use crate::plan::Plan;

/// How long an acknowledged IPv6 address may take to work.
const ANNOUNCED: Duration = Duration::from_millis(300);
/// Before the second try to put switches, programs and guard in place; doubles with each, up to 6.4 s.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// What makes accepted sockets take their mark from packets (ip-sysctl.rst).
const ACCEPT_SWITCH: &str = "net.ipv4.tcp_fwmark_accept";
/// Changes between two looks at the events, which would overrun otherwise, and at who asks how things stand.
const CHUNK: usize = 128;

impl Engine {
    /// Does what the plan says; returns whether anything was done.
    pub(super) fn carry_out(&mut self, plan: Plan) -> bool {
        self.forget_refusals(&plan);
        if let Err(error) = self.mind_vrf_rule(&plan) {
            self.trouble = vec![condition("StoreRefused", error)];
            self.clocks.wake_by(Instant::now() + FIRST_PAUSE);
            return false;
        }
        if plan.is_vacant {
            return self.withdraw(plan);
        }
        let before = std::mem::take(&mut self.trouble);
        if let Err(condition) = self.prepare(&plan) {
            // Without switches and programs no tenant's packet may move: nothing else is done.
            if before.first() != Some(&condition) {
                tracing::error!(reason = condition.reason, "{}", condition.message);
            }
            self.trouble = vec![condition];
            let pause = FIRST_PAUSE * (1 << self.setbacks.min(5));
            self.clocks.wake = Some(Instant::now() + pause);
            self.setbacks += 1;
            return false;
        }
        self.setbacks = 0;
        self.underway = self.slots_of(&plan.add);
        let mut did = self.make(plan.add, true);
        self.await_addresses();
        did |= self.make(plan.remove, false);
        if let Some(Err(error)) = self.datapath.as_mut().map(|d| d.maps().prune(&plan.entries)) {
            self.trouble.push(condition("DatapathStale", error));
        }
        did
    }

    /// Everything that must stand before the first packet of a tenant moves.
    fn prepare(&mut self, plan: &Plan) -> Result<(), Condition> {
        self.set_switches(&plan.sysctls, Scope::Namespace).map_err(|e| condition("SwitchRefused", e))?;
        self.restore_switches(&plan.sysctls, Scope::Namespace);
        self.restore_switches(&plan.sysctls, Scope::Devices);
        if plan.is_markless {
            self.unload().map_err(|e| condition("DatapathStale", e))?;
            return self
                .set_switches(&plan.sysctls, Scope::Devices)
                .map_err(|e| condition("SwitchRefused", e));
        }
        self.load().map_err(|e| condition("DatapathMissing", e))?;
        let read = self.positions().map(|positions| positions.read);
        let (Some(datapath), Some(read)) = (self.datapath.as_mut(), read) else { return Ok(()) };
        datapath.maps().add(&plan.entries).map_err(|e| condition("DatapathFull", e))?;
        let devices: Vec<Device> = plan
            .devices
            .iter()
            .map(|index| Device { index: *index, name: self.observed.link_name(*index).to_owned() })
            .collect();
        datapath.maps().forget_devices(&plan.entries).map_err(|e| condition("DatapathStale", e))?;
        if self.attached != devices || self.attached.is_empty() {
            let cgroup = std::fs::File::open(&self.cgroup).map_err(|e| condition("AttachRefused", e))?;
            let standing =
                datapath.attach_cgroup(&self.cgroup, &cgroup).and_then(|()| datapath.attach_guard());
            standing.map_err(|e| condition("AttachRefused", e))?;
            let errors = datapath.attach_devices(&devices);
            // A device that vanished under our hands is not an error: its event is on the way.
            if let Some(error) = errors.into_iter().next() {
                return Err(condition("AttachRefused", error));
            }
            if datapath.aliases().is_fresh() {
                let ports = super::aliases::bound_ports(read);
                datapath.aliases_mut().look_at(ports).map_err(|e| condition("DatapathStale", e))?;
            }
            self.attached = devices;
        }
        datapath.maps().name_devices(&plan.entries).map_err(|e| condition("DatapathFull", e))?;
        self.set_switches(&plan.sysctls, Scope::Devices).map_err(|e| condition("SwitchRefused", e))
    }

    fn load(&mut self) -> anyhow::Result<()> {
        if self.datapath.is_some() {
            return Ok(());
        }
        let switches = self.store.switches()?;
        let before = switches.get(ACCEPT_SWITCH).map(|switch| switch.before.trim());
        // Who is not remembered was as it is wanted.
        let (Some(settings), Some(field)) = (&mut self.settings, &self.field) else { return Ok(()) };
        settings.foreign_accepted = before.is_none_or(|before| before != "0");
        let bpffs = self.paths.bpffs();
        kernel::mount_bpffs(&bpffs)?;
        let datapath = Datapath::load(&bpffs.join("fief"), settings, field.gone())?;
        self.host.lend(Programs(datapath.detours()?));
        self.datapath = Some(datapath);
        self.attached.clear();
        Ok(())
    }

    /// The last tenant is gone: takes away all that is ours, in the opposite order.
    fn withdraw(&mut self, plan: Plan) -> bool {
        let pins = self.paths.bpffs().join("fief");
        let switches = self.store.switches().unwrap_or_default();
        if plan.is_quiet() && self.datapath.is_none() && switches.is_empty() && !pins.exists() {
            return false;
        }
        let mut did = self.make(plan.add, true);
        did |= self.make(plan.remove, false);
        self.restore_switches(&[], Scope::Devices);
        if let Err(error) = self.unload() {
            tracing::warn!(%error, "some bpf pins stay");
        }
        self.trouble.clear();
        self.restore_switches(&[], Scope::Namespace);
        did
    }

    /// Takes the programs away, also those of an earlier daemon.
    fn unload(&mut self) -> Result<(), DatapathError> {
        let pins = self.paths.bpffs().join("fief");
        self.attached.clear();
        match self.datapath.take() {
            Some(datapath) => datapath.remove(&pins),
            None if pins.exists() => fief_datapath::remove_pins(&pins),
            None => Ok(()),
        }
    }

    /// Makes changes, those that may be made now. `adding` ones are remembered, so that a second time is a repair.
    fn make(&mut self, changes: Vec<Change>, adding: bool) -> bool {
        let now = Instant::now();
        let changes = self.hold_back(changes, now);
        let mut allowed = Vec::with_capacity(changes.len());
        for change in changes {
            let key = hash(&change);
            let due = self.repairs.may_repair(&key, now).and_then(|()| self.refusals.may_repair(&key, now));
            match due {
                Ok(()) => allowed.push(change),
                Err(at) => self.clocks.wake_by(at),
            }
        }
        for chunk in allowed.chunks(CHUNK) {
            let answers = self.host.change(chunk);
            for (change, answer) in chunk.iter().zip(answers) {
                self.note(change, answer, adding, now);
            }
            self.take_events();
            self.answer_views();
        }
        !allowed.is_empty()
    }

    /// Keeps IPv6 addresses for later where they cost less then ([`Observed::better_at`]), and what needs them: the
    /// routes of their tenants.
    fn hold_back(&mut self, mut changes: Vec<Change>, now: Instant) -> Vec<Change> {
        let addresses = changes.iter().filter_map(|change| match change {
            Change::AddAddress(address) => Some(*address),
            _ => None,
        });
        let later = self.observed.better_at(addresses, now);
        let Some(first) = later.values().min() else { return changes };
        self.clocks.wake_by(*first);
        tracing::info!(
            "many IPv6 addresses left at once: waiting until the kernel has reported their groups"
        );
        let waits = |a: &Address| a.net.addr().is_ipv6() && later.contains_key(&a.device);
        let tables: HashSet<u32> = self
            .desired
            .iter()
            .filter(|(_, desired)| desired.addresses.iter().any(waits))
            .map(|(slot, _)| self.tree.table_base + u32::from(slot.number()))
            .collect();
        changes.retain(|change| match change {
            Change::AddAddress(address) => !waits(address),
            Change::SetRoute(route) => route.family() == Family::V4 || !tables.contains(&route.table),
            _ => true,
        });
        changes
    }

    fn note(&mut self, change: &Change, answer: Result<(), HostError>, adding: bool, now: Instant) {
        let key = hash(change);
        match answer {
            Err(error) if is_done_already(change, &error) => {}
            Err(error) => {
                let pause = self.refusals.repaired(key, now);
                if pause.is_none() {
                    tracing::warn!(%error, "refused by the kernel");
                }
                self.clocks.wake_by(now + pause.unwrap_or(Duration::from_millis(200)));
                if let Some(slot) = self.slot_of(change) {
                    self.refused.insert(key, (slot, condition("Refused", error)));
                }
            }
            Ok(()) if !adding => {
                self.refused.remove(&key);
                if let Some(made) = counterpart(change) {
                    self.installed.remove(&hash(&made));
                }
            }
            Ok(()) => {
                self.refused.remove(&key);
                self.refusals.forget(&key);
                self.observed.acknowledged(change);
                if self.installed.insert(key) {
                    return;
                }
                self.repaired += 1;
                let pause = self.repairs.repaired(key, now);
                tracing::warn!(
                    "somebody removed or changed what fief had made; made again: {change}; {}",
                    match pause {
                        None => "at once".to_owned(),
                        Some(p) =>
                            format!("this happens again and again, so the next time is in {} s", p.as_secs()),
                    }
                );
            }
        }
    }

    /// IPv6 addresses begin to work some time after they were acknowledged (addrconf_dad_work). Whoever is told that a
    /// tenant is there may call it at once; a neighbour that asks too early asks again only after a second.
    fn await_addresses(&mut self) {
        let end = Instant::now() + ANNOUNCED;
        while self.observed.awaits_addresses() && Instant::now() < end {
            let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            // A failed wait only means to look at once.
            let _ = poll(&mut [PollFd::from_borrowed_fd(self.monitor.as_fd(), PollFlags::IN)], Some(&pause));
            self.take_events();
        }
        self.observed.await_no_more();
    }

    /// Takes away addresses that the kernel has and does not listen to; missing, they are added again. Says whether
    /// there are any.
    pub(super) fn heal_addresses(&mut self, now: Instant) -> bool {
        let deaf = self.observed.deaf(now);
        for address in &deaf {
            let device = self.observed.link_name(address.device);
            tracing::warn!(%address.net, device, "the kernel has this address and no route to it; added again");
        }
        self.make(deaf.into_iter().map(Change::DeleteAddress).collect(), false)
    }

    /// What is no longer asked for is no longer a complaint.
    fn forget_refusals(&mut self, plan: &Plan) {
        if !self.refused.is_empty() {
            let asked: HashSet<u64> = plan.add.iter().chain(&plan.remove).map(hash).collect();
            self.refused.retain(|key, _| asked.contains(key));
        }
    }

    /// Whose addresses and routes are among these changes?
    fn slots_of(&self, changes: &[Change]) -> HashSet<Slot> {
        let mut slots = HashSet::new();
        let mut addresses = HashSet::new();
        for change in changes {
            match change {
                Change::SetRoute(route) => slots.extend(self.slot_of_table(route.table)),
                Change::AddAddress(address) => drop(addresses.insert(address)),
                _ => {}
            }
        }
        if !addresses.is_empty() {
            let has = |d: &crate::plan::Desired| d.addresses.iter().any(|a| addresses.contains(a));
            slots.extend(self.desired.iter().filter(|(_, d)| has(d)).map(|(slot, _)| *slot));
        }
        slots
    }

    fn slot_of_table(&self, table: u32) -> Option<Slot> {
        u16::try_from(table.checked_sub(self.tree.table_base)?).ok().and_then(Slot::new)
    }

    fn slot_of(&self, change: &Change) -> Option<Slot> {
        match change {
            Change::SetRoute(route) | Change::DeleteRoute(route) => self.slot_of_table(route.table),
            Change::AddAddress(address) | Change::DeleteAddress(address) => {
                let has = |d: &crate::plan::Desired| d.addresses.contains(address);
                self.desired.iter().find(|(_, d)| has(d)).map(|(slot, _)| *slot)
            }
            Change::AddVrf(vrf) => self.slot_of_table(vrf.table),
            Change::Enslave(device, _) => {
                let has = |d: &crate::plan::Desired| d.devices.contains(device);
                self.desired.iter().find(|(_, d)| d.vrf.is_some() && has(d)).map(|(slot, _)| *slot)
            }
            _ => None,
        }
    }
}

/// What was asked for is so already: an object that somebody removed before us, or added before us.
fn is_done_already(change: &Change, error: &HostError) -> bool {
    let gone = [libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL, libc::ENODEV];
    match change {
        Change::DeleteRule(..)
        | Change::DeleteRoute(_)
        | Change::DeleteAddress(_)
        | Change::DeleteVrf(_)
        | Change::Release(..)
        | Change::VrfRuleAway(_)
        | Change::LocalRuleAway(_) => error.errno().is_some_and(|errno| gone.contains(&errno)),
        // IPv6 announces an address some time after it has acknowledged it (addrconf_dad_work).
        Change::AddAddress(_) | Change::LocalRuleFirst(_) => error.errno() == Some(libc::EEXIST),
        _ => false,
    }
}

/// The change that made what this one removes.
fn counterpart(change: &Change) -> Option<Change> {
    match change {
        Change::DeleteRule(family, rule) => Some(Change::AddRule(*family, *rule)),
        Change::DeleteRoute(route) => Some(Change::SetRoute(route.clone())),
        Change::DeleteAddress(address) => Some(Change::AddAddress(*address)),
        Change::Release(device, vrf) => Some(Change::Enslave(*device, *vrf)),
        _ => None,
    }
}

fn hash(change: &Change) -> u64 {
    let mut hasher = DefaultHasher::new();
    change.hash(&mut hasher);
    hasher.finish()
}

fn condition(reason: &str, error: impl std::fmt::Display) -> Condition {
    Condition { reason: reason.into(), message: error.to_string() }
}
