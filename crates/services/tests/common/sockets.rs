//! The sockets that the daemon would open.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use fief_services::Sockets;
use fief_testkit::{Ns, eventually};

/// All of them.
pub fn open(ns: &Ns) -> Sockets {
    let index = ns.ifindex("br0");
    let (udp, tcp) = (ns.clone(), ns.clone());
    ns.enter(|| {
        let dns = ["192.0.2.1:53", "[2001:db8::1]:53"];
        Sockets {
            dhcp: Some(packets(index)),
            dhcp_quiet: Some(bound(|| UdpSocket::bind("192.0.2.1:67"))),
            dhcp6: Some(filtered(index, libc::ETH_P_IPV6, &FILTER6).expect("root may open packet sockets")),
            icmp6: Some(solicitations(index)),
            dns_udp: dns.map(|address| bound(|| UdpSocket::bind(address))).into(),
            dns_tcp: dns.map(|address| bound(|| TcpListener::bind(address))).into(),
            metadata: Some(bound(|| TcpListener::bind("169.254.169.254:80"))),
            upstream: Box::new(move |server| udp.enter(|| connected(server))),
            upstream_tcp: Some(Box::new(move |_| tcp.enter(stream))),
        }
    })
}

/// A program that another test of this process starts has our sockets too, for the moment until it is executed.
fn bound<T>(bind: impl Fn() -> io::Result<T>) -> T {
    eventually(Duration::from_secs(1), || bind().map_err(|error| error.to_string()))
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    Ok(socket)
}

fn stream() -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    Ok(socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A raw ICMPv6 socket of this device for router solicitations only (raw(7), RFC 3542).
pub fn solicitations(index: u32) -> OwnedFd {
    // SAFETY: socket(2) takes no pointers.
    let fd =
        unsafe { libc::socket(libc::AF_INET6, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMPV6) };
    assert!(fd >= 0, "root may open raw sockets: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // A bit for each type that does not come; 133 does.
    let mut filter = [u32::MAX; 8];
    filter[4] = !(1 << 5);
    let (device, hops) = (index.cast_signed(), 255);
    let all_routers: std::net::Ipv6Addr = "ff02::2".parse().unwrap();
    let group = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr { s6_addr: all_routers.octets() },
        ipv6mr_interface: index,
    };
    set(&socket, (libc::IPPROTO_ICMPV6, 1), &filter);
    set(&socket, (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX), &device);
    set(&socket, (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS), &hops);
    set(&socket, (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS), &hops);
    set(&socket, (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP), &group);
    socket
}

fn set<T: Copy>(socket: &OwnedFd, (level, name): (i32, i32), value: &T) {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer is to a live value of the length that goes with it.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    assert_eq!(done, 0, "option {name} of level {level}: {}", io::Error::last_os_error());
}

/// UDP to port 67 and no later fragment (bpf(4): code, jump if true, jump if false, operand).
const FILTER: [(u16, u8, u8, u32); 9] = [
    (0x30, 0, 0, 9),      // ldb [9]: the protocol
    (0x15, 0, 6, 17),     // is it UDP?
    (0x28, 0, 0, 6),      // ldh [6]: the place of a fragment
    (0x45, 4, 0, 0x1fff), // is it a later one?
    (0xb1, 0, 0, 0),      // ldxb 4*([0]&0xf): the length of the header
    (0x48, 0, 0, 2),      // ldh [x + 2]: the port
    (0x15, 0, 1, 67),
    (0x06, 0, 0, 0xffff),
    (0x06, 0, 0, 0),
];

/// UDP to port 547, without other headers before it.
const FILTER6: [(u16, u8, u8, u32); 6] = [
    (0x30, 0, 0, 6),  // ldb [6]: the next header
    (0x15, 0, 3, 17), // is it UDP?
    (0x28, 0, 0, 42), // ldh [42]: the port
    (0x15, 0, 1, 547),
    (0x06, 0, 0, 0xffff),
    (0x06, 0, 0, 0),
];

/// A packet socket for IPv4 on this device, with the filter (packet(7), socket(7)).
pub fn packets(index: u32) -> OwnedFd {
    filtered(index, libc::ETH_P_IP, &FILTER).expect("root may open packet sockets")
}

fn filtered(index: u32, protocol: i32, filter: &[(u16, u8, u8, u32)]) -> io::Result<OwnedFd> {
    let protocol = (protocol as u16).to_be();
    let steps =
        filter.iter().map(|(code, jt, jf, k)| libc::sock_filter { code: *code, jt: *jt, jf: *jf, k: *k });
    let mut filter: Vec<_> = steps.collect();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: sockaddr_ll is plain C data, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: socket(2) takes no pointers. Protocol 0: it hears nothing until it is bound.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: both pointers are to live values of the lengths that go with them.
    let done = unsafe {
        let (fd, program, address) =
            (socket.as_raw_fd(), (&raw const program).cast(), (&raw const address).cast());
        let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program, length)
            | libc::bind(fd, address, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if done == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}
