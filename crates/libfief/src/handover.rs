//! Sockets that the daemon makes inside a tenant's network namespace.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::{NAME_SIZE, Whose, set};

/// Where the daemon hands sockets over.
pub const SOCKETS: &str = "/run/fief/sockets.sock";

/// A new socket of a tenant's, whatever its isolation: one of the host's own stack with the option set, or one of the
/// tenant's namespace, which the daemon hands over. `family`, `kind` and `protocol` are those of socket(2): TCP and UDP over
/// IPv4 and IPv6, with SOCK_NONBLOCK if wanted; SOCK_CLOEXEC is always set.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let socket = libfief::socket("blue", libc::AF_INET, libc::SOCK_STREAM, 0)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// EPERM: the caller is not a member. ENOENT: there is no such tenant. EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT:
/// another kind of socket. EAGAIN: the namespace is not there yet. EOPNOTSUPP: a tenant of the host's own stack, and no fief
/// serves this process. Those of connect(2), where no daemon runs.
pub fn socket(tenant: &str, family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    socket_by(Path::new(SOCKETS), tenant, family, kind, protocol)
}

/// As [`socket`], from a daemon that listens elsewhere (`--root DIR`: `DIR/run/fief/sockets.sock`).
///
/// # Errors
/// As [`socket`].
pub fn socket_by(at: &Path, tenant: &str, family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let own = plain(family, kind | libc::SOCK_CLOEXEC, protocol)?;
    match set(&own, Whose::Socket, tenant) {
        Ok(()) => Ok(own),
        Err(error) if is_elsewhere(&error) => handed_over(at, tenant, family, kind, protocol),
        Err(error) => Err(error),
    }
}

/// The kernel knows no such tenant, or no tenants at all.
fn is_elsewhere(error: &io::Error) -> bool {
    [libc::ENOENT, libc::ENOPROTOOPT, libc::EOPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno))
}

fn plain(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let asked = SocketFlags::from_bits_retain(kind.cast_unsigned());
    let family = AddressFamily::from_raw(family.try_into().map_err(|_| refused(libc::EAFNOSUPPORT))?);
    let kind = SocketType::from_raw((asked - flags).bits());
    let protocol = RawProtocol::new(protocol.cast_unsigned()).map(Protocol::from_raw);
    Ok(socket_with(family, kind, asked & flags, protocol)?)
}

/// The sockets of a segment of the overlay; what goes through them is guarded by the kernel.
#[derive(Debug)]
pub struct Segment {
    /// Sends, and hears what is for its own address. Others answer to it.
    pub unicast: OwnedFd,
    /// Hears what is for everybody, at its address; sends nothing.
    pub group: OwnedFd,
    /// What stands before each frame. Without a frame behind it, it is a goodbye.
    pub header: [u8; 8],
}

/// The segment of one of the caller's groups, by its number; without one, of the effective group. `family` is AF_INET or
/// AF_INET6.
///
/// # Errors
/// EOPNOTSUPP: this host has no overlay. EPERM: the group is not the caller's. EACCES: groups of this number have no segment.
/// ERANGE: its number is above 8388607 (0x7fffff), or 1048575 where groups have several networks. EMFILE: it has as many members on this host as it may. ENODEV: the network card is not there. EADDRNOTAVAIL: it has no address of this
/// family. Those of connect(2), where no daemon runs.
pub fn segment(family: i32, group: Option<u32>) -> io::Result<Segment> {
    segment_by(Path::new(SOCKETS), family, group)
}

/// As [`segment`], from a daemon that listens elsewhere.
///
/// # Errors
/// As [`segment`].
pub fn segment_by(at: &Path, family: i32, group: Option<u32>) -> io::Result<Segment> {
    network_by(at, family, group, 0)
}

/// As [`segment_by`], for one of the networks that a group has where `overlay.networksPerGroup` says so; the first is 0.
///
/// # Errors
/// As [`segment`]. ENXIO: there is no such network.
pub fn network_by(at: &Path, family: i32, group: Option<u32>, network: u8) -> io::Result<Segment> {
    let name = group.map(|group| group.to_string()).unwrap_or_default();
    let mut answer = [0; 12];
    let mut sockets = ask(at, [family, SEGMENT, network.into()], &name, &mut answer)?.into_iter();
    match (sockets.next(), sockets.next(), answer.last_chunk()) {
        (Some(unicast), Some(group), Some(header)) => Ok(Segment { unicast, group, header: *header }),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The type of a segment's sockets, which is none of socket(2).
const SEGMENT: i32 = 0x10000;
/// The most descriptors of one answer.
const MOST: usize = 2;

fn handed_over(at: &Path, tenant: &str, family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    if tenant.len() >= NAME_SIZE {
        return Err(refused(libc::ENOENT));
    }
    let mut sockets = ask(at, [family, kind, protocol], tenant, &mut [0; 4])?;
    sockets.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Asks, and gives the descriptors of an answer that fills `answer`.
fn ask(at: &Path, numbers: [i32; 3], name: &str, answer: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut question: Vec<u8> = numbers.into_iter().flat_map(i32::to_ne_bytes).collect();
    question.extend(name.as_bytes());
    question.resize(12 + NAME_SIZE, 0);
    let mut stream = UnixStream::connect(at)?;
    stream.write_all(&question)?;
    let whole = answer.len();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(answer)];
    let got = rustix::net::recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
    match answer.first_chunk().map(|errno| i32::from_ne_bytes(*errno)) {
        Some(0) if got.bytes == whole && !descriptors.is_empty() => Ok(descriptors),
        Some(errno) if got.bytes == 4 && errno != 0 => Err(refused(errno)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn refused(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
