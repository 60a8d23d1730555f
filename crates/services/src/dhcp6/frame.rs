//! IPv6 and UDP around a message. The server speaks as the router of the link does.

use std::net::Ipv6Addr;

use etherparse::{IpNumber, Ipv6HeaderSlice, PacketBuilder, UdpHeaderSlice};

use crate::ROUTER;

const SERVER: u16 = 547;
const CLIENT: u16 = 546;
/// It does not leave the link.
const HOPS: u8 = 1;
/// All relay agents and servers of a link (RFC 8415, 7.1). A server does not hear what is sent to its own address
/// (RFC 8415, 16).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// The payload of a datagram of a client to the servers of its link, and the client's address; `None` for anything else.
///
/// The UDP checksum is not looked at: what a local client sends has none yet, since the device was to compute it.
pub(crate) fn datagram(packet: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
    let source = header.source_addr();
    let ours = header.destination_addr() == SERVERS && source.is_unicast_link_local();
    if header.next_header() != IpNumber::UDP || !ours {
        return None;
    }
    let body = packet.get(HEADER..HEADER + usize::from(header.payload_length()))?;
    let udp = UdpHeaderSlice::from_slice(body).ok()?;
    if udp.destination_port() != SERVER {
        return None;
    }
    Some((source, body.get(UDP_HEADER..usize::from(udp.length()))?))
}

/// An IPv6 packet from the server to a client; `None` if the message is too long for one.
pub(crate) fn packet(to: Ipv6Addr, message: &[u8]) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ipv6(ROUTER.octets(), to.octets(), HOPS).udp(SERVER, CLIENT);
    let mut packet = Vec::with_capacity(builder.size(message.len()));
    builder.write(&mut packet, message).ok()?;
    Some(packet)
}
