//! What of a device can be changed: RTM_SETLINK (do_setlink in net/core/rtnetlink.c).

use netlink_bindings::rt_link::Ifinfomsg;

use super::{Mac, Named};
use crate::netlink::Message;
use crate::netlink::attribute::{nest, push, push_text};

/// IFLA_INET6_ADDR_GEN_MODE and IN6_ADDR_GEN_MODE_NONE (linux/if_link.h).
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

/// What to change of a device; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Is it up?
    pub up: Option<bool>,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// The bridge that it is a port of, or `Some(None)` for none.
    pub master: Option<Option<Named>>,
    /// Its new name.
    pub name: Option<String>,
    /// Its text for people (IFLA_IFALIAS); an empty one takes it away.
    pub alias: Option<String>,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Its group.
    pub group: Option<u32>,
}

impl Settings {
    /// The request; names of devices whose number it needs are numbers here, see [`super::carry_out`].
    pub(super) fn message(&self, device: &Named, what: String) -> Message {
        Message::new(libc::RTM_SETLINK, 0, what, |body| {
            let up = libc::IFF_UP as u32;
            let (flags, change) = match self.up {
                Some(true) => (up, up),
                Some(false) => (0, up),
                None => (0, 0),
            };
            name_device(body, device, flags, change);
            if let Some(name) = &self.name {
                push_text(body, libc::IFLA_IFNAME, name);
            }
            if let Some(mac) = self.mac {
                push(body, libc::IFLA_ADDRESS, &mac);
            }
            if let Some(alias) = &self.alias {
                push_text(body, libc::IFLA_IFALIAS, alias);
            }
            let master = self.master.as_ref().map(|master| match master {
                Some(Named::Index(index)) => *index,
                _ => 0,
            });
            let numbers =
                [(libc::IFLA_MTU, self.mtu), (libc::IFLA_GROUP, self.group), (libc::IFLA_MASTER, master)];
            for (kind, value) in numbers {
                if let Some(value) = value {
                    push(body, kind, &value.to_ne_bytes());
                }
            }
        })
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(up) = self.up {
            f.write_str(if up { " up" } else { " down" })?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        match &self.master {
            Some(Some(master)) => write!(f, " master {master}")?,
            Some(None) => f.write_str(" nomaster")?,
            None => {}
        }
        if let Some(name) = &self.name {
            write!(f, " name {name}")?;
        }
        if let Some(alias) = &self.alias {
            write!(f, " alias {alias:?}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, " address {}", Mac(mac))?;
        }
        match self.group {
            Some(group) => write!(f, " group {group}"),
            None => Ok(()),
        }
    }
}

/// A request to change a device by these attributes.
pub(super) fn change(device: &Named, what: String, attributes: impl FnOnce(&mut Vec<u8>)) -> Message {
    Message::new(libc::RTM_SETLINK, 0, what, |body| {
        name_device(body, device, 0, 0);
        attributes(body);
    })
}

/// The request that keeps IPv6 from making addresses.
pub(super) fn no_address_generation(device: &Named, what: String) -> Message {
    change(device, what, |body| {
        nest(body, libc::IFLA_AF_SPEC, |families| {
            nest(families, libc::AF_INET6 as u16, |v6| {
                push(v6, IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
            });
        });
    })
}

/// `struct ifinfomsg`, and the name where the device has no number in the request.
pub(super) fn name_device(body: &mut Vec<u8>, device: &Named, flags: u32, change: u32) {
    let mut header = Ifinfomsg::new();
    (header.ifi_flags, header.ifi_change) = (flags, change);
    if let Named::Index(index) = device {
        header.ifi_index = index.cast_signed();
    }
    body.extend(header.as_slice());
    if let Named::Name(name) = device {
        push_text(body, libc::IFLA_IFNAME, name);
    }
}
