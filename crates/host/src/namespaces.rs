//! Network namespaces (network_namespaces(7)): which there are, looking from inside one, making and removing them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{HostError, sysctl};

mod bound;
mod owner;

pub use owner::Owner;

/// Where ip-netns(8) keeps names.
const NAMED: &str = "/run/netns";
/// The one that a thread is in; `self` would be the process, whose other threads may be elsewhere.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Its name; of one without, the process that is in it; of the current one, nothing.
    pub name: String,
    file: Option<File>,
}

impl Namespace {
    /// The one that the calling thread is in.
    pub fn current() -> Namespace {
        Namespace { name: String::new(), file: None }
    }

    /// One by its name for ip-netns(8), or by a path to it.
    pub fn named(name: &str) -> Result<Namespace, HostError> {
        let path = if name.contains('/') { PathBuf::from(name) } else { Path::new(NAMED).join(name) };
        let open = |path: &Path| {
            File::open(path).map_err(|e| HostError::io(format!("open network namespace {name}"), e))
        };
        Ok(Namespace { name: name.to_owned(), file: Some(open(&path)?) })
    }

    /// Every one that has a name or a process in it, as far as this process may see, without the current one.
    pub fn others() -> Vec<Namespace> {
        let own = inode(Path::new(OWN));
        let mut found: BTreeMap<u64, (String, PathBuf)> = BTreeMap::new();
        for entry in std::fs::read_dir(NAMED).into_iter().flatten().flatten() {
            if let Some(inode) = inode(&entry.path()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                found.entry(inode).or_insert((name, entry.path()));
            }
        }
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let path = entry.path().join("ns/net");
            if let Some(inode) = inode(&path) {
                found.entry(inode).or_insert_with(|| (format!("process {pid}"), path));
            }
        }
        found.retain(|inode, _| Some(*inode) != own);
        // One that went meanwhile is none.
        let open =
            |(name, path): (String, PathBuf)| Some(Namespace { name, file: Some(File::open(path).ok()?) });
        found.into_values().filter_map(open).collect()
    }

    /// The inode number, as in `readlink /proc/PID/ns/net`; `None` if it cannot be looked at.
    pub fn inode(&self) -> Option<u64> {
        self.identity().map(|(_, inode)| inode)
    }

    /// What tells namespaces apart: the device and inode number of its file (ioctl_ns(2)).
    pub fn identity(&self) -> Option<(u64, u64)> {
        let stat = match &self.file {
            Some(file) => rustix::fs::fstat(file),
            None => rustix::fs::stat(OWN),
        };
        stat.ok().map(|stat| (stat.st_dev, stat.st_ino))
    }

    /// A descriptor of it, for requests that name a namespace by one (IFLA_NET_NS_FD).
    pub fn descriptor(&self) -> Result<OwnedFd, HostError> {
        let opened = match &self.file {
            Some(file) => file.try_clone(),
            None => File::open(OWN),
        };
        opened
            .map(OwnedFd::from)
            .map_err(|e| HostError::io(format!("open network namespace {}", self.name), e))
    }

    /// Sets these switches inside, in order; each a name with dots, as `net.ipv4.ip_forward` (see [`sysctl`]), and a
    /// value.
    ///
    /// Errors: the first that is refused, which ends it; a name outside of `net.`, which would be the whole machine's.
    pub fn set_sysctls(&self, switches: &[(&str, &str)]) -> Result<(), HostError> {
        if let Some((name, _)) = switches.iter().find(|(name, _)| !name.starts_with("net.")) {
            return Err(HostError::Missing(format!("sysctl {name} belongs to no network namespace")));
        }
        self.visit(|| sysctl::write_all(switches))?
    }

    /// Moves the calling thread inside, for good.
    pub fn enter(&self) -> Result<(), HostError> {
        let Some(file) = &self.file else { return Ok(()) };
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| HostError::io(format!("enter network namespace {}", self.name), e))
    }

    /// Runs this inside, on the calling thread, which is elsewhere again afterwards: for what is too short for a thread of
    /// its own. Must not be called inside another one's work.
    ///
    /// # Panics
    /// When the way back is closed: the thread must not go on in the wrong place.
    pub fn visit<T>(&self, work: impl FnOnce() -> T) -> Result<T, HostError> {
        let Some(file) = &self.file else { return Ok(work()) };
        let failed = |e| HostError::io(format!("enter network namespace {}", self.name), e);
        let home = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(file.as_fd(), network).map_err(|e| failed(e.into()))?;
        let done = work();
        move_into_link_name_space(home.as_fd(), network).expect("a thread may go back to where it was");
        Ok(done)
    }

    /// Runs this in a thread of its own, inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, HostError> {
        let Some(file) = &self.file else { return Ok(work()) };
        let enter = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| HostError::io(format!("enter network namespace {}", self.name), e))?;
            Ok(work())
        };
        let ended = std::thread::scope(|scope| scope.spawn(enter).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn inode(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|stat| stat.st_ino)
}
