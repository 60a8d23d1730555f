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

pub mod links;
mod rules;
mod services;
mod space;
pub mod wanted;
mod workload;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fief_api::paths::NAMESPACE;
use fief_api::{Condition, Paths};
use fief_host::devices::{Build, Named, Neighbour, Settings};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_host::netlink::elsewhere::{self, Elsewhere};
use fief_host::nft::{Batch, Family, Table};
use fief_host::{HostError, devices, sysctl};
use fief_marks::Positions;
use fief_model::Mac;

use links::{Links, SPACE_MAC};
use rules::{HostRules, TABLE};
use services::Attendance;
use space::Standing;
pub use wanted::{Documents, Ground, Link, Wanted, wanted};
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
    spaces: BTreeMap<String, Standing>,
    /// The host's table; `None` if there is none.
    table: Option<Table>,
    /// Why a tenant's namespace is not as it is wanted, and how it was wanted when that was tried.
    trouble: BTreeMap<String, (Space, Condition)>,
    /// What the documents lack.
    wanted: Wanted,
    attendance: Attendance,
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

impl Networks {
    /// Nothing is made yet; `bell` is rung when a lease has come or gone.
    pub fn new(
        paths: &Paths,
        links: Links,
        local_moved: bool,
        bell: Box<dyn Fn() + Send + Sync>,
    ) -> Networks {
        Networks {
            paths: paths.clone(),
            links,
            local_moved,
            spaces: BTreeMap::new(),
            table: None,
            trouble: BTreeMap::new(),
            wanted: Wanted::default(),
            attendance: Attendance::new(paths.state(), bell),
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

    /// The range of links.
    pub fn links(&self) -> Links {
        self.links
    }

    /// Who has which address.
    pub fn leases(&mut self) -> HashMap<(String, Mac), Ipv4Addr> {
        self.attendance.addresses()
    }

    /// Makes everything but open links. Says whether anything was done.
    pub fn build(&mut self, wanted: Wanted, positions: Positions, switched: &BTreeSet<String>) -> bool {
        let now = Instant::now();
        let mut closing = Vec::new();
        let due = self.again.is_some_and(|(at, _)| at <= now);
        let mut did = self.remove_surplus(&wanted);
        did |= self.set_rules(&wanted, positions, switched, &mut closing);
        let mut incomplete = false;
        for (tenant, space) in &wanted.spaces {
            let before = self.spaces.get(tenant);
            let is_same = before.is_some_and(|standing| standing.space == *space);
            let is_whole = before.is_some_and(|standing| standing.lacking.is_empty())
                && !self.trouble.contains_key(tenant);
            let is_suspect = self.suspects.remove(tenant);
            // What failed is tried again after a pause, or at once if something else is wanted.
            let has_failed = self.trouble.get(tenant).is_some_and(|(tried, _)| tried == space);
            if (is_same && !is_suspect && (is_whole || !due)) || (has_failed && !due) {
                incomplete |= !is_whole;
                continue;
            }
            let before = self.spaces.remove(tenant);
            match self.build_one(tenant, space, before.as_ref(), &mut closing) {
                Ok(standing) => {
                    incomplete |= !standing.lacking.is_empty();
                    let is_as_before = |before: &Standing| {
                        before.space == standing.space && before.lacking == standing.lacking
                    };
                    did |= !before.as_ref().is_some_and(is_as_before);
                    self.attendance.serve(&standing);
                    self.listen_to(tenant, &standing);
                    self.spaces.insert(tenant.clone(), standing);
                    self.trouble.remove(tenant);
                }
                Err(error) => {
                    incomplete = true;
                    let reason = condition("NamespaceIncomplete", error.to_string());
                    if self.trouble.get(tenant).map(|(_, known)| known) != Some(&reason) {
                        tracing::warn!(tenant, %error, "a tenant's namespace is not as it is wanted");
                        did = true;
                    }
                    self.trouble.insert(tenant.clone(), (space.clone(), reason));
                    // What stands goes on, and is looked at anew.
                    if let Some(before) = before {
                        let space = Space { segments: BTreeMap::new(), ..before.space.clone() };
                        self.spaces.insert(tenant.clone(), Standing { space, ..before });
                    }
                }
            }
        }
        // New links have numbers now, which the host's table names.
        did |= self.set_rules(&wanted, positions, switched, &mut closing);
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

    fn listen_to(&mut self, tenant: &str, standing: &Standing) {
        if self.elsewhere.is_none() || self.numbers.values().any(|known| known == tenant) {
            return;
        }
        let number = Socket::open(libc::NETLINK_ROUTE)
            .and_then(|mut socket| elsewhere::number_of(&mut socket, &standing.namespace));
        match number {
            Ok(number) => drop(self.numbers.insert(number, tenant.to_owned())),
            Err(error) => tracing::warn!(tenant, %error, "what goes in its namespace is not heard of"),
        }
    }

    fn build_one(
        &self,
        tenant: &str,
        space: &Space,
        before: Option<&Standing>,
        closing: &mut Vec<Socket>,
    ) -> Result<Standing, HostError> {
        let mut standing = space::build(&self.path(tenant), tenant, space, before, closing)?;
        if closing.len() >= CLOSING {
            close(std::mem::take(closing));
        }
        let device = links::device(space.slot);
        let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
        let there = devices::index_of(&mut socket, &device)?;
        if space.transit.is_empty() {
            if there.is_some() {
                space::carry_out(&mut socket, &[Build::DeleteLink(Named::Name(device))])?;
            }
            return Ok(standing);
        }
        // A link whose other end went with a namespace is gone as well.
        if there.is_none() {
            space::carry_out(&mut socket, &[space::link(&device, tenant, &standing.namespace)])?;
            let of = |leaf| format!("net.ipv4.conf.{device}.{leaf}");
            let [forwarding, filter, redirects] = ["forwarding", "rp_filter", "send_redirects"].map(of);
            sysctl::write_all(&[(&forwarding, "1"), (&filter, "0"), (&redirects, "0")])?;
            space::carry_out(&mut socket, &[Build::NoAddressGeneration(Named::Name(device.clone()))])?;
        }
        let Some(index) = devices::index_of(&mut socket, &device)? else {
            return Err(HostError::Missing(format!("device {device}")));
        };
        let neighbours = space.transit.values().map(|address| {
            let address = (*address).into();
            Build::SetNeighbour(Neighbour { device: index, address, mac: SPACE_MAC })
        });
        space::carry_out(&mut socket, &neighbours.collect::<Vec<_>>())?;
        space::connect(&standing)?;
        standing.link = Some(index);
        Ok(standing)
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
        let opened =
            Socket::open(libc::NETLINK_ROUTE).and_then(|mut socket| space::carry_out(&mut socket, &down));
        if let Err(error) = opened {
            tracing::warn!(%error, "a link to a tenant's namespace stays down");
        }
        true
    }

    /// Removes what no document wants any more; the first time, what an earlier daemon may have left as well.
    fn remove_surplus(&mut self, wanted: &Wanted) -> bool {
        let mut gone: BTreeSet<String> =
            self.spaces.keys().filter(|tenant| !wanted.spaces.contains_key(*tenant)).cloned().collect();
        if !self.begun {
            let left = Namespace::list(&self.paths.namespaces());
            let left = left.iter().filter_map(|name| name.strip_prefix(NAMESPACE));
            let left = left.filter(|tenant| !wanted.spaces.contains_key(*tenant));
            gone.extend(left.filter(|tenant| space::is_ours(&self.path(tenant), tenant)).map(str::to_owned));
        }
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

    /// Makes the host's table as it is wanted.
    fn set_rules(
        &mut self,
        wanted: &Wanted,
        positions: Positions,
        switched: &BTreeSet<String>,
        closing: &mut Vec<Socket>,
    ) -> bool {
        let links = wanted.links();
        if links.is_empty() && wanted.exits.is_empty() {
            return self.remove_rules();
        }
        let next = self.host_rules(wanted, positions, switched).table();
        if self.table.as_ref() == Some(&next) {
            return false;
        }
        let set = Socket::open(libc::NETLINK_NETFILTER).and_then(|mut socket| {
            let set = rules::set(self.table.as_ref(), &next, &mut socket);
            closing.push(socket);
            set
        });
        match set {
            Ok(did) => {
                self.table = Some(next);
                did
            }
            Err(error) => {
                tracing::error!(%error, "the host's table of networks could not be set");
                self.table = None;
                true
            }
        }
    }

    fn host_rules(&self, wanted: &Wanted, positions: Positions, switched: &BTreeSet<String>) -> HostRules {
        let mut sources = BTreeMap::new();
        let mut called = BTreeMap::new();
        let mut collisions = BTreeSet::new();
        let by_index: HashMap<u8, u16> =
            wanted.exits.values().map(|exit| (exit.uplink.index, exit.uplink.slot.number())).collect();
        let adopted = self.adopted();
        for (tenant, space) in &wanted.spaces {
            called.extend(space.called.iter().map(|(at, to)| (*at, *to)));
            let mapped: BTreeSet<Ipv4Addr> = space.mapped.keys().map(|(address, ..)| *address).collect();
            for segment in space.segments.values() {
                collisions.extend(mapped.iter().map(|address| (segment.services.subnet, *address)));
            }
            let standing = self.spaces.get(tenant).and_then(|standing| standing.link);
            let Some(device) = standing.or_else(|| adopted.get(&links::device(space.slot)).copied()) else {
                continue;
            };
            for (index, address) in &space.transit {
                if let Some(number) = by_index.get(index) {
                    sources.insert((device, *address), *number);
                }
            }
        }
        let closed =
            wanted.exits.iter().filter(|(name, exit)| exit.device.is_some() && is_closed(name, switched));
        HostRules {
            links: self.links,
            positions,
            local_moved: self.local_moved,
            closed: closed.filter_map(|(_, exit)| exit.device).collect(),
            exits: wanted.exits.clone(),
            sources,
            called,
            collisions,
        }
    }

    /// Devices by name, until everything has been looked at once: an earlier daemon may have left links. Later a listing
    /// would only cost: for each link the kernel looks through all namespaces that the host knows (peernet2id).
    fn adopted(&self) -> HashMap<String, u32> {
        if self.begun {
            return HashMap::new();
        }
        let there = Socket::open(libc::NETLINK_ROUTE).and_then(|mut socket| devices::list(&mut socket));
        there.unwrap_or_default().into_iter().map(|device| (device.name, device.index)).collect()
    }

    fn remove_rules(&mut self) -> bool {
        if self.table.is_none() && self.begun {
            return false;
        }
        let mut batch = Batch::new(Family::Inet, TABLE);
        batch.delete_table_if_there();
        let removed = Socket::open(libc::NETLINK_NETFILTER).and_then(|mut socket| batch.commit(&mut socket));
        if let Err(error) = removed {
            // A kernel without nf_tables has no table of ours either.
            tracing::debug!(%error, "the host's table of networks was not removed");
        }
        self.table.take().is_some()
    }

    /// What would be done, in words.
    pub fn describe(&self, wanted: &Wanted) -> Vec<String> {
        let mut steps = Vec::new();
        for (tenant, space) in &wanted.spaces {
            let before = self.spaces.get(tenant).map(|standing| &standing.space);
            if before == Some(space) {
                continue;
            }
            if before.is_none() {
                steps.push(format!("create network namespace {}", self.path(tenant).display()));
            }
            for (key, segment) in &space.segments {
                let old = before.and_then(|before| before.segments.get(key));
                if old == Some(segment) {
                    continue;
                }
                let verb = if old.is_some() { "change" } else { "create" };
                steps.push(format!("{verb} bridge {} of network {key}", segment.bridge));
                let is_new = |name: &String| old.is_none_or(|old| !old.ports.contains_key(name));
                for (name, port) in segment.ports.iter().filter(|(name, _)| is_new(name)) {
                    steps.push(format!("attach endpoint {} as port {name}", port.endpoint));
                }
            }
            steps.push(format!("set nftables table {TABLE} in {}", self.path(tenant).display()));
        }
        for tenant in self.spaces.keys().filter(|tenant| !wanted.spaces.contains_key(*tenant)) {
            steps.push(format!("remove network namespace {}", self.path(tenant).display()));
        }
        if !steps.is_empty() && !wanted.exits.is_empty() {
            steps.push(format!("set nftables table {TABLE} on the host"));
        }
        steps
    }

    /// What a tenant's namespace lacks as a whole.
    pub fn trouble_of(&self, tenant: &str) -> Option<&Condition> {
        self.trouble.get(tenant).map(|(_, reason)| reason)
    }

    /// What a network lacks.
    pub fn lacking_of_network(&self, key: &str) -> Vec<Condition> {
        let tenant = key.split_once('/').map_or(key, |(tenant, _)| tenant);
        let own = self.wanted.networks.get(key).cloned().unwrap_or_default();
        own.into_iter().chain(self.trouble_of(tenant).cloned()).collect()
    }

    /// What an endpoint lacks.
    pub fn lacking_of_endpoint(&self, key: &str) -> Vec<Condition> {
        let own = self.wanted.endpoints.get(key).cloned().unwrap_or_default();
        let built = self.spaces.values().filter_map(|standing| standing.lacking.get(key));
        own.into_iter().chain(built.flatten().cloned()).collect()
    }

    /// A network's place: its namespace, its bridge, the uplink in use.
    pub fn place_of(&self, key: &str) -> (String, String, Option<String>) {
        let tenant = key.split_once('/').map_or(key, |(tenant, _)| tenant);
        let path = self.path(tenant).display().to_string();
        let space = self.spaces.get(tenant).map(|standing| &standing.space);
        let segment = space.and_then(|space| space.segments.get(key));
        let bridge = segment.map(|segment| segment.bridge.clone()).unwrap_or_default();
        let index = segment.and_then(|segment| segment.exit).and_then(|exit| {
            space?.transit.iter().find(|(_, address)| **address == exit).map(|(index, _)| *index)
        });
        let exit = self.wanted.exits.iter().find(|(_, exit)| Some(exit.uplink.index) == index);
        (path, bridge, exit.map(|(name, _)| name.clone()))
    }

    /// When to look for what is missing.
    pub fn look_at(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    fn path(&self, tenant: &str) -> PathBuf {
        self.paths.namespace_of(tenant)
    }
}

/// Removes a tenant's namespace with the link to it.
fn remove(path: &Path, standing: Option<&Standing>) {
    if let Err(error) = space::remove(path) {
        tracing::warn!(path = %path.display(), %error, "a tenant's namespace stays");
    }
    if let Some(standing) = standing.filter(|standing| !standing.space.transit.is_empty()) {
        cut(&standing.space);
    }
}

/// Takes a link away, if it did not go with the namespace, and what connection tracking knows of it.
fn cut(space: &Space) {
    let removed = Socket::open(libc::NETLINK_ROUTE).map(|mut socket| {
        let link = Named::Name(links::device(space.slot));
        devices::carry_out(&mut socket, &[Build::DeleteLink(link)])
    });
    if let Err(error) = removed {
        tracing::warn!(%error, "a link stays");
    }
    let addresses = space.transit.values().map(|address| (*address).into()).collect();
    if let Err(error) = fief_host::conntrack::forget(&addresses) {
        tracing::warn!(%error, "connections of a tenant that is gone are tracked on");
    }
}

/// Closes sockets of nf_tables on a thread of its own. Each waits until the last packet has left what its transactions
/// took away (nft_rcv_nl_event in net/netfilter/nf_tables_api.c), which is milliseconds; together they wait once.
fn close(sockets: Vec<Socket>) {
    if sockets.is_empty() {
        return;
    }
    let thread = std::thread::Builder::new().name("closing".into());
    // Without a thread they have been closed here.
    let _ = thread.spawn(move || drop(sockets));
}

/// Did this device forward nothing before fief?
fn is_closed(device: &str, switched: &BTreeSet<String>) -> bool {
    let name = forwarding(device);
    switched.contains(&name) || sysctl::read(&name).is_ok_and(|value| value.trim() == "0")
}

/// The switch that lets a device forward IPv4.
pub fn forwarding(device: &str) -> String {
    crate::plan::Setting::name_on("net.ipv4.conf.DEVICE.forwarding", device)
}
