//! Options of a socket that std does not have (socket(7)).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, getsockopt, setsockopt, socket, sockopt,
};

/// The socket's mark, `SO_MARK`.
pub fn mark(socket: &impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(socket, sockopt::Mark)?)
}

/// Sets the socket's mark, `SO_MARK`. Needs CAP_NET_RAW or CAP_NET_ADMIN.
pub fn set_mark(socket: &impl AsFd, value: u32) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Mark, &value)?)
}

/// Ties the socket to a device, `SO_BINDTODEVICE`.
pub fn bind_device(socket: &impl AsFd, device: &str) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::BindToDevice, &device.into())?)
}

/// A socket for one association of SCTP, which reads and writes as a stream of TCP does (sctp(7), one-to-one style).
/// Fails with `EPROTONOSUPPORT` where the kernel has no SCTP.
pub fn sctp(peer: &SocketAddr) -> io::Result<OwnedFd> {
    let family = if peer.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?)
}
