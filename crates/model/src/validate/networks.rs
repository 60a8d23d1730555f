//! One network by itself.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::addresses::nature;
use super::{Findings, names, switches};
use crate::{Mss, Network, PortMap};

/// RFC 791: every host must take 576 bytes whole. RFC 8200: 1280.
const LEAST_MTU: u32 = 576;
const LEAST_MTU_V6: u32 = 1280;
/// What the metadata service and self-made addresses live in (RFC 3927).
const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(169, 254, 0, 0), 16);
/// What fief takes aliases and links from (RFC 1112, class E).
const CLASS_E: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(240, 0, 0, 0), 4);

/// Bytes of the least headers of IPv4 (RFC 791) and TCP (RFC 9293).
const HEADERS: u32 = 40;

pub(super) fn check(network: &Network, findings: &mut Findings<'_>) {
    let metadata = &network.metadata;
    findings.check_owned(&metadata.name, &metadata.tenant, &metadata.labels, "a network");
    uplinks(network, findings);
    if network.is_switch() {
        switches::check(network, findings);
    } else {
        switches::check_absent(network, findings);
        subnets(network, findings);
        gateways(network, findings);
        dhcp(network, findings);
        dns(network, findings);
        port_maps(network, findings);
    }
    let spec = &network.spec;
    let least = if spec.subnets.iter().any(|net| net.addr().is_ipv6()) { LEAST_MTU_V6 } else { LEAST_MTU };
    if !(least..=65_535).contains(&spec.mtu) {
        let help = format!("write a number of bytes between {least} and 65535");
        findings.refuse("spec.mtu", format!("{} is no MTU for this network", spec.mtu), help);
    }
    if let Mss::Bytes(bytes) = spec.mss
        && (bytes < Mss::LEAST || u32::from(bytes) > spec.mtu.saturating_sub(HEADERS))
    {
        let most = spec.mtu.saturating_sub(HEADERS);
        let help = format!(
            "write {} to {most}, which is the MTU without the headers of IPv4 and TCP, or `auto`",
            Mss::LEAST
        );
        findings.refuse("spec.mss", format!("{bytes} is no size for this network's segments"), help);
    }
    for (index, tenant) in spec.allow_endpoints.iter().enumerate() {
        names::check_name(&format!("spec.allowEndpoints[{index}]"), tenant, "a tenant", findings);
    }
}

fn subnets(network: &Network, findings: &mut Findings<'_>) {
    let subnets = &network.spec.subnets;
    for (index, net) in subnets.iter().enumerate() {
        let path = format!("spec.subnets[{index}]");
        if let Some((flaw, help)) = flaw_of_subnet(*net) {
            findings.refuse(&path, flaw, help);
        }
        let same = |other: &&IpNet| other.addr().is_ipv6() == net.addr().is_ipv6();
        if subnets[..index].iter().find(same).is_some() {
            let flaw = format!("{net} is a second subnet of its family");
            findings.refuse(&path, flaw, "delete one of them, or describe a second network");
        }
    }
    if !subnets.iter().any(|net| net.addr().is_ipv4()) {
        let help = "add one, as in `subnets: [10.10.1.0/24]`";
        findings.refuse("spec.subnets", "a network needs an IPv4 subnet", help);
    }
}

fn flaw_of_subnet(net: IpNet) -> Option<(String, String)> {
    if net.trunc() != net {
        return Some((format!("{net} is an address in a subnet"), format!("write {}", net.trunc())));
    }
    let (least, most) = if net.addr().is_ipv4() { (8, 30) } else { (32, 126) };
    if !(least..=most).contains(&net.prefix_len()) {
        let help = format!("write a prefix length between {least} and {most}");
        return Some((format!("{net} is no size for a network"), help));
    }
    let taken = match net {
        IpNet::V4(v4) => [(LINK_LOCAL, "metadata"), (CLASS_E, "fief's own links")].into_iter().find_map(
            |(range, whose)| {
                (range.contains(&v4) || v4.contains(&range))
                    .then(|| format!("{net} lies in {range}, which is for {whose}"))
            },
        ),
        IpNet::V6(_) => None,
    };
    let taken = taken.or_else(|| nature(net.addr()).map(|n| format!("{net} begins with {}", n.noun())));
    taken.map(|flaw| (flaw, "write a private prefix, as in 10.10.1.0/24 (RFC 1918, RFC 4193)".into()))
}

fn gateways(network: &Network, findings: &mut Findings<'_>) {
    for (index, address) in network.spec.gateways.iter().enumerate() {
        let path = format!("spec.gateways[{index}]");
        match network.spec.subnets.iter().find(|net| net.contains(address)) {
            None => {
                let help = "write an address of one of its subnets, or leave `gateways` out";
                findings.refuse(&path, format!("{address} is in no subnet of this network"), help);
            }
            Some(net) if !is_host_in(*net, *address) => {
                let flaw = format!("{address} is {net} itself or its broadcast address");
                findings.refuse(&path, flaw, "write an address that a host can have");
            }
            Some(net) if network.gateway(*net) != *address => {
                let flaw = format!("{address} is a second gateway in {net}");
                findings.refuse(&path, flaw, "delete one of them");
            }
            Some(_) => {}
        }
    }
}

/// Is this an address in the subnet that a host can have?
pub(super) fn is_host_in(net: IpNet, address: IpAddr) -> bool {
    net.contains(&address) && address != net.network() && (address.is_ipv6() || address != net.broadcast())
}

fn uplinks(network: &Network, findings: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    for (index, name) in network.spec.uplinks.iter().enumerate() {
        let path = format!("spec.uplinks[{index}]");
        if let Some((flaw, help)) = names::flaw_of_device(name) {
            findings.refuse(&path, flaw, help);
        } else if !seen.insert(name) {
            findings.refuse(&path, format!("`{name}` is listed twice"), "delete one of them");
        }
    }
}

fn dhcp(network: &Network, findings: &mut Findings<'_>) {
    let Some(dhcp) = &network.spec.dhcp else { return };
    let Some(subnet) = network.subnet4() else { return };
    let gateway = network.gateway(IpNet::V4(subnet));
    match dhcp.addresses() {
        Err(flaw) => {
            findings.refuse("spec.dhcp.range", flaw, "write two addresses, as in 10.10.1.50-10.10.1.150")
        }
        Ok(Some(range)) if !subnet.contains(range.start()) || !subnet.contains(range.end()) => {
            let flaw = format!("{}-{} is not in {subnet}", range.start(), range.end());
            findings.refuse("spec.dhcp.range", flaw, "write addresses of the subnet");
        }
        Ok(_) => {}
    }
    if dhcp.lease_time().is_none_or(|time| !(60..=31_536_000).contains(&time.as_secs())) {
        let help = "write a number with `s`, `m`, `h` or `d`, one minute to a year, as in `lease: 60m`";
        findings.refuse("spec.dhcp.lease", format!("`{}` is no time for a lease", dhcp.lease), help);
    }
    let (mut macs, mut addresses) = (HashSet::new(), HashSet::new());
    for (index, reservation) in dhcp.reservations.iter().enumerate() {
        let path = format!("spec.dhcp.reservations[{index}]");
        let address = IpAddr::V4(reservation.address);
        if !is_host_in(IpNet::V4(subnet), address) || address == gateway {
            let flaw = format!("{address} is no address for a client of {subnet}");
            findings.refuse(&format!("{path}.address"), flaw, "write another address of the subnet");
        } else if !addresses.insert(address) {
            let flaw = format!("{address} is reserved twice");
            findings.refuse(&format!("{path}.address"), flaw, "delete one of them");
        }
        if !macs.insert(reservation.mac) {
            let flaw = format!("{} has two reservations", reservation.mac);
            findings.refuse(&format!("{path}.mac"), flaw, "delete one of them");
        }
    }
}

fn dns(network: &Network, findings: &mut Findings<'_>) {
    for name in network.spec.dns.names.keys() {
        if !name.split('.').all(names::is_dns_label) {
            let flaw = format!("`{name}` is not a name");
            findings.refuse(
                &format!("spec.dns.names[\"{name}\"]"),
                flaw,
                "write lower-case letters, digits and inner hyphens, as in `gw`",
            );
        }
    }
    for (index, server) in network.spec.dns.servers.iter().enumerate() {
        if let Some(nature) = nature(*server) {
            let flaw = format!("{server} is {}", nature.noun());
            findings.refuse(
                &format!("spec.dns.servers[{index}]"),
                flaw,
                "write a server that the tenant can reach",
            );
        }
    }
}

fn port_maps(network: &Network, findings: &mut Findings<'_>) {
    for (index, map) in network.spec.port_maps.iter().enumerate() {
        let path = |field: &str| format!("spec.portMaps[{index}].{field}");
        if !network.spec.uplinks.contains(&map.uplink) {
            let flaw = format!("`{}` is no uplink of this network", map.uplink);
            findings.refuse(&path("uplink"), flaw, "write one of its `uplinks`, or add it there");
        }
        if map.port == 0 {
            findings.refuse(&path("port"), "0 is no port", "write a whole number, 1 to 65535");
        }
        if let Some(flaw) = flaw_of_target(network, map) {
            findings.refuse(
                &path("to"),
                flaw,
                "write an endpoint of this network with a port, as in \"app2:80\"",
            );
        }
    }
}

fn flaw_of_target(network: &Network, map: &PortMap) -> Option<String> {
    let Some((to, _)) = map.target() else {
        return Some(format!("`{}` is not a target with a port", map.to));
    };
    match to.parse::<IpAddr>() {
        Ok(address) => {
            let inside = network.subnet4().is_some_and(|net| is_host_in(IpNet::V4(net), address));
            (!inside).then(|| format!("{address} is no IPv4 address of this network"))
        }
        Err(_) => {
            let name = to.split_once('/').map_or(to, |(_, name)| name);
            (!names::is_dns_label(name)).then(|| format!("`{to}` is no name for an endpoint"))
        }
    }
}
