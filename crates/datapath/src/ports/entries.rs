//! Keys and values of the maps that all ports share. The C side is bpf/lib/{endpoints,track,denied}.h; both change together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Pod;

/// The endpoint must not say that it is somebody else, a router or a DHCP server.
pub const GUARDED: u32 = 1;
/// What policies forbid is written down and passes.
pub const AUDITED: u32 = 2;

/// `struct port`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Port {
    pub(crate) space: u32,
    pub(crate) slot: u32,
    pub(crate) identity: u32,
    pub(crate) owner: u32,
    pub(crate) flags: u32,
    /// The key once more: see the C side.
    pub(crate) device: u32,
}

/// `struct address`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    slot: u32,
    family: u32,
    address: [u8; 16],
}

/// `struct holder`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) device: u32,
    /// The key once more: see the C side.
    pub(crate) whose: Address,
}

/// `struct conversation`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Conversation {
    pub(crate) device: u32,
    pub(crate) family: u8,
    pub(crate) protocol: u8,
    pub(crate) reserved: u16,
    pub(crate) own: [u8; 16],
    pub(crate) other: [u8; 16],
    pub(crate) own_port: u16,
    pub(crate) other_port: u16,
}

/// `struct record`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) state: u32,
    pub(crate) reserved: u32,
    pub(crate) stamp: u64,
    pub(crate) seen: u64,
    pub(crate) whose: Conversation,
    pub(crate) behind: u32,
}

/// `struct young`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Young {
    pub(crate) device: u32,
    pub(crate) place: u32,
}

/// `struct usage`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) space: u32,
    pub(crate) answered: u32,
    pub(crate) second: u32,
    pub(crate) new: u32,
    pub(crate) unlisted: u32,
}

/// `struct share`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) waiting: u32,
    pub(crate) answered: u32,
}

/// `struct denied`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Denied {
    pub(crate) device: u32,
    pub(crate) direction: u8,
    pub(crate) reason: u8,
    pub(crate) protocol: u8,
    pub(crate) family: u8,
    pub(crate) own: [u8; 16],
    pub(crate) other: [u8; 16],
    pub(crate) port: u16,
    pub(crate) reserved: u16,
    pub(crate) rule: u32,
}

/// `struct denials`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Denials {
    pub(crate) count: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) slot: u32,
    pub(crate) subject: u32,
    pub(crate) peer: u32,
    pub(crate) reserved: u32,
}

// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Port {}
// SAFETY: numbers and bytes, nothing between or behind them.
unsafe impl Pod for Address {}
// SAFETY: numbers and bytes, nothing between or behind them.
unsafe impl Pod for Holder {}
// SAFETY: numbers and bytes, nothing between or behind them.
unsafe impl Pod for Conversation {}
// SAFETY: numbers and bytes; 24 and 44 and 4 are a multiple of eight, so nothing is between or behind them.
unsafe impl Pod for Record {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Young {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Usage {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Share {}
// SAFETY: numbers and bytes, nothing between or behind them.
unsafe impl Pod for Denied {}
// SAFETY: numbers, nothing between or behind them.
unsafe impl Pod for Denials {}

/// The family, and the address with zeroes behind.
pub(crate) fn family(address: IpAddr) -> (u32, [u8; 16]) {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(address.octets()).for_each(|(to, from)| *to = from);
            (4, bytes)
        }
        IpAddr::V6(address) => (6, address.octets()),
    }
}

/// The same backwards.
pub(crate) fn address(family: u8, bytes: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = bytes;
    match family {
        4 => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(bytes).into(),
    }
}

impl Address {
    pub(crate) fn new(slot: u16, address: IpAddr) -> Address {
        let (family, address) = family(address);
        Address { slot: slot.into(), family, address }
    }
}
