//! Neighbours (ip-neighbour(8)) and forwarding entries of bridges (bridge(8)), which are one kind of message: `struct
//! ndmsg` of linux/neighbour.h.

use std::net::IpAddr;

use netlink_bindings::rt_neigh::{IterableNeighbourAttrs, Ndmsg, OpNewneighDo};

use super::Mac;
use crate::Family;
use crate::netlink::Message;

const NTF_MASTER: u8 = 0x04;
const NTF_STICKY: u8 = 0x40;
const NUD_REACHABLE: u16 = 0x02;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// Who has which hardware address behind a device, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The device, by number.
    pub device: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address; not looked at when it is removed.
    pub mac: [u8; 6],
}

/// An address that a bridge knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fdb {
    /// The bridge's port, by number.
    pub device: u32,
    /// The address behind it.
    pub mac: [u8; 6],
    /// Of what kind; not looked at when it is removed.
    pub state: FdbState,
}

/// Kinds of forwarding entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FdbState {
    /// It is the host's own: frames to it are not forwarded (NUD_PERMANENT, `local`).
    Local,
    /// Frames to it leave by this port, and it does not age (NUD_NOARP, `static`). What a locked port needs.
    Static,
    /// The same, and it stays at its port whoever sends with its address elsewhere (NTF_STICKY, Linux 4.20).
    Sticky,
    /// As if it had been learned: it ages and may move (NUD_REACHABLE, `dynamic`).
    Dynamic,
}

impl Neighbour {
    fn header(&self) -> Ndmsg {
        let mut header = Ndmsg::new();
        header.ndm_family = Family::of(self.address).af();
        header.ndm_ifindex = self.device.cast_signed();
        header.ndm_state = NUD_PERMANENT;
        header
    }

    pub(super) fn set(&self, what: String) -> Message {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        Message::new(libc::RTM_NEWNEIGH, flags, what, |body| {
            let attributes = OpNewneighDo::encode_request(body, &self.header());
            drop(attributes.push_dst(self.address).push_lladdr(&self.mac));
        })
    }

    pub(super) fn delete(&self, what: String) -> Message {
        Message::new(libc::RTM_DELNEIGH, 0, what, |body| {
            drop(OpNewneighDo::encode_request(body, &self.header()).push_dst(self.address));
        })
    }

    /// Reads a permanent one from a listing.
    pub(super) fn decode(body: &[u8]) -> Option<Neighbour> {
        let (header, attributes): (Ndmsg, IterableNeighbourAttrs<'_>) = OpNewneighDo::decode_request(body);
        Family::from_af(header.ndm_family)?;
        (header.ndm_state & NUD_PERMANENT != 0).then_some(())?;
        Some(Neighbour {
            device: header.ndm_ifindex.cast_unsigned(),
            address: attributes.get_dst().ok()?,
            mac: attributes.get_lladdr().ok()?.try_into().ok()?,
        })
    }
}

impl Fdb {
    fn header(&self) -> Ndmsg {
        let mut header = Ndmsg::new();
        header.ndm_family = libc::AF_BRIDGE as u8;
        header.ndm_ifindex = self.device.cast_signed();
        header.ndm_flags = NTF_MASTER;
        if self.state == FdbState::Sticky {
            header.ndm_flags |= NTF_STICKY;
        }
        header.ndm_state = match self.state {
            FdbState::Local => NUD_PERMANENT,
            FdbState::Static | FdbState::Sticky => NUD_NOARP,
            FdbState::Dynamic => NUD_REACHABLE,
        };
        header
    }

    pub(super) fn set(&self, what: String) -> Message {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        Message::new(libc::RTM_NEWNEIGH, flags, what, |body| {
            drop(OpNewneighDo::encode_request(body, &self.header()).push_lladdr(&self.mac));
        })
    }

    pub(super) fn delete(&self, what: String) -> Message {
        Message::new(libc::RTM_DELNEIGH, 0, what, |body| {
            drop(OpNewneighDo::encode_request(body, &self.header()).push_lladdr(&self.mac));
        })
    }

    /// Reads an entry of a port's from a listing.
    pub(super) fn decode(body: &[u8]) -> Option<Fdb> {
        let (header, attributes): (Ndmsg, IterableNeighbourAttrs<'_>) = OpNewneighDo::decode_request(body);
        // Those without a master are the device's own unicast and multicast filters.
        attributes.get_master().ok()?;
        Some(Fdb {
            device: header.ndm_ifindex.cast_unsigned(),
            mac: attributes.get_lladdr().ok()?.try_into().ok()?,
            state: match header.ndm_state {
                state if state & NUD_PERMANENT != 0 => FdbState::Local,
                state if state & NUD_NOARP != 0 && header.ndm_flags & NTF_STICKY != 0 => FdbState::Sticky,
                state if state & NUD_NOARP != 0 => FdbState::Static,
                _ => FdbState::Dynamic,
            },
        })
    }
}

impl std::fmt::Display for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lladdr {} dev #{}", self.address, Mac(self.mac), self.device)
    }
}

impl std::fmt::Display for Fdb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} dev #{} {}", Mac(self.mac), self.device, format!("{:?}", self.state).to_lowercase())
    }
}
