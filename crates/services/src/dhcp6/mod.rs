//! DHCPv6 (RFC 8415): the addresses that documents fix, and the name server for those that have theirs from elsewhere.
//!
//! Pure, and without memory: an endpoint's address is in the configuration, so that nothing is promised that would have to
//! be kept. Endpoints without one make one themselves (RFC 4862); no pool is kept for them. As in DHCPv4 a client is the
//! Ethernet address that its frame came from, and not its DUID, which is a claim.

mod frame;
mod options;
#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;

use dhcproto::Encodable;
use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, Status, StatusCode};
use hickory_proto::rr::Name;

use crate::config::{EndpointConfig, NetworkConfig};
use crate::dhcp::lease_seconds;
pub(crate) use frame::{datagram, packet};
use options::{Ask, Association};

/// Type 3, hardware type 1: a DUID that is made of an Ethernet address (RFC 8415, 11.4).
const DUID_LL: [u8; 4] = [0, 3, 0, 1];

/// What the UDP payload `bytes` of an endpoint is answered with; `None` for what must not be answered.
pub(crate) fn answer(config: &NetworkConfig, endpoint: &EndpointConfig, bytes: &[u8]) -> Option<Vec<u8>> {
    let (subnet, _) = (config.subnet6?, config.dhcp.as_ref()?);
    let ask = Ask::read(bytes)?;
    let own = duid(config);
    let (named, ours) = (ask.server.is_some(), ask.server == Some(own.as_slice()));
    let known = ask.client.is_some();
    let table = Table { config, address: endpoint.address6.filter(|address| subnet.contains(address)) };
    let mut kind = MessageType::Reply;
    let mut options = table.configured();
    // RFC 8415, 16: which messages name a client, which a server, and which neither.
    match MessageType::from(ask.kind) {
        MessageType::Solicit if known && !named => {
            match ask.rapid {
                true => options.insert(DhcpOption::RapidCommit),
                false => kind = MessageType::Advertise,
            }
            table.assign(&ask, Status::NoAddrsAvail, &mut options);
        }
        MessageType::Request if known && ours => table.assign(&ask, Status::NoAddrsAvail, &mut options),
        MessageType::Renew if known && ours => table.assign(&ask, Status::NoBinding, &mut options),
        MessageType::Rebind if known && !named => table.assign(&ask, Status::NoBinding, &mut options),
        MessageType::Confirm if known && !named => {
            let mut addresses = ask.associations.iter().flat_map(|ia| &ia.addresses).peekable();
            addresses.peek()?;
            let here = addresses.all(|address| subnet.contains(address));
            options = status(if here { Status::Success } else { Status::NotOnLink });
        }
        // The address stays the endpoint's.
        MessageType::Release | MessageType::Decline if known && ours => options = status(Status::Success),
        MessageType::InformationRequest if (ours || !named) && !ask.wants_addresses => {}
        _ => return None,
    }
    if let Some(client) = ask.client {
        options.insert(DhcpOption::ClientId(client.to_vec()));
    }
    options.insert(DhcpOption::ServerId(own));
    let mut message = Message::new_with_id(kind, ask.transaction);
    message.set_opts(options);
    message.to_vec().ok()
}

/// Who the server is: the same whenever the network is served.
fn duid(config: &NetworkConfig) -> Vec<u8> {
    [DUID_LL.as_slice(), &config.mac].concat()
}

fn status(status: Status) -> DhcpOptions {
    let mut options = DhcpOptions::new();
    options.insert(DhcpOption::StatusCode(StatusCode { status, msg: String::new() }));
    options
}

/// What one endpoint can have.
struct Table<'a> {
    config: &'a NetworkConfig,
    address: Option<Ipv6Addr>,
}

impl Table<'_> {
    /// The name server and the domain (RFC 3646).
    fn configured(&self) -> DhcpOptions {
        let mut options = DhcpOptions::new();
        if let Some(gateway) = self.config.gateway6 {
            options.insert(DhcpOption::DomainNameServers(vec![gateway]));
        }
        if let Ok(domain) = Name::from_ascii(&self.config.domain)
            && !domain.is_root()
        {
            options.insert(DhcpOption::DomainSearchList(vec![domain]));
        }
        options
    }

    /// The endpoint's address for the first association that asks for one; addresses that are not its end at once.
    fn assign(&self, ask: &Ask<'_>, without: Status, options: &mut DhcpOptions) {
        for (nth, association) in ask.associations.iter().enumerate() {
            let own = self.address.filter(|_| nth == 0);
            options.insert(DhcpOption::IANA(self.association(association, own, without)));
        }
    }

    fn association(&self, asked: &Association, own: Option<Ipv6Addr>, without: Status) -> IANA {
        let seconds = lease_seconds(self.config);
        let mut inside = if own.is_some() { DhcpOptions::new() } else { status(without) };
        let mut add = |addr, life| {
            let opts = DhcpOptions::new();
            inside.insert(DhcpOption::IAAddr(IAAddr { addr, preferred_life: life, valid_life: life, opts }));
        };
        for address in asked.addresses.iter().filter(|address| Some(**address) != own) {
            add(*address, 0);
        }
        if let Some(own) = own {
            add(own, seconds);
        }
        // Half of the time, and four fifths (RFC 8415, 21.4).
        IANA { id: asked.id, t1: seconds / 2, t2: seconds - seconds / 5, opts: inside }
    }
}
