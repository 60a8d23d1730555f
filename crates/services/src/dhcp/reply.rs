//! The answers: offers, acknowledgements, refusals and their options (RFC 2132).

use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4::{DhcpOption, DhcpOptions, Message, MessageType, Opcode};
use hickory_proto::rr::Name;
use ipnet::Ipv4Net;

use super::{Ask, Reply};
use crate::NetworkConfig;

/// Where clients find the metadata service.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// What a client must be able to take unless it says otherwise (RFC 2131, 2), less the headers.
const LONGEST: usize = 576 - 28;
/// Clients of the days of BOOTP drop shorter messages (RFC 951, 3).
const SHORTEST: usize = 300;

/// An offer or an acknowledgement of an address.
pub(super) fn grant(config: &NetworkConfig, ask: &Ask, kind: MessageType, address: Ipv4Addr) -> Reply {
    let mut message = begin(ask);
    message.set_yiaddr(address);
    message.set_ciaddr(if kind == MessageType::Ack { ask.message.ciaddr() } else { Ipv4Addr::UNSPECIFIED });
    let mut options = offered(config, ask, kind);
    let seconds = lease_seconds(config);
    options.insert(DhcpOption::AddressLeaseTime(seconds));
    options.insert(DhcpOption::Renewal(seconds / 2));
    // Seven eighths, without going over 32 bits (RFC 2131, 4.4.5).
    options.insert(DhcpOption::Rebinding(seconds - seconds / 8));
    let to = match ask.message.ciaddr() {
        current if kind == MessageType::Ack && !current.is_unspecified() => current,
        _ if ask.message.flags().broadcast() => Ipv4Addr::BROADCAST,
        _ => address,
    };
    Reply { kind, to, message: bytes(message, options) }
}

/// The answer to a client that has its address from elsewhere (RFC 2131, 4.3.5): no address, no times.
pub(super) fn inform(config: &NetworkConfig, ask: &Ask) -> Reply {
    let mut message = begin(ask);
    message.set_ciaddr(ask.message.ciaddr());
    let options = offered(config, ask, MessageType::Ack);
    Reply { kind: MessageType::Ack, to: ask.message.ciaddr(), message: bytes(message, options) }
}

/// A refusal. To everybody's address: the client's own is what it must not use.
pub(super) fn refuse(config: &NetworkConfig, ask: &Ask) -> Reply {
    let mut options = DhcpOptions::new();
    options.insert(DhcpOption::MessageType(MessageType::Nak));
    options.insert(DhcpOption::ServerIdentifier(config.gateway));
    Reply { kind: MessageType::Nak, to: Ipv4Addr::BROADCAST, message: bytes(begin(ask), options) }
}

/// How long a lease of this network lasts; the largest number would mean for ever.
pub(crate) fn lease_seconds(config: &NetworkConfig) -> u32 {
    let asked = config.dhcp.as_ref().map_or(0, |dhcp| dhcp.lease.as_secs());
    u32::try_from(asked).unwrap_or(u32::MAX).clamp(10, u32::MAX - 1)
}

fn begin(ask: &Ask) -> Message {
    let mut message = Message::default();
    message
        .set_opcode(Opcode::BootReply)
        .set_xid(ask.message.xid())
        .set_flags(ask.message.flags())
        .set_chaddr(&ask.mac);
    message
}

fn offered(config: &NetworkConfig, ask: &Ask, kind: MessageType) -> DhcpOptions {
    let mut options = DhcpOptions::new();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(config.gateway));
    options.insert(DhcpOption::SubnetMask(config.subnet.netmask()));
    options.insert(DhcpOption::BroadcastAddr(config.subnet.broadcast()));
    options.insert(DhcpOption::DomainNameServer(vec![config.gateway]));
    // Who reads option 121 does not read option 3, so that it says everything (RFC 3442).
    let mut routes = vec![(Ipv4Net::from(METADATA), config.gateway)];
    let endpoint = config.endpoints.iter().find(|endpoint| endpoint.mac == ask.mac);
    if endpoint.is_some_and(|endpoint| endpoint.default_route) {
        options.insert(DhcpOption::Router(vec![config.gateway]));
        routes.push((Ipv4Net::default(), config.gateway));
    }
    options.insert(DhcpOption::ClasslessStaticRoute(routes));
    if !config.ntp.is_empty() {
        options.insert(DhcpOption::NtpServers(config.ntp.clone()));
    }
    if let Some(mtu) = config.mtu {
        options.insert(DhcpOption::InterfaceMtu(mtu));
    }
    if let Some(endpoint) = endpoint {
        options.insert(DhcpOption::Hostname(endpoint.hostname().to_owned()));
    }
    if let Ok(domain) = Name::from_ascii(&config.domain)
        && !domain.is_root()
    {
        options.insert(DhcpOption::DomainName(config.domain.clone()));
        options.insert(DhcpOption::DomainSearch(vec![domain]));
    }
    options
}

/// The message with as many of its options as there is room for; the first that are given up are those that a client can
/// do without.
fn bytes(mut message: Message, options: DhcpOptions) -> Vec<u8> {
    use dhcproto::v4::OptionCode as Code;
    message.set_opts(options);
    for code in
        [None, Some(Code::DomainSearch), Some(Code::NtpServers), Some(Code::Hostname), Some(Code::DomainName)]
    {
        if let Some(code) = code {
            message.opts_mut().remove(code);
        }
        if let Ok(mut bytes) = message.to_vec()
            && bytes.len() <= LONGEST
        {
            bytes.resize(bytes.len().max(SHORTEST), 0);
            return bytes;
        }
    }
    Vec::new()
}
