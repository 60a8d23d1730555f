//! The sockets of one network. Who opens them is inside the network's namespace at that moment; a socket stays where it
//! was made, so that one thread outside serves them all.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

/// Makes a UDP socket in the namespace, connected to the address.
pub type ConnectUdp = Box<dyn Fn(SocketAddr) -> io::Result<UdpSocket> + Send>;

/// Makes a TCP socket in the namespace, of the address's family and not yet connected.
pub type OpenTcp = Box<dyn Fn(SocketAddr) -> io::Result<OwnedFd> + Send>;

/// The sockets of one network, opened inside its namespace. They are set non-blocking here.
pub struct Sockets {
    /// An `AF_PACKET` socket of type `SOCK_DGRAM` for `ETH_P_IP`, bound to the bridge, with a filter for UDP datagrams
    /// to port 67 (packet(7)).
    pub dhcp: Option<OwnedFd>,
    /// A UDP socket on the gateway's port 67 that is never read. Without it the kernel answers a client that renews by
    /// unicast with "port unreachable" before the lease does.
    pub dhcp_quiet: Option<UdpSocket>,
    /// As `dhcp`, for `ETH_P_IPV6` and port 547.
    pub dhcp6: Option<OwnedFd>,
    /// A raw ICMPv6 socket that gets router solicitations and no others: bound to the bridge, which has a link-local
    /// address, with a hop limit of 255 for what it sends, a member of ff02::2 (RFC 4861, RFC 3542).
    pub icmp6: Option<OwnedFd>,
    /// UDP sockets on port 53 of the gateway's addresses.
    pub dns_udp: Vec<UdpSocket>,
    /// TCP listeners on port 53 of the gateway's addresses.
    pub dns_tcp: Vec<TcpListener>,
    /// A TCP listener on 169.254.169.254 port 80, one for a namespace: given with any network of it, it serves all of
    /// them, until the last is gone or another listener is given.
    pub metadata: Option<TcpListener>,
    /// Makes a connected UDP socket to an upstream DNS server. Called on the services' thread for every query.
    pub upstream: ConnectUdp,
    /// Makes a TCP socket for an upstream DNS server; `None`: what comes over TCP is asked over UDP.
    pub upstream_tcp: Option<OpenTcp>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets")
            .field("dhcp", &self.dhcp)
            .field("dhcp6", &self.dhcp6)
            .field("icmp6", &self.icmp6)
            .field("dns_udp", &self.dns_udp)
            .field("dns_tcp", &self.dns_tcp)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}
