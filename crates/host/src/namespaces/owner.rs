//! Whose a network namespace is: every one belongs to a user namespace, and that to who made it (user_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::Namespace;
use crate::HostError;

/// ioctl_ns(2).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
/// ioctl_ns(2).
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
/// linux/pidfd.h, Linux 6.11.
const PIDFD_GET_NET_NAMESPACE: libc::Ioctl = 0xff04;

/// Who may do as he likes in a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It belongs to our own user namespace: who has its capabilities, root.
    Root,
    /// Who made the user namespace that it belongs to, by his number in ours.
    User(u32),
}

impl Namespace {
    /// The one that a process is in, by a descriptor of the process (pidfd_open(2)): no other process can be meant.
    ///
    /// Errors: the process is gone.
    pub fn of_process(pidfd: impl AsFd) -> Result<Namespace, HostError> {
        let what = "open the network namespace of a process";
        // SAFETY: PIDFD_GET_NET_NAMESPACE takes no argument.
        let number = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_NET_NAMESPACE, 0) };
        if number < 0 {
            return Err(HostError::io(what, io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
        Ok(Namespace { name: "of a process".into(), file: Some(file) })
    }

    /// Whose it is.
    ///
    /// Errors: it belongs to a user namespace that is not below ours.
    pub fn owner(&self) -> Result<Owner, HostError> {
        let what = |error| HostError::io(format!("find the owner of network namespace {}", self.name), error);
        let network = self.descriptor()?;
        // SAFETY: NS_GET_USERNS takes no argument.
        let number = unsafe { libc::ioctl(network.as_raw_fd(), NS_GET_USERNS) };
        if number < 0 {
            return Err(what(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
        let users = unsafe { OwnedFd::from_raw_fd(number) };
        let stat = rustix::fs::fstat(&users).map_err(|e| what(e.into()))?;
        let own = rustix::fs::stat("/proc/thread-self/ns/user").map_err(|e| what(e.into()))?;
        if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) {
            return Ok(Owner::Root);
        }
        let mut user: libc::uid_t = libc::uid_t::MAX;
        // SAFETY: the pointer is to a local of the type that NS_GET_OWNER_UID writes.
        let done = unsafe { libc::ioctl(users.as_raw_fd(), NS_GET_OWNER_UID, std::ptr::from_mut(&mut user)) };
        if done < 0 { Err(what(io::Error::last_os_error())) } else { Ok(Owner::User(user)) }
    }
}
