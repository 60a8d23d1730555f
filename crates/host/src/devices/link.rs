//! New devices: the attributes of RTM_NEWLINK (IFLA_*, IFLA_BR_*, IFLA_VRF_* and IFLA_VLAN_* of linux/if_link.h,
//! VETH_INFO_PEER of linux/veth.h).

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use netlink_bindings::rt_link::Ifinfomsg;

use crate::namespaces::Namespace;
use crate::netlink::Message;
use crate::netlink::attribute::{nest, push, push_text};

const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_HELLO_TIME: u16 = 2;
const IFLA_BR_MAX_AGE: u16 = 3;
const IFLA_BR_AGEING_TIME: u16 = 4;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_PRIORITY: u16 = 6;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
const VETH_INFO_PEER: u16 = 1;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_VRF_TABLE: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;

/// What every new device has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewLink {
    /// Its name, of 15 bytes at most.
    pub name: String,
    /// Its number; the kernel's choice if left out. Refused with EBUSY if it is taken.
    pub index: Option<u32>,
    /// Its hardware address; a random one if left out.
    pub mac: Option<[u8; 6]>,
    /// Its MTU in bytes; 1500 if left out.
    pub mtu: Option<u32>,
    /// Its group (`ip link set group`); 0 if left out.
    pub group: Option<u32>,
    /// Is it up from the beginning?
    pub up: bool,
    /// A text for people, of 255 bytes at most (IFLA_IFALIAS). The kernel takes it in a request of its own, when the
    /// device is there.
    pub alias: Option<String>,
    /// The bridge it becomes a port of, by number.
    pub master: Option<u32>,
}

/// A new bridge (net/bridge). What is left out is as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bridge {
    /// What every device has.
    pub link: NewLink,
    /// Does it run the spanning tree protocol?
    pub stp: bool,
    /// How long a port that comes up listens and learns before it forwards, in hundredths of a second; without STP 0 is
    /// allowed.
    pub forward_delay: Option<u32>,
    /// How often a root bridge speaks (IEEE 802.1D), in hundredths of a second: 100 to 1000.
    pub hello: Option<u32>,
    /// After what time of silence of the root bridge another one is chosen, in hundredths of a second: 600 to 4000.
    pub max_age: Option<u32>,
    /// The first 16 bits of its bridge identifier: the lowest of all bridges is the root.
    pub priority: Option<u16>,
    /// After what time of silence an address is forgotten, in hundredths of a second.
    pub ageing: Option<u32>,
    /// Does it listen to IGMP and MLD, and send multicast only where it is wanted?
    pub multicast_snooping: Option<bool>,
    /// Do its frames pass the netfilter hooks of IPv4 and IPv6 as well (nf_call_iptables, nf_call_ip6tables)? Here `false`
    /// still leaves the sysctl `net.bridge.bridge-nf-call-iptables` of the namespace in force.
    pub netfilter: Option<bool>,
}

/// A new pair of veth devices (veth(4)).
#[derive(Debug, Clone, Default)]
pub struct Veth {
    /// The end in the socket's network namespace.
    pub link: NewLink,
    /// The other end; its `master` is a bridge of its own namespace. That it is up, its master and its alias take a
    /// request of their own, in its namespace. Its number can be chosen only if that of `link` is too (veth_newlink).
    pub peer: NewLink,
    /// The network namespace of the other end; the socket's if left out.
    pub peer_namespace: Option<Arc<Namespace>>,
}

/// A new VRF (Documentation/networking/vrf.rst): devices under it route by its table. The first one of a namespace brings
/// the rule of preference 1000 in both families, which stays when the last one goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vrf {
    /// What every device has.
    pub link: NewLink,
    /// The number of its routing table.
    pub table: u32,
}

/// A new VLAN device (net/8021q): frames of one IEEE 802.1Q tag on another device, without the tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vlan {
    /// What every device has.
    pub link: NewLink,
    /// The device that it lies on, by number.
    pub parent: u32,
    /// The VLAN, 1 to 4094. Refused with EEXIST if the parent has a device for it.
    pub id: u16,
}

impl Vlan {
    pub(super) fn message(&self, what: String) -> Message {
        let data = |data: &mut Vec<u8>| push(data, IFLA_VLAN_ID, &self.id.to_ne_bytes());
        self.link.message_on(Some(self.parent), what, "vlan", data)
    }
}

impl Vrf {
    pub(super) fn message(&self, what: String) -> Message {
        self.link.message(what, "vrf", |data| push(data, IFLA_VRF_TABLE, &self.table.to_ne_bytes()))
    }
}

impl Bridge {
    pub(super) fn message(&self, what: String) -> Message {
        let data = |data: &mut Vec<u8>| {
            push(data, IFLA_BR_STP_STATE, &u32::from(self.stp).to_ne_bytes());
            let numbers = [
                (IFLA_BR_FORWARD_DELAY, self.forward_delay),
                (IFLA_BR_HELLO_TIME, self.hello),
                (IFLA_BR_MAX_AGE, self.max_age),
                (IFLA_BR_AGEING_TIME, self.ageing),
            ];
            for (kind, value) in numbers {
                if let Some(value) = value {
                    push(data, kind, &value.to_ne_bytes());
                }
            }
            if let Some(priority) = self.priority {
                push(data, IFLA_BR_PRIORITY, &priority.to_ne_bytes());
            }
            let (snooping, netfilter) = (self.multicast_snooping, self.netfilter);
            let switches = [
                (IFLA_BR_MCAST_SNOOPING, snooping),
                (IFLA_BR_NF_CALL_IPTABLES, netfilter),
                (IFLA_BR_NF_CALL_IP6TABLES, netfilter),
            ];
            for (kind, value) in switches {
                if let Some(value) = value {
                    push(data, kind, &[value.into()]);
                }
            }
        };
        // An MTU that a bridge begins with would follow that of its ports; carry_out changes it when the bridge is there.
        NewLink { mtu: None, ..self.link.clone() }.message(what, "bridge", data)
    }
}

impl Veth {
    /// The request; `namespace` is the descriptor of the peer's.
    pub(super) fn message(&self, what: String, namespace: Option<&OwnedFd>) -> Message {
        self.link.message_with(one_queue, what, "veth", |data| {
            nest(data, VETH_INFO_PEER, |peer| {
                // Up it can only be when both ends are there (veth_open).
                let header = NewLink { up: false, ..self.peer.clone() }.header();
                peer.extend(header.as_slice());
                self.peer.attributes(peer);
                one_queue(peer);
                if let Some(namespace) = namespace {
                    push(peer, libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
                }
            });
        })
    }
}

/// The kernel makes room for as many queues as the machine may ever have processors, and uses one (veth_get_num_queues,
/// veth_init_queues in drivers/net/veth.c).
fn one_queue(into: &mut Vec<u8>) {
    push(into, IFLA_NUM_TX_QUEUES, &1_u32.to_ne_bytes());
    push(into, IFLA_NUM_RX_QUEUES, &1_u32.to_ne_bytes());
}

impl NewLink {
    fn message(&self, what: String, kind: &str, data: impl FnOnce(&mut Vec<u8>)) -> Message {
        self.message_on(None, what, kind, data)
    }

    /// The request for a device that lies on another one (IFLA_LINK).
    fn message_on(
        &self,
        parent: Option<u32>,
        what: String,
        kind: &str,
        data: impl FnOnce(&mut Vec<u8>),
    ) -> Message {
        let attributes = |body: &mut Vec<u8>| {
            if let Some(parent) = parent {
                push(body, libc::IFLA_LINK, &parent.to_ne_bytes());
            }
        };
        self.message_with(attributes, what, kind, data)
    }

    /// The request with these attributes beside the device's own.
    pub(super) fn message_with(
        &self,
        attributes: impl FnOnce(&mut Vec<u8>),
        what: String,
        kind: &str,
        data: impl FnOnce(&mut Vec<u8>),
    ) -> Message {
        // Without NLM_F_EXCL it would change a device that is there already.
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        Message::new(libc::RTM_NEWLINK, flags, what, |body| {
            body.extend(self.header().as_slice());
            self.attributes(body);
            attributes(body);
            if let Some(master) = self.master {
                push(body, libc::IFLA_MASTER, &master.to_ne_bytes());
            }
            nest(body, libc::IFLA_LINKINFO, |info| {
                push_text(info, libc::IFLA_INFO_KIND, kind);
                nest(info, libc::IFLA_INFO_DATA, data);
            });
        })
    }

    fn header(&self) -> Ifinfomsg {
        let mut header = Ifinfomsg::new();
        header.ifi_index = self.index.unwrap_or(0).cast_signed();
        let up = libc::IFF_UP as u32;
        (header.ifi_flags, header.ifi_change) = if self.up { (up, up) } else { (0, 0) };
        header
    }

    fn attributes(&self, into: &mut Vec<u8>) {
        push_text(into, libc::IFLA_IFNAME, &self.name);
        if let Some(mac) = self.mac {
            push(into, libc::IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = self.mtu {
            push(into, libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(group) = self.group {
            push(into, libc::IFLA_GROUP, &group.to_ne_bytes());
        }
    }
}
