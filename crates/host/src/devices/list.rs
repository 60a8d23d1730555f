//! What there is: listings of devices, addresses, neighbours and forwarding entries.

use netlink_bindings::rt_addr::OpGetaddrDump;
use netlink_bindings::rt_link::{Ifinfomsg, IterableLinkAttrs, OpGetlinkDump, OpNewlinkDo};
use netlink_bindings::rt_neigh::{Ndmsg, OpGetneighDump};

use super::settings::name_device;
use super::{Fdb, Named, Neighbour, Port};
use crate::netlink::attribute::{find, text};
use crate::netlink::{Message, Socket};
use crate::{Address, HostError};

/// A device as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its group.
    pub group: u32,
    /// Is it administratively up (IFF_UP)?
    pub up: bool,
    /// Is it operational (IFF_LOWER_UP)?
    pub carrier: bool,
    /// The device that it is a port of, by number.
    pub master: Option<u32>,
    /// The name of its driver for ip(8), as `bridge`, `veth` or `tun`; hardware has none.
    pub kind: Option<String>,
    /// What it lies on (IFLA_LINK): of a veth the other end, by the number that has in its own namespace.
    pub peer: Option<u32>,
    /// The kernel's number here of the namespace that `peer` is in (IFLA_LINK_NETNSID), if that is another.
    pub peer_namespace: Option<i32>,
    /// Its text for people.
    pub alias: Option<String>,
    /// Of a bridge's port, how it is set.
    pub port: Option<Port>,
    /// Of a bridge's port, what it does with frames.
    pub port_state: Option<PortState>,
    /// Of a VLAN device, which VLAN.
    pub vlan: Option<u16>,
}

/// What a bridge's port does with frames (BR_STATE_* of linux/if_bridge.h, IEEE 802.1D).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the standard's words")]
pub enum PortState {
    Disabled,
    Listening,
    Learning,
    Forwarding,
    Blocking,
}

impl PortState {
    fn from_number(number: u8) -> Option<PortState> {
        use PortState::{Blocking, Disabled, Forwarding, Learning, Listening};
        [Disabled, Listening, Learning, Forwarding, Blocking].get(usize::from(number)).copied()
    }
}

impl std::fmt::Display for PortState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

impl Device {
    fn decode(body: &[u8]) -> Option<Device> {
        let (header, attributes): (Ifinfomsg, IterableLinkAttrs<'_>) = OpNewlinkDo::decode_request(body);
        let raw = body.get(Ifinfomsg::len()..)?;
        let info = find(raw, libc::IFLA_LINKINFO);
        let of_info = |kind: u16| info.and_then(|info| find(info, kind));
        let is_port = of_info(libc::IFLA_INFO_SLAVE_KIND).is_some_and(|kind| text(kind) == "bridge");
        let slave = of_info(libc::IFLA_INFO_SLAVE_DATA).filter(|_| is_port);
        let is_vlan = of_info(libc::IFLA_INFO_KIND).is_some_and(|kind| text(kind) == "vlan");
        let vlan =
            of_info(libc::IFLA_INFO_DATA).filter(|_| is_vlan).and_then(|data| find(data, IFLA_VLAN_ID));
        let flags = header.ifi_flags.cast_signed();
        Some(Device {
            index: header.ifi_index.cast_unsigned(),
            name: attributes.get_ifname().ok()?.to_string_lossy().into_owned(),
            mac: attributes.get_address().ok().and_then(|mac| mac.try_into().ok()),
            mtu: attributes.get_mtu().unwrap_or(0),
            group: attributes.get_group().unwrap_or(0),
            up: flags & libc::IFF_UP != 0,
            carrier: flags & libc::IFF_LOWER_UP != 0,
            master: attributes.get_master().ok(),
            kind: of_info(libc::IFLA_INFO_KIND).map(text),
            peer: attributes.get_link().ok().filter(|peer| *peer != 0),
            peer_namespace: attributes.get_link_netnsid().ok(),
            alias: attributes.get_ifalias().ok().map(|alias| alias.to_string_lossy().into_owned()),
            port: slave.map(Port::decode),
            port_state: slave
                .and_then(|data| find(data, IFLA_BRPORT_STATE))
                .and_then(|state| PortState::from_number(*state.first()?)),
            vlan: vlan.and_then(|id| Some(u16::from_ne_bytes(*id.first_chunk()?))),
        })
    }
}

/// IFLA_BRPORT_STATE and IFLA_VLAN_ID (linux/if_link.h).
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;

/// Every device of the socket's network namespace, by number.
pub fn list(socket: &mut Socket) -> Result<Vec<Device>, HostError> {
    repeat(|| {
        let mut devices = Vec::new();
        let encode = |body: &mut Vec<u8>| drop(OpGetlinkDump::encode_request(body, &Ifinfomsg::new()));
        socket.dump(libc::RTM_GETLINK, "list devices", encode, |_, body| {
            devices.extend(Device::decode(body))
        })?;
        devices.sort_by_key(|device| device.index);
        Ok(devices)
    })
}

/// Every address of the socket's network namespace.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, HostError> {
    repeat(|| {
        let mut addresses = Vec::new();
        let encode = |body: &mut Vec<u8>| drop(OpGetaddrDump::encode_request(body, &Default::default()));
        socket.dump(libc::RTM_GETADDR, "list addresses", encode, |_, body| {
            addresses.extend(Address::decode(body));
        })?;
        Ok(addresses)
    })
}

/// Every permanent neighbour of the socket's network namespace.
pub fn neighbours(socket: &mut Socket) -> Result<Vec<Neighbour>, HostError> {
    of_neighbours(socket, 0, "list neighbours", Neighbour::decode)
}

/// Every forwarding entry of every bridge in the socket's network namespace.
pub fn fdb(socket: &mut Socket) -> Result<Vec<Fdb>, HostError> {
    of_neighbours(socket, libc::AF_BRIDGE as u8, "list forwarding entries", Fdb::decode)
}

/// The number of the device with this name; `None` if there is none.
pub fn index_of(socket: &mut Socket, name: &str) -> Result<Option<u32>, HostError> {
    Ok(find_named(socket, name)?.map(|device| device.index))
}

/// The device with this name; `None` if there is none.
pub fn find_named(socket: &mut Socket, name: &str) -> Result<Option<Device>, HostError> {
    let encode = |body: &mut Vec<u8>| name_device(body, &Named::Name(name.to_owned()), 0, 0);
    let question = Message::new(libc::RTM_GETLINK, 0, format!("look for device {name}"), encode);
    let mut device = None;
    let answer = socket.ask(question, |_, body| device = Device::decode(body));
    match answer {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        other => other.map(|()| device),
    }
}

fn of_neighbours<T>(
    socket: &mut Socket,
    family: u8,
    what: &str,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, HostError> {
    repeat(|| {
        let mut found = Vec::new();
        let mut header = Ndmsg::new();
        header.ndm_family = family;
        let encode = |body: &mut Vec<u8>| drop(OpGetneighDump::encode_request(body, &header));
        socket.dump(libc::RTM_GETNEIGH, what, encode, |_, body| found.extend(decode(body)))?;
        Ok(found)
    })
}

/// A listing that a change interrupted is asked for again; somebody who changes things without pause must not keep us
/// here for ever.
fn repeat<T>(mut listing: impl FnMut() -> Result<Vec<T>, HostError>) -> Result<Vec<T>, HostError> {
    for _ in 0..20 {
        match listing() {
            Err(HostError::Overrun) => {}
            done => return done,
        }
    }
    Err(HostError::Overrun)
}
