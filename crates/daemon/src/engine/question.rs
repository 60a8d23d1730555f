//! `fief policy test`: words of a person become a packet, and each of its ends is asked.

use std::net::{IpAddr, Ipv4Addr};

use fief_api::{EndView, PolicyTestRequest, PolicyTestResponse, SideView};
use fief_model::policy::{PolicyPeer, Transport};
use fief_model::{Endpoint, NetworkPolicy};
use fief_policy::Direction;

use super::Engine;
use super::policies::rule_view;
use crate::policies::Side;

/// A question that cannot be answered, with a remedy.
pub(crate) struct Unanswered(pub(crate) String, pub(crate) &'static str);

/// One end.
#[derive(Clone, Copy)]
enum End<'a> {
    Endpoint(&'a Endpoint),
    Address(IpAddr),
}

/// IANA's numbers.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl Engine {
    /// What would become of a packet. Of endpoints only those of tenants are found that `may_see` allows.
    pub(crate) fn test_policy(
        &self,
        request: &PolicyTestRequest,
        may_see: &dyn Fn(&str) -> bool,
    ) -> Result<PolicyTestResponse, Unanswered> {
        let end = |text: &str| self.end(text, request.tenant.as_deref(), may_see);
        let (from, to) = (end(&request.from)?, end(&request.to)?);
        let (from, to) = (self.known_by(from, to), self.known_by(to, from));
        let Some(owner) = from.endpoint().or(to.endpoint()) else {
            let text = format!("neither {} nor {} is an endpoint", request.from, request.to);
            return Err(Unanswered(text, "name an endpoint on one side, as in `--to blue/app1`"));
        };
        if from.endpoint().zip(to.endpoint()).is_some_and(|(from, to)| std::ptr::eq(from, to)) {
            let text = format!("{} would talk to itself, which meets no policy", owner.metadata.key());
            return Err(Unanswered(text, "name two different ends"));
        }
        let (at_from, at_to) = self.addresses(from, to);
        let is_v6 = at_from.or(at_to).is_some_and(|address| address.is_ipv6());
        let (word, protocol, port) = called(&request.port, to, is_v6)?;
        let mut sides = Vec::new();
        for (subject, peer, direction, address) in
            [(from, to, Direction::Egress, at_to), (to, from, Direction::Ingress, at_from)]
        {
            if let End::Endpoint(subject) = subject {
                let peer = peer.endpoint();
                let packet = Side { subject, direction, peer, address: UNKNOWN, protocol, port };
                sides.push(self.ask_side(packet, address)?);
            }
        }
        let view =
            |end: End<'_>, address| EndView { endpoint: end.endpoint().map(|e| e.metadata.key()), address };
        Ok(PolicyTestResponse {
            from: view(from, at_from),
            to: view(to, at_to),
            protocol: word,
            port,
            allowed: sides.iter().all(|side| side.allowed),
            sides,
        })
    }

    fn ask_side(&self, packet: Side<'_>, address: Option<IpAddr>) -> Result<SideView, Unanswered> {
        let metadata = &packet.subject.metadata;
        let prefix = format!("{}/", metadata.tenant);
        let documents = || {
            let from = self.network_policies.range(prefix.clone()..);
            from.take_while(|(key, _)| key.starts_with(&prefix)).map(|(_, stored)| &stored.policy)
        };
        if address.is_none() && documents().any(|policy| names_blocks(policy, packet.direction)) {
            let whose = packet.peer.map(|peer| peer.metadata.key()).unwrap_or_default();
            let text =
                format!("{whose} has no address yet, and a policy of {} names addresses", metadata.tenant);
            return Err(Unanswered(
                text,
                "wait for its lease, or write the address it will have instead of its name",
            ));
        }
        let peer = packet.peer.filter(|peer| peer.metadata.tenant == metadata.tenant);
        let side = Side { peer, address: address.unwrap_or(UNKNOWN), ..packet };
        let said = self.policies.ask(&side, documents()).ok_or_else(|| {
            Unanswered(format!("{} is not known to policies", metadata.key()), "please report this")
        })?;
        let slot = self.tenants.get(&metadata.tenant).map(|stored| stored.slot);
        Ok(SideView {
            endpoint: metadata.key(),
            direction: match packet.direction {
                Direction::Ingress => "ingress",
                Direction::Egress => "egress",
            }
            .into(),
            allowed: said.passes,
            rule: said.rule.as_ref().map(|(policy, origin)| rule_view(policy, origin)),
            identity: said.identities.0.0,
            peer: said.identities.1.0,
            audit: slot.is_some_and(|slot| self.policies.audits(slot)),
            bug: said.bug,
        })
    }

    fn end<'a>(
        &'a self,
        text: &str,
        tenant: Option<&str>,
        may_see: &dyn Fn(&str) -> bool,
    ) -> Result<End<'a>, Unanswered> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(End::Address(address.to_canonical()));
        }
        let key = match tenant {
            _ if text.contains('/') => Some(text.to_owned()),
            Some(tenant) => Some(format!("{tenant}/{text}")),
            None => None,
        };
        let mut found = match &key {
            Some(key) => self.endpoints.get(key).into_iter().collect::<Vec<_>>(),
            None => self.endpoints.values().filter(|s| s.endpoint.metadata.name == text).collect(),
        };
        found.retain(|stored| may_see(&stored.endpoint.metadata.tenant));
        match &found[..] {
            [one] => Ok(End::Endpoint(&one.endpoint)),
            [] => {
                let text = format!("there is no endpoint {}", key.as_deref().unwrap_or(text));
                Err(Unanswered(text, "see `fief get endpoints`; or write an address"))
            }
            [..] => {
                let text = format!("{} tenants have an endpoint {text}", found.len());
                Err(Unanswered(text, "write TENANT/NAME, or name the tenant by `--tenant`"))
            }
        }
    }

    /// An address that is an endpoint's, of the tenant that the other end belongs to, is this endpoint.
    fn known_by<'a>(&'a self, end: End<'a>, other: End<'a>) -> End<'a> {
        let (End::Address(address), End::Endpoint(other)) = (end, other) else { return end };
        let prefix = format!("{}/", other.metadata.tenant);
        let of_tenant =
            self.endpoints.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let has = |endpoint: &&Endpoint| self.addresses_of(endpoint).iter().any(|(_, has)| *has == address);
        of_tenant.map(|(_, stored)| &stored.endpoint).find(has).map_or(end, End::Endpoint)
    }

    /// The addresses that a packet has: on a network of both and of one family, if there is one.
    fn addresses(&self, from: End<'_>, to: End<'_>) -> (Option<IpAddr>, Option<IpAddr>) {
        let all = |end: End<'_>| match end {
            End::Endpoint(endpoint) => self.addresses_of(endpoint),
            End::Address(address) => vec![(String::new(), address)],
        };
        let (from, to) = (all(from), all(to));
        let pairs = || from.iter().flat_map(|a| to.iter().map(move |b| (a, b)));
        let family = |(a, b): &(&(String, IpAddr), &(String, IpAddr))| a.1.is_ipv6() == b.1.is_ipv6();
        let best = pairs().find(|(a, b)| a.0 == b.0 && family(&(a, b))).or_else(|| pairs().find(family));
        match best {
            Some((a, b)) => (Some(a.1), Some(b.1)),
            None => (from.first().map(|a| a.1), to.first().map(|b| b.1)),
        }
    }

    /// An endpoint's addresses with their networks: those that are written or leased.
    fn addresses_of(&self, endpoint: &Endpoint) -> Vec<(String, IpAddr)> {
        let attachments = endpoint.spec.networks.iter().filter_map(|attachment| {
            let network = endpoint.network_of(attachment);
            let leased = || self.leases.get(&(network.clone(), endpoint.mac_of(attachment))).copied();
            let address = attachment.address.or_else(|| leased().map(IpAddr::V4))?;
            Some((network, address))
        });
        attachments.collect()
    }
}

/// Stands for an address where no rule asks for one.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl<'a> End<'a> {
    fn endpoint(self) -> Option<&'a Endpoint> {
        match self {
            End::Endpoint(endpoint) => Some(endpoint),
            End::Address(_) => None,
        }
    }
}

/// Does it tell addresses apart?
fn names_blocks(policy: &NetworkPolicy, direction: Direction) -> bool {
    let is_block = |peer: &PolicyPeer| peer.ip_block.is_some();
    match direction {
        Direction::Ingress => policy.spec.ingress.iter().any(|rule| rule.from.iter().any(is_block)),
        Direction::Egress => policy.spec.egress.iter().any(|rule| rule.to.iter().any(is_block)),
    }
}

/// What is called: the word for the protocol, its number, the port.
fn called(text: &str, to: End<'_>, is_v6: bool) -> Result<(String, u8, u16), Unanswered> {
    const HELP: &str =
        "write `80/tcp`, `53/udp`, `5000/sctp`, the name of a port of the called endpoint, or `icmp`";
    if text == "icmp" {
        return Ok((text.to_owned(), if is_v6 { ICMPV6 } else { ICMP }, 0));
    }
    let (port, transport) = match text.split_once('/') {
        None => (text, None),
        Some((port, "tcp")) => (port, Some(Transport::Tcp)),
        Some((port, "udp")) => (port, Some(Transport::Udp)),
        Some((port, "sctp")) => (port, Some(Transport::Sctp)),
        Some((_, other)) => return Err(Unanswered(format!("`{other}` is no protocol with ports"), HELP)),
    };
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = port.parse::<u16>().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| Unanswered(format!("`{port}` is no port"), HELP))?;
        let transport = transport.unwrap_or_default();
        return Ok((word(transport).into(), transport.number(), number));
    }
    let End::Endpoint(endpoint) = to else {
        let text = format!("an address gives no port the name `{port}`");
        return Err(Unanswered(text, "write the port's number"));
    };
    let is_meant = |t: Transport| transport.is_none_or(|transport| transport == t);
    let named = endpoint.spec.ports.iter().filter(|p| p.name == port && is_meant(p.protocol));
    match &named.collect::<Vec<_>>()[..] {
        [one] => Ok((word(one.protocol).into(), one.protocol.number(), one.port)),
        [] => Err(Unanswered(format!("{} has no port `{text}`", endpoint.metadata.key()), HELP)),
        [..] => {
            let text = format!("{} has ports `{port}` of several protocols", endpoint.metadata.key());
            Err(Unanswered(text, "add the protocol, as in `dns/udp`"))
        }
    }
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Sctp => "sctp",
    }
}
