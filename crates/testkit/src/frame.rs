//! Ethernet frames, byte by byte. Written by hand because tests must send what a packet library would refuse to build.
//!
//! ```
//! use fief_testkit::Frame;
//! let (us, them) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
//! let frame = Frame::new(us, them).vlan(20).ip("10.0.0.1", "198.18.1.1").udp(4000, 53, b"hello");
//! assert_eq!(&frame[12..16], [0x81, 0, 0, 20]);
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type MacAddr = [u8; 6];

/// To every station.
pub const BROADCAST: MacAddr = [0xff; 6];

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMP6: u8 = 58;

/// SYN in the flags of TCP.
pub const SYN: u8 = 0x02;
/// RST in the flags of TCP.
pub const RST: u8 = 0x04;
/// ACK in the flags of TCP.
pub const ACK: u8 = 0x10;

/// The Ethernet header of a frame to be.
#[derive(Debug, Clone)]
pub struct Frame {
    head: Vec<u8>,
    source: MacAddr,
}

/// The Ethernet and IP headers of a frame to be.
#[derive(Debug, Clone)]
pub struct Packet {
    frame: Frame,
    source: IpAddr,
    destination: IpAddr,
    hops: u8,
    traffic_class: u8,
    fragment: Option<Fragment>,
}

#[derive(Debug, Clone, Copy)]
struct Fragment {
    id: u32,
    offset: u16,
    more: bool,
}

impl Frame {
    /// From one station to another.
    pub fn new(source: MacAddr, destination: MacAddr) -> Frame {
        Frame { head: [destination, source].concat(), source }
    }

    /// Adds a tag of IEEE 802.1Q; a second call adds an inner one.
    pub fn vlan(mut self, id: u16) -> Frame {
        self.head.extend(VLAN.to_be_bytes());
        self.head.extend(id.to_be_bytes());
        self
    }

    /// The frame with any EtherType and payload.
    pub fn payload(mut self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        self.head.extend(ether_type.to_be_bytes());
        self.head.extend(payload);
        self.head
    }

    /// "Who has `target`? Tell `sender`" (RFC 826).
    pub fn arp_request(self, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let mac = self.source;
        self.arp(1, (mac, sender), ([0; 6], target))
    }

    /// "`sender` is at our source address", to the target.
    pub fn arp_reply(self, sender: Ipv4Addr, target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
        let mac = self.source;
        self.arp(2, (mac, sender), target)
    }

    /// Any ARP packet.
    pub fn arp(self, operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4];
        packet.extend(operation.to_be_bytes());
        for (mac, ip) in [sender, target] {
            packet.extend(mac);
            packet.extend(ip.octets());
        }
        self.payload(ARP, &packet)
    }

    /// Goes on with an IP header; both addresses are of one family.
    ///
    /// # Panics
    /// When they are not, or are no addresses.
    pub fn ip(self, source: impl ToString, destination: impl ToString) -> Packet {
        let parse =
            |text: String| text.parse::<IpAddr>().unwrap_or_else(|_| panic!("{text:?} is no address"));
        let (source, destination) = (parse(source.to_string()), parse(destination.to_string()));
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} and {destination} differ in family");
        Packet { frame: self, source, destination, hops: 64, traffic_class: 0, fragment: None }
    }
}

impl Packet {
    /// The TTL or hop limit; 64 if left out, 255 for neighbour discovery.
    pub fn hops(mut self, hops: u8) -> Packet {
        self.hops = hops;
        self
    }

    /// The type of service or traffic class.
    pub fn traffic_class(mut self, value: u8) -> Packet {
        self.traffic_class = value;
        self
    }

    /// Makes it a fragment; `offset` is in bytes, a multiple of 8. IPv6 gets the extension header.
    pub fn fragment(mut self, id: u32, offset: u16, more: bool) -> Packet {
        assert_eq!(offset % 8, 0, "a fragment begins at a multiple of 8");
        self.fragment = Some(Fragment { id, offset, more });
        self
    }

    /// A UDP datagram.
    pub fn udp(self, source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        datagram.extend((8 + payload.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        let sum = match self.transport_checksum(UDP, &datagram) {
            // 0 would say "none" (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        self.payload(UDP, &datagram)
    }

    /// The first segment of a TCP connection.
    pub fn tcp_syn(self, source: u16, destination: u16) -> Vec<u8> {
        self.tcp((source, destination), SYN, (1, 0), &[])
    }

    /// Any TCP segment without options; `numbers` are those of sequence and acknowledgement.
    pub fn tcp(self, ports: (u16, u16), flags: u8, numbers: (u32, u32), payload: &[u8]) -> Vec<u8> {
        let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        segment.extend(numbers.0.to_be_bytes());
        segment.extend(numbers.1.to_be_bytes());
        segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(payload);
        let sum = self.transport_checksum(TCP, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        self.payload(TCP, &segment)
    }

    /// An echo request, of ICMP or ICMPv6.
    pub fn echo_request(self, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let kind = if self.source.is_ipv4() { 8 } else { 128 };
        let rest = [id.to_be_bytes(), sequence.to_be_bytes()].concat();
        self.icmp(kind, 0, &[&rest, payload].concat())
    }

    /// An error such as "unreachable" or "too big", with the `value` behind its checksum and the packet it is about
    /// (an IP packet, without its Ethernet header).
    pub fn icmp_error(self, kind: u8, code: u8, value: u32, about: &[u8]) -> Vec<u8> {
        self.icmp(kind, code, &[&value.to_be_bytes(), about].concat())
    }

    /// Any message of ICMP or ICMPv6.
    pub fn icmp(self, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        let message = [&[kind, code, 0, 0], rest].concat();
        let (protocol, sum) = match self.source {
            IpAddr::V4(_) => (ICMP, checksum(&message)),
            IpAddr::V6(_) => (ICMP6, self.transport_checksum(ICMP6, &message)),
        };
        let mut message = message;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.payload(protocol, &message)
    }

    /// "Who has `target`?" with our Ethernet address as an option (RFC 4861).
    pub fn neighbour_solicitation(self, target: Ipv6Addr) -> Vec<u8> {
        let mac = self.frame.source;
        let rest = [&[0; 4], &target.octets()[..], &[1, 1], &mac].concat();
        self.hops(255).icmp(135, 0, &rest)
    }

    /// "`target` is at our Ethernet address", solicited and overriding (RFC 4861).
    pub fn neighbour_advertisement(self, target: Ipv6Addr) -> Vec<u8> {
        let mac = self.frame.source;
        let rest = [&[0x60, 0, 0, 0], &target.octets()[..], &[2, 1], &mac].concat();
        self.hops(255).icmp(136, 0, &rest)
    }

    /// Any payload: a later fragment, a protocol that the kit does not know, a header that lies.
    pub fn payload(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = self.ipv4(protocol, payload.len() as u16, source, destination);
                self.frame.payload(IPV4, &[&header, payload].concat())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let headers = self.ipv6(protocol, payload.len() as u16, source, destination);
                self.frame.payload(IPV6, &[&headers, payload].concat())
            }
            _ => unreachable!("`Frame::ip` takes two addresses of one family"),
        }
    }

    /// RFC 791, section 3.1.
    fn ipv4(&self, protocol: u8, length: u16, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut header = vec![0x45, self.traffic_class];
        header.extend((20 + length).to_be_bytes());
        let (id, position) = match self.fragment {
            Some(Fragment { id, offset, more }) => (id as u16, (offset / 8) | (u16::from(more) << 13)),
            None => (0, 1 << 14),
        };
        header.extend(id.to_be_bytes());
        header.extend(position.to_be_bytes());
        header.extend([self.hops, protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// RFC 8200, sections 3 and 4.5.
    fn ipv6(&self, protocol: u8, length: u16, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let extension = self.fragment.map(|Fragment { id, offset, more }| {
            let position = offset | u16::from(more);
            [&[protocol, 0], &position.to_be_bytes()[..], &id.to_be_bytes()].concat()
        });
        let (next, extension) = extension.map_or((protocol, vec![]), |bytes| (FRAGMENT, bytes));
        let first = (6 << 28) | (u32::from(self.traffic_class) << 20);
        let mut header = first.to_be_bytes().to_vec();
        header.extend((extension.len() as u16 + length).to_be_bytes());
        header.extend([next, self.hops]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(extension);
        header
    }

    /// With the pseudo-header of RFC 9293, section 3.1, or RFC 8200, section 8.1; both sum up alike.
    fn transport_checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let mut pseudo = Vec::new();
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(ip) => pseudo.extend(ip.octets()),
                IpAddr::V6(ip) => pseudo.extend(ip.octets()),
            }
        }
        pseudo.extend((segment.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        pseudo.extend(segment);
        checksum(&pseudo)
    }
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| (u32::from(pair[0]) << 8) | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: MacAddr = [2, 0, 0, 0, 0, 1];
    const THEM: MacAddr = [2, 0, 0, 0, 0, 2];

    /// A receiver sums everything, checksum included, and finds 0.
    fn holds(packet: &Packet, protocol: u8, segment: &[u8]) -> bool {
        packet.transport_checksum(protocol, segment) == 0
    }

    #[test]
    fn checksums_are_those_a_receiver_accepts() {
        let packet = Frame::new(US, THEM).ip("10.0.0.1", "198.18.1.1");
        let frame = packet.clone().udp(1, 2, b"odd");
        assert_eq!(checksum(&frame[14..34]), 0);
        assert!(holds(&packet, UDP, &frame[34..]));
        assert!(holds(&packet, TCP, &packet.clone().tcp_syn(1, 2)[34..]));
        assert_eq!(checksum(&packet.clone().echo_request(1, 2, b"x")[34..]), 0);

        let packet = Frame::new(US, THEM).ip("fd00:a::1", "fd00:18::a:1");
        assert!(holds(&packet, UDP, &packet.clone().udp(1, 2, b"x")[54..]));
        assert!(holds(&packet, ICMP6, &packet.clone().echo_request(1, 2, b"x")[54..]));
    }

    #[test]
    fn the_checksum_of_the_example_in_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn fragments_say_where_they_belong() {
        let frame =
            Frame::new(US, THEM).ip("10.0.0.1", "10.0.0.2").fragment(7, 16, true).payload(UDP, b"rest");
        assert_eq!(&frame[18..22], [0, 7, 0x20, 2]);
        let frame = Frame::new(US, THEM)
            .vlan(5)
            .ip("fd00::1", "fd00::2")
            .fragment(7, 16, false)
            .payload(UDP, b"rest");
        assert_eq!(&frame[18 + 40..][..8], [UDP, 0, 0, 16, 0, 0, 0, 7]);
        assert_eq!(frame[18 + 6], FRAGMENT);
    }
}
