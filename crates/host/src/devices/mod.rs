//! Network devices and what belongs to them, made and changed by rtnetlink(7) requests: bridges, veth pairs, bridge
//! ports, forwarding entries, neighbours, addresses, routes.
//!
//! A caller lists what is to be done as [`Build`]s, in order, and [`carry_out`] does it on a socket, in whose network
//! namespace everything happens. Numbers of devices (ifindex) are that namespace's.
//!
//! ```no_run
//! # use fief_host::devices::{self, Bridge, Build, NewLink};
//! # fn example() -> Result<(), fief_host::HostError> {
//! let mut socket = fief_host::netlink::Socket::open(libc::NETLINK_ROUTE)?;
//! let link = NewLink { name: "n-web".into(), up: true, ..NewLink::default() };
//! let builds = [Build::AddBridge(Bridge { link, ..Bridge::default() })];
//! devices::carry_out(&mut socket, &builds).into_iter().collect()
//! # }
//! ```

mod address;
mod carry_out;
mod classifier;
mod link;
mod list;
mod neighbour;
mod port;
mod settings;
mod vrf;
mod vxlan;

use std::sync::Arc;

pub use address::InterfaceAddress;
pub use carry_out::carry_out;
pub use classifier::{Classifier, Direction};
pub use link::{Bridge, NewLink, Veth, Vlan, Vrf};
pub use list::{Device, PortState, addresses, fdb, find_named, index_of, list, neighbours};
pub use neighbour::{Fdb, FdbState, Neighbour};
pub use port::Port;
pub use settings::Settings;
pub use vrf::has_vrf;
pub use vxlan::{Vni, Vxlan};

use crate::Route;
use crate::namespaces::Namespace;

/// A device as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Named {
    /// By its number, which no other device of the namespace gets while that lives.
    Index(u32),
    /// By its name, of 15 bytes at most, which may change.
    Name(String),
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Named::Index(index) => write!(f, "#{index}"),
            Named::Name(name) => f.write_str(name),
        }
    }
}

/// One thing to be done.
#[derive(Debug, Clone)]
pub enum Build {
    /// Makes a bridge. Refused with EEXIST if the name is taken.
    AddBridge(Bridge),
    /// A new VRF.
    AddVrf(Vrf),
    /// A new VLAN device. Refused with EOPNOTSUPP by a kernel without 802.1Q.
    AddVlan(Vlan),
    /// A new VXLAN device. Refused with EADDRINUSE, when it goes up, if its port is taken.
    AddVxlan(Vxlan),
    /// Has a VXLAN device hear a VNI; its group is not changed if it does.
    AddVni(Vni),
    /// Has it hear a VNI no more.
    DeleteVni(Vni),
    /// Makes a pair of veth devices. Refused with EEXIST if a name is taken.
    AddVeth(Veth),
    /// Changes a device.
    Set {
        /// Which one.
        device: Named,
        /// To what.
        settings: Settings,
    },
    /// Keeps IPv6 from giving the device a link-local address when it comes up (IN6_ADDR_GEN_MODE_NONE).
    NoAddressGeneration(Named),
    /// Moves a device into another network namespace. It arrives down, without addresses, with its name and, if that is
    /// free there, its number.
    Move {
        /// Which one.
        device: Named,
        /// Where to.
        namespace: Arc<Namespace>,
    },
    /// Removes a device; of a veth pair both ends go.
    DeleteLink(Named),
    /// Removes every device of a group (ip-link(8)) at once, which takes hardly longer than one. Refused with ENODEV
    /// if there is none in it.
    DeleteGroup(u32),
    /// Changes a port of a bridge. Refused with EOPNOTSUPP if the device is in no bridge.
    SetPort {
        /// The port.
        device: Named,
        /// To what.
        port: Port,
    },
    /// Makes the place for programs at a device. Refused with EEXIST if it is there.
    AddClassifiers(Named),
    /// Puts a program at a device, in the place of the one that is there.
    SetClassifier(Classifier),
    /// Adds a forwarding entry to a port's bridge, or replaces it.
    SetFdb(Fdb),
    /// Removes a forwarding entry of a port's.
    DeleteFdb(Fdb),
    /// Adds a permanent neighbour (ip-neighbour(8)), or replaces it.
    SetNeighbour(Neighbour),
    /// Removes a neighbour.
    DeleteNeighbour(Neighbour),
    /// Gives a device an address. Refused with EEXIST if it has it.
    AddAddress(InterfaceAddress),
    /// Takes an address from a device.
    DeleteAddress(InterfaceAddress),
    /// Adds a route of our protocol, or replaces the one with the same key; without the programs of a detour.
    SetRoute(Route),
    /// Removes a route of our protocol.
    DeleteRoute(Route),
}

impl std::fmt::Display for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Build::AddBridge(bridge) => write!(f, "add bridge {}", bridge.link.name),
            Build::AddVlan(vlan) => {
                write!(f, "add VLAN device {} for VLAN {} of #{}", vlan.link.name, vlan.id, vlan.parent)
            }
            Build::AddVrf(vrf) => write!(f, "add VRF {}", vrf.link.name),
            Build::AddVxlan(vxlan) => write!(f, "add vxlan {} at port {}", vxlan.link.name, vxlan.port),
            Build::AddVni(vni) => write!(f, "add VNI {} to device #{}", vni.vni, vni.device),
            Build::DeleteVni(vni) => write!(f, "delete VNI {} of device #{}", vni.vni, vni.device),
            Build::AddVeth(veth) => write!(f, "add veth {} with peer {}", veth.link.name, veth.peer.name),
            Build::Set { device, settings } => write!(f, "set device {device}{settings}"),
            Build::NoAddressGeneration(device) => write!(f, "set device {device} addrgenmode none"),
            Build::Move { device, namespace } => {
                write!(f, "move device {device} to network namespace {}", namespace.name)
            }
            Build::DeleteLink(device) => write!(f, "delete device {device}"),
            Build::DeleteGroup(group) => write!(f, "delete devices of group {group}"),
            Build::SetPort { device, port } => write!(f, "set bridge port {device}{port}"),
            Build::AddClassifiers(device) => write!(f, "add clsact to device {device}"),
            Build::SetClassifier(Classifier { device, name, .. }) => {
                write!(f, "set program {name} of device {device}")
            }
            Build::SetFdb(entry) => write!(f, "set forwarding entry {entry}"),
            Build::DeleteFdb(entry) => write!(f, "delete forwarding entry {entry}"),
            Build::SetNeighbour(neighbour) => write!(f, "set neighbour {neighbour}"),
            Build::DeleteNeighbour(neighbour) => write!(f, "delete neighbour {neighbour}"),
            Build::AddAddress(address) => write!(f, "add address {address}"),
            Build::DeleteAddress(address) => write!(f, "delete address {address}"),
            Build::SetRoute(route) => write!(f, "set route {}", route.show()),
            Build::DeleteRoute(route) => write!(f, "delete route {}", route.show()),
        }
    }
}

/// A hardware address as people write it.
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
