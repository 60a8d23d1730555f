//! The question of a message, as bytes. What is forwarded is not taken apart and put together again: types and options
//! that this program does not know get through as they are.

/// The length of a message's header (RFC 1035, 4.1.1).
pub(crate) const HEADER: usize = 12;
/// Behind the name: type and class.
const TYPE_AND_CLASS: usize = 4;

/// Where the first question ends; `None` if there is none, or its name is not written out.
pub(crate) fn end(message: &[u8]) -> Option<usize> {
    let questions = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    if questions == 0 {
        return None;
    }
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    let end = at + 1 + TYPE_AND_CLASS;
    (message.len() >= end).then_some(end)
}

/// The query with another ID, and with the letters of its name in upper case where `coins` has ones
/// (draft-vixie-dnsext-dns0x20): a forger has to guess those too.
pub(crate) fn disguised(query: &[u8], id: u16, mut coins: impl FnMut() -> bool) -> Option<Vec<u8>> {
    let end = end(query)?;
    let mut sent = query.to_vec();
    sent[..2].copy_from_slice(&id.to_be_bytes());
    for letter in &mut sent[HEADER..end - TYPE_AND_CLASS] {
        // The bytes that say how long a label is are 63 at most, and no letters.
        if letter.is_ascii_alphabetic() && coins() {
            *letter ^= 0x20;
        }
    }
    Some(sent)
}

/// The answer to what was sent, as an answer to `query`: with its ID, and its name as it was written there. `None` if it
/// answers something else.
pub(crate) fn restored(query: &[u8], sent: &[u8], mut answer: Vec<u8>) -> Option<Vec<u8>> {
    let end = end(query)?;
    let same = answer.get(..2)? == sent.get(..2)? && answer.get(HEADER..end)? == sent.get(HEADER..end)?;
    let response = answer.get(2)? & 0x80 != 0;
    if !same || !response || answer.get(4..6)? != [0, 1] {
        return None;
    }
    answer[..2].copy_from_slice(&query[..2]);
    answer[HEADER..end].copy_from_slice(&query[HEADER..end]);
    Some(answer)
}
