//! The sockets of this network namespace with their marks (sock_diag(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_bindings::inet_diag::{OpTcpDiagDump, ReqV2, Sockid};
use netlink_bindings::traits::NetlinkRequest;

use crate::HostError;
use crate::netlink::{Message, Socket};

/// One TCP or UDP socket.
#[derive(Debug, Clone)]
pub struct SocketInfo {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The kernel's number of the state (net/tcp_states.h).
    pub state: u8,
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; port 0 if there is none.
    pub remote: SocketAddr,
    /// Its mark (INET_DIAG_MARK, needs CAP_NET_ADMIN).
    pub mark: u32,
    /// Its inode: what `/proc/PID/fd` shows; 0 where no process holds it.
    pub inode: u32,
    /// What the kernel knows it by.
    id: Sockid,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// Lists every TCP and UDP socket of the current thread's network namespace.
pub fn list() -> Result<Vec<SocketInfo>, HostError> {
    let mut sockets = Vec::new();
    visit(|socket| sockets.push(socket))?;
    Ok(sockets)
}

/// Hands every TCP and UDP socket of the current thread's network namespace to `each`.
pub fn visit(mut each: impl FnMut(SocketInfo)) -> Result<(), HostError> {
    let mut socket = Socket::open(libc::NETLINK_SOCK_DIAG)?;
    for (protocol, name) in [(libc::IPPROTO_TCP, "tcp"), (libc::IPPROTO_UDP, "udp")] {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut request = ReqV2::new();
            request.family = family as u8;
            request.protocol = protocol as u8;
            request.states = u32::MAX;
            let encode = |body: &mut Vec<u8>| drop(OpTcpDiagDump::encode_request(body, &request));
            socket.dump(SOCK_DIAG_BY_FAMILY, "list sockets", encode, |_, body| {
                let (header, attributes) = OpTcpDiagDump::decode_reply(body);
                let end =
                    |address: &[u8; 16], port: u16| SocketAddr::new(address_of(header.family, address), port);
                each(SocketInfo {
                    protocol: name,
                    state: header.state,
                    local: end(&header.sockid.src, header.sockid.sport()),
                    remote: end(&header.sockid.dst, header.sockid.dport()),
                    mark: attributes.get_mark().unwrap_or(0),
                    inode: header.inode,
                    id: header.sockid.clone(),
                });
            })?;
        }
    }
    Ok(())
}

/// Closes those sockets that `which` picks (SOCK_DESTROY, CONFIG_INET_DIAG_DESTROY): their programs see ECONNABORTED.
/// Returns how many the kernel closed; one that ended by itself meanwhile is no error.
pub fn destroy(which: impl Fn(&SocketInfo) -> bool) -> Result<usize, HostError> {
    let mut requests: Vec<Message> = list()?.iter().filter(|socket| which(socket)).map(destruction).collect();
    let answers = Socket::open(libc::NETLINK_SOCK_DIAG)?.execute(&mut requests);
    let refused = |e: &HostError| e.errno() != Some(libc::ENOENT);
    let closed = answers.iter().filter(|answer| answer.is_ok()).count();
    match answers.into_iter().filter_map(Result::err).find(refused) {
        Some(error) => Err(error),
        None => Ok(closed),
    }
}

fn destruction(socket: &SocketInfo) -> Message {
    let mut request = ReqV2::new();
    request.family = if socket.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    request.protocol = if socket.protocol == "tcp" { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP } as u8;
    request.states = u32::MAX;
    request.sockid = socket.id.clone();
    Message::new(SOCK_DESTROY, 0, format!("close socket {} {}", socket.local, socket.remote), |body| {
        drop(OpTcpDiagDump::encode_request(body, &request));
    })
}

/// The name of a TCP state, as ss(8) shows it.
pub fn state_name(state: u8) -> &'static str {
    match state {
        1 => "ESTABLISHED",
        2 => "SYN-SENT",
        3 => "SYN-RECV",
        4 => "FIN-WAIT-1",
        5 => "FIN-WAIT-2",
        6 => "TIME-WAIT",
        7 => "UNCONN",
        8 => "CLOSE-WAIT",
        9 => "LAST-ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        12 => "NEW-SYN-RECV",
        _ => "UNKNOWN",
    }
}

fn address_of(family: u8, bytes: &[u8; 16]) -> IpAddr {
    if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(*bytes))
    }
}
