//! Addresses of devices (ip-address(8)); ours carry IFA_PROTO.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::rt_addr::{IfaCacheinfo, Ifaddrmsg, IterableAddrAttrs, OpDeladdrDo, OpNewaddrDo};

use super::Message;
use crate::{Family, PROTOCOL};

/// An address on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The device's index.
    pub device: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// Did fief add it?
    pub ours: bool,
}

impl Address {
    /// The request that adds it as ours: without a prefix route, and IPv6 without duplicate address detection, which
    /// would keep it unusable for a second.
    pub(crate) fn add(&self) -> Message {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let what = format!("add address {} to device #{}", self.net, self.device);
        Message::new(libc::RTM_NEWADDR, flags, what, |body| {
            let flags =
                libc::IFA_F_NOPREFIXROUTE | if self.net.addr().is_ipv6() { libc::IFA_F_NODAD } else { 0 };
            let attributes = OpNewaddrDo::encode_request(body, &self.header()).push_local(self.net.addr());
            let attributes = attributes.push_address(self.net.addr()).push_flags(flags).push_proto(PROTOCOL);
            if self.net.addr().is_ipv6() {
                // Valid for ever and preferred never: with its full length it would match every destination better
                // than the host's own address, and the host would speak from it (RFC 6724). The tenant's routes
                // name their source.
                let life = IfaCacheinfo { ifa_prefered: 0, ifa_valid: u32::MAX, ..IfaCacheinfo::new() };
                drop(attributes.push_cacheinfo(life));
            }
        })
    }

    /// The request that removes it.
    pub(crate) fn delete(&self) -> Message {
        let what = format!("delete address {} from device #{}", self.net, self.device);
        Message::new(libc::RTM_DELADDR, 0, what, |body| {
            let attributes = OpDeladdrDo::encode_request(body, &self.header()).push_local(self.net.addr());
            drop(attributes.push_address(self.net.addr()));
        })
    }

    /// Reads an address from a listing or a notification.
    pub(crate) fn decode(body: &[u8]) -> Option<Address> {
        let (header, attributes): (Ifaddrmsg, IterableAddrAttrs<'_>) = OpNewaddrDo::decode_request(body);
        // On point-to-point links IFA_LOCAL is ours and IFA_ADDRESS the peer; IPv6 leaves IFA_LOCAL out otherwise.
        let address: IpAddr = attributes.get_local().or_else(|_| attributes.get_address()).ok()?;
        Some(Address {
            device: header.ifa_index,
            net: IpNet::new(address, header.ifa_prefixlen).ok()?,
            ours: proto_of(&attributes) == Some(PROTOCOL),
        })
    }

    fn header(&self) -> Ifaddrmsg {
        let mut header = Ifaddrmsg::new();
        header.ifa_family = Family::of(self.net.addr()).af();
        header.ifa_prefixlen = self.net.prefix_len();
        header.ifa_index = self.device;
        header
    }
}

fn proto_of(attributes: &IterableAddrAttrs<'_>) -> Option<u8> {
    attributes.get_proto().ok()
}
