//! Ports of uplinks that lead to endpoints.

use std::net::{IpAddr, Ipv4Addr};

use fief_api::Condition;
use fief_model::{Attachment, Endpoint, Network};

use super::exits::Exit;
use super::{Ground, Member, Space, condition};

pub(super) fn port_maps(
    key: &str,
    network: &Network,
    members: &[Member<'_>],
    ground: &Ground<'_>,
    exits: &[(&String, &Exit)],
    space: &mut Space,
    conditions: &mut Vec<Condition>,
) {
    for map in &network.spec.port_maps {
        let Some((_, exit)) = exits.iter().find(|(name, _)| **name == map.uplink) else { continue };
        let Some((to, port)) = map.target() else { continue };
        let address = match to.parse::<Ipv4Addr>() {
            Ok(address) => Some(address),
            Err(_) => address_of(key, network, to, members, ground),
        };
        let Some(address) = address else {
            conditions.push(condition(
                "PortMapIdle",
                format!(
                    "port {} of {} leads to {to}, which has no address on this network yet",
                    map.port, map.uplink
                ),
            ));
            continue;
        };
        let protocol = map.protocol.number();
        let inside = ground.links.address(space.slot, exit.uplink.index);
        space.mapped.insert((inside, protocol, map.port), (address, port));
        for outside in &exit.addresses {
            space.called.insert((*outside, protocol, map.port), inside);
        }
    }
}

/// The IPv4 address of the endpoint that a port map names, fixed or leased.
fn address_of(
    key: &str,
    network: &Network,
    name: &str,
    members: &[Member<'_>],
    ground: &Ground<'_>,
) -> Option<Ipv4Addr> {
    let own = format!("{}/{name}", network.metadata.tenant);
    let is_named = |endpoint: &Endpoint| {
        let key = endpoint.metadata.key();
        key == own || key == name
    };
    let named = members.iter().find(|member| is_named(member.endpoint));
    // An endpoint of another tenant may be called by its name alone where that is nobody's of the own one.
    let by_name = |member: &&Member<'_>| member.endpoint.metadata.name == name;
    let Member { endpoint, attachment, .. } = named.or_else(|| members.iter().find(by_name))?;
    match reserved(network, endpoint, attachment) {
        Some(IpAddr::V4(v4)) => Some(v4),
        _ => ground.leases.get(&(key.to_owned(), endpoint.mac_of(attachment))).copied(),
    }
}

/// The address that an endpoint has on a network whatever happens: its document's, or one that is reserved for it.
pub(super) fn reserved(network: &Network, endpoint: &Endpoint, attachment: &Attachment) -> Option<IpAddr> {
    attachment.address.or_else(|| {
        let mac = endpoint.mac_of(attachment);
        let reservations = network.spec.dhcp.iter().flat_map(|dhcp| &dhcp.reservations);
        reservations.filter(|r| r.mac == mac).map(|r| IpAddr::V4(r.address)).next()
    })
}
