//! Network namespaces (network_namespaces(7)): which there are, and looking from inside one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::HostError;

/// Where ip-netns(8) keeps names.
const NAMED: &str = "/run/netns";

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
        let own = inode(Path::new("/proc/thread-self/ns/net"));
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
