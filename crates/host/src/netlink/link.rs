//! Network devices (ip-link(8)) as the host has them: read only. [`crate::devices`] makes and changes others.

use netlink_bindings::rt_link::{Ifinfomsg, IterableLinkAttrs, OpNewlinkDo};

/// A network device as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index: never used again for another device while the namespace lives.
    pub index: u32,
    /// Its name; may change.
    pub name: String,
    /// Is it administratively up (IFF_UP)? Routes can only be added then.
    pub up: bool,
    /// Is it operational (IFF_LOWER_UP)?
    pub carrier: bool,
    /// Is it the loopback device?
    pub loopback: bool,
    /// Do its frames have an Ethernet header (ARPHRD_ETHER)?
    pub ethernet: bool,
    /// Its group (`ip link set group`).
    pub group: u32,
}

impl Link {
    /// Reads a device from a listing or a notification. Bridges announce their ports with AF_BRIDGE messages of
    /// the same type, RTM_DELLINK for a port that leaves included; those are not about the device and give `None`.
    pub(crate) fn decode(body: &[u8]) -> Option<Link> {
        let (header, attributes): (Ifinfomsg, IterableLinkAttrs<'_>) = OpNewlinkDo::decode_request(body);
        if i32::from(header.ifi_family) == libc::AF_BRIDGE {
            return None;
        }
        let flags = header.ifi_flags as i32;
        Some(Link {
            index: header.ifi_index as u32,
            name: attributes.get_ifname().ok()?.to_string_lossy().into_owned(),
            up: flags & libc::IFF_UP != 0,
            carrier: flags & libc::IFF_LOWER_UP != 0,
            loopback: flags & libc::IFF_LOOPBACK != 0,
            ethernet: header.ifi_type == libc::ARPHRD_ETHER,
            group: attributes.get_group().unwrap_or(0),
        })
    }
}
