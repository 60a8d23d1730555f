//! DHCPv4 (RFC 2131): what a message of a client is answered with, and what becomes of its lease.
//!
//! Pure: time, packet and configuration go in, an outcome comes out. A client is its Ethernet address, and the frame's
//! real source at that: client identifiers are claims, and a workload that invents them, or addresses, must not be able
//! to empty the pool. So an endpoint has one address, and there are never more offers than endpoints. The server is the
//! only one on its network, and hence authoritative: it says no where RFC 2131 lets a server among others keep silent.

mod frame;
mod limit;
mod options;
mod pool;
mod reply;
mod state;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::SystemTime;

use dhcproto::Decodable;
use dhcproto::v4::{DhcpOption, HType, Message, MessageType, Opcode, OptionCode};

use crate::NetworkConfig;
use crate::teeth::is_off;
pub(crate) use frame::{datagram, packet};
pub(crate) use reply::lease_seconds;
pub(crate) use state::{Change, State};

/// The fixed part of a message is 236 bytes, and the options begin with these four (RFC 2131, 3).
const MAGIC: (usize, [u8; 4]) = (236, [99, 130, 83, 99]);

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Offer, acknowledgement or refusal.
    pub(crate) kind: MessageType,
    /// The IP address it goes to; the frame goes to the client alone.
    pub(crate) to: Ipv4Addr,
    /// The message.
    pub(crate) message: Vec<u8>,
}

/// What a message leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer that promises nothing.
    Reply(Reply),
    /// Save the change first; then the answer may leave.
    Commit(Change, Option<Reply>),
    /// Nothing, and that is all right.
    Nothing,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    /// No message of a client on this network.
    Malformed,
    /// The client address in the message is not the frame's.
    Spoofed,
    /// No endpoint has this Ethernet address.
    Unknown,
    /// The client sends too much.
    Limited,
    /// There is no address for it.
    Exhausted,
}

/// What the UDP payload `bytes` from the Ethernet address `source` leads to.
pub(crate) fn answer(
    state: &mut State,
    config: &NetworkConfig,
    now: SystemTime,
    source: [u8; 6],
    bytes: &[u8],
) -> Result<Outcome, Ignored> {
    if config.dhcp.is_none() {
        return Ok(Outcome::Nothing);
    }
    let ask = Ask::read(source, bytes)?;
    if !state.knows(&ask.mac) {
        return Err(Ignored::Unknown);
    }
    if !state.admit(ask.mac, now) {
        return Err(Ignored::Limited);
    }
    let others = ask.server.is_some_and(|server| server != config.gateway);
    match ask.kind {
        MessageType::Discover => discover(state, config, now, &ask),
        MessageType::Request if others => {
            state.withdraw(&ask.mac);
            Ok(Outcome::Nothing)
        }
        MessageType::Request => request(state, config, now, &ask),
        MessageType::Inform => {
            let fits = config.subnet.contains(&ask.message.ciaddr());
            if !fits {
                return Err(Ignored::Malformed);
            }
            Ok(Outcome::Reply(reply::inform(config, &ask)))
        }
        MessageType::Release if !others => {
            Ok(commit(state.release(&ask.mac, ask.message.ciaddr(), now), None))
        }
        MessageType::Decline if !others => {
            let address = ask.requested.ok_or(Ignored::Malformed)?;
            Ok(commit(state.decline(&ask.mac, address, now), None))
        }
        MessageType::Release | MessageType::Decline => Ok(Outcome::Nothing),
        _ => Err(Ignored::Malformed),
    }
}

fn discover(
    state: &mut State,
    config: &NetworkConfig,
    now: SystemTime,
    ask: &Ask,
) -> Result<Outcome, Ignored> {
    let address = state.choose(config, now, &ask.mac, ask.requested).map_err(|_| Ignored::Exhausted)?;
    state.offer(ask.mac, address, now);
    Ok(Outcome::Reply(reply::grant(config, ask, MessageType::Offer, address)))
}

/// SELECTING, INIT-REBOOT, RENEWING and REBINDING (RFC 2131, 4.3.2): whichever it is, the client names one address,
/// and either may have it or may not.
fn request(
    state: &mut State,
    config: &NetworkConfig,
    now: SystemTime,
    ask: &Ask,
) -> Result<Outcome, Ignored> {
    let current = ask.message.ciaddr();
    let address = ask.requested.or((!current.is_unspecified()).then_some(current));
    let address = address.ok_or(Ignored::Malformed)?;
    if !state.may_have(config, now, &ask.mac, address) {
        state.withdraw(&ask.mac);
        return Ok(Outcome::Reply(reply::refuse(config, ask)));
    }
    let change = state.grant(config, now, ask, address);
    Ok(commit(Some(change), Some(reply::grant(config, ask, MessageType::Ack, address))))
}

fn commit(change: Option<Change>, reply: Option<Reply>) -> Outcome {
    match change {
        Some(change) => Outcome::Commit(change, reply),
        None => Outcome::Nothing,
    }
}

/// A client's message, as far as it was looked at.
pub(crate) struct Ask {
    pub(crate) mac: [u8; 6],
    pub(crate) kind: MessageType,
    pub(crate) requested: Option<Ipv4Addr>,
    pub(crate) server: Option<Ipv4Addr>,
    pub(crate) message: Message,
}

impl Ask {
    fn read(source: [u8; 6], bytes: &[u8]) -> Result<Ask, Ignored> {
        let (at, magic) = MAGIC;
        if bytes.get(at..at + magic.len()) != Some(&magic) {
            return Err(Ignored::Malformed);
        }
        let bare = options::bare(bytes).ok_or(Ignored::Malformed)?;
        let message = Message::from_bytes(&bare).map_err(|_| Ignored::Malformed)?;
        // The length first: `chaddr` panics on one beyond 16. Relays there are none: a client that sets `giaddr` lies.
        let ethernet = message.htype() == HType::Eth && message.hlen() == 6;
        let client = message.opcode() == Opcode::BootRequest && message.giaddr().is_unspecified();
        if !ethernet || !client {
            return Err(Ignored::Malformed);
        }
        let named = <[u8; 6]>::try_from(message.chaddr()).map_err(|_| Ignored::Malformed)?;
        if named != source && !is_off("net-chaddr") {
            return Err(Ignored::Spoofed);
        }
        let options = message.opts();
        let kind = options.msg_type().ok_or(Ignored::Malformed)?;
        let requested = match options.get(OptionCode::RequestedIpAddress) {
            Some(DhcpOption::RequestedIpAddress(address)) => Some(*address),
            _ => None,
        };
        let server = match options.get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(address)) => Some(*address),
            _ => None,
        };
        Ok(Ask { mac: named, kind, requested, server, message })
    }

    pub(crate) fn client_id(&self) -> Option<Vec<u8>> {
        match self.message.opts().get(OptionCode::ClientIdentifier) {
            Some(DhcpOption::ClientIdentifier(id)) => Some(id.clone()),
            _ => None,
        }
    }

    pub(crate) fn hostname(&self) -> Option<String> {
        match self.message.opts().get(OptionCode::Hostname) {
            Some(DhcpOption::Hostname(name)) => Some(name.clone()),
            _ => None,
        }
    }
}
