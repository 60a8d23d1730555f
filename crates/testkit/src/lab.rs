//! The world of one test.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::cgroup::Cgroup;
use crate::ns::{NAMES, Ns};
use crate::nursery::Nursery;
use crate::{privilege, reaper};

/// The mount point of every lab's directory; a tmpfs that only the lab sees lies over it.
const DIRECTORY: &str = "/run/fief-lab";

/// The world of one test: namespaces, links, programs, a directory, a cgroup.
///
/// The calling thread moves into a mount namespace of its own, and stays there. All mounts below are the lab's, so they
/// vanish with the process whatever ends it; children die by the parent-death signal. Only the two empty mount points
/// and, after a SIGKILL, an empty cgroup remain; the next lab removes the latter.
pub struct Lab {
    name: String,
    dir: PathBuf,
    nursery: Nursery,
    namespaces: Mutex<HashMap<String, Ns>>,
    cgroup: OnceLock<Cgroup>,
    closed: bool,
}

impl Lab {
    /// Opens a lab; `None`, with a printed reason, where we are not root (see [`crate::missing`]).
    ///
    /// `name` is short, `a-z0-9-`; it shows in paths and names together with the pid.
    #[track_caller]
    pub fn new(name: &str) -> Option<Lab> {
        if !privilege::root() {
            return None;
        }
        let fits = !name.is_empty() && name.len() <= 40;
        let plain =
            name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        assert!(fits && plain, "{name:?} is no name for a lab");

        private_mounts().expect("root may mount");
        let dir = Path::new(DIRECTORY).join(format!("{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("our own tmpfs is writable");
        let (namespaces, cgroup) = (Mutex::default(), OnceLock::new());
        Some(Lab { name: name.to_owned(), dir, nursery: Nursery::start(), namespaces, cgroup, closed: false })
    }

    /// A new namespace, or the one that already has this name.
    #[track_caller]
    pub fn ns(&self, short: &str) -> Ns {
        let known = self.known().get(short).cloned();
        known.unwrap_or_else(|| {
            let (name, dir) = (format!("fief-{}-{short}", std::process::id()), self.dir.clone());
            let (owned, nursery) = (short.to_owned(), self.nursery.clone());
            let made = self.nursery.call(move || Ns::create(&owned, name, dir, nursery));
            let ns = made.unwrap_or_else(|error| panic!("cannot make the namespace {short}: {error}"));
            self.known().insert(short.to_owned(), ns.clone());
            ns
        })
    }

    /// The name it was opened with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for files, in memory, visible only in the lab and removed with it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lab's directory in the cgroup v2 tree, made when first asked for.
    #[track_caller]
    pub fn cgroup(&self) -> &Path {
        let make =
            || Cgroup::create(&self.name).unwrap_or_else(|error| panic!("cannot make a cgroup: {error}"));
        self.cgroup.get_or_init(make).path()
    }

    /// A path in the lab's directory for a file elsewhere, which every user can reach: a home directory is closed to
    /// them, and with it the programs built there.
    #[track_caller]
    pub fn expose(&self, file: &Path) -> PathBuf {
        let there = self.dir.join(file.file_name().expect("a file has a name"));
        let (source, target) = (file.to_path_buf(), there.clone());
        let bind = move || {
            if target.exists() {
                return Ok(());
            }
            fs::File::create(&target)?;
            let nothing = None::<&str>;
            Ok::<(), std::io::Error>(mount(Some(&source), &target, nothing, MsFlags::MS_BIND, nothing)?)
        };
        let bound = self.nursery.call(bind);
        bound.unwrap_or_else(|error| panic!("cannot expose {}: {error}", file.display()));
        there
    }

    /// Ends everything now and says what was still there: programs that nobody held a [`crate::Child`] of.
    pub fn close(mut self) -> Vec<String> {
        self.end()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Ns>> {
        self.namespaces.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn end(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.closed, true) {
            return Vec::new();
        }
        let namespaces = std::mem::take(&mut *self.known());
        let leftovers = reaper::reap(&namespaces.values().map(Ns::inode).collect::<HashSet<u64>>());
        drop(self.cgroup.take());
        let paths: Vec<PathBuf> = namespaces.values().map(Ns::path).collect();
        // On the nursery's thread: the lab may have been moved out of its mount namespace.
        self.nursery.call(move || {
            let below = paths.iter().map(PathBuf::as_path);
            for mounted in below.chain([Path::new(NAMES), Path::new(DIRECTORY)]) {
                if let Err(error) = umount2(mounted, MntFlags::MNT_DETACH) {
                    eprintln!("LEFTOVER mount {}: {error}", mounted.display());
                }
            }
        });
        leftovers
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for leftover in self.end() {
            eprintln!("LEFTOVER {leftover} (killed)");
        }
    }
}

/// Moves the thread into a mount namespace of its own and lays a tmpfs over both directories (mount_namespaces(7)).
fn private_mounts() -> std::io::Result<()> {
    fs::create_dir_all(NAMES)?;
    fs::create_dir_all(DIRECTORY)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    for target in [NAMES, DIRECTORY] {
        mount(
            Some("tmpfs"),
            target,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=755"),
        )?;
    }
    Ok(())
}
