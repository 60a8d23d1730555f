//! Options of a socket that std does not have (socket(7)).

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

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
