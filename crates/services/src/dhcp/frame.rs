//! IPv4 and UDP around a message: a client that has no address yet cannot be spoken to through the kernel's own stack.

use std::net::Ipv4Addr;

use etherparse::{IpNumber, Ipv4HeaderSlice, PacketBuilder, UdpHeaderSlice};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
const HOPS: u8 = 64;

/// The payload of a datagram to the server's port; `None` for anything else.
///
/// The UDP checksum is not looked at: what a local client sends has none yet, since the device was to compute it.
pub(crate) fn datagram(packet: &[u8]) -> Option<&[u8]> {
    let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
    if header.protocol() != IpNumber::UDP || header.is_fragmenting_payload() {
        return None;
    }
    let body = packet.get(header.slice().len()..usize::from(header.total_len()))?;
    let udp = UdpHeaderSlice::from_slice(body).ok()?;
    if udp.destination_port() != SERVER {
        return None;
    }
    body.get(UDP_HEADER..usize::from(udp.length()))
}

const UDP_HEADER: usize = 8;

/// An IPv4 packet from the server's port to the client's; `None` if the message is too long for one.
pub(crate) fn packet(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), HOPS).udp(SERVER, CLIENT);
    let mut packet = Vec::with_capacity(builder.size(message.len()));
    builder.write(&mut packet, message).ok()?;
    Some(packet)
}
