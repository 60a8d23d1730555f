//! Router advertisements (RFC 4861, 6.2): how endpoints give themselves IPv6 addresses, and learn who resolves names.
//!
//! Pure: [`advertisement`] says what is sent, [`is_solicitation`] what asks for it, [`Timetable`] when it leaves. Every
//! advertisement goes to all nodes of the network, and solicitations that come together have one answer together: a
//! thousand endpoints that boot at once cost one packet in three seconds.

#[cfg(test)]
mod tests;
mod timetable;

use std::net::Ipv6Addr;

use crate::NetworkConfig;
pub(crate) use timetable::Timetable;

/// What a packet that has not passed a router still has (RFC 4861, 6.1.1): the longest way there is.
pub(crate) const HOPS: i32 = 255;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Types of options: RFC 4861, 4.6, and RFC 8106, 5.
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// Lengths of options are in these units.
const UNIT: usize = 8;

/// What endpoints put into their packets (the number that IANA assigns for this).
const HOP_LIMIT: u8 = 64;
/// DHCPv6 has addresses, and the rest (RFC 4861, 4.2).
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
/// The prefix is on the network's link, and endpoints may make addresses of it (RFC 4861, 4.6.2).
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
/// Interface identifiers on Ethernet have 64 bits (RFC 2464, 4), so that only such prefixes make addresses.
const MADE_OF: u8 = 64;
/// RFC 4861, 6.2.1, in seconds: thirty days and seven. As long as that an endpoint keeps its address without hearing of
/// it, so that it outlives a daemon that is stopped.
const VALID: u32 = 30 * 86_400;
const PREFERRED: u32 = 7 * 86_400;
/// Three times the longest pause between two advertisements, in seconds (RFC 4861, 6.2.1, and RFC 8106, 5.1).
const KNOWN: u16 = 3 * timetable::LONGEST.as_secs() as u16;
/// What every IPv6 link must be able to carry (RFC 8200, 5); less is not said.
const LEAST_MTU: u16 = 1280;

/// The ICMPv6 message that says what there is on this network, without its checksum, which the kernel computes (RFC 3542,
/// 3.1); `None` where there is no IPv6.
pub(crate) fn advertisement(config: &NetworkConfig) -> Option<Vec<u8>> {
    let subnet = config.subnet6?;
    let fixed = config.endpoints.iter().any(|endpoint| endpoint.address6.is_some());
    let flags = match &config.dhcp {
        Some(_) if fixed => MANAGED | OTHER,
        Some(_) => OTHER,
        None => 0,
    };
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, flags];
    // Not a default router as long as nothing leaves there (RFC 4861, 6.2.3).
    message.extend(if config.leads_out6 { KNOWN } else { 0 }.to_be_bytes());
    // Reachable time and retransmission timer: unspecified.
    message.extend([0; 8]);
    if config.mac != [0; 6] {
        option(&mut message, SOURCE_LINK_LAYER, &config.mac);
    }
    if let Some(mtu) = config.mtu.filter(|mtu| *mtu >= LEAST_MTU) {
        option(&mut message, MTU, &[&[0; 2], &u32::from(mtu).to_be_bytes()[..]].concat());
    }
    let autonomous = if subnet.prefix_len() == MADE_OF { AUTONOMOUS } else { 0 };
    let mut prefix = vec![subnet.prefix_len(), ON_LINK | autonomous];
    prefix.extend([VALID.to_be_bytes(), PREFERRED.to_be_bytes(), [0; 4]].concat());
    prefix.extend(subnet.network().octets());
    option(&mut message, PREFIX, &prefix);
    let known = u32::from(KNOWN).to_be_bytes();
    if let Some(gateway) = config.gateway6 {
        option(&mut message, RDNSS, &[&[0; 2], &known[..], &gateway.octets()].concat());
    }
    if let Some(domain) = labels(&config.domain) {
        option(&mut message, DNSSL, &[&[0; 2], &known[..], &domain].concat());
    }
    Some(message)
}

/// Is this message of a host that asks for an advertisement (RFC 4861, 6.1.1)? The kernel has checked its checksum.
pub(crate) fn is_solicitation(source: Ipv6Addr, hops: i32, message: &[u8]) -> bool {
    let [SOLICITATION, 0, _, _, _, _, _, _, options @ ..] = message else { return false };
    if hops != HOPS || source.is_multicast() || source.is_loopback() {
        return false;
    }
    let mut rest = options;
    while let [kind, length, ..] = rest {
        let length = usize::from(*length) * UNIT;
        if length == 0 || length > rest.len() {
            return false;
        }
        // Who has no address cannot be answered at one of the link.
        if source.is_unspecified() && *kind == SOURCE_LINK_LAYER {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty()
}

/// Adds an option, filled up to whole units. Its value is shorter than the longest option there can be.
fn option(message: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let units = (value.len() + 2).div_ceil(UNIT);
    let Ok(length) = u8::try_from(units) else { return };
    let end = message.len() + units * UNIT;
    message.extend([kind, length]);
    message.extend(value);
    message.resize(end, 0);
}

/// A name as DNS writes it (RFC 1035, 3.1); `None` for the root and for what is no name.
fn labels(domain: &str) -> Option<Vec<u8>> {
    let domain = domain.trim_matches('.');
    let mut written = Vec::with_capacity(domain.len() + 2);
    for label in domain.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        written.push(length);
        written.extend(label.bytes());
    }
    written.push(0);
    (written.len() <= 255).then_some(written)
}
