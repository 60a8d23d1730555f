//! Values and their types, with the numbers that nft(8) knows the types by (datatype.h of nftables).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The type of a field of a key or of a map's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `ether_addr`.
    Ether,
    /// `inet_proto`: a protocol above IP.
    Protocol,
    /// `inet_service`: a port.
    Port,
    /// `mark`: a mark of packets or of connections.
    Mark,
    /// `devgroup`: a group of devices.
    Group,
    /// `iface_index`: a device by number. nft shows the name of the device that has it.
    Ifindex,
    /// `ifname`: a device by name.
    Ifname,
    /// `ct_dir`: a direction of a connection.
    Direction,
    /// A zone of connection tracking: two bytes in the host's order. nft(8) has no name of its own for it.
    Zone,
    /// So many bytes, in network byte order.
    Integer(u8),
}

/// A value of one of these types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// Of [`Type::Ipv4`].
    Ipv4(Ipv4Addr),
    /// Of [`Type::Ipv6`].
    Ipv6(Ipv6Addr),
    /// Of [`Type::Ether`].
    Ether([u8; 6]),
    /// Of [`Type::Protocol`].
    Protocol(u8),
    /// Of [`Type::Port`].
    Port(u16),
    /// Of [`Type::Mark`].
    Mark(u32),
    /// Of [`Type::Group`].
    Group(u32),
    /// Of [`Type::Ifindex`].
    Ifindex(u32),
    /// Of [`Type::Ifname`].
    Ifname(String),
    /// Of [`Type::Direction`]: 0 is the direction that opened the connection, 1 the other.
    Direction(u8),
    /// Of [`Type::Zone`].
    Zone(u16),
    /// Of [`Type::Integer`], as it stands in the packet or the register.
    Bytes(Vec<u8>),
}

impl Type {
    /// nft's number.
    pub(super) fn number(self) -> u32 {
        match self {
            Type::Zone | Type::Integer(_) => 4,
            Type::Ipv4 => 7,
            Type::Ipv6 => 8,
            Type::Ether => 9,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Mark => 19,
            Type::Ifindex => 20,
            Type::Direction => 27,
            Type::Group => 35,
            Type::Ifname => 41,
        }
    }

    /// Its bytes, without what fills them up to whole words.
    pub(super) fn length(self) -> usize {
        match self {
            Type::Protocol | Type::Direction => 1,
            Type::Port | Type::Zone => 2,
            Type::Ipv4 | Type::Mark | Type::Group | Type::Ifindex => 4,
            Type::Ether => 6,
            Type::Ipv6 | Type::Ifname => 16,
            Type::Integer(bytes) => usize::from(bytes),
        }
    }

    /// nft's number of its byte order: 1 the host's, 2 the network's.
    pub(super) fn order(self) -> u32 {
        match self {
            Type::Mark | Type::Group | Type::Ifindex | Type::Ifname | Type::Zone | Type::Direction => 1,
            _ => 2,
        }
    }
}

impl Value {
    /// As it stands in a register.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Ipv4(address) => address.octets().to_vec(),
            Value::Ipv6(address) => address.octets().to_vec(),
            Value::Ether(mac) => mac.to_vec(),
            Value::Protocol(byte) | Value::Direction(byte) => vec![*byte],
            Value::Port(port) => port.to_be_bytes().to_vec(),
            Value::Zone(zone) => zone.to_ne_bytes().to_vec(),
            Value::Mark(word) | Value::Group(word) | Value::Ifindex(word) => word.to_ne_bytes().to_vec(),
            Value::Ifname(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0);
                bytes
            }
            Value::Bytes(bytes) => bytes.clone(),
        }
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Value {
        match address {
            IpAddr::V4(address) => Value::Ipv4(address),
            IpAddr::V6(address) => Value::Ipv6(address),
        }
    }
}

/// Fields one behind the other, each filled up to whole words of four bytes.
pub(super) fn concatenated(values: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let values: Vec<Vec<u8>> = values.into_iter().collect();
    if let [one] = &values[..] {
        return one.clone();
    }
    values.into_iter().fold(Vec::new(), |mut all, value| {
        all.extend(value);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    })
}

/// nft's number of a concatenation of types: six bits each.
pub(super) fn type_number(types: &[Type]) -> u32 {
    types.iter().fold(0, |number, part| number << 6 | part.number())
}

/// The bytes of a concatenation of types.
pub(super) fn type_length(types: &[Type]) -> usize {
    match types {
        [one] => one.length(),
        many => many.iter().map(|part| part.length().next_multiple_of(4)).sum(),
    }
}

/// The byte order of a concatenation: none if there is more than one field.
pub(super) fn type_order(types: &[Type]) -> u32 {
    match types {
        [one] => one.order(),
        _ => 0,
    }
}
