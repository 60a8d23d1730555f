//! VXLAN devices (RFC 7348) that take their tunnel from whoever sends (IFLA_VXLAN_* of linux/if_link.h), and which VNIs
//! they hear (VXLAN_VNIFILTER_* of linux/if_link.h, Linux 5.18).

use std::net::IpAddr;

use super::NewLink;
use crate::netlink::Message;
use crate::netlink::attribute::{nest, push};

const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT_RANGE: u16 = 10;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX: u16 = 20;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
const IFLA_VXLAN_VNIFILTER: u16 = 30;

const RTM_NEWTUNNEL: u16 = 120;
const RTM_DELTUNNEL: u16 = 121;
const VXLAN_VNIFILTER_ENTRY: u16 = 1;
const ENTRY_START: u16 = 1;
const ENTRY_GROUP: u16 = 3;
const ENTRY_GROUP6: u16 = 4;

/// A new VXLAN device without a tunnel of its own: a program says of each frame where it goes (`external`). It hears the
/// VNIs that it is told ([`Vni`]) and no other.
#[derive(Debug, Clone, Default)]
pub struct Vxlan {
    /// What every device has.
    pub link: NewLink,
    /// The device of the underlay, by its number in the namespace of the sockets.
    pub underlay: u32,
    /// The port of UDP that it hears at, and sends from.
    pub port: u16,
    /// The namespace that the device is to be in. Its sockets stay in that of the request; so nothing there can be sent
    /// past it, and who is at the underlay does not see it.
    pub namespace: Option<std::sync::Arc<crate::namespaces::Namespace>>,
}

impl Vxlan {
    /// The request; `namespace` is the descriptor of the device's.
    pub(super) fn message(&self, what: String, namespace: Option<&std::os::fd::OwnedFd>) -> Message {
        use std::os::fd::AsRawFd;
        let attributes = |body: &mut Vec<u8>| {
            if let Some(namespace) = namespace {
                push(body, libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
            }
        };
        self.link.message_with(attributes, what, "vxlan", |data| {
            push(data, IFLA_VXLAN_LINK, &self.underlay.to_ne_bytes());
            push(data, IFLA_VXLAN_PORT, &self.port.to_be_bytes());
            // From one port only: udp_flow_src_port takes one below the second.
            let mut range = self.port.to_be_bytes().to_vec();
            range.extend(self.port.saturating_add(1).to_be_bytes());
            push(data, IFLA_VXLAN_PORT_RANGE, &range);
            for (kind, value) in [
                (IFLA_VXLAN_LEARNING, 0_u8),
                (IFLA_VXLAN_COLLECT_METADATA, 1),
                (IFLA_VXLAN_VNIFILTER, 1),
                (IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1),
            ] {
                push(data, kind, &[value]);
            }
        })
    }
}

/// A VNI that a VXLAN device hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vni {
    /// The device, by number.
    pub device: u32,
    /// Which one.
    pub vni: u32,
    /// The multicast group that the device's socket joins for it.
    pub group: Option<IpAddr>,
}

impl Vni {
    /// Hears it from now on; that it does is no error.
    pub(super) fn add(&self, what: String) -> Message {
        self.message(RTM_NEWTUNNEL, libc::NLM_F_CREATE, what)
    }

    /// Hears it no more. Refused with ENOENT if it was not.
    pub(super) fn delete(&self, what: String) -> Message {
        Vni { group: None, ..*self }.message(RTM_DELTUNNEL, 0, what)
    }

    fn message(&self, kind: u16, flags: i32, what: String) -> Message {
        Message::new(kind, flags, what, |body| {
            // struct tunnel_msg.
            body.extend([libc::AF_BRIDGE as u8, 0, 0, 0]);
            body.extend(self.device.to_ne_bytes());
            nest(body, VXLAN_VNIFILTER_ENTRY, |entry| {
                push(entry, ENTRY_START, &self.vni.to_ne_bytes());
                match self.group {
                    Some(IpAddr::V4(group)) => push(entry, ENTRY_GROUP, &group.octets()),
                    Some(IpAddr::V6(group)) => push(entry, ENTRY_GROUP6, &group.octets()),
                    None => {}
                }
            });
        })
    }
}
