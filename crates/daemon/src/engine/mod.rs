//! The engine: one thread that owns the store, the host and the datapath, and does one thing at a time.
//!
//! Commands come from the API through a channel, events from the kernel through netlink; both end in [`Engine::reconcile`],
//! which plans from what is stored and what is observed and carries the plan out. Nothing polls: the thread sleeps
//! until a command, an event, or the end of a pause somebody earned.

mod aliases;
mod apply;
mod carry_out;
mod field;
mod flows;
mod intent;
mod networks;
mod policies;
mod policy_views;
mod processes;
mod question;
mod switches;
mod views;
mod vrfs;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use fief_api::{Condition, Paths};
use fief_datapath::aliases::Ranges;
use fief_datapath::{Datapath, Settings};
use fief_host::{Detour, Host, HostError, LinuxHost, Monitor};
use fief_marks::MarkLayout;
use fief_model::{Mac, Slot};
use ipnet::Ipv6Net;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use tokio::sync::{oneshot, watch};

use crate::arbiter::Heard;
use crate::config::{Config, HostWay, LocalRule, MarkMask};
use crate::contention::Contention;
use crate::networks::links::Links;
use crate::networks::{Link, Networks, Stale};
use crate::observed::Observed;
use crate::plan::{Desired, Tree, plan};
use crate::policies::Policies;
use crate::store::{Field, Store, Stored, StoredEndpoint, StoredNetwork, StoredPolicy, Uplink};

pub use apply::{Applied, Refusal};
use field::Progress;
pub use intent::{Kind, Object};
use policies::Judges;
pub(crate) use question::Unanswered;

/// A full listing is made once things have been quiet for this long, in case an event lied.
const QUIET: Duration = Duration::from_secs(10);

/// When the host does not come to rest, the next look is this much later.
const BREATH: Duration = Duration::from_millis(50);

/// A piece of work for the engine's thread.
type Job = Box<dyn FnOnce(&mut Engine) + Send>;
/// A question about how things stand; it is answered in the middle of long work too.
type View = Box<dyn FnOnce(&Engine) + Send>;

/// How others speak to the engine.
#[derive(Clone)]
pub struct Handle {
    jobs: Sender<Job>,
    views: Sender<View>,
    bell: Arc<OwnedFd>,
    revision: watch::Receiver<u64>,
}

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
    wake_at: Option<Instant>,
    verify_at: Option<Instant>,
    /// When memory goes back: what was applied needed for a moment a multiple of what stays.
    rest_at: Option<Instant>,
    /// When to look for idle aliases, while there are any.
    sweep_at: Option<Instant>,
    jobs: Receiver<Job>,
    views: Receiver<View>,
    bell: Arc<OwnedFd>,
    revision: watch::Sender<u64>,
    stop: bool,
}

impl Handle {
    /// Runs a piece of work on the engine's thread and waits for its result. `None` when the engine is gone.
    pub async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |engine| drop(reply.send(work(engine)))));
        answer.await.ok()
    }

    /// Looks at the engine, between two steps of whatever it is doing. `None` when it is gone.
    pub async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        if self.views.send(Box::new(move |engine| drop(reply.send(look(engine))))).is_ok() {
            self.ring();
        }
        answer.await.ok()
    }

    /// Tells the engine what others do with marks, given where its field is.
    pub fn heard_of(&self, look: Box<dyn FnOnce(MarkLayout) -> Heard + Send>) {
        self.send(Box::new(move |engine| {
            if let Some(positions) = engine.positions() {
                engine.heard(look(positions.read));
            }
        }));
    }

    /// Has the engine ended?
    pub fn is_over(&self) -> bool {
        self.revision.has_changed().is_err()
    }

    /// Tells the engine to end after what it is doing.
    pub fn stop(&self) {
        self.send(Box::new(|engine| engine.stop = true));
    }

    /// The number that grows with every change of a tenant or its status.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    fn send(&self, job: Job) {
        if self.jobs.send(job).is_ok() {
            self.ring();
        }
    }

    fn ring(&self) {
        // A full counter (2^64 - 2 rings) is the only failure, and then the bell rings anyway.
        let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
    }
}

impl Engine {
    /// Opens everything in the current thread's network namespace. Changes nothing on the host. `marks` is rung when
    /// whoever watches the marks shall look again.
    pub fn open(
        config: Config,
        paths: Paths,
        cgroup: PathBuf,
        marks: Arc<OwnedFd>,
    ) -> anyhow::Result<(Engine, Handle)> {
        let mut store = Store::open(&paths.state())?;
        let tenants = store.tenants()?;
        let (networks, endpoints, uplinks) = (store.networks()?, store.endpoints()?, store.uplinks()?);
        if config.mark_mask == MarkMask::None {
            vrfs::need_no_marks(&tenants, &networks)?;
        }
        let (network_policies, begun) = (store.policies()?, Instant::now());
        let now = policies::now(begun);
        let policies = policies::compiled(&mut store, &tenants, &endpoints, &network_policies, now)?;
        let (field, goal) = field::placed(&config, &paths, &mut store)?;
        let layout = goal.as_ref().map(|(goal, _)| *goal).or(field.as_ref().map(Field::narrowest));
        let of_tenants = tenants.iter().map(|(name, stored)| ("tenant", name, stored.slot));
        let slots = of_tenants.chain(uplinks.iter().map(|(name, uplink)| ("uplink", name, uplink.slot)));
        if let Some(layout) = layout
            && let Some((kind, name, slot)) =
                slots.into_iter().find(|(.., slot)| slot.number() > layout.highest())
        {
            anyhow::bail!(
                "{kind} {name} has slot {slot}, which the mark field {layout} cannot hold; widen markMask in fiefd.yaml"
            );
        }
        let aliases = Ranges {
            v4: config.alias_range,
            v6: Ipv6Net::new_assert(Ipv6Addr::from(u128::from(store.alias_network()?) << 64), 64),
        };
        let local_moved = config.local_rule == LocalRule::Move;
        let netns_cookie = fief_host::kernel::network_namespace_cookie()?;
        let settings = field.as_ref().map(|field| Settings {
            positions: field.positions(),
            local_moved,
            // Known once the switch has been set, which is before programs are loaded.
            foreign_accepted: false,
            netns_cookie,
            aliases,
            cgroup: std::fs::metadata(&cgroup).map(|m| m.ino()).unwrap_or(0),
        });
        let trees = field.as_ref().map(Field::trees);
        let links = Links(config.link_range);
        let tree = Tree {
            field: trees.map(|(of_field, _)| of_field),
            also: trees.and_then(|(_, also)| also),
            links,
            entry: config.rule_preference,
            table_base: config.table_base,
            move_local: local_moved,
            vrf_rule_is_ours: store.vrf_rule_is_ours()?,
            aliases,
            detour: Detour(settings.as_ref().map_or(0, fief_datapath::detour)),
            short_way: config.host_way == HostWay::Short,
        };
        // Subscribed before the first listing: what happens in between is then an event.
        let monitor = Monitor::open()?;
        let host = LinuxHost::open()?;
        let ((job_sender, jobs), (view_sender, views)) = (channel(), channel());
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (revision, watcher) = watch::channel(1);
        // Those of an earlier daemon are there already.
        let leased = Arc::new(AtomicBool::new(!networks.is_empty()));
        let (told, ring) = (leased.clone(), bell.clone());
        // As in Handle::ring.
        let ring = move || {
            let _ = rustix::io::write(&*ring, &1u64.to_ne_bytes());
        };
        let on_verdict = Arc::new(ring.clone());
        let on_lease = Box::new(move || {
            told.store(true, Ordering::Release);
            ring();
        });
        let segments = Networks::new(&paths, links, local_moved, tree.short_way, on_lease, on_verdict);
        let handle = Handle { jobs: job_sender, views: view_sender, bell: bell.clone(), revision: watcher };
        let engine = Engine {
            config,
            paths,
            cgroup,
            tree,
            settings,
            sweep_at: None,
            store,
            field,
            goal,
            progress: Progress::default(),
            intruders: Vec::new(),
            taken: 0,
            watcher: marks,
            tenants,
            networks,
            endpoints,
            network_policies,
            policies,
            judges: Judges::default(),
            begun,
            uplinks,
            segments,
            stale: Stale::all(),
            links: Arc::default(),
            overlapping: HashSet::new(),
            no_vrf: vrfs::ask_for_vrfs(),
            leases: HashMap::new(),
            leased,
            host,
            monitor,
            observed: Observed::default(),
            desired: HashMap::new(),
            datapath: None,
            attached: Vec::new(),
            installed: HashSet::new(),
            repairs: Contention::with_breath(Duration::from_millis(100)),
            refusals: Contention::default(),
            refused: HashMap::new(),
            trouble: Vec::new(),
            underway: HashSet::new(),
            setbacks: 0,
            repaired: 0,
            last_reconcile: Duration::ZERO,
            wake_at: None,
            verify_at: None,
            rest_at: None,
            jobs,
            views,
            bell,
            revision,
            stop: false,
        };
        Ok((engine, handle))
    }

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
            let verify = self.verify_at.is_some_and(|at| at <= now);
            if verify && self.list().is_err() {
                self.wake_at = Some(now + Duration::from_secs(1));
                continue;
            }
            if verify {
                self.verify_at = None;
                self.attached.clear();
                self.segments.look_at_uplinks();
            }
            let told = changed || heard || leased || judged || healed;
            if told || missing || verify || self.wake_at.is_some_and(|at| at <= now) {
                self.reconcile();
            }
            if self.rest_at.is_some_and(|at| at <= now) {
                self.rest_at = None;
                fief_host::memory::give_back();
            }
        }
    }

    /// Plans and carries out until there is nothing to do, or nothing that may be done yet.
    pub(crate) fn reconcile(&mut self) {
        let begin = Instant::now();
        self.wake_at = None;
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
            self.wake_by(Instant::now() + BREATH);
        }
        if busy {
            self.verify_at = Some(Instant::now() + QUIET);
            self.rest_at = self.verify_at;
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
                self.wake_at = Some(Instant::now() + Duration::from_secs(1));
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
            self.wake_at,
            self.verify_at,
            self.rest_at,
            self.sweep_at,
            self.progress.look_at,
            self.segments.look_at(),
        ];
        let more = [self.observed.doubts_until(), self.judges.look_at];
        let due = due.into_iter().chain(more).flatten().min();
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
        let news = self.datapath.as_ref().filter(|_| self.sweep_at.is_none()).map(|d| d.aliases().news());
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
