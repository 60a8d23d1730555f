//! The options of a client's message that are looked at, and no others: one that cannot be read does not spoil the rest.

use std::net::Ipv6Addr;

/// Numbers of RFC 8415, 24.
const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_TA: u16 = 4;
const IA_ADDRESS: u16 = 5;
const RAPID_COMMIT: u16 = 14;
const IA_PD: u16 = 25;
/// A DUID has two bytes of type, and 128 more at most (RFC 8415, 11.1).
const DUID: std::ops::RangeInclusive<usize> = 3..=130;
/// As many associations, and addresses in each, as an answer has room for. A client has one of each.
const MOST: usize = 4;

/// A client's message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ask<'a> {
    pub(super) kind: u8,
    pub(super) transaction: [u8; 3],
    pub(super) client: Option<&'a [u8]>,
    pub(super) server: Option<&'a [u8]>,
    pub(super) rapid: bool,
    pub(super) associations: Vec<Association>,
    /// Is there an association of any kind?
    pub(super) wants_addresses: bool,
}

/// An identity association for addresses (RFC 8415, 21.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Association {
    pub(super) id: u32,
    pub(super) addresses: Vec<Ipv6Addr>,
}

impl<'a> Ask<'a> {
    /// `None` if the message ends in the middle of an option, or names somebody in a way that nobody is named.
    pub(super) fn read(message: &'a [u8]) -> Option<Ask<'a>> {
        let ([kind, a, b, c], mut rest) = message.split_first_chunk()?;
        let mut ask = Ask {
            kind: *kind,
            transaction: [*a, *b, *c],
            client: None,
            server: None,
            rapid: false,
            associations: Vec::new(),
            wants_addresses: false,
        };
        while let Some((code, value)) = next(&mut rest)? {
            let duid = || Some(value).filter(|value| DUID.contains(&value.len()));
            match code {
                CLIENT_ID => ask.client = Some(duid()?),
                SERVER_ID => ask.server = Some(duid()?),
                RAPID_COMMIT => ask.rapid = true,
                IA_NA => {
                    ask.wants_addresses = true;
                    let association = Association::read(value)?;
                    if ask.associations.len() < MOST {
                        ask.associations.push(association);
                    }
                }
                IA_TA | IA_PD => ask.wants_addresses = true,
                _ => {}
            }
        }
        Some(ask)
    }
}

impl Association {
    fn read(value: &[u8]) -> Option<Association> {
        let (id, rest) = value.split_first_chunk()?;
        // Behind T1 and T2, which are the server's to say.
        let mut rest = rest.get(8..)?;
        let mut addresses = Vec::new();
        while let Some((code, value)) = next(&mut rest)? {
            if code == IA_ADDRESS && addresses.len() < MOST {
                addresses.push(Ipv6Addr::from(*value.first_chunk::<16>()?));
            }
        }
        Some(Association { id: u32::from_be_bytes(*id), addresses })
    }
}

/// The next option; `Some(None)` at the end, `None` if it is cut.
#[expect(clippy::option_option, reason = "the end is no mistake")]
fn next<'a>(rest: &mut &'a [u8]) -> Option<Option<(u16, &'a [u8])>> {
    if rest.is_empty() {
        return Some(None);
    }
    let ([a, b, c, d], after) = rest.split_first_chunk()?;
    let value = after.get(..usize::from(u16::from_be_bytes([*c, *d])))?;
    *rest = &after[value.len()..];
    Some(Some((u16::from_be_bytes([*a, *b]), value)))
}
