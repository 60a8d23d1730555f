//! The connection tracking table of this network namespace (nf_conntrack_netlink.c).

use std::collections::HashSet;
use std::net::IpAddr;

use netlink_bindings::conntrack::{IterableTupleIpAttrs, Nfgenmsg, OpGetDump};

use crate::netlink::attribute::{find, push};
use crate::netlink::{Message, Socket};
use crate::{Family, HostError};

/// NFNL_SUBSYS_CTNETLINK << 8, and the message.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
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
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let mut messages = Vec::new();
    for family in [Family::V4, Family::V6] {
        let mut header = Nfgenmsg::new();
        header.nfgen_family = family.af();
        let encode = |body: &mut Vec<u8>| drop(OpGetDump::encode_request(body, &header));
        let dumped = socket.dump(GET, "list connections", encode, |_, body| {
            let (_, attributes) = OpGetDump::decode_request(body);
            let ends = attributes.get_tuple_orig().and_then(|tuple| tuple.get_tuple_ip()).map(ends_of);
            if ends.into_iter().flatten().flatten().any(|end| addresses.contains(&end)) {
                messages.push(deletion(body));
            }
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

/// Asks for the end of the connection that a listing has named: its tuple, zone and number go back as they came.
fn deletion(listed: &[u8]) -> Message {
    Message::new(DELETE, 0, "forget a connection", |body| {
        let (header, attributes) = listed.split_at(Nfgenmsg::len().min(listed.len()));
        body.extend(header);
        for (kind, flags) in [(CTA_TUPLE_ORIG, NESTED), (CTA_ZONE, 0), (CTA_ID, 0)] {
            if let Some(value) = find(attributes, kind) {
                push(body, kind | flags, value);
            }
        }
    })
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
