//! The engine: one thread that owns the store, the host and the datapath, and does one thing at a time.
//!
//! Commands come from the API through a channel, events from the kernel through netlink; both end in [`Engine::reconcile`],
//! which plans from what is stored and what is observed and carries the plan out. Nothing polls: the thread sleeps
//! until a command, an event, or the end of a pause somebody earned.

mod aliases;
mod apply;
mod carry_out;
mod clocks;
mod field;
mod flows;
mod handle;
mod intent;
mod networks;
mod open;
mod policies;
mod policy_views;
mod processes;
mod question;
mod switches;
mod views;
mod vrfs;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use fief_api::{Condition, Paths};
use fief_datapath::{Datapath, Settings};
use fief_host::{Host, HostError, LinuxHost, Monitor};
use fief_model::{Mac, Slot};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::watch;

use crate::config::Config;
use crate::contention::Contention;
use crate::networks::{Link, Networks, Stale};
use crate::observed::Observed;
use crate::plan::{Desired, Tree, plan};
use crate::policies::Policies;
use crate::store::{Field, Store, Stored, StoredEndpoint, StoredNetwork, StoredPolicy, Uplink};

pub use apply::{Applied, Refusal};
use clocks::{Clocks, is_due};
use field::Progress;
pub use handle::Handle;
use handle::{Job, View};
pub use intent::{Kind, Object};
use policies::Judges;
pub(crate) use question::Unanswered;

/// When the host does not come to rest, the next look is this much later.
const BREATH: Duration = Duration::from_millis(50);

/// Everything the daemon knows and owns.
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) cgroup: PathBuf,
    tree: Tree,
    settings: Option<Settings>,
    store: Store,
    field: Option<Field>,
    progress: Progress,
    /// Where the configuration wants the field, if it is not there.
    goal: Option<field::Goal>,
    /// Who else uses the field's bits.
    intruders: Vec<String>,
    /// Bits that others use.
    taken: u32,
    /// Rung when whoever watches the marks shall look again.
    watcher: Arc<OwnedFd>,
    tenants: BTreeMap<String, Stored>,
    networks: BTreeMap<String, StoredNetwork>,
    endpoints: BTreeMap<String, StoredEndpoint>,
    network_policies: BTreeMap<String, StoredPolicy>,
    /// They and the endpoints, compiled.
    policies: Policies,
    judges: Judges,
    /// When the seconds of identities began.
    begun: Instant,
    uplinks: BTreeMap<String, Uplink>,
    /// Networks as they stand on this host.
    segments: Networks,
    /// Tenants whose networks may be wanted otherwise than when this was last thought over.
    stale: Stale,
    /// The links to tenants' namespaces.
    links: Arc<Vec<Link>>,
    /// Tenants with `isolation: auto` whose addresses others have, too.
    overlapping: HashSet<String>,
    /// Why this kernel makes no VRFs, as far as it was asked.
    no_vrf: Option<String>,
    /// Leased addresses, by network and Ethernet address, and whether others have come since.
    leases: HashMap<(String, Mac), Ipv4Addr>,
    leased: Arc<AtomicBool>,
    host: LinuxHost,
    monitor: Monitor,
    observed: Observed,
    desired: HashMap<Slot, Desired>,
    datapath: Option<Datapath>,
    attached: Vec<fief_datapath::Device>,
    /// Hashes of the changes that were made and are still wanted.
    installed: HashSet<u64>,
    repairs: Contention<u64>,
    refusals: Contention<u64>,
    refused: HashMap<u64, (Slot, Condition)>,
    trouble: Vec<Condition>,
    /// Tenants of whom addresses or routes are still being put in place.
    underway: HashSet<Slot>,
    /// How often in a row the switches or programs could not be put in place.
    setbacks: u32,
    repaired: u64,
    last_reconcile: Duration,
    clocks: Clocks,
    jobs: Receiver<Job>,
    views: Receiver<View>,
    bell: Arc<OwnedFd>,
    revision: watch::Sender<u64>,
    stop: bool,
}

impl Engine {
    /// Lists the host and makes it as the store says: adopts what an earlier daemon left, removes what is surplus.
    pub fn begin(&mut self) -> Result<(), HostError> {
        self.note_overlapping();
        self.list()?;
        self.begin_policies();
        self.reconcile();
        self.mind_move();
        Ok(())
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        while !self.stop {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "waiting failed");
                return;
            }
            let changed = self.take_events();
            self.answer_views();
            while !self.stop {
                match self.jobs.try_recv() {
                    Ok(job) => job(&mut self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.mind_aliases();
            self.mind_policies();
            self.mind_move();
            let now = Instant::now();
            let heard = self.segments.hear();
            let leased = self.leased.load(Ordering::Acquire);
            let judged = self.segments.take_verdicts();
            let healed = self.heal_addresses(now);
            let missing = self.segments.look_at().is_some_and(|at| at <= now);
            let verify = is_due(self.clocks.verify, now);
            if verify && self.list().is_err() {
                self.clocks.wake = Some(now + Duration::from_secs(1));
                continue;
            }
            if verify {
                self.clocks.verify = None;
                self.attached.clear();
                self.segments.look_at_uplinks();
            }
            let told = changed || heard || leased || judged || healed;
            if told || missing || verify || is_due(self.clocks.wake, now) {
                self.reconcile();
            }
            if is_due(self.clocks.rest, now) {
                self.clocks.rest = None;
                fief_host::memory::give_back();
            }
        }
    }

    /// Plans and carries out until there is nothing to do, or nothing that may be done yet.
    pub(crate) fn reconcile(&mut self) {
        let begin = Instant::now();
        self.clocks.wake = None;
        let (mut busy, mut quiet, mut moved) = (false, false, false);
        // A second round sees what the first one's changes really did; one more would mean that they do not hold,
        // and then the pauses of contention decide.
        // With a VRF it is two more: it must be there before something is put under it, and that before it has addresses.
        for _ in 0..5 {
            if self.observed.devices_changed() {
                moved = true;
                // A device takes with it what lay on it; making that again is no repair.
                self.installed.clear();
                self.refusals = Contention::default();
            }
            let mut did = self.desire();
            let plan = plan(&self.tree, &self.desired, &self.links, &self.observed);
            did |= self.carry_out(plan);
            did |= self.shorten();
            did |= self.open_links();
            busy |= did;
            // What was heard meanwhile is not yet in the plan.
            quiet = !self.take_events() && !did;
            if quiet {
                break;
            }
        }
        if !quiet {
            self.clocks.wake_by(Instant::now() + BREATH);
        }
        if busy {
            self.clocks.quiet();
        }
        if busy || moved {
            self.touch();
        }
        self.repairs.forgive(begin);
        self.refusals.forgive(begin);
        self.last_reconcile = begin.elapsed();
        if busy {
            tracing::info!(
                ms = self.last_reconcile.as_secs_f64() * 1e3,
                tenants = self.tenants.len(),
                "reconciled"
            );
        }
    }

    /// Answers everybody who waits for a look.
    fn answer_views(&self) {
        self.views.try_iter().for_each(|view| view(self));
    }

    /// Lists everything anew.
    fn list(&mut self) -> Result<(), HostError> {
        // Events that are older than the listing would be counted twice.
        while self.monitor.drain(|_| ()).is_err() {}
        let listing =
            self.host.list().inspect_err(|error| tracing::warn!(%error, "listing the host failed"))?;
        self.observed.renew(listing);
        Ok(())
    }

    /// Takes waiting events in; says whether there were any. Lost events mean a new listing.
    fn take_events(&mut self) -> bool {
        let mut any = false;
        let observed = &mut self.observed;
        let drained = self.monitor.drain(|event| {
            any |= observed.apply(event);
        });
        observed.settle();
        if let Err(error) = drained {
            tracing::warn!(%error, "events were lost");
            if self.list().is_err() {
                self.clocks.wake = Some(Instant::now() + Duration::from_secs(1));
            }
            return true;
        }
        any
    }

    /// Notes that tenants or their status changed.
    pub(crate) fn touch(&mut self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn wait(&self) -> std::io::Result<()> {
        let due = [
            self.clocks.earliest(),
            self.progress.look_at,
            self.segments.look_at(),
            self.observed.doubts_until(),
            self.judges.look_at,
        ];
        let due = due.into_iter().flatten().min();
        let pause = due.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let pause = pause
            .map(|p| rustix::time::Timespec { tv_sec: p.as_secs() as i64, tv_nsec: p.subsec_nanos().into() });
        let bell: &OwnedFd = &self.bell;
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.monitor.as_fd(), PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
        ];
        fds.extend(self.segments.events().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // With a look ahead already there is no need to hear of each.
        let news = self.datapath.as_ref().filter(|_| self.clocks.sweep.is_none()).map(|d| d.aliases().news());
        fds.extend(news.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, pause.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut rings = [0; 8];
        // EAGAIN only says that nobody rang.
        let _ = rustix::io::read(bell, &mut rings);
        Ok(())
    }
}
