//! Datagrams from sockets that name devices, sources and marks, as programs may (ip(7), ipv6(7)).
#![allow(dead_code, reason = "each test executable uses its own part")]

use std::io::{self, IoSlice};
use std::mem::size_of_val;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use fief_testkit::{Dial, bind_device};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    sendmsg, socket,
};

/// One datagram, and everything odd about its socket.
#[derive(Debug, Clone)]
pub struct Datagram {
    to: SocketAddr,
    mark: u32,
    device: Option<String>,
    options: Vec<(i32, i32, i32)>,
    bind: Option<SocketAddr>,
    pktinfo: Option<u32>,
}

/// Options that name a device, each with how it says so.
pub const DOORS: [&str; 5] = ["SO_BINDTODEVICE", "PKTINFO", "UNICAST_IF", "MULTICAST_IF", "scope id"];

impl Datagram {
    /// A datagram from a socket of a tenant.
    pub fn to(to: SocketAddr, mark: u32) -> Datagram {
        Datagram { to, mark, device: None, options: Vec::new(), bind: None, pktinfo: None }
    }

    /// Sets an option whose value is an int.
    pub fn option(mut self, level: i32, name: i32, value: i32) -> Datagram {
        self.options.push((level, name, value));
        self
    }

    /// Speaks from an address that need not be there (`IP_FREEBIND`).
    pub fn from(mut self, source: IpAddr) -> Datagram {
        self.bind = Some((source, 0).into());
        if source.is_ipv4() {
            self.option(libc::IPPROTO_IP, libc::IP_FREEBIND, 1)
        } else {
            self.option(libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)
        }
    }

    /// Names a device by one of the [`DOORS`]; `None` where the door does not exist for this destination.
    pub fn by(mut self, door: &str, device: &str, index: u32) -> Option<Datagram> {
        let v6 = self.to.is_ipv6();
        let multicast = self.to.ip().is_multicast();
        let network_order = index.to_be().cast_signed();
        match (door, v6) {
            ("SO_BINDTODEVICE", _) => self.device = Some(device.to_owned()),
            ("PKTINFO", _) => self.pktinfo = Some(index),
            ("UNICAST_IF", false) if !multicast => {
                return Some(self.option(libc::IPPROTO_IP, IP_UNICAST_IF, network_order));
            }
            ("UNICAST_IF", true) if !multicast => {
                return Some(self.option(libc::IPPROTO_IPV6, IPV6_UNICAST_IF, network_order));
            }
            ("MULTICAST_IF", true) if multicast => {
                return Some(self.option(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index.cast_signed()));
            }
            ("MULTICAST_IF", false) if multicast => {
                // ip_mreqn would say the same; SO_BINDTODEVICE's twin for one socket option is enough here.
                self.options.push((MREQN, 0, index.cast_signed()));
            }
            ("scope id", true) => match &mut self.to {
                SocketAddr::V6(to) if to.ip().is_unicast_link_local() || to.ip().is_multicast() => {
                    to.set_scope_id(index);
                }
                _ => return None,
            },
            _ => return None,
        }
        Some(self)
    }

    /// Sends it.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        let mut dial = Dial::to(self.to).mark(self.mark);
        if let Some(device) = &self.device {
            dial = dial.device(device);
        }
        let socket = dial.socket(SockType::Datagram)?;
        for (level, name, value) in &self.options {
            if *level == MREQN {
                multicast_device(&socket, *value)?;
            } else {
                set(&socket, *level, *name, value)?;
            }
        }
        if let Some(from) = self.bind {
            bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        }
        let Some(index) = self.pktinfo else {
            return UdpSocket::from(socket).send_to(payload, self.to).map(drop);
        };
        // The source in the control message counts, not that of bind(2).
        self.send_with_info(&socket, payload, index, self.bind.map(|from| from.ip()))
    }

    fn send_with_info(
        &self,
        socket: &OwnedFd,
        payload: &[u8],
        index: u32,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        // SAFETY: both are plain C data, for which all zeroes is a value.
        let (mut four, mut six): (libc::in_pktinfo, libc::in6_pktinfo) = unsafe { std::mem::zeroed() };
        four.ipi_ifindex = index.cast_signed();
        six.ipi6_ifindex = index;
        match source {
            Some(IpAddr::V4(source)) => four.ipi_spec_dst.s_addr = u32::from_ne_bytes(source.octets()),
            Some(IpAddr::V6(source)) => six.ipi6_addr.s6_addr = source.octets(),
            None => (),
        }
        let info = if self.to.is_ipv4() {
            ControlMessage::Ipv4PacketInfo(&four)
        } else {
            ControlMessage::Ipv6PacketInfo(&six)
        };
        let to = SockaddrStorage::from(self.to);
        sendmsg(socket.as_raw_fd(), &[IoSlice::new(payload)], &[info], MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

/// linux/in.h, linux/in6.h; the libc crate lacks them.
const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;
/// Not a level: stands for `IP_MULTICAST_IF`, whose value is a structure.
const MREQN: i32 = -1;

fn multicast_device(socket: &OwnedFd, index: i32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: 0 };
    let value = libc::ip_mreqn { imr_multiaddr: any, imr_address: any, imr_ifindex: index };
    set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &value)
}

/// setsockopt(2) with any plain value.
pub fn set<T>(socket: &impl AsRawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one live value.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends an IPv4 packet whose header is the caller's own (`IP_HDRINCL`, raw(7)), by a socket that is bound to this device.
pub fn send_raw(device: Option<&str>, packet: &[u8], to: Ipv4Addr) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    if let Some(device) = device {
        bind_device(&socket, device)?;
    }
    let to = SockaddrStorage::from(SocketAddr::new(to.into(), 0));
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(packet)], &[], MsgFlags::empty(), Some(&to)).map(drop)?;
    Ok(())
}
