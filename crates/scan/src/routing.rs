//! Policy routing rules and routes (net/core/fib_rules.c, net/ipv4/fib_semantics.c).

use fief_host::netlink::Socket;
use fief_host::netlink::attribute::{all, number};
use fief_host::{HostError, PROTOCOL};
use fief_marks::registry::{Mark, Masked};

use crate::sink::Sink;
use crate::uses::{Subsystem, Use};

/// `struct fib_rule_hdr` and `struct rtmsg`: family first, the table in the fifth byte.
const HEADER: usize = 12;
const TABLE_AT: usize = 4;

const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const RTA_DST: u16 = 1;
const RTA_MARK: u16 = 16;

/// The two families, and how ip(8) is asked for each.
const FAMILIES: [(i32, &str); 2] = [(libc::AF_INET, "ip"), (libc::AF_INET6, "ip -6")];

/// Looks at the rules.
pub(crate) fn rules(sink: &mut Sink<'_>) -> Result<(), HostError> {
    dump(libc::RTM_GETRULE, "list rules", sink, rule)
}

/// Looks at the routes. Linux keeps no mark with a route; should one ever be told, it is seen.
pub(crate) fn routes(sink: &mut Sink<'_>) -> Result<(), HostError> {
    dump(libc::RTM_GETROUTE, "list routes", sink, route)
}

fn dump(
    kind: u16,
    what: &str,
    sink: &mut Sink<'_>,
    look_at: fn(&str, &[u8], &mut Sink<'_>),
) -> Result<(), HostError> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE)?;
    for (family, tool) in FAMILIES {
        let encode = |body: &mut Vec<u8>| {
            body.extend([0; HEADER]);
            body[16] = family as u8;
        };
        let listed = socket.dump(kind, what, encode, |_, body| {
            sink.seen();
            look_at(tool, body, sink);
        });
        match listed {
            // Without the family there is nothing of it.
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

fn rule(tool: &str, body: &[u8], sink: &mut Sink<'_>) {
    let Some((header, attributes)) = body.split_at_checked(HEADER) else { return };
    let (mut mark, mut mask, mut preference, mut table, mut protocol) =
        (0, None, 0, u32::from(header[TABLE_AT]), 0);
    for (kind, value) in all(attributes) {
        let Some(number) = number(value).or_else(|| value.first().map(|byte| u32::from(*byte))) else {
            continue;
        };
        match kind {
            FRA_FWMARK => mark = number,
            FRA_FWMASK => mask = Some(number),
            FRA_PRIORITY => preference = number,
            FRA_TABLE => table = number,
            FRA_PROTOCOL => protocol = number,
            _ => {}
        }
    }
    let Some(mask) = mask.filter(|mask| *mask != 0) else { return };
    let is_ours = protocol == u32::from(PROTOCOL);
    let (place, names, matches) = match is_ours {
        true => (format!("{tool} rule (fief's tree)"), vec!["protocol fief".into()], None),
        false => {
            let names = vec![format!("rule {preference}"), format!("lookup {table}")];
            let place = format!("{tool} rule {preference}");
            (place, names, (mark & !mask == 0).then_some(Masked { value: mark, mask }))
        }
    };
    let template = Use::at(Subsystem::Rule, place, names);
    sink.add(Use { mark: Mark::Packet, reads: mask, matches, ..template }, String::new);
}

fn route(tool: &str, body: &[u8], sink: &mut Sink<'_>) {
    let Some((header, attributes)) = body.split_at_checked(HEADER) else { return };
    let value = |wanted| all(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if let Some(mark) = value(RTA_MARK).and_then(number) {
        let to = value(RTA_DST).map(|to| format!("{to:02x?}")).unwrap_or_else(|| "default".into());
        let place = format!("{tool} route {to} table {}", header[TABLE_AT]);
        let matches = Some(Masked { value: mark, mask: u32::MAX });
        let template = Use::at(Subsystem::Route, place, Vec::new());
        sink.add(Use { reads: u32::MAX, matches, ..template }, String::new);
    }
}

/// For the fuzzer: reads these bytes as a rule and as a route.
pub fn fuzz(bytes: &[u8]) {
    let mut quiet = |_| ();
    let mut sink = Sink::new(String::new(), &mut quiet);
    rule("ip", bytes, &mut sink);
    route("ip", bytes, &mut sink);
}
