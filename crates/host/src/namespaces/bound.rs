//! Namespaces that live by a file which stands for them, as those of ip-netns(8) do: a bind mount of an nsfs file.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};

use super::{Namespace, OWN};
use crate::HostError;
use crate::devices::{self, Build, Named, Settings};
use crate::netlink::Socket;

/// NSFS_MAGIC (linux/magic.h).
const NSFS: u64 = 0x6e73_6673;
/// NS_GET_NSTYPE (ioctl_ns(2)).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

impl Namespace {
    /// Opens the one that is at `path`, or makes a new one there with `lo` up. The file and the directories above it
    /// are made if missing. The directory becomes a mount point of its own with shared propagation, so that other
    /// mount namespaces see what comes and goes (ip-netns(8)). A plain file that is left over is mounted over.
    ///
    /// Errors: what is there is something else, or the kernel refuses (unshare(2), mount(2)).
    pub fn create(path: &Path) -> Result<Namespace, HostError> {
        let what = |e: io::Error| HostError::io(format!("create network namespace {}", path.display()), e);
        let directory = path.parent().ok_or_else(|| what(io::ErrorKind::InvalidInput.into()))?;
        let _alone = share(directory).map_err(what)?;
        if is_nsfs(path) {
            return Namespace::at(path);
        }
        let is_new = match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => false,
            Ok(_) => return Err(what(io::Error::other("something else is there"))),
            Err(_) => true,
        };
        let made = std::thread::scope(|scope| scope.spawn(|| unshared(path)).join());
        let made = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if made.is_err() && is_new {
            let _ = fs::remove_file(path);
        }
        made?;
        Namespace::at(path)
    }

    /// Opens the one whose file is `path`.
    ///
    /// Errors: there is nothing, or something that is no network namespace.
    pub fn at(path: &Path) -> Result<Namespace, HostError> {
        let name = path.display().to_string();
        let what = |e: io::Error| HostError::io(format!("open network namespace {name}"), e);
        fs::symlink_metadata(path).map_err(what)?;
        // Before it is opened: to open a pipe or a device does more than to look.
        let is_network = |file: &File| kind_of(file).is_ok_and(|kind| kind == libc::CLONE_NEWNET);
        let file = if is_nsfs(path) { Some(File::open(path).map_err(what)?) } else { None };
        match file.filter(is_network) {
            Some(file) => Ok(Namespace { name, file: Some(file) }),
            None => Err(HostError::Missing(format!("{name} is not a network namespace"))),
        }
    }

    /// The one that a process is in.
    pub fn of_pid(pid: u32) -> Result<Namespace, HostError> {
        let name = format!("process {pid}");
        let file = File::open(format!("/proc/{pid}/ns/net"))
            .map_err(|e| HostError::io(format!("open network namespace of {name}"), e))?;
        Ok(Namespace { name, file: Some(file) })
    }

    /// Takes the file away that stands for one. The namespace ends with its last process, socket and descriptor. It is no
    /// error that nothing is there.
    ///
    /// Errors: something else is there, or the kernel refuses (umount(2), unlink(2)).
    pub fn remove(path: &Path) -> Result<(), HostError> {
        let what = |e: io::Error| HostError::io(format!("remove network namespace {}", path.display()), e);
        // Mounted over one another, where that was done.
        while is_nsfs(path) {
            match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(error) => return Err(what(error.into())),
            }
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => Err(what(io::Error::other("something else is there"))),
            _ => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(what(error)),
                _ => Ok(()),
            },
        }
    }

    /// The names of the network namespaces that have a file in this directory, sorted; none if it is missing.
    pub fn list(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| Namespace::at(&entry.path()).is_ok());
        let mut names: Vec<String> = ours.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// Moves the calling thread into a new namespace, makes that ready and binds it to `path`.
fn unshared(path: &Path) -> Result<(), HostError> {
    let what = |e: io::Error| HostError::io(format!("create network namespace {}", path.display()), e);
    // SAFETY: unshare(2) takes no pointers, and a thread's network namespace is no part of what Rust relies on.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(what(io::Error::last_os_error()));
    }
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    let up = Settings { up: Some(true), ..Settings::default() };
    let loopback_up = Build::Set { device: Named::Name("lo".into()), settings: up };
    devices::carry_out(&mut socket, &[loopback_up]).into_iter().collect::<Result<(), _>>()?;
    fs::OpenOptions::new().create(true).append(true).open(path).map_err(what)?;
    mount_bind(OWN, path).map_err(|e| what(e.into()))
}

/// Makes the directory, and a mount point of it whose mounts other mount namespaces share. Returns a lock against others
/// who make namespaces there.
fn share(directory: &Path) -> io::Result<File> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(directory)?;
    let lock = File::open(directory)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    match mount_change(directory, MountPropagationFlags::SHARED) {
        // Not a mount point yet.
        Err(Errno::INVAL) => {
            mount_bind_recursive(directory, directory)?;
            mount_change(directory, MountPropagationFlags::SHARED)?;
        }
        other => other?,
    }
    Ok(lock)
}

fn is_nsfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == NSFS)
}

fn kind_of(file: &File) -> io::Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}
