//! Addresses of devices in namespaces that are ours altogether; what tells [`crate::Address`] apart, that one is for the
//! host's own devices.

use ipnet::IpNet;
use netlink_bindings::rt_addr::{Ifaddrmsg, OpDeladdrDo, OpNewaddrDo};

use crate::netlink::Message;
use crate::{Family, PROTOCOL};

/// An address with its prefix, for a device. It carries our mark of origin (IFA_PROTO), and is used without duplicate
/// address detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    /// The device, by number.
    pub device: u32,
    /// The address with its prefix length.
    pub net: IpNet,
    /// Shall the kernel make no route of the prefix (IFA_F_NOPREFIXROUTE)? Not looked at when it is removed.
    pub noprefixroute: bool,
}

impl InterfaceAddress {
    pub(super) fn add(&self, what: String) -> Message {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        Message::new(libc::RTM_NEWADDR, flags, what, |body| {
            let no_route = if self.noprefixroute { libc::IFA_F_NOPREFIXROUTE } else { 0 };
            let no_detection = if self.net.addr().is_ipv6() { libc::IFA_F_NODAD } else { 0 };
            let attributes = OpNewaddrDo::encode_request(body, &self.header()).push_local(self.net.addr());
            let attributes = attributes.push_address(self.net.addr()).push_flags(no_route | no_detection);
            drop(attributes.push_proto(PROTOCOL));
        })
    }

    pub(super) fn delete(&self, what: String) -> Message {
        Message::new(libc::RTM_DELADDR, 0, what, |body| {
            let attributes = OpDeladdrDo::encode_request(body, &self.header()).push_local(self.net.addr());
            drop(attributes.push_address(self.net.addr()));
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

impl std::fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} dev #{}", self.net, self.device)
    }
}
