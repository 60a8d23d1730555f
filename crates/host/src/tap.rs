//! TAP devices (Documentation/networking/tuntap.rst), made by ioctls on /dev/net/tun in the calling thread's network
//! namespace: to make one inside another, call it through [`crate::namespaces::Namespace::inside`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::HostError;

/// `_IOW('T', 202, int)` and so on (linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
const TUNSETOWNER: libc::c_ulong = 0x4004_54cc;
const TUNSETGROUP: libc::c_ulong = 0x4004_54ce;
const TUNSETIFINDEX: libc::c_ulong = 0x4004_54da;

/// A TAP device to be made: Ethernet frames, without a header before them (IFF_TAP, IFF_NO_PI).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tap {
    /// Its name, of 1 to 15 bytes.
    pub name: String,
    /// Its number; the kernel's choice if left out. Refused with EBUSY if it is taken; without effect on a device that is
    /// there.
    pub index: Option<u32>,
    /// Can it be opened more than once, a queue each time (IFF_MULTI_QUEUE)?
    pub multi_queue: bool,
    /// The user who may open it without privilege.
    pub owner: Option<u32>,
    /// The group whose members may open it without privilege.
    pub group: Option<u32>,
    /// Does it stay when nobody has it open? Otherwise it goes with the descriptor that [`create`] returns.
    pub persistent: bool,
}

/// Makes it, or opens the one that is there with the same flags, and returns a descriptor of one queue.
///
/// Errors: EINVAL where a device of that name is no TAP device, or has other flags; EBUSY where somebody else has it
/// open; ENOENT where the kernel has no /dev/net/tun.
pub fn create(tap: &Tap) -> Result<OwnedFd, HostError> {
    try_to_create(tap).map(OwnedFd::from).map_err(|e| HostError::io(format!("create tap {}", tap.name), e))
}

fn try_to_create(tap: &Tap) -> io::Result<File> {
    // SAFETY: ifreq is plain C data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays the zero that ends it.
    if tap.name.is_empty() || tap.name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.ifr_name.iter_mut().zip(tap.name.bytes()).for_each(|(to, byte)| *to = byte as libc::c_char);
    let queues = if tap.multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | queues) as libc::c_short;

    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    if let Some(index) = tap.index {
        // SAFETY: TUNSETIFINDEX reads an unsigned int, and `index` is one that outlives the call.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFINDEX, &raw const index) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: TUNSETIFF reads and writes an ifreq, and `request` is one that outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let persistent = tap.persistent.then_some(1);
    for (name, value) in [(TUNSETOWNER, tap.owner), (TUNSETGROUP, tap.group), (TUNSETPERSIST, persistent)] {
        let Some(value) = value else { continue };
        // SAFETY: these three take their argument as a number, no pointer.
        if unsafe { libc::ioctl(file.as_raw_fd(), name, libc::c_ulong::from(value)) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(file)
}
