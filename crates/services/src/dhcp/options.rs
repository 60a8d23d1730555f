//! The options of a client's message that are looked at, and no others.
//!
//! The library's decoder reads every option there is, and one of them (152, for servers only) makes it panic when its length
//! is wrong; others make it refuse the whole message. So it is given those that this server reads, at lengths that are
//! right.

/// Where the options begin: 236 bytes and the four of the magic number.
const OPTIONS: usize = 240;
const PAD: u8 = 0;
const END: u8 = 255;

/// The message with only its host name, requested address, message type, server identifier and client identifier; `None`
/// if it ends in the middle of an option, or before them.
pub(super) fn bare(message: &[u8]) -> Option<Vec<u8>> {
    let mut bare = message.get(..OPTIONS)?.to_vec();
    let mut rest = message.get(OPTIONS..)?;
    while let [code, after @ ..] = rest {
        match *code {
            PAD => rest = after,
            END => break,
            code => {
                let [length, after @ ..] = after else { return None };
                let value = after.get(..usize::from(*length))?;
                rest = &after[value.len()..];
                if wanted(code, value) {
                    bare.extend([code, *length]);
                    bare.extend(value);
                }
            }
        }
    }
    bare.push(END);
    Some(bare)
}

/// RFC 2132, 3.14, 9.1, 9.6, 9.7 and 9.14.
fn wanted(code: u8, value: &[u8]) -> bool {
    match code {
        12 => std::str::from_utf8(value).is_ok(),
        50 | 54 => value.len() == 4,
        53 => value.len() == 1,
        61 => value.len() >= 2,
        _ => false,
    }
}
