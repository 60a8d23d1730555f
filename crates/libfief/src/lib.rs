//! The tenant of a socket, of a thread, of a process: setsockopt(2) and getsockopt(2) on a level of fief's own.
//!
//! No privilege is needed and no daemon is asked, but by [`socket`] for tenants with a network namespace: the kernel
//! decides from the tenant's members. The calling process must
//! be in the network namespace and below the control group that a fiefd serves; elsewhere every call
//! fails with ENOPROTOOPT or EOPNOTSUPP, as the kernel answers a level that it does not know.
//! `include/fief.h` has the same numbers for C.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! // Every socket that this thread makes from here on is blue's, whatever library makes it.
//! libfief::set(&libfief::any_socket()?, libfief::Whose::Thread, "blue")?;
//! # Ok(())
//! # }
//! ```

mod handover;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;

pub use handover::{SOCKETS, Segment, network_by, segment, segment_by, socket, socket_by};

/// The level (`SOL_FIEF`).
pub const LEVEL: libc::c_int = 0x6669;
/// Added to an option's number: the value is a name and not a number.
pub const BY_NAME: libc::c_int = 0x100;
/// Bytes of a name, with the zero behind it.
pub const NAME_SIZE: usize = 64;

/// Whose tenant: the option's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The socket's. Before bind and connect; later EISCONN, unless it is the same.
    Socket = 1,
    /// The calling thread's, for the sockets it makes from now on. None: back to the process's.
    Thread = 2,
    /// The calling process's: of all its threads that have not chosen, and of what it starts.
    Process = 3,
}

/// A socket to ask with, where the tenant is not a socket's.
pub fn any_socket() -> io::Result<UnixDatagram> {
    UnixDatagram::unbound()
}

/// Sets a tenant by name; the empty name is none.
///
/// # Errors
/// EPERM: the caller is not a member. ENOENT: there is no such tenant. EISCONN: too late for this socket.
pub fn set(socket: &impl AsFd, whose: Whose, tenant: &str) -> io::Result<()> {
    set_bytes(socket, whose as libc::c_int | BY_NAME, tenant.as_bytes())
}

/// Sets a tenant by its number on this host; 0 is none.
///
/// # Errors
/// As [`set`].
pub fn set_number(socket: &impl AsFd, whose: Whose, slot: u32) -> io::Result<()> {
    set_bytes(socket, whose as libc::c_int, &slot.to_ne_bytes())
}

/// The tenant's name; empty if there is none.
pub fn tenant(socket: &impl AsFd, whose: Whose) -> io::Result<String> {
    let mut name = [0; NAME_SIZE];
    get_bytes(socket, whose as libc::c_int | BY_NAME, &mut name)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_SIZE);
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// The tenant's number on this host; 0 if there is none.
pub fn number(socket: &impl AsFd, whose: Whose) -> io::Result<u32> {
    let mut slot = [0; 4];
    get_bytes(socket, whose as libc::c_int, &mut slot)?;
    Ok(u32::from_ne_bytes(slot))
}

/// Limits a socket that is nobody's to some tenants, before bind: each call adds one by its name, the empty name the host.
/// TCP connections of others are refused, datagrams of others dropped.
///
/// # Errors
/// ENOENT: there is no such tenant. EISCONN: too late for this socket. EINVAL: it is a tenant's own. E2BIG: more than 64.
pub fn listen_for(socket: &impl AsFd, tenant: &str) -> io::Result<()> {
    const LISTEN: libc::c_int = 4;
    set_bytes(socket, LISTEN | BY_NAME, tenant.as_bytes())
}

fn set_bytes(socket: &impl AsFd, option: libc::c_int, value: &[u8]) -> io::Result<()> {
    // The kernel takes no value of no length.
    let value = if value.is_empty() { &[0] } else { value };
    let length = value.len() as libc::socklen_t;
    // SAFETY: the pointer is to a live value of the length that goes with it.
    let done =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), LEVEL, option, value.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get_bytes(socket: &impl AsFd, option: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: both pointers are to live values, and `length` is that of the first.
    let done = unsafe {
        let to = value.as_mut_ptr().cast();
        libc::getsockopt(socket.as_fd().as_raw_fd(), LEVEL, option, to, &raw mut length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
