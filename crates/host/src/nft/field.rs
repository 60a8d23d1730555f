//! What of a packet can be looked at: `meta`, `payload` and `ct` expressions that load a register.

use super::encode::{expression, number};
use crate::netlink::attribute::push;

/// Something of a packet or its connection. Comments say nft's own words, and of what [`super::Type`] it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// `iif`, of `Ifindex`; 0 where no device brought it.
    Iif,
    /// `oif`, of `Ifindex`; 0 where no device is chosen yet.
    Oif,
    /// `iifname`, of `Ifname`.
    IifName,
    /// `oifname`, of `Ifname`.
    OifName,
    /// `iifgroup`, of `Group`: the group of the device that brought it.
    IifGroup,
    /// `oifgroup`, the same of the device that it leaves by.
    OifGroup,
    /// `meta skuid`, of `Integer(4)` in the host's order: the user of the socket that sends it. Packets without a socket of a
    /// program end the rule.
    SocketUser,
    /// `meta sdifname`, of `Ifname`: the device under a VRF that brought it; empty where none did. In the hooks input and
    /// forward only.
    SdifName,
    /// `meta l4proto`, of `Protocol`.
    L4Proto,
    /// `meta nfproto`, of `Integer(1)`: 2 is IPv4, 10 is IPv6.
    NfProto,
    /// `meta protocol`, of `Integer(2)`: the EtherType.
    EtherType,
    /// `ether type`, of `Integer(2)`: as it stands behind the addresses, so that a tag is seen as one (0x8100, 0x88a8).
    EtherTypeOnWire,
    /// `meta mark`, of `Mark`.
    Mark,
    /// `meta pkttype`, of `Integer(1)`: 0 to this host, 1 broadcast, 2 multicast, 3 to another.
    PacketType,
    /// `ether saddr`, of `Ether`.
    EtherSource,
    /// `ether daddr`, of `Ether`.
    EtherDestination,
    /// `ip saddr`, of `Ipv4`; look at [`Field::NfProto`] first where both families pass.
    IpSource,
    /// `ip daddr`, of `Ipv4`.
    IpDestination,
    /// `ip6 saddr`, of `Ipv6`.
    Ip6Source,
    /// `ip6 daddr`, of `Ipv6`.
    Ip6Destination,
    /// `th sport`, of `Port`; look at [`Field::L4Proto`] first, other protocols have something else there.
    SourcePort,
    /// `th dport`, of `Port`.
    DestinationPort,
    /// `tcp flags`, of `Integer(1)`: 1 FIN, 2 SYN, 4 RST, 16 ACK.
    TcpFlags,
    /// `arp saddr ip` in an ARP packet for IPv4 over Ethernet, of `Ipv4`.
    ArpSourceIp,
    /// `arp saddr ether` in such a packet, of `Ether`.
    ArpSourceEther,
    /// `ct state`, of `Integer(4)` in the host's order, see [`super::idiom::ct_state_in`].
    CtState,
    /// `ct status`, of `Integer(4)` in the host's order: IPS_* of linux/netfilter/nf_conntrack_common.h.
    CtStatus,
    /// `ct direction`, of `Direction`.
    CtDirection,
    /// `ct mark`, of `Mark`.
    CtMark,
    /// `ct zone`, of `Zone`.
    CtZone,
    /// `ct original ip saddr`, of `Ipv4`: who opened the connection, as it was before any translation.
    CtOriginalSource,
}

/// NFT_PAYLOAD_LL_HEADER, NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER.
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// NFT_META_MARK.
pub(super) const META_MARK: u32 = 3;
/// NFT_CT_MARK and NFT_CT_ZONE.
pub(super) const CT_MARK: u32 = 3;
pub(super) const CT_ZONE: u32 = 17;
/// NFT_CT_SRC_IP.
const CT_SOURCE: u32 = 19;

/// Where it comes from.
enum Source {
    /// A key of `enum nft_meta_keys`.
    Meta(u32),
    /// A key of `enum nft_ct_keys`.
    Ct(u32),
    /// The same, of the direction that opened the connection.
    CtOriginal(u32),
    /// A header, and the bytes before it there.
    Payload(u32, u32),
}

impl Field {
    fn source(self) -> (Source, usize) {
        match self {
            Field::EtherType => (Source::Meta(1), 2),
            Field::Mark => (Source::Meta(META_MARK), 4),
            Field::Iif => (Source::Meta(4), 4),
            Field::Oif => (Source::Meta(5), 4),
            Field::IifName => (Source::Meta(6), 16),
            Field::OifName => (Source::Meta(7), 16),
            Field::IifGroup => (Source::Meta(21), 4),
            Field::OifGroup => (Source::Meta(22), 4),
            Field::SocketUser => (Source::Meta(10), 4),
            Field::SdifName => (Source::Meta(34), 16),
            Field::NfProto => (Source::Meta(15), 1),
            Field::L4Proto => (Source::Meta(16), 1),
            Field::PacketType => (Source::Meta(19), 1),
            Field::EtherDestination => (Source::Payload(LINK, 0), 6),
            Field::EtherSource => (Source::Payload(LINK, 6), 6),
            Field::EtherTypeOnWire => (Source::Payload(LINK, 12), 2),
            Field::IpSource => (Source::Payload(NETWORK, 12), 4),
            Field::IpDestination => (Source::Payload(NETWORK, 16), 4),
            Field::Ip6Source => (Source::Payload(NETWORK, 8), 16),
            Field::Ip6Destination => (Source::Payload(NETWORK, 24), 16),
            Field::ArpSourceEther => (Source::Payload(NETWORK, 8), 6),
            Field::ArpSourceIp => (Source::Payload(NETWORK, 14), 4),
            Field::SourcePort => (Source::Payload(TRANSPORT, 0), 2),
            Field::DestinationPort => (Source::Payload(TRANSPORT, 2), 2),
            Field::TcpFlags => (Source::Payload(TRANSPORT, 13), 1),
            Field::CtState => (Source::Ct(0), 4),
            Field::CtDirection => (Source::Ct(1), 1),
            Field::CtStatus => (Source::Ct(2), 4),
            Field::CtMark => (Source::Ct(CT_MARK), 4),
            Field::CtZone => (Source::Ct(CT_ZONE), 2),
            Field::CtOriginalSource => (Source::CtOriginal(CT_SOURCE), 4),
        }
    }

    /// Its bytes.
    pub(super) fn length(self) -> usize {
        self.source().1
    }

    /// Adds the expression that loads it into a register.
    pub(super) fn load(self, into: &mut Vec<u8>, register: u32) {
        match self.source() {
            (Source::Meta(key), _) => expression(into, "meta", |meta| {
                number(meta, 2, key);
                number(meta, 1, register);
            }),
            (Source::Ct(key), _) => expression(into, "ct", |ct| {
                number(ct, 2, key);
                number(ct, 1, register);
            }),
            (Source::CtOriginal(key), _) => expression(into, "ct", |ct| {
                number(ct, 2, key);
                push(ct, 3, &[0]);
                number(ct, 1, register);
            }),
            (Source::Payload(header, offset), length) => expression(into, "payload", |payload| {
                number(payload, 1, register);
                number(payload, 2, header);
                number(payload, 3, offset);
                number(payload, 4, length as u32);
            }),
        }
    }
}

/// Adds the expressions that load fields one behind the other, from the first register.
pub(super) fn load_all(fields: &[Field], into: &mut Vec<u8>) {
    let mut words = 0;
    for field in fields {
        field.load(into, super::encode::register(words));
        words += field.length().div_ceil(4);
    }
}

/// Adds the lookup of the loaded fields in a map, whose answer goes to `register`.
pub(super) fn look_up(fields: &[Field], map: &str, register: u32, into: &mut Vec<u8>) {
    load_all(fields, into);
    expression(into, "lookup", |lookup| {
        crate::netlink::attribute::push_text(lookup, 1, map);
        number(lookup, 2, super::encode::register(0));
        number(lookup, 3, register);
    });
}

/// Adds the expression that writes the first register to a key of `meta`.
pub(super) fn store_meta(key: u32, into: &mut Vec<u8>) {
    expression(into, "meta", |meta| {
        number(meta, 2, key);
        number(meta, 3, super::encode::register(0));
    });
}

/// Adds the expression that writes the first register to a key of `ct`, of one direction where that has two.
pub(super) fn store_ct(key: u32, direction: Option<u8>, into: &mut Vec<u8>) {
    expression(into, "ct", |ct| {
        number(ct, 2, key);
        if let Some(direction) = direction {
            push(ct, 3, &[direction]);
        }
        number(ct, 4, super::encode::register(0));
    });
}
