//! The last member of a segment on this host has left: peers are told, so that they forget where he was.
//!
//! A header without a frame, from the port that the vxlan device sends from; only a raw socket (raw(7)) can send from a port
//! that another socket has. Lost, nothing is: peers forget after 128 seconds.

use std::net::{IpAddr, SocketAddr};

use fief_overlay::Segment;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sockopt};

const UDP: u8 = 17;

/// Says it to a group, in the calling thread's network namespace.
pub(super) fn say(
    segment: &Segment,
    own: IpAddr,
    port: u16,
    group: SocketAddr,
    ttl: u8,
) -> rustix::io::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::RAW, flags, Some(ipproto::UDP))?;
    // The address of the sender is a part of the sum.
    rustix::net::bind(&socket, &SocketAddr::new(own, 0))?;
    match own {
        IpAddr::V4(_) => sockopt::set_ip_multicast_ttl(&socket, ttl.into())?,
        IpAddr::V6(_) => sockopt::set_ipv6_multicast_hops(&socket, ttl.into())?,
    }
    let datagram = datagram(segment, own, port, group);
    rustix::net::sendto(&socket, &datagram, SendFlags::empty(), &SocketAddr::new(group.ip(), 0))?;
    Ok(())
}

/// A UDP header (RFC 768) and a VXLAN header.
fn datagram(segment: &Segment, own: IpAddr, port: u16, group: SocketAddr) -> Vec<u8> {
    let header = segment.header().bytes();
    let length = 8 + header.len() as u16;
    let mut bytes = Vec::with_capacity(length.into());
    for word in [port, group.port(), length, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(header);
    let mut summed = address(own);
    summed.extend(address(group.ip()));
    summed.extend(length.to_be_bytes());
    summed.extend([0, UDP]);
    summed.extend(&bytes);
    let sum = sum(&summed).to_be_bytes();
    bytes.splice(6..8, sum);
    bytes
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// The internet checksum (RFC 1071) of an even number of bytes, of which 0 would mean that there is none.
fn sum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks_exact(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    let mut total: u32 = words.sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    match !(total as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_the_whole_is_nothing() {
        let segment = Segment::of_group(1000).unwrap();
        for (own, group) in [("192.0.2.1", "239.0.3.232:14789"), ("2001:db8::1", "[ff05:56de::3e8]:14789")] {
            let (own, group): (IpAddr, SocketAddr) = (own.parse().unwrap(), group.parse().unwrap());
            let bytes = datagram(&segment, own, 14788, group);
            assert_eq!((bytes.len(), &bytes[8..]), (16, &[8, 0, 0, 0, 0, 3, 0xe8, 0][..]));
            let mut whole = address(own);
            whole.extend(address(group.ip()));
            whole.extend([0, 16, 0, UDP]);
            whole.extend(&bytes);
            assert_eq!(sum(&whole), 0xffff);
        }
    }
}
