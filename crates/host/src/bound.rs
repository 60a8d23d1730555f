//! UDP and TCP sockets that are bound to a device before they have an address (SO_BINDTOIFINDEX, socket(7)): to one under a
//! VRF or to the VRF itself. So several of them can have one address and port, each in a VRF of its own, and an address
//! that is only there counts as one of the host's (inet_bind in net/ipv4/af_inet.c looks into the VRF's table).

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// As long as the kernel allows (net.core.somaxconn cuts it).
const BACKLOG: i32 = 4096;

/// A UDP socket with this address; on this device, if one is named.
pub fn udp(at: SocketAddr, device: Option<u32>) -> io::Result<UdpSocket> {
    match device {
        Some(device) => Ok(open(at, device, SocketType::DGRAM)?.into()),
        None => UdpSocket::bind(at),
    }
}

/// A TCP socket that listens at this address; on this device, if one is named.
pub fn tcp_listener(at: SocketAddr, device: Option<u32>) -> io::Result<TcpListener> {
    let Some(device) = device else { return TcpListener::bind(at) };
    let socket = open(at, device, SocketType::STREAM)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Binds a socket that has no address yet to a device.
pub fn to_device(socket: &OwnedFd, device: u32) -> io::Result<()> {
    crate::packet::bind_to_device(socket, device)
}

/// Sets the priority of what a socket sends (SO_PRIORITY), which may be any number.
///
/// Errors: EPERM, it is above 6 and the caller has no CAP_NET_ADMIN.
pub fn set_priority(socket: &OwnedFd, priority: u32) -> io::Result<()> {
    crate::packet::set(socket, libc::SOL_SOCKET, libc::SO_PRIORITY, &priority)
}

fn open(at: SocketAddr, device: u32, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    crate::packet::bind_to_device(&socket, device)?;
    if kind == SocketType::STREAM {
        // As std's listeners: connections of one that ended are no hindrance.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &at)?;
    Ok(socket)
}
