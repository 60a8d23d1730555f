//! Interfaces and what is on them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Findings, names};
use crate::{Interface, Mac, Tenant};

pub(super) fn check(tenant: &Tenant, findings: &mut Findings<'_>) {
    let mut devices = HashMap::new();
    let mut seen = HashMap::new();
    for (index, interface) in tenant.spec.interfaces.iter().enumerate() {
        let path = format!("spec.interfaces[{index}]");
        if let Some((flaw, help)) = names::flaw_of_device(&interface.name) {
            findings.refuse(&format!("{path}.name"), flaw, help);
        } else if let Some(first) = devices.insert(interface.name.as_str(), index) {
            let line = findings.line(&format!("spec.interfaces[{first}].name"));
            findings.refuse(
                &format!("{path}.name"),
                format!("`{}` is listed twice", interface.name),
                format!("put all its addresses in one item; the first is on line {line}"),
            );
        }
        for (number, net) in interface.addresses.iter().enumerate() {
            let own = || format!("{path}.addresses[{number}]");
            if let Some((flaw, help)) = flaw_of_address(*net) {
                findings.refuse(&own(), flaw, help);
            }
            if let Some((i, n)) = seen.insert(net.addr(), (index, number)) {
                let line = findings.line(&format!("spec.interfaces[{i}].addresses[{n}]"));
                findings.refuse(
                    &own(),
                    format!("{} is listed twice in this tenant", net.addr()),
                    format!("delete one of them; the first is on line {line}"),
                );
            }
        }
        check_purpose(interface, &path, findings);
        check_neighbours(interface, &path, findings);
    }
}

/// What is wrong with an address as an address of ours, and what to write instead.
fn flaw_of_address(net: IpNet) -> Option<(String, String)> {
    let address = net.addr();
    if let Some(nature) = nature(address) {
        let help = match nature {
            Nature::LinkLocal => {
                "delete it; every device has one of its own, and the same one may exist on each of them"
                    .into()
            }
            Nature::Mapped(v4) => format!("write the IPv4 address itself: {v4}"),
            _ => "write an address that belongs to this tenant alone, as in 192.0.2.11/24".into(),
        };
        return Some((format!("{address} is {}", nature.noun()), help));
    }
    if net.prefix_len() == 0 {
        let help =
            format!("write the prefix length of its network, as in {address}/{}", usual_length(address));
        return Some((format!("{net} would make every address a neighbour"), help));
    }
    if net.prefix_len() + 1 >= net.max_prefix_len() {
        return None;
    }
    if address == net.network() {
        let help = "write the host's own address in that network".into();
        return Some((format!("{net} is the network itself, not an address in it"), help));
    }
    if address.is_ipv4() && address == net.broadcast() {
        let help = "write an address below it, or the right prefix length".into();
        return Some((format!("{address} is the broadcast address of {}", net.trunc()), help));
    }
    None
}

/// What an address is, if it is not one that a host could have and others could reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Unspecified,
    Loopback,
    Multicast,
    Broadcast,
    LinkLocal,
    Mapped(Ipv4Addr),
}

pub(super) fn nature(address: IpAddr) -> Option<Nature> {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some(Nature::Unspecified),
        IpAddr::V4(v4) if v4.is_broadcast() => Some(Nature::Broadcast),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Nature::LinkLocal),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => v6.to_ipv4_mapped().map(Nature::Mapped),
        _ if address.is_unspecified() => Some(Nature::Unspecified),
        _ if address.is_loopback() => Some(Nature::Loopback),
        _ if address.is_multicast() => Some(Nature::Multicast),
        _ => None,
    }
}

impl Nature {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Nature::Unspecified => "an unspecified address",
            Nature::Loopback => "a loopback address",
            Nature::Multicast => "a multicast address",
            Nature::Broadcast => "the broadcast address",
            Nature::LinkLocal => "a link-local address",
            Nature::Mapped(_) => "an IPv4 address in IPv6 writing",
        }
    }
}

/// The prefix length to show in an example.
fn usual_length(address: IpAddr) -> u8 {
    if address.is_ipv6() { 64 } else { 24 }
}

fn check_purpose(interface: &Interface, path: &str, findings: &mut Findings<'_>) {
    if !interface.manage && interface.addresses.is_empty() {
        findings.refuse(
            &format!("{path}.manage"),
            format!("`manage: false` says that addresses exist already, and `{}` lists none", interface.name),
            "list the addresses that must be there, or delete `manage: false`",
        );
    }
}

fn check_neighbours(interface: &Interface, path: &str, findings: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    for (index, mac) in interface.neighbours.iter().flatten().enumerate() {
        let Mac(bytes) = mac;
        let flaw = if bytes == &[0; 6] {
            format!("{mac} is nobody's address")
        } else if bytes[0] & 1 == 1 {
            format!("{mac} is a group's address; no packet comes from it")
        } else if !seen.insert(mac) {
            format!("{mac} is listed twice")
        } else {
            continue;
        };
        let help = match flaw.ends_with("twice") {
            true => "delete one of them",
            false => "write the neighbour's own address, as `ip neigh` shows it",
        };
        findings.refuse(&format!("{path}.neighbours[{index}]"), flaw, help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_a_host_can_have() {
        for good in ["192.0.2.1/24", "192.0.2.0/31", "192.0.2.255/32", "10.0.0.0/32", "169.254.1.1/16"] {
            assert!(flaw_of_address(good.parse().unwrap()).is_none(), "{good}");
        }
        for good in ["2001:db8::1/64", "2001:db8::/127", "2001:db8::/128", "fd00::1/8"] {
            assert!(flaw_of_address(good.parse().unwrap()).is_none(), "{good}");
        }
        for bad in
            ["0.0.0.0/32", "0.1.2.3/8", "127.0.0.1/8", "224.0.0.5/24", "255.255.255.255/32", "192.0.2.1/0"]
        {
            assert!(flaw_of_address(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for bad in ["192.0.2.0/24", "192.0.2.255/24", "192.0.2.0/30", "10.255.255.255/8"] {
            assert!(flaw_of_address(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for bad in [
            "::/128",
            "::1/128",
            "ff02::1/64",
            "fe80::1/64",
            "::ffff:192.0.2.1/128",
            "2001:db8::/64",
            "::5/0",
        ] {
            assert!(flaw_of_address(bad.parse().unwrap()).is_some(), "{bad}");
        }
    }
}
