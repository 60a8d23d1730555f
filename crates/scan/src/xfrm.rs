//! IPsec policies and states with marks (xfrm_user.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fief_host::HostError;
use fief_host::netlink::Socket;
use fief_host::netlink::attribute::{find, number};
use fief_marks::registry::{Mark, Masked};

use crate::sink::Sink;
use crate::uses::{Subsystem, Use};

const GET_STATE: u16 = 0x12;
const GET_POLICY: u16 = 0x15;
/// Bytes of `struct xfrm_usersa_info` and `struct xfrm_userpolicy_info`.
const STATE: usize = 224;
const POLICY: usize = 168;
/// `struct xfrm_selector`, and where in it the addresses, the family and the prefixes are.
const SELECTOR: usize = 56;
const FAMILY_AT: usize = 40;
const PREFIX_AT: usize = 42;
/// The policy's direction.
const DIRECTION_AT: usize = 160;

const XFRMA_MARK: u16 = 21;
const XFRMA_SET_MARK: u16 = 29;
const XFRMA_SET_MARK_MASK: u16 = 30;

/// Looks at policies and states.
pub(crate) fn scan(sink: &mut Sink<'_>) -> Result<(), HostError> {
    let mut socket = Socket::open(libc::NETLINK_XFRM)?;
    for (kind, what) in [(GET_POLICY, "list IPsec policies"), (GET_STATE, "list IPsec states")] {
        socket.dump(
            kind,
            what,
            |_| (),
            |_, body| {
                sink.seen();
                look_at(kind == GET_POLICY, body, sink);
            },
        )?;
    }
    Ok(())
}

fn look_at(is_policy: bool, body: &[u8], sink: &mut Sink<'_>) {
    let (subsystem, length) = match is_policy {
        true => (Subsystem::XfrmPolicy, POLICY),
        false => (Subsystem::XfrmState, STATE),
    };
    let Some((header, attributes)) = body.split_at_checked(length) else { return };
    let place = match is_policy {
        true => {
            let direction =
                ["in", "out", "fwd"].get(usize::from(header[DIRECTION_AT])).copied().unwrap_or("?");
            format!("ip xfrm policy {} {direction}", selector(header))
        }
        false => format!("ip xfrm state {}", state(header)),
    };
    let template = Use::at(subsystem, place, Vec::new());
    let mark = find(attributes, XFRMA_MARK).and_then(|m| Some((number(m)?, number(m.get(4..)?)?)));
    if let Some((value, mask)) = mark.filter(|(_, mask)| *mask != 0) {
        let matches = (value & !mask == 0).then_some(Masked { value, mask });
        sink.add(Use { mark: Mark::Ipsec, reads: mask, matches, ..template.clone() }, String::new);
    }
    // What leaves the tunnel, or enters it, is marked.
    if let Some(value) = find(attributes, XFRMA_SET_MARK).and_then(number) {
        let mask = find(attributes, XFRMA_SET_MARK_MASK).and_then(number).unwrap_or(u32::MAX);
        let sets = (value & !mask == 0).then_some(Masked { value, mask });
        sink.add(Use { mark: Mark::Packet, writes: mask, sets, ..template }, String::new);
    }
}

fn selector(header: &[u8]) -> String {
    let at = |from: usize, prefix: u8| format!("{}/{prefix}", address(header, from, header[FAMILY_AT]));
    format!("{} {}", at(16, header[PREFIX_AT + 1]), at(0, header[PREFIX_AT]))
}

/// Behind the selector: `struct xfrm_id` (destination, spi, protocol), then the source; the family is further behind.
fn state(header: &[u8]) -> String {
    let family = header[SELECTOR + 24 + 16 + 64 + 32 + 12 + 8];
    let [a, b, c, d] = [72, 73, 74, 75].map(|at: usize| header[at]);
    let spi = u32::from_be_bytes([a, b, c, d]);
    format!("{} {} spi {spi:#x}", address(header, SELECTOR + 24, family), address(header, SELECTOR, family))
}

fn address(bytes: &[u8], at: usize, family: u8) -> IpAddr {
    let sixteen: [u8; 16] = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    match i32::from(family) {
        libc::AF_INET => Ipv4Addr::new(sixteen[0], sixteen[1], sixteen[2], sixteen[3]).into(),
        _ => Ipv6Addr::from(sixteen).into(),
    }
}

/// For the fuzzer: reads these bytes as a policy and as a state.
pub fn fuzz(bytes: &[u8]) {
    let mut quiet = |_| ();
    let mut sink = Sink::new(String::new(), &mut quiet);
    look_at(true, bytes, &mut sink);
    look_at(false, bytes, &mut sink);
}
