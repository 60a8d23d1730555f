//! The two sockets of a segment's member: one that sends, and hears what is for him alone, with a port of its own; one that
//! hears what is for the multicast group. Peers answer to the port that they hear from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fief_datapath::segment::{Guard, Sock};
use fief_host::{born, bound};
use fief_overlay::Segment;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, socket_with};

use crate::config::overlay::Overlay;

/// A port that is free may be taken before it is ours.
const ATTEMPTS: usize = 16;
/// SO_PRIORITY of guarded sockets, above the VNI's 24 bits and four that are 0 (GATED in bpf/lib/segment.h).
const GATED: u32 = 0xf000_0000;
/// What a socket may hold that is not read yet (SO_RCVBUF; the kernel counts twice of it): twenty packets of 40 datagrams.
const ROOM: usize = 1 << 20;

/// What is handed over.
pub struct Pair {
    /// Sends, and hears what is for its address.
    pub unicast: OwnedFd,
    /// Hears what is for the group, and sends nothing.
    pub group: OwnedFd,
    /// What stands before each frame.
    pub header: [u8; 8],
    /// What the first is known by.
    pub cookie: u64,
}

/// Which sockets.
pub struct Ask<'a> {
    /// How this host is configured.
    pub overlay: &'a Overlay,
    /// The network card's name.
    pub device: &'a str,
    /// Whose.
    pub segment: Segment,
    /// IPv4 or IPv6.
    pub family: AddressFamily,
}

impl Ask<'_> {
    /// Makes them in the calling thread's network namespace, and locks them.
    pub fn pair(&self, guard: &mut Guard, procs: BorrowedFd<'_>) -> Result<Pair, Errno> {
        self.make(guard, procs).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
            tracing::warn!(device = self.device, %error, "no sockets of a segment");
            errno
        })
    }

    fn make(&self, guard: &mut Guard, procs: BorrowedFd<'_>) -> io::Result<Pair> {
        let device = if_nametoindex(self.device).map_err(|_| Errno::NODEV)?;
        let to = self.group();
        let own = own_address(self.device, device, to)?;
        let group = self.bare(procs, device)?;
        sockopt::set_socket_reuseaddr(&group, true)?;
        bind(&group, &to)?;
        self.join(&group, device)?;
        let (unicast, own) = self.sender(procs, device, own)?;
        let header = self.segment.header().bytes();
        sockopt::set_socket_recv_buffer_size_force(&unicast, ROOM)?;
        let gated = match guard.gate(self.device, device) {
            Ok(()) => true,
            Err(error) => {
                // Each frame is a packet of its own then.
                tracing::debug!(%error, "no gate at the network card");
                false
            }
        };
        let may = Sock {
            header,
            group: to.ip(),
            group_port: to.port(),
            own: own.ip(),
            own_port: own.port(),
            device,
            most_hops: self.overlay.max_ttl,
            mute: false,
            gated,
            rate: self.overlay.rate,
        };
        let cookie = guard.lock(unicast.as_fd(), &may)?;
        guard.lock(group.as_fd(), &Sock { mute: true, ..may })?;
        Ok(Pair { unicast, group, header, cookie })
    }

    fn group(&self) -> SocketAddr {
        let Overlay { group4, group6, port, .. } = *self.overlay;
        match self.family {
            AddressFamily::INET6 => (self.segment.group6(group6), port).into(),
            _ => (self.segment.group4(group4), port).into(),
        }
    }

    /// A guarded socket on the network card, without an address.
    fn bare(&self, procs: BorrowedFd<'_>, device: u32) -> io::Result<OwnedFd> {
        let socket = born::socket(procs, self.family, SocketType::DGRAM)?;
        bound::to_device(&socket, device)?;
        if self.family == AddressFamily::INET6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        Ok(socket)
    }

    fn join(&self, socket: &OwnedFd, device: u32) -> io::Result<()> {
        match self.group() {
            SocketAddr::V4(to) => {
                let any = Ipv4Addr::UNSPECIFIED;
                sockopt::set_ip_add_membership_with_ifindex(socket, to.ip(), &any, device)?;
            }
            SocketAddr::V6(to) => sockopt::set_ipv6_add_membership(socket, to.ip(), device)?,
        }
        Ok(())
    }

    fn sender(
        &self,
        procs: BorrowedFd<'_>,
        device: u32,
        own: SocketAddr,
    ) -> io::Result<(OwnedFd, SocketAddr)> {
        let hops = self.overlay.max_ttl;
        let mut last = Errno::ADDRINUSE;
        for _ in 0..ATTEMPTS {
            let socket = self.bare(procs, device)?;
            bound::set_priority(&socket, GATED | (self.segment.vni() << 4))?;
            if own.is_ipv4() {
                sockopt::set_ip_ttl(&socket, hops.into())?;
                sockopt::set_ip_multicast_ttl(&socket, hops.into())?;
                // Whole Ethernet frames with a header before them are fragmented.
                sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
            } else {
                sockopt::set_ipv6_unicast_hops(&socket, Some(hops))?;
                sockopt::set_ipv6_multicast_hops(&socket, hops.into())?;
            }
            // By its number: a port that the kernel chose is given back when somebody disconnects the socket.
            let at = SocketAddr::new(own.ip(), free_port(device, own)?);
            let at = with_scope(at, device);
            match bind(&socket, &at) {
                Ok(()) => return Ok((socket, at)),
                Err(Errno::ADDRINUSE) => last = Errno::ADDRINUSE,
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.into())
    }
}

/// The address that the kernel would send to the group from, if it is the network card's: where the card has none, IPv4 takes
/// one of another.
fn own_address(name: &str, device: u32, to: SocketAddr) -> io::Result<SocketAddr> {
    let probe = plain(device, to)?;
    connect(&probe, &to).map_err(|error| match error {
        Errno::NETUNREACH | Errno::HOSTUNREACH => Errno::ADDRNOTAVAIL,
        error => error,
    })?;
    let own = SocketAddr::try_from(getsockname(&probe)?)?;
    let is_own = |of: InterfaceAddress| {
        let v4 = || of.address?.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
        let v6 = || of.address?.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip()));
        of.interface_name == name && v4().or_else(v6) == Some(own.ip())
    };
    if getifaddrs()?.any(is_own) { Ok(own) } else { Err(Errno::ADDRNOTAVAIL.into()) }
}

fn free_port(device: u32, own: SocketAddr) -> io::Result<u16> {
    let probe = plain(device, own)?;
    bind(&probe, &with_scope(SocketAddr::new(own.ip(), 0), device))?;
    Ok(SocketAddr::try_from(getsockname(&probe)?)?.port())
}

fn plain(device: u32, like: SocketAddr) -> io::Result<OwnedFd> {
    let family = if like.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    bound::to_device(&socket, device)?;
    Ok(socket)
}

/// A link-local address is one of a device.
fn with_scope(at: SocketAddr, device: u32) -> SocketAddr {
    match at {
        SocketAddr::V4(at) => SocketAddrV4::new(*at.ip(), at.port()).into(),
        SocketAddr::V6(at) if at.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*at.ip(), at.port(), 0, device).into()
        }
        SocketAddr::V6(at) => SocketAddrV6::new(*at.ip(), at.port(), 0, 0).into(),
    }
}
