//! The connection tracking table of this network namespace (nf_conntrack_netlink.c).

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use netlink_bindings::conntrack::{
    IterableConntrackAttrs, IterableTupleAttrs, IterableTupleIpAttrs, Nfgenmsg, OpGetDump,
};

use crate::namespaces::Namespace;
use crate::netlink::attribute::{find, number_be, push};
use crate::netlink::{Message, Socket};
use crate::{Family, HostError};

/// NFNL_SUBSYS_CTNETLINK << 8, and the message.
const CHANGE: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_MARK_MASK: u16 = 21;
const NESTED: u16 = 0x8000;

/// Forgets every connection that one of these addresses opened or was called by, and says how many. A kernel without
/// connection tracking has nothing to forget.
///
/// One by one: the kernel's flush with a filter forgets the others in IPv6 (ctnetlink_filter_match_tuple, seen on
/// Linux 6.18).
pub fn forget(addresses: &HashSet<IpAddr>) -> Result<usize, HostError> {
    if addresses.is_empty() {
        return Ok(0);
    }
    ask_about_each(|ends, body| ends.iter().any(|end| addresses.contains(end)).then(|| deletion(body)))
}

/// Forgets every connection of a zone, and says how many.
pub fn forget_zone(zone: u16) -> Result<usize, HostError> {
    ask_about_each(|_, body| {
        let of = body.get(Nfgenmsg::len()..).and_then(|attributes| find(attributes, CTA_ZONE));
        (of == Some(&zone.to_be_bytes())).then(|| deletion(body))
    })
}

/// A connection of which both ends have been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Its zone.
    pub zone: u16,
    /// The protocol of IP: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Who began, and whom he called, as he sees it.
    pub original: [SocketAddr; 2],
    /// Who answers, and whom, as he sees it.
    pub reply: [SocketAddr; 2],
}

/// The answered connections of a network namespace that have ports. A kernel without connection tracking has none.
pub fn list(namespace: &Namespace) -> Result<Vec<Connection>, HostError> {
    /// IPS_SEEN_REPLY (linux/netfilter/nf_conntrack_common.h)
    const ANSWERED: u32 = 1 << 1;
    let mut socket = Socket::open_in(namespace, libc::NETLINK_NETFILTER)?;
    let mut list = Vec::new();
    for family in [Family::V4, Family::V6] {
        let dumped = dump(&mut socket, family, |attributes, _| {
            let connection = || {
                let status = attributes.get_status().ok()?;
                let (protocol, original) = ends_with_ports(attributes.get_tuple_orig().ok()?)?;
                let (_, reply) = ends_with_ports(attributes.get_tuple_reply().ok()?)?;
                let zone = attributes.get_zone().unwrap_or(0);
                (status & ANSWERED != 0).then_some(Connection { zone, protocol, original, reply })
            };
            list.extend(connection());
        });
        match dumped {
            // A list that changed while it was written out has named most of them.
            Ok(()) | Err(HostError::Overrun) => {}
            Err(error) if is_absent(&error) => return Ok(list),
            Err(error) => return Err(error),
        }
    }
    Ok(list)
}

fn ends_with_ports(tuple: IterableTupleAttrs<'_>) -> Option<(u8, [SocketAddr; 2])> {
    let transport = tuple.get_tuple_proto().ok()?;
    let [from, to] = ends_of(tuple.get_tuple_ip().ok()?);
    let ports = [transport.get_proto_src_port().ok()?, transport.get_proto_dst_port().ok()?];
    Some((transport.get_proto_num().ok()?, [(from?, ports[0]).into(), (to?, ports[1]).into()]))
}

fn dump(
    socket: &mut Socket,
    family: Family,
    mut each: impl FnMut(IterableConntrackAttrs<'_>, &[u8]),
) -> Result<(), HostError> {
    let mut header = Nfgenmsg::new();
    header.nfgen_family = family.af();
    let encode = |body: &mut Vec<u8>| drop(OpGetDump::encode_request(body, &header));
    socket.dump(GET, "list connections", encode, |_, body| {
        let (_, attributes) = OpGetDump::decode_request(body);
        each(attributes, body);
    })
}

/// Changes marks: `wanted` sees a mark and the two addresses of the direction that opened the connection, and says what
/// the mark shall be. Returns how many were changed.
pub fn remark(wanted: impl Fn(u32, &[IpAddr]) -> Option<u32>) -> Result<usize, HostError> {
    ask_about_each(|ends, body| {
        let attributes = body.get(Nfgenmsg::len()..)?;
        let mark = find(attributes, CTA_MARK).and_then(number_be)?;
        let wanted = wanted(mark, ends).filter(|wanted| *wanted != mark)?;
        Some(Message::new(CHANGE, 0, "change a connection's mark", |body_out| {
            body_out.extend(named(body));
            // Only the bits that change, so that somebody else's change of others meanwhile stays.
            push(body_out, CTA_MARK, &((wanted ^ mark) & wanted).to_be_bytes());
            push(body_out, CTA_MARK_MASK, &(wanted ^ mark).to_be_bytes());
        }))
    })
}

/// Makes a request for each connection that gives one, and says how many there were. A kernel without connection
/// tracking has none, and what ended meanwhile is no error.
fn ask_about_each(make: impl Fn(&[IpAddr], &[u8]) -> Option<Message>) -> Result<usize, HostError> {
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let mut messages = Vec::new();
    for family in [Family::V4, Family::V6] {
        let dumped = dump(&mut socket, family, |attributes, body| {
            let ends = attributes.get_tuple_orig().and_then(|tuple| tuple.get_tuple_ip()).map(ends_of);
            let ends: Vec<IpAddr> = ends.into_iter().flatten().flatten().collect();
            messages.extend(make(&ends, body));
        });
        match dumped {
            // A list that changed while it was written out has named most of them.
            Ok(()) | Err(HostError::Overrun) => {}
            Err(error) if is_absent(&error) => return Ok(0),
            Err(error) => return Err(error),
        }
    }
    let ended = |error: &HostError| error.errno() == Some(libc::ENOENT);
    let answers = socket.execute(&mut messages);
    match answers.into_iter().filter_map(Result::err).find(|error| !ended(error)) {
        Some(error) => Err(error),
        None => Ok(messages.len()),
    }
}

/// Asks for the end of the connection that a listing has named.
fn deletion(listed: &[u8]) -> Message {
    Message::new(DELETE, 0, "forget a connection", |body| body.extend(named(listed)))
}

/// What names a connection in a request: its tuple, zone and number as a listing gave them.
fn named(listed: &[u8]) -> Vec<u8> {
    let (header, attributes) = listed.split_at(Nfgenmsg::len().min(listed.len()));
    let mut name = header.to_vec();
    for (kind, flags) in [(CTA_TUPLE_ORIG, NESTED), (CTA_ZONE, 0), (CTA_ID, 0)] {
        if let Some(value) = find(attributes, kind) {
            push(&mut name, kind | flags, value);
        }
    }
    name
}

fn ends_of(tuple: IterableTupleIpAttrs<'_>) -> [Option<IpAddr>; 2] {
    let v4 = |a: Result<std::net::Ipv4Addr, _>| a.ok().map(IpAddr::V4);
    let v6 = |a: Result<std::net::Ipv6Addr, _>| a.ok().map(IpAddr::V6);
    [
        v4(tuple.get_ip_v4_src()).or_else(|| v6(tuple.get_ip_v6_src())),
        v4(tuple.get_ip_v4_dst()).or_else(|| v6(tuple.get_ip_v6_dst())),
    ]
}

fn is_absent(error: &HostError) -> bool {
    matches!(error.errno(), Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP))
}
