//! Network devices (ip-link(8)) as the host has them: read only. [`crate::devices`] makes and changes others.

use netlink_bindings::rt_link::{Ifinfomsg, IterableLinkAttrs, OpNewlinkDo};

use super::attribute::{find, number, text};

/// linux/if_link.h.
const IFLA_VRF_TABLE: u16 = 1;

/// A network device as it is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Its group (ip-link(8)).
    pub group: u32,
    /// The device that it is a port of, by index.
    pub master: Option<u32>,
    /// Of a VRF, the number of its table.
    pub vrf: Option<u32>,
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
        let info = body.get(Ifinfomsg::len()..).and_then(|raw| find(raw, libc::IFLA_LINKINFO));
        let of_info = |kind: u16| info.and_then(|info| find(info, kind));
        let is_vrf = of_info(libc::IFLA_INFO_KIND).is_some_and(|kind| text(kind) == "vrf");
        let vrf = of_info(libc::IFLA_INFO_DATA).filter(|_| is_vrf);
        Some(Link {
            index: header.ifi_index as u32,
            name: attributes.get_ifname().ok()?.to_string_lossy().into_owned(),
            up: flags & libc::IFF_UP != 0,
            carrier: flags & libc::IFF_LOWER_UP != 0,
            loopback: flags & libc::IFF_LOOPBACK != 0,
            ethernet: header.ifi_type == libc::ARPHRD_ETHER,
            group: attributes.get_group().unwrap_or(0),
            master: attributes.get_master().ok().filter(|master| *master != 0),
            vrf: vrf.and_then(|data| find(data, IFLA_VRF_TABLE)).and_then(number),
        })
    }
}
