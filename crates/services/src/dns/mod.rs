//! DNS (RFC 1035): what a query is answered with.
//!
//! Pure: a network's view and the bytes of a query go in, an answer comes out. A network sees its own names only; what it
//! does not own goes to the network's upstream servers as it is, or is refused where there are none. Nothing is cached:
//! the upstream servers do that, and a cache that several tenants fill is a channel between them.

pub(crate) mod question;
#[cfg(test)]
mod tests;
mod view;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

pub(crate) use view::{Found, View};

/// How long an answer may be remembered, in seconds. An endpoint's address can change with its next lease.
const TTL: u32 = 30;
/// For secondary servers, which there are none of; the field must hold something.
const REFRESH: i32 = 3600;
/// The longest datagram that no path cuts (DNS flag day 2020).
const DATAGRAM: u16 = 1232;

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This is sent back.
    Reply(Vec<u8>),
    /// The upstream servers are asked.
    Forward,
    /// It is no query.
    Drop,
}

/// How the query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// As a datagram: the client says how long an answer may be.
    Udp,
    /// Over a connection.
    Tcp,
}

/// What becomes of the query `bytes`.
pub(crate) fn answer(view: &View, transport: Transport, bytes: &[u8]) -> Answer {
    // Fewer bytes than a header, or an answer: to answer that would let two servers talk for ever.
    if bytes.len() < question::HEADER || bytes[2] & 0x80 != 0 {
        return Answer::Drop;
    }
    let Ok(query) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        return encode(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr), usize::from(u16::MAX));
    };
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = view.forwards();
    reply.queries = query.queries.clone();
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        reply.set_edns(edns);
    }
    let forward = fill(view, &query, &mut reply);
    if forward {
        return Answer::Forward;
    }
    let limit = match transport {
        Transport::Udp => usize::from(query.max_payload().min(DATAGRAM)),
        Transport::Tcp => usize::from(u16::MAX),
    };
    encode(reply, limit)
}

/// What a client is told when no upstream server answered.
pub(crate) fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(bytes).ok()?;
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = ResponseCode::ServFail;
    reply.queries = query.queries;
    reply.to_vec().ok()
}

/// An upstream's answer as the client can take it: one too long for its datagrams becomes "ask over TCP".
pub(crate) fn fitted(query: &[u8], transport: Transport, answer: Vec<u8>) -> Option<Vec<u8>> {
    let limit = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => usize::from(Message::from_vec(query).ok()?.max_payload()),
    };
    if answer.len() <= limit {
        return Some(answer);
    }
    let end = question::end(&answer)?;
    let mut short = answer.get(..end)?.to_vec();
    short[2] |= 0x02;
    // One question, and nothing else.
    short[4..question::HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    Some(short)
}

/// Fills the reply in; true: this is for the upstream servers.
fn fill(view: &View, query: &Message, reply: &mut Message) -> bool {
    let code = match check(query) {
        Ok(asked) => match view.find(asked) {
            Found::Elsewhere if view.forwards() => return true,
            Found::Elsewhere => ResponseCode::Refused,
            own => return records(asked, own, reply),
        },
        Err(code) => code,
    };
    if code == ResponseCode::BADVERS
        && let Some(edns) = &mut reply.edns
    {
        edns.set_rcode_high(code.high());
    }
    reply.metadata.response_code = code;
    false
}

fn check(query: &Message) -> Result<&Query, ResponseCode> {
    if query.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let [asked] = query.queries.as_slice() else { return Err(ResponseCode::FormErr) };
    if query.version() > 0 {
        return Err(ResponseCode::BADVERS);
    }
    let transfer = [RecordType::AXFR, RecordType::IXFR].contains(&asked.query_type());
    if transfer || asked.query_class() != DNSClass::IN {
        return Err(ResponseCode::Refused);
    }
    Ok(asked)
}

/// Writes what the network knows of its own name. Never a thing for the upstream servers, hence false.
fn records(asked: &Query, found: Found, reply: &mut Message) -> bool {
    reply.metadata.authoritative = true;
    let kind = asked.query_type();
    let any = kind == RecordType::ANY;
    let own = |data: RData| Record::from_rdata(asked.name().clone(), TTL, data);
    let zone = match found {
        Found::Addresses(addresses, zone) => {
            for address in addresses {
                match address {
                    IpAddr::V4(v4) if any || kind == RecordType::A => {
                        reply.add_answer(own(RData::A(A(v4))));
                    }
                    IpAddr::V6(v6) if any || kind == RecordType::AAAA => {
                        reply.add_answer(own(RData::AAAA(AAAA(v6))));
                    }
                    _ => {}
                }
            }
            zone
        }
        Found::Name(name, zone) => {
            if any || kind == RecordType::PTR {
                reply.add_answer(own(RData::PTR(PTR(name))));
            }
            zone
        }
        Found::Apex(zone) => {
            if any || kind == RecordType::SOA {
                reply.add_answer(own(RData::SOA(authority(&zone))));
            }
            if any || kind == RecordType::NS {
                reply.add_answer(own(RData::NS(hickory_proto::rr::rdata::NS(zone.clone()))));
            }
            zone
        }
        Found::Nothing(zone) => zone,
        Found::NoSuch(zone) => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            zone
        }
        Found::Elsewhere => return false,
    };
    if reply.answers.is_empty() {
        // Who has nothing says so with the zone's own record (RFC 2308).
        let soa = RData::SOA(authority(&zone));
        reply.add_authority(Record::from_rdata(zone, TTL, soa));
    }
    false
}

fn authority(zone: &Name) -> SOA {
    let person = Name::from_ascii("hostmaster").and_then(|label| label.append_domain(zone));
    SOA::new(zone.clone(), person.unwrap_or_else(|_| zone.clone()), 1, REFRESH, REFRESH, REFRESH, TTL)
}

fn encode(mut reply: Message, limit: usize) -> Answer {
    match reply.to_vec() {
        Ok(bytes) if bytes.len() <= limit => Answer::Reply(bytes),
        Ok(_) => {
            reply.answers.clear();
            reply.authorities.clear();
            reply.metadata.truncation = true;
            reply.to_vec().map_or(Answer::Drop, Answer::Reply)
        }
        Err(_) => Answer::Drop,
    }
}
