//! Networks: tenants' namespaces, what is in them, the links to them, and their services.
//!
//! ```text
//!   documents ── wanted (pure) ──┬─ rules ──── the host's table, each namespace's table
//!                                ├─ space ──── bridges, ports, addresses; workload: the far end of a port
//!                                ├─ services ─ DHCP, DNS, metadata
//!                                └─ plan ───── uplinks: tables and rules, as for tenants
//! ```
//!
//! In the order in which nothing is ever open: the host's table stands before a link does, and a link goes up when the
//! routes of the uplinks are in place.

mod host_table;
mod judged;
pub mod links;
mod make;
mod numbers;
mod occupants;
mod port;
pub mod probe;
mod removal;
mod rules;
mod services;
mod shorten;
mod space;
mod switch;
mod views;
mod vrf;
pub mod wanted;
mod workload;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fief_api::paths::NAMESPACE;
use fief_api::{Condition, Paths};
use fief_datapath::policy::Policy;
use fief_datapath::ports::{HostWay, Ports};
use fief_host::HostError;
use fief_host::devices::{Build, Named, Settings};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::netlink::elsewhere::{self, Elsewhere};
use fief_host::nft::Table;
use fief_marks::Positions;
use fief_model::Mac;

use crate::config::uplinks::Uplinks;
use host_table::HostTable;
pub use host_table::forwarding;
use judged::{judged_slots, policies_missing};
use links::Links;
use make::{Job, Tools};
use occupants::Told;
pub use occupants::{Judging, Subject, Subjects};
use probe::{Probes, Silence};
use removal::{close, remove};
use services::Attendance;
use space::Standing;
pub use space::carry_out;
use switch::Trunks;
pub use wanted::{Documents, Ground, Layered, Link, Stale, Wanted, lacking, wanted};
use wanted::{Space, condition};

/// What is missing is looked for again after this long, and twice that, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
/// Threads that remove namespaces, at most.
const REMOVERS: usize = 16;
/// Sockets that wait to be closed, at most.
const CLOSING: usize = 64;

/// The networks of this host as they stand.
pub struct Networks {
    paths: Paths,
    links: Links,
    local_moved: bool,
    is_short: bool,
    spaces: BTreeMap<String, Standing>,
    /// The host's table; `None` if there is none.
    table: Option<HostTable>,
    /// That of tenants with a VRF; `None` if there is none.
    vrf_table: Option<Table>,
    /// The parts of switches that lie on the host.
    trunks: Trunks,
    /// Why a tenant's namespace is not as it is wanted, and how it was wanted when that was tried.
    trouble: BTreeMap<String, (Arc<Space>, Condition)>,
    /// What the documents want, and lack.
    wanted: Wanted,
    attendance: Attendance,
    /// The programs at ports where nothing is judged, once there was a port; without them the way is longer.
    ports: Option<Option<Ports>>,
    /// The programs of the short way on the host, if there are any.
    host_way: Option<HostWay>,
    /// Is it to be seen whether they are still at uplinks?
    looks_at_uplinks: bool,
    /// What programs were told of who is there, by tenant.
    told: BTreeMap<String, Told>,
    /// What they were told of endpoints.
    subjects: Subjects,
    probes: Probes,
    /// When to look again for what is missing, and the pause after that.
    again: Option<(Instant, Duration)>,
    /// Has anything been looked at yet?
    begun: bool,
    /// Says what goes in the namespaces, by their numbers.
    elsewhere: Option<Elsewhere>,
    numbers: HashMap<i32, String>,
    /// Tenants in whose namespaces something went, so that they are to be looked at.
    suspects: BTreeSet<String>,
}

/// How the host's own routing tells by which uplink a tenant's packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// By a mark, which the host's table writes there.
    Marks(Positions),
    /// By the packet's source; the rules for that stand.
    Sources,
    /// In the same way, and they do not stand yet.
    Missing,
}

impl Ways {
    fn positions(self) -> Option<Positions> {
        match self {
            Ways::Marks(positions) => Some(positions),
            Ways::Sources | Ways::Missing => None,
        }
    }
}

impl Networks {
    /// Nothing is made yet; `is_short` says whether packets may take a short way on the host, `on_lease` is called when a lease has come or gone, `on_verdict` when an uplink stops to
    /// answer or answers again.
    pub fn new(
        paths: &Paths,
        links: Links,
        local_moved: bool,
        is_short: bool,
        on_lease: Box<dyn Fn() + Send + Sync>,
        on_verdict: Arc<dyn Fn() + Send + Sync>,
    ) -> Networks {
        Networks {
            paths: paths.clone(),
            links,
            local_moved,
            is_short,
            spaces: BTreeMap::new(),
            table: None,
            vrf_table: None,
            trunks: Trunks::default(),
            trouble: BTreeMap::new(),
            wanted: Wanted::default(),
            attendance: Attendance::new(paths.state(), on_lease),
            ports: None,
            host_way: None,
            looks_at_uplinks: false,
            told: BTreeMap::new(),
            subjects: Subjects::default(),
            probes: Probes::new(&paths.run(), on_verdict),
            again: None,
            begun: false,
            elsewhere: Elsewhere::open()
                .inspect_err(|error| tracing::warn!(%error, "what goes in namespaces is not heard of"))
                .ok(),
            numbers: HashMap::new(),
            suspects: BTreeSet::new(),
        }
    }

    /// What is to be polled for events from the namespaces.
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.elsewhere.as_ref().map(Elsewhere::as_fd)
    }

    /// Takes in what happened in the namespaces; says whether one is to be looked at.
    pub fn hear(&mut self) -> bool {
        let Some(elsewhere) = &mut self.elsewhere else { return false };
        let (numbers, suspects) = (&self.numbers, &mut self.suspects);
        let heard = elsewhere.drain(|number| suspects.extend(numbers.get(&number).cloned()));
        if heard.is_err() {
            self.suspects.extend(self.spaces.keys().cloned());
        }
        !self.suspects.is_empty()
    }

    /// Uplinks that do not answer.
    pub fn silent(&self) -> BTreeMap<String, Silence> {
        self.probes.silent()
    }

    /// Did that change since somebody last asked?
    pub fn take_verdicts(&self) -> bool {
        self.probes.take_news()
    }

    /// Asks by the uplinks that there are now, as they are to be probed.
    pub fn probe(&mut self, wanted: &Wanted, uplinks: &Uplinks) {
        let known = wanted.exits.keys().map(String::as_str);
        let known = known.filter(|name| uplinks.probe(name).is_some()).collect();
        self.probes.watch(wanted.probes(), &known);
    }

    /// What documents want, to be renewed; [`Networks::build`] takes it back.
    pub fn lend_wanted(&mut self) -> Wanted {
        std::mem::take(&mut self.wanted)
    }

    /// The range of links.
    pub fn links(&self) -> Links {
        self.links
    }

    /// Who has which address.
    pub fn leases(&mut self) -> HashMap<(String, Mac), Ipv4Addr> {
        self.attendance.addresses()
    }

    /// Makes everything but open links. Says whether anything was done.
    ///
    /// `ways` is by what uplinks are told apart; `vrfs` is whether the rules that VRFs need stand, without which none is
    /// made; `is_there` knows the host's devices.
    pub fn build(
        &mut self,
        wanted: Wanted,
        ways: Ways,
        switched: &BTreeSet<String>,
        vrfs: bool,
        is_there: &dyn Fn(&str) -> bool,
        judging: Judging<'_>,
    ) -> bool {
        let Judging { subjects, mut policy } = judging;
        let now = Instant::now();
        let mut closing = Vec::new();
        let due = self.again.is_some_and(|(at, _)| at <= now);
        if !due && policy.is_none() && self.is_still(&wanted, &subjects) {
            // Most rounds only see that what was done is there.
            let mut did = self.set_rules(&wanted, ways, switched, &mut closing);
            did |= self.trunks.build(&wanted.trunks, &mut closing);
            close(closing);
            if self.trunks.is_incomplete() {
                self.again = self.again.or(Some((now + FIRST, FIRST)));
            }
            self.wanted = wanted;
            return did;
        }
        let mut did = self.remove_surplus(&wanted);
        did |= self.set_rules(&wanted, ways, switched, &mut closing);
        did |= self.set_vrf_rules(&wanted, &mut closing);
        let mut incomplete = false;
        let mut rebuilt = BTreeSet::new();
        let mut jobs = Vec::new();
        if !wanted.spaces.is_empty() && self.ports.is_none() {
            self.load_ports();
        }
        if let Some(policy) = policy.as_deref_mut()
            && !self.begun
        {
            // An earlier daemon's programs may judge until ours are in their places.
            judged_slots(&wanted, &subjects).into_iter().for_each(|slot| policy.enforce(slot));
        }
        for (tenant, space) in &wanted.spaces {
            if let Some(standing) = self.spaces.get_mut(tenant)
                && standing.space != *space
                && standing.space.differs_in_labels_only(space)
            {
                // Only the metadata service says them: nothing is to be made, however many endpoints there are.
                standing.space = space.clone();
                self.attendance.serve(standing);
            }
            let before = self.spaces.get(tenant);
            if space.vrf.is_some() && !vrfs {
                // The plan is about to set them.
                incomplete = true;
                self.trouble.entry(tenant.clone()).or_insert_with(|| (space.clone(), vrf::rules_missing()));
                continue;
            }
            if self.trouble.get(tenant).is_some_and(|(_, reason)| *reason == vrf::rules_missing()) {
                self.trouble.remove(tenant);
            }
            let is_judged = subjects.judges(space);
            if is_judged && policy.is_none() {
                incomplete = true;
                self.trouble.insert(tenant.clone(), (space.clone(), policies_missing()));
                continue;
            }
            if self.trouble.get(tenant).is_some_and(|(_, reason)| *reason == policies_missing()) {
                self.trouble.remove(tenant);
            }
            let is_same =
                before.is_some_and(|standing| standing.space == *space && standing.is_judged == is_judged);
            let is_whole = before.is_some_and(|standing| standing.lacking.is_empty())
                && !self.trouble.contains_key(tenant);
            let is_suspect = self.suspects.remove(tenant)
                || before
                    .is_some_and(|standing| standing.vrf.is_some() && !vrf::is_whole(standing, is_there));
            // What failed is tried again after a pause, or at once if something else is wanted.
            let has_failed = self.trouble.get(tenant).is_some_and(|(tried, _)| tried == space);
            if (is_same && !is_suspect && (is_whole || !due)) || (has_failed && !due) {
                incomplete |= !is_whole;
                continue;
            }
            let before = self.spaces.remove(tenant);
            jobs.push(Job {
                tenant: tenant.clone(),
                path: self.path(tenant),
                space: space.clone(),
                // A failure may have left something behind.
                is_first: self.begun && before.is_none() && !self.trouble.contains_key(tenant),
                is_known: !is_suspect && before.as_ref().is_some_and(|before| before.is_judged == is_judged),
                before,
            });
        }
        let (plain, host_way) = (self.ports.take(), self.host_way.take());
        let tools = Tools {
            subjects: &subjects,
            plain: plain.as_ref().and_then(Option::as_ref),
            outer: host_way.as_ref().map(|way| &way.link),
            judging: policy.as_deref().map(Policy::ports),
        };
        for job in jobs {
            let made = make::one(job, tools);
            closing.extend(made.closing);
            if closing.len() >= CLOSING {
                close(std::mem::take(&mut closing));
            }
            let (is_whole, is_news) =
                self.take_in(&made.job.tenant, made.job.space, made.job.before, made.standing);
            incomplete |= !is_whole;
            did |= is_news;
            rebuilt.insert(made.job.tenant);
        }
        (self.ports, self.host_way) = (plain, host_way);
        rebuilt.retain(|tenant| !self.trouble.contains_key(tenant));
        self.tell(subjects, &rebuilt, policy);
        // New links have numbers now, which the host's table names.
        did |= self.set_rules(&wanted, ways, switched, &mut closing);
        did |= self.trunks.build(&wanted.trunks, &mut closing);
        incomplete |= self.trunks.is_incomplete();
        close(closing);
        let pause = self.again.map_or(FIRST, |(_, pause)| pause);
        self.again = match (incomplete, due || did) {
            (false, _) => None,
            (true, true) => Some((now + pause, (pause * 2).min(LONGEST))),
            (true, false) => self.again.or(Some((now + FIRST, FIRST))),
        };
        self.wanted = wanted;
        self.begun = true;
        did
    }

    /// Stands everything as it was last wanted and still is, as far as anybody has heard? Where VRFs are or something is
    /// judged, that is not looked into.
    fn is_still(&self, wanted: &Wanted, subjects: &Subjects) -> bool {
        let is_plain = |standing: &Standing| standing.vrf.is_none() && !standing.is_judged;
        let is_quiet = self.suspects.is_empty() && self.trouble.is_empty();
        self.begun
            && !wanted.is_news
            && is_quiet
            && self.subjects == *subjects
            && self.spaces.values().all(is_plain)
    }

    fn listen_to(&mut self, tenant: &str, standing: &Standing) {
        if standing.vrf.is_some()
            || self.elsewhere.is_none()
            || self.numbers.values().any(|known| known == tenant)
        {
            return;
        }
        let number = Socket::open(libc::NETLINK_ROUTE)
            .and_then(|mut socket| elsewhere::number_of(&mut socket, &standing.namespace));
        match number {
            Ok(number) => drop(self.numbers.insert(number, tenant.to_owned())),
            Err(error) => tracing::warn!(tenant, %error, "what goes in its namespace is not heard of"),
        }
    }

    /// Takes in what became of a tenant's place. Says whether it is whole, and whether it is another than before.
    fn take_in(
        &mut self,
        tenant: &str,
        space: Arc<Space>,
        before: Option<Standing>,
        made: Result<Standing, HostError>,
    ) -> (bool, bool) {
        match made {
            Ok(standing) => {
                let is_as_before =
                    |before: &Standing| before.space == standing.space && before.lacking == standing.lacking;
                let is_news = !before.as_ref().is_some_and(is_as_before);
                let is_whole = standing.lacking.is_empty();
                self.attendance.serve(&standing);
                self.listen_to(tenant, &standing);
                self.spaces.insert(tenant.to_owned(), standing);
                self.trouble.remove(tenant);
                (is_whole, is_news)
            }
            Err(error) => {
                let lack = if space.vrf.is_some() { "VrfIncomplete" } else { "NamespaceIncomplete" };
                let reason = condition(lack, error.to_string());
                let is_news = self.trouble.get(tenant).map(|(_, known)| known) != Some(&reason);
                if is_news {
                    tracing::warn!(tenant, %error, "a tenant's place is not as it is wanted");
                }
                self.trouble.insert(tenant.to_owned(), (space, reason));
                if let Some(before) = before {
                    self.spaces.insert(tenant.to_owned(), make::left_of(before));
                }
                (false, is_news)
            }
        }
    }

    /// Opens the links, once the host's routes are in place. Says whether anything was done.
    pub fn open(&mut self, is_up: impl Fn(&str) -> bool) -> bool {
        let linked = self.spaces.values().filter(|standing| !standing.space.transit.is_empty());
        let down: Vec<Build> = linked
            .map(|standing| links::device(standing.space.slot))
            .filter(|device| !is_up(device))
            .map(|device| Build::Set {
                device: Named::Name(device),
                settings: Settings { up: Some(true), ..Settings::default() },
            })
            .collect();
        if down.is_empty() {
            return false;
        }
        let opened = Socket::open(libc::NETLINK_ROUTE).and_then(|mut socket| carry_out(&mut socket, &down));
        if let Err(error) = opened {
            tracing::warn!(%error, "a link to a tenant's namespace stays down");
        }
        true
    }

    /// Removes what no document wants any more; the first time, what an earlier daemon may have left as well.
    fn remove_surplus(&mut self, wanted: &Wanted) -> bool {
        // One that becomes another kind is another.
        let stays = |tenant: &String, standing: &Standing| {
            let space = wanted.spaces.get(tenant);
            space.is_some_and(|space| (space.slot, space.vrf) == (standing.space.slot, standing.space.vrf))
        };
        let gone = self.spaces.iter().filter(|(tenant, standing)| !stays(tenant, standing));
        let mut gone: BTreeSet<String> = gone.map(|(tenant, _)| tenant.clone()).collect();
        if !self.begun {
            vrf::left(wanted).into_iter().for_each(vrf::remove);
            let left = Namespace::list(&self.paths.namespaces());
            let left = left.iter().filter_map(|name| name.strip_prefix(NAMESPACE));
            let has_namespace =
                |tenant: &str| wanted.spaces.get(tenant).is_some_and(|space| space.vrf.is_none());
            let left = left.filter(|tenant| !has_namespace(tenant));
            gone.extend(left.filter(|tenant| space::is_ours(&self.path(tenant), tenant)).map(str::to_owned));
        }
        // What could not be made to its end has left a part of it.
        let parts = self.trouble.iter().filter(|(tenant, (space, _))| {
            let wanted = wanted.spaces.get(*tenant).map(|wanted| (wanted.slot, wanted.vrf));
            space.vrf.is_some() && wanted != Some((space.slot, space.vrf))
        });
        parts.for_each(|(_, (space, _))| vrf::remove(space.slot));
        self.trouble.retain(|tenant, _| wanted.spaces.contains_key(tenant));
        let networks: BTreeSet<&str> =
            wanted.spaces.values().flat_map(|space| space.segments.keys().map(String::as_str)).collect();
        let left = self.attendance.leave_all_but(&networks);
        self.numbers.retain(|_, tenant| !gone.contains(tenant));
        let gone: Vec<(PathBuf, Option<Standing>)> =
            gone.iter().map(|tenant| (self.path(tenant), self.spaces.remove(tenant))).collect();
        // The kernel is milliseconds at each device, and waits for most of them.
        std::thread::scope(|scope| {
            for part in gone.chunks(gone.len().div_ceil(REMOVERS).max(1)) {
                let part = move || part.iter().for_each(|(path, standing)| remove(path, standing.as_ref()));
                scope.spawn(part);
            }
        });
        left || !gone.is_empty()
    }

    /// When to look for what is missing.
    pub fn look_at(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    fn path(&self, tenant: &str) -> PathBuf {
        self.paths.namespace_of(tenant)
    }
}
