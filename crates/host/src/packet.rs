//! Sockets below UDP and TCP: packet sockets (packet(7)), which a DHCP server needs to speak to clients that have no address
//! yet, and raw ones (raw(7)) for router advertisements.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::HostError;

/// Instructions of classic BPF (linux/filter.h).
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_HALF_BEHIND_HEADER: u16 = 0x48;
const HEADER_LENGTH: u16 = 0xb1;
const IF_EQUAL: u16 = 0x15;
const IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// UDP datagrams to this port and no others, for packets that begin with their IPv4 header.
fn udp_to(port: u16) -> [libc::sock_filter; 9] {
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_BYTE, 9, 0, 0),
        step(IF_EQUAL, libc::IPPROTO_UDP as u32, 0, 6),
        step(LOAD_HALF, 6, 0, 0),
        // A later fragment has no ports.
        step(IF_BITS, 0x1fff, 4, 0),
        step(HEADER_LENGTH, 0, 0, 0),
        step(LOAD_HALF_BEHIND_HEADER, 2, 0, 0),
        step(IF_EQUAL, u32::from(port), 0, 1),
        step(RETURN, u32::MAX, 0, 0),
        step(RETURN, 0, 0, 0),
    ]
}

/// As [`udp_to`], for packets that begin with their IPv6 header and have no other before that of UDP.
fn udp6_to(port: u16) -> [libc::sock_filter; 6] {
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    [
        step(LOAD_BYTE, 6, 0, 0),
        step(IF_EQUAL, libc::IPPROTO_UDP as u32, 0, 3),
        step(LOAD_HALF, 42, 0, 0),
        step(IF_EQUAL, u32::from(port), 0, 1),
        step(RETURN, u32::MAX, 0, 0),
        step(RETURN, 0, 0, 0),
    ]
}

/// A socket of the current thread's network namespace that gets the IPv4 datagrams which come in on a device for this UDP
/// port, whatever address they call, without their Ethernet header.
pub fn udp_on_device(device: u32, port: u16) -> Result<OwnedFd, HostError> {
    try_to_open(device, libc::ETH_P_IP, &mut udp_to(port))
        .map_err(|e| HostError::io(format!("open a packet socket on device #{device}"), e))
}

/// As [`udp_on_device`], for IPv6.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and bind(2): it takes CAP_NET_RAW, and the device must be there.
pub fn udp6_on_device(device: u32, port: u16) -> Result<OwnedFd, HostError> {
    try_to_open(device, libc::ETH_P_IPV6, &mut udp6_to(port))
        .map_err(|e| HostError::io(format!("open an IPv6 packet socket on device #{device}"), e))
}

fn try_to_open(device: u32, protocol: libc::c_int, filter: &mut [libc::sock_filter]) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0 takes nothing, until the filter stands and the address says what to take.
    // SAFETY: socket(2) takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` is a fresh descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the pointers and lengths describe `program` and `filter`, which outlive the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sockaddr_ll is plain integers, for which zeros are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = device as i32;
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let done = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// Every router of a link (RFC 4291, 2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What hosts demand of an advertisement (RFC 4861, 6.1.2).
const HOPS: libc::c_int = 255;
/// The option of linux/icmpv6.h, and the message of RFC 4861, 4.1.
const ICMP6_FILTER: libc::c_int = 1;
const SOLICITATION: usize = 133;

/// A raw socket of the current thread's network namespace that gets the router solicitations which come in on a device, as
/// ICMPv6 messages, and sends there with the hop limit that router advertisements must have. What is sent has an address
/// of the link as its source, if the device has one.
///
/// # Errors
/// Those of socket(2) and setsockopt(2): it takes CAP_NET_RAW, and the device must be there.
pub fn router_solicitations(device: u32) -> Result<OwnedFd, HostError> {
    try_to_listen(device)
        .map_err(|e| HostError::io(format!("open a socket for router solicitations on device #{device}"), e))
}

fn try_to_listen(device: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket(2) takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_INET6, kind, libc::IPPROTO_ICMPV6) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` is a fresh descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // A bit for each type that does not come.
    let mut filter = [u32::MAX; 8];
    filter[SOLICITATION / 32] &= !(1 << (SOLICITATION % 32));
    set(&socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)?;
    bind_to_device(&socket, device)?;
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, &HOPS)?;
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &HOPS)?;
    // Advertisements are for others; and of several devices, the one that they leave by.
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &0_i32)?;
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &device.cast_signed())?;
    let group = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr { s6_addr: ALL_ROUTERS.octets() },
        ipv6mr_interface: device,
    };
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &group)?;
    Ok(socket)
}

/// ARP on one device (RFC 826): a packet socket that gets replies, and asks.
#[derive(Debug)]
pub(crate) struct Arp {
    socket: OwnedFd,
    device: u32,
    own: [u8; 6],
}

/// `ar_op` of a reply, and where it stands.
const ARP_REPLY: u32 = 2;
const ARP_OPERATION: u32 = 6;

impl Arp {
    /// `None` if the device has no Ethernet addresses.
    pub(crate) fn open(device: u32) -> io::Result<Option<Arp>> {
        let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
        let mut replies = [
            step(LOAD_HALF, ARP_OPERATION, 0, 0),
            step(IF_EQUAL, ARP_REPLY, 0, 1),
            step(RETURN, u32::MAX, 0, 0),
            step(RETURN, 0, 0, 0),
        ];
        let socket = try_to_open(device, libc::ETH_P_ARP, &mut replies)?;
        // SAFETY: sockaddr_ll is plain integers, for which zeros are a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let done = unsafe {
            libc::getsockname(socket.as_raw_fd(), std::ptr::from_mut(&mut address).cast(), &mut length)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        if address.sll_hatype != libc::ARPHRD_ETHER || address.sll_halen != 6 {
            return Ok(None);
        }
        let [a, b, c, d, e, f, ..] = address.sll_addr;
        Ok(Some(Arp { socket, device, own: [a, b, c, d, e, f] }))
    }

    /// Asks everybody on the wire who has an address.
    pub(crate) fn request(&self, source: Ipv4Addr, target: Ipv4Addr) -> io::Result<()> {
        // Ethernet (1) and IPv4 (0x800), addresses of 6 and 4 bytes, a request (1).
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
        packet.extend(self.own);
        packet.extend(source.octets());
        packet.extend([0; 6]);
        packet.extend(target.octets());
        // SAFETY: sockaddr_ll is plain integers, for which zeros are a value.
        let mut everybody: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        everybody.sll_family = libc::AF_PACKET as u16;
        everybody.sll_protocol = (libc::ETH_P_ARP as u16).to_be();
        everybody.sll_ifindex = self.device.cast_signed();
        everybody.sll_halen = 6;
        everybody.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        // SAFETY: the pointers and lengths describe `packet` and `everybody`, which outlive the call; it only reads.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                std::ptr::from_ref(&everybody).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl From<Arp> for OwnedFd {
    fn from(arp: Arp) -> OwnedFd {
        arp.socket
    }
}

/// What the socket sends leaves by this device, and it gets what comes in there (SO_BINDTOIFINDEX).
pub(crate) fn bind_to_device(socket: &OwnedFd, device: u32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, &device.cast_signed())
}

/// Sets an option to a value of the type that it has in C.
pub(crate) fn set<T: Copy>(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call; the kernel only reads.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
