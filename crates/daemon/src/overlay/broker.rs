//! The broker of segments' sockets: keeps the control group in which they are made.
//!
//! Programs, maps and the control group come with the first question and are made anew by each daemon. Of one that is gone the
//! directory is removed: its sockets keep the group, and with it the programs, until the last of them is closed, and no new one
//! can be made in it. So there is nothing to adopt, and what is left over is the kernel's to clear away.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fief_datapath::segment::{Guard, News, REASONS};
use fief_host::cgroup;
use fief_host::namespaces::Namespace;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::AddressFamily;

use super::sockets::{self, Pair};
use super::who;
use crate::config::overlay::Overlay;
use crate::members::Caller;

/// Control groups of guarded sockets begin so.
const NAME: &str = "fief-segments-";

/// Makes guarded sockets.
pub struct Broker {
    overlay: Overlay,
    place: PathBuf,
    house: Mutex<Option<House>>,
}

/// Where guarded sockets are made.
struct House {
    guard: Guard,
    procs: File,
    /// The cookies of the sockets that were handed over, by group. A group and not a user: users have many numbers, those
    /// from /etc/subuid, and the room is everybody's.
    members: HashMap<u32, Vec<u64>>,
}

impl Broker {
    /// A broker whose control group is to lie in this one. What an earlier daemon with this root left there is removed.
    pub fn new(overlay: Overlay, below: &Path, root: &Path) -> Broker {
        let mut hasher = DefaultHasher::new();
        root.hash(&mut hasher);
        let ours = format!("{NAME}{:08x}-", hasher.finish() as u32);
        for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&ours) {
                remove(&entry.path());
            }
        }
        let place = below.join(format!("{ours}{}", std::process::id()));
        Broker { overlay, place, house: Mutex::new(None) }
    }

    /// The two sockets of a segment, for a caller: of his own group's, or of one that he names.
    ///
    /// Errors: EOPNOTSUPP, this host has no overlay. EACCES, the group has no segment. ERANGE, its number has more than 24
    /// bits. ENXIO, it has no such network. EPERM, it is not his. EMFILE, it has as many members here as it may. ENODEV, the network card is not there. EADDRNOTAVAIL, it has no address of this family.
    pub fn open(
        &self,
        caller: &Caller,
        asked: Option<u32>,
        network: u8,
        family: AddressFamily,
    ) -> Result<Pair, Errno> {
        let Some(device) = &self.overlay.device else { return Err(Errno::OPNOTSUPP) };
        let segment = who::segment(caller, asked, network, &self.overlay.rules()).map_err(|refused| {
            tracing::debug!(user = caller.user, %refused, "no socket of a segment");
            errno(refused)
        })?;
        let mut house = self.house.lock().unwrap_or_else(PoisonError::into_inner);
        let House { guard, procs, members } = match &mut *house {
            Some(house) => house,
            empty => empty.insert(House::build(&self.place)?),
        };
        let members = members.entry(segment.group()).or_default();
        members.retain(|cookie| guard.has(*cookie));
        if members.len() >= self.overlay.members_per_group as usize {
            return Err(Errno::MFILE);
        }
        let ask = sockets::Ask { overlay: &self.overlay, device, segment, family };
        let mut make = || ask.pair(guard, procs.as_fd());
        let made = match &self.overlay.namespace {
            None => make(),
            Some(name) => {
                Namespace::named(name).and_then(|namespace| namespace.visit(make)).unwrap_or_else(|error| {
                    tracing::warn!(%error, "overlay.namespace cannot be entered");
                    Err(Errno::NODEV)
                })
            }
        };
        let pair = made?;
        members.push(pair.cookie);
        tracing::debug!(user = caller.user, group = segment.group(), "sockets of a segment");
        Ok(pair)
    }

    /// How often each kind of refusal was one, of the sockets that this daemon has made.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        let house = self.house.lock().unwrap_or_else(PoisonError::into_inner);
        house.as_ref().map(House::refused).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let house = self.house.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut house) = house.take() {
            let counts = house.refused().into_iter().filter(|(_, count)| *count > 0);
            let counts: Vec<String> = counts.map(|(reason, count)| format!("{reason} {count}")).collect();
            if !counts.is_empty() {
                tracing::info!("guarded sockets were refused: {}", counts.join(", "));
            }
            house.leave(&self.overlay);
            remove(&self.place);
        }
    }
}

impl House {
    /// Takes the gate away, if nobody needs it.
    fn leave(&mut self, overlay: &Overlay) {
        if self.members.values().flatten().any(|cookie| self.guard.has(*cookie)) {
            return;
        }
        let home = match &overlay.namespace {
            None => Ok(Namespace::current()),
            Some(name) => Namespace::named(name),
        };
        if let Err(error) = home.and_then(|home| home.visit(|| self.guard.ungate())) {
            tracing::debug!(%error, "the gate of guarded sockets stays");
        }
    }

    fn refused(&self) -> BTreeMap<String, u64> {
        REASONS.into_iter().map(str::to_owned).zip(self.guard.refused()).collect()
    }

    fn build(place: &Path) -> Result<House, Errno> {
        let build = || -> anyhow::Result<House> {
            cgroup::create(place)?;
            let directory = File::open(place)?;
            let (guard, news) = Guard::attach(directory.as_fd(), &place.display().to_string())?;
            // Ends with the process.
            std::thread::Builder::new().name("guard".into()).spawn(move || tell(news))?;
            let procs = File::options().write(true).open(place.join("cgroup.procs"))?;
            Ok(House { guard, procs, members: HashMap::new() })
        };
        build().map_err(|error| {
            tracing::error!("the guard of segments' sockets cannot be put up: {error:#}");
            remove(place);
            Errno::AGAIN
        })
    }
}

/// Tells of the first refusal of each kind, as they come.
fn tell(mut news: News) {
    loop {
        match poll(&mut [PollFd::new(&news, PollFlags::IN)], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "refusals of guarded sockets are counted and not told");
                return;
            }
        }
        for (reason, vni) in &mut news {
            tracing::warn!(reason, vni, "a guarded socket was refused; this kind is counted from now on");
        }
    }
}

fn errno(refused: fief_overlay::Refused) -> Errno {
    use fief_overlay::Refused::{
        NoSuchNetwork, NotYours, OnlySupplementary, Subordinate, TooLarge, TooSmall,
    };
    match refused {
        TooSmall { .. } | Subordinate { .. } => Errno::ACCESS,
        TooLarge { .. } => Errno::RANGE,
        NoSuchNetwork { .. } => Errno::NXIO,
        NotYours { .. } | OnlySupplementary { .. } => Errno::PERM,
    }
}

fn remove(place: &Path) {
    if let Err(error) = cgroup::remove(place) {
        tracing::warn!(%error, "a control group of guarded sockets stays");
    }
}
