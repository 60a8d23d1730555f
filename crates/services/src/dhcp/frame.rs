//! IPv4 and UDP around a message: a client that has no address yet cannot be spoken to through the kernel's own stack.

use std::net::Ipv4Addr;
use std::ops::Range;

use etherparse::{IpNumber, Ipv4HeaderSlice, PacketBuilder, UdpHeaderSlice};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
const HOPS: u8 = 64;
/// Where UDP's checksum is, behind an IPv4 header without options.
const SUM: Range<usize> = 26..28;

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
///
/// A sum that comes to zero is sent as all ones (RFC 768), which BusyBox's udhcpc takes for a wrong one: it would pass over
/// the answer to every repetition of its question, since that has the same bytes. Such a packet has no checksum instead.
pub(crate) fn packet(from: Ipv4Addr, to: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
    let builder = PacketBuilder::ipv4(from.octets(), to.octets(), HOPS).udp(SERVER, CLIENT);
    let mut packet = Vec::with_capacity(builder.size(message.len()));
    builder.write(&mut packet, message).ok()?;
    let sum = packet.get_mut(SUM)?;
    if *sum == [0xff; 2] {
        sum.fill(0);
    }
    Some(packet)
}
