//! The fast path: interfaces of users' namespaces on the segments of their groups, whose frames the kernel carries.
//!
//! ```text
//!   user's namespace      namespace of the overlay                    namespace of the underlay
//!   eth0 ──── veth ──── f1 ─┐
//!   eth0 ──── veth ──── f2 ─┼─ programs ── fief4, fief6 (vxlan) ── sockets ── programs at `overlay.device`
//! ```
//!
//! The vxlan devices are in a namespace that nobody enters, and so are the near ends of users' interfaces: what a user
//! sends meets the programs and nothing else. What is to be known of an interface stands in its near end's alias, so the
//! kernel's state is the record: it lasts as long as the interfaces do, whatever becomes of the daemon. With the last
//! interface everything goes.

mod counted;
mod gate;
mod goodbye;
mod port;
mod programs;
mod underlay;
mod watch;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use fief_api::{OverlayCounters, OverlayView, Paths};
use fief_datapath::overlay::maps::{GROUP4, GROUP6, MEMBERS, Port, Segment as Entry};
use fief_host::devices::{self, Build, Vni};
use fief_host::namespaces::Namespace;
use fief_host::netlink::Socket;
use fief_overlay::Segment;

use crate::config::overlay::{Overlay as Config, PER_USER};
use crate::networks::carry_out;
use counted::Counted;
use port::{Origin, Standing};
use programs::Programs;
use underlay::Underlay;
pub use underlay::is_overlays;
pub use watch::watch;
pub use wish::Wish;

/// Ethernet addresses of other hosts that a segment remembers: so many ports' worth.
const REMOTE_PORTS: u32 = 4;
/// How many Ethernet addresses of other hosts that is at most: the table has room for dozens of such segments.
const MOST_REMOTE: u32 = 8192;
const SECOND: u64 = 1_000_000_000;
/// The largest frame that vxvde takes carries so much.
const LARGEST_MTU: u32 = 9216;
/// The least that IPv6 works with (RFC 8200, 5).
const SMALLEST_MTU: u32 = 1280;

/// Why somebody gets no interface.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// He may not.
    #[error("{0}")]
    Forbidden(String),
    /// What he asks for makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// The host is not so that it could be had just now.
    #[error("{0}")]
    Unavailable(String),
    /// There is nothing of that kind.
    #[error("{0}")]
    Missing(String),
}

/// The fast path of this host.
pub struct Fast {
    config: Config,
    namespace: PathBuf,
    pins: PathBuf,
    bpffs: PathBuf,
    programs: Option<Programs>,
    counted: Counted,
}

impl Fast {
    /// Nothing is made or looked at yet.
    pub fn new(config: &Config, paths: &Paths) -> Fast {
        let bpffs = paths.bpffs();
        Fast {
            config: config.clone(),
            namespace: paths.overlay(),
            pins: bpffs.join("fief-overlay"),
            bpffs,
            programs: None,
            counted: Counted::default(),
        }
    }

    /// Takes over what an earlier daemon left, and clears away what nobody has any more.
    pub fn adopt(&mut self) -> Result<(), Refusal> {
        if !self.namespace.exists() {
            return Ok(());
        }
        self.refresh()
    }

    /// Gives a namespace that the caller is in an interface on a segment.
    pub fn join(&mut self, wish: &Wish, namespace: Namespace) -> Result<OverlayView, Refusal> {
        wish.check(&namespace)?;
        let Some(identity) = namespace.inode() else {
            return Err(Refusal::Unavailable("the caller's network namespace cannot be looked at".into()));
        };
        let underlay = self.underlay()?;
        let there = self.standing()?;
        let own = there.iter().filter(|standing| standing.origin.user == wish.user).count();
        if wish.user != 0 && own >= PER_USER as usize {
            let text = format!(
                "user {} has {own} interfaces on segments, {PER_USER} at most; `fief leave` one",
                wish.user
            );
            return Err(Refusal::Forbidden(text));
        }
        let Wish { segment, .. } = wish;
        let (group, network) = (segment.group(), segment.network());
        let members = there.iter().filter(|standing| standing.is_on(segment));
        if members.clone().any(|standing| standing.origin.group != group) {
            let text = format!(
                "number {} is another segment's as long as somebody is on it (overlay.networksPerGroup)",
                segment.vni()
            );
            return Err(Refusal::Unavailable(text));
        }
        if members.count() >= MEMBERS {
            let text =
                format!("network {network} of group {group} has {MEMBERS} interfaces on this host already");
            return Err(Refusal::Unavailable(text));
        }
        let origin =
            Origin { group, network, user: wish.user, namespace: identity, device: wish.device.clone() };
        let home = self.home()?;
        self.programs(&underlay)?;
        let inside = self.programs.as_ref().ok_or_else(gone)?.inside();
        let mtu = wish.mtu.unwrap_or_else(|| underlay.largest_frame());
        let number = (1..).find(|n| there.iter().all(|s| s.number != *n)).unwrap_or(1);
        let near = port::make(&home, number, mtu, inside, &Arc::new(namespace), &wish.device)?;
        let done = self.enter(near, &wish.segment, &there).and_then(|()| port::open(&home, near, &origin));
        let done = done.and_then(|()| self.refresh());
        if let Err(refusal) = done {
            let _ = port::remove(&home, near);
            let _ = self.refresh();
            return Err(refusal);
        }
        tracing::info!(group = origin.group, user = origin.user, device = origin.device, "joined");
        let standing = Standing { number, index: near, mtu, peer: None, origin };
        Ok(self.view(&standing, 0))
    }

    /// Takes an interface of the caller's away: the one that has this name in his namespace.
    pub fn leave(&mut self, user: u32, device: &str, namespace: &Namespace) -> Result<OverlayView, Refusal> {
        let missing = || {
            Refusal::Missing(format!(
                "this namespace has no interface {device} on a segment; see `fief get overlays`"
            ))
        };
        let mut socket = Socket::open_in(namespace, libc::NETLINK_ROUTE).map_err(unavailable)?;
        let far = devices::find_named(&mut socket, device).map_err(unavailable)?.ok_or_else(missing)?;
        let inode = namespace.inode();
        // Numbers alone could be those of a pair that somebody made himself.
        let is_it = |standing: &&Standing| {
            (user == 0 || standing.origin.user == user)
                && Some(standing.origin.namespace) == inode
                && standing.peer == Some(far.index)
                && far.peer == Some(standing.index)
        };
        let there = self.standing()?;
        let standing = there.iter().find(is_it).ok_or_else(missing)?;
        let view = self.view(standing, 0);
        let home = self.home()?;
        port::remove(&home, standing.index)?;
        tracing::info!(group = view.group, user, device, "left");
        self.refresh()?;
        Ok(view)
    }

    /// Every interface.
    pub fn list(&mut self) -> Result<Vec<OverlayView>, Refusal> {
        let programs = self.programs.as_ref();
        let known = programs.map(|programs| self.counted.of(programs.tables()).clone()).unwrap_or_default();
        let addresses = |standing: &Standing| known.get(&standing.index).copied().unwrap_or(0);
        Ok(self.standing()?.iter().map(|standing| self.view(standing, addresses(standing))).collect())
    }

    /// What was counted for all of them.
    pub fn counters(&mut self) -> OverlayCounters {
        let Some(tables) = self.programs.as_ref().map(Programs::tables) else {
            return OverlayCounters::default();
        };
        let counts = tables.counts();
        let remote_addresses = self.counted.of(tables).get(&0).copied().unwrap_or(0);
        let standing = self.standing().unwrap_or_default();
        let ports = || standing.iter().filter_map(|standing| tables.port(standing.index));
        OverlayCounters {
            flooded: ports().map(|port| port.flooded).sum(),
            limited: ports().map(|port| port.limited).sum(),
            malformed: counts.malformed,
            evicted: counts.evicted,
            goodbyes: counts.goodbyes,
            goodbyes_ignored: counts.ignored,
            remote_addresses,
            ..OverlayCounters::default()
        }
    }

    /// Makes everything as the interfaces that there are want it.
    pub fn refresh(&mut self) -> Result<(), Refusal> {
        let there = self.standing()?;
        if there.is_empty() {
            return self.withdraw();
        }
        let underlay = self.underlay()?;
        self.programs(&underlay)?;
        let home = self.home()?;
        port::remove_halves(&home)?;
        self.enter_all(&there)
    }

    fn enter(&mut self, near: u32, segment: &Segment, there: &[Standing]) -> Result<(), Refusal> {
        let mut members: Vec<u32> =
            there.iter().filter(|standing| standing.is_on(segment)).map(|s| s.index).collect();
        members.push(near);
        self.set_segment(segment, &members)
    }

    fn enter_all(&mut self, there: &[Standing]) -> Result<(), Refusal> {
        let mut segments: BTreeMap<u32, (Segment, Vec<u32>)> = BTreeMap::new();
        for standing in there {
            let Some(segment) = standing.origin.segment() else { continue };
            let (_, members) = segments.entry(segment.vni()).or_insert_with(|| (segment, Vec::new()));
            members.push(standing.index);
        }
        for (segment, members) in segments.values() {
            self.set_segment(segment, members)?;
        }
        let ports: BTreeSet<u32> = there.iter().map(|standing| standing.index).collect();
        let programs = self.programs.as_mut().ok_or_else(gone)?;
        let surplus: Vec<u32> =
            programs.maps().vnis().into_iter().filter(|vni| !segments.contains_key(vni)).collect();
        let builds: Vec<Build> = surplus
            .iter()
            .flat_map(|vni| {
                programs.devices().map(|device| Build::DeleteVni(Vni { device, vni: *vni, group: None }))
            })
            .collect();
        let mut socket = Socket::open_in(programs.namespace(), libc::NETLINK_ROUTE).map_err(unavailable)?;
        // One that was not heard is none the less gone.
        let _ = devices::carry_out(&mut socket, &builds);
        let groups = segments.values().flat_map(|(segment, _)| {
            [IpAddr::V4(segment.group4(self.config.group4)), IpAddr::V6(segment.group6(self.config.group6))]
        });
        let groups: BTreeSet<IpAddr> = groups.collect();
        programs.say_goodbye(&self.config, &surplus);
        programs.lead_only(|address| groups.contains(&address))?;
        let keep = |vni: u32| segments.contains_key(&vni);
        programs.maps().retain(|port| ports.contains(&port), keep).map_err(unavailable)
    }

    /// Tells the programs who is on a segment, and has the vxlan devices hear it.
    fn set_segment(&mut self, segment: &Segment, members: &[u32]) -> Result<(), Refusal> {
        let (config, vni) = (&self.config, segment.vni());
        let groups = [IpAddr::V4(segment.group4(config.group4)), IpAddr::V6(segment.group6(config.group6))];
        let limits = Port {
            vni,
            macs: config.macs_per_port,
            interval: SECOND / u64::from(config.rate),
            // What a second allows may come at once.
            burst: SECOND,
            ..Port::default()
        };
        let programs = self.programs.as_mut().ok_or_else(gone)?;
        let mut flags = 0;
        let mut builds = Vec::new();
        for ((device, flag), group) in programs.families().zip([GROUP4, GROUP6]).zip(groups) {
            if let Some(device) = device {
                flags |= flag;
                programs.lead(group)?;
                builds.push(Build::AddVni(Vni { device, vni, group: Some(group) }));
            }
        }
        let mut entry = Entry {
            flags,
            macs: config.macs_per_port.saturating_mul(REMOTE_PORTS).min(MOST_REMOTE),
            group4: groups[0].into(),
            group6: groups[1].into(),
            count: members.len().min(MEMBERS) as u32,
            members: [0; MEMBERS],
            pad: 0,
            last: [0; 4],
        };
        entry.members.iter_mut().zip(members).for_each(|(place, member)| *place = *member);
        for member in members {
            programs.maps().set_port(*member, &limits).map_err(unavailable)?;
        }
        programs.maps().set_segment(vni, &entry).map_err(unavailable)?;
        programs.allow_memberships()?;
        let mut socket = Socket::open_in(programs.namespace(), libc::NETLINK_ROUTE).map_err(unavailable)?;
        carry_out(&mut socket, &builds).map_err(unavailable)
    }

    /// Nobody is on a segment: takes away all that is ours.
    fn withdraw(&mut self) -> Result<(), Refusal> {
        if let Some(programs) = &mut self.programs {
            let last = programs.maps().vnis();
            programs.say_goodbye(&self.config, &last);
        }
        let underlay = underlay::home(&self.config);
        programs::remove(self.programs.take(), &self.namespace, &self.pins, underlay)
    }

    fn underlay(&self) -> Result<Underlay, Refusal> {
        Underlay::look(&self.config)
    }

    fn home(&self) -> Result<Arc<Namespace>, Refusal> {
        Namespace::create(&self.namespace).map(Arc::new).map_err(unavailable)
    }

    /// Loads the programs and makes the devices, or sees that they are there and as the underlay is now.
    fn programs(&mut self, underlay: &Underlay) -> Result<(), Refusal> {
        if self.programs.is_none() {
            fief_host::kernel::mount_bpffs(&self.bpffs).map_err(unavailable)?;
            let programs = Programs::load(&self.namespace, &self.pins, self.config.expire_time())?;
            let home = self.home()?;
            for standing in self.standing()? {
                port::renew(&home, standing.index, programs.inside())?;
            }
            self.programs = Some(programs);
        }
        let peers = self.config.read_peers().map_err(|e| Refusal::Unavailable(format!("{e:#}")))?;
        self.programs.as_mut().ok_or_else(gone)?.set(&self.config, underlay, &peers)
    }

    /// The interfaces that there are.
    fn standing(&self) -> Result<Vec<Standing>, Refusal> {
        match Namespace::at(&self.namespace) {
            Ok(home) => port::list(&home),
            Err(_) => Ok(Vec::new()),
        }
    }

    fn view(&self, standing: &Standing, addresses: u32) -> OverlayView {
        let port = self.programs.as_ref().and_then(|programs| programs.tables().port(standing.index));
        let port = port.unwrap_or_default();
        OverlayView {
            group: standing.origin.group,
            network: standing.origin.network,
            vni: standing.origin.segment().map_or(0, Segment::vni),
            user: standing.origin.user,
            device: standing.origin.device.clone(),
            namespace: standing.origin.namespace,
            mtu: standing.mtu,
            addresses,
            flooded: port.flooded,
            limited: port.limited,
        }
    }
}

fn unavailable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unavailable(error.to_string())
}

fn gone() -> Refusal {
    Refusal::Unavailable("the programs of the overlay are not loaded".into())
}
