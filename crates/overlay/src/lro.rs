//! Large receive offload: segments of TCP that follow one another become one long one (as `tcp_gro_receive` of the kernel's
//! net/ipv4/tcp_offload.c joins them), so that whoever takes them takes fewer.
//!
//! The checksum of the long one is made of theirs, not of the bytes: what was damaged on the way stays damaged.

use std::ops::Range;

const ETHERNET: usize = 14;
const TCP: u8 = 6;
/// Flags of the fourteenth byte of a TCP header (RFC 9293).
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Where in a frame there is what; a frame that carries nothing but a plain segment with data, all of it.
struct Segment {
    /// Is it IPv4?
    four: bool,
    header: Range<usize>,
    payload: Range<usize>,
}

impl Segment {
    fn read(frame: &[u8]) -> Option<Segment> {
        let length = frame.len().checked_sub(ETHERNET)?;
        let (four, tcp) = match word(frame, 12)? {
            0x0800 => {
                let ip = frame.get(ETHERNET..ETHERNET + 20)?;
                // No options, no fragment and none wanted.
                let is_plain = *ip.first()? == 0x45 && word(ip, 6)? == 0x4000 && *ip.get(9)? == TCP;
                if !is_plain || usize::from(word(ip, 2)?) != length || sum(ip) != 0xffff {
                    return None;
                }
                (true, ETHERNET + 20)
            }
            0x86dd => {
                let ip = frame.get(ETHERNET..ETHERNET + 40)?;
                if *ip.get(6)? != TCP || usize::from(word(ip, 4)?) + 40 != length {
                    return None;
                }
                (false, ETHERNET + 40)
            }
            _ => return None,
        };
        let payload = tcp + usize::from(*frame.get(tcp + 12)? >> 4) * 4;
        let is_plain = payload >= tcp + 20 && *frame.get(tcp + 13)? & !PSH == ACK;
        (is_plain && payload < frame.len()).then_some(Segment {
            four,
            header: tcp..payload,
            payload: payload..frame.len(),
        })
    }

    /// The sum of the payload, as the checksum has it.
    fn payload_sum(&self, frame: &[u8]) -> Option<u16> {
        let around = self.sum_around(frame)?;
        let checksum = word(frame, self.header.start + 16)?;
        Some(add(!checksum, !around))
    }

    /// The sum of the addresses, the length and the header, but for the checksum in it.
    fn sum_around(&self, frame: &[u8]) -> Option<u16> {
        let addresses = if self.four { 26..34 } else { 22..54 };
        let length = u16::try_from(self.payload.end - self.header.start).ok()?;
        let header = frame.get(self.header.clone())?;
        let own = !word(header, 16)?;
        Some([sum(frame.get(addresses)?), length, u16::from(TCP), own].into_iter().fold(sum(header), add))
    }
}

/// Joins a frame to the one that stands at the beginning of a buffer, if it is the same connection's next segment and differs in
/// nothing that would be lost. Gives the length of both together; `None`, and nothing changed, if they stay two. They are no longer than
/// the buffer.
pub fn join(buffer: &mut [u8], length: usize, next: &[u8]) -> Option<usize> {
    let first = buffer.get(..length)?;
    let (a, b) = (Segment::read(first)?, Segment::read(next)?);
    let together = length + b.payload.len();
    let is_next = a.header == b.header
        && a.four == b.four
        && number(next, b.header.start + 4)?
            == number(first, a.header.start + 4)?.wrapping_add(u32::try_from(a.payload.len()).ok()?);
    // What may differ: the length, an identification that says nothing where nothing is cut up, and a checksum of that. Of TCP the
    // number and the checksum, and the last one's PSH.
    let differ = if a.four { [16..20, 24..26] } else { [18..20, 18..20] };
    let tcp = a.header.start;
    let own = [tcp + 4..tcp + 8, tcp + 13..tcp + 14, tcp + 16..tcp + 18];
    let may_differ = |at: &usize| differ.iter().chain(&own).any(|range| range.contains(at));
    let (head, other) = (first.get(..a.header.end)?, next.get(..b.header.end)?);
    let is_same = head.iter().zip(other).enumerate().all(|(at, (a, b))| a == b || may_differ(&at));
    let is_pushed = *first.get(tcp + 13)? & PSH != 0;
    if !is_next || !is_same || is_pushed || together > buffer.len() {
        return None;
    }
    let total = u16::try_from(together - if a.four { ETHERNET } else { ETHERNET + 40 }).ok()?;
    let added = b.payload_sum(next)?;
    // At an odd place the bytes of a word change sides.
    let added = if a.payload.len() % 2 == 1 { added.swap_bytes() } else { added };
    let payload = add(a.payload_sum(first)?, added);
    let flags = *next.get(tcp + 13)?;
    buffer.get_mut(length..together)?.copy_from_slice(next.get(b.payload)?);
    *buffer.get_mut(tcp + 13)? = flags;
    set(buffer, if a.four { 16 } else { 18 }, total)?;
    if a.four {
        set(buffer, 24, 0)?;
        set(buffer, 24, !sum(buffer.get(ETHERNET..ETHERNET + 20)?))?;
    }
    let whole = Segment { payload: a.payload.start..together, ..a };
    let checksum = !add(whole.sum_around(buffer)?, payload);
    set(buffer, tcp + 16, checksum)?;
    Some(together)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_be_bytes(*number))
}

fn set(bytes: &mut [u8], at: usize, word: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = word.to_be_bytes();
    Some(())
}

/// The sum of RFC 1071, of an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks_exact(2).filter_map(|word| Some(u32::from(u16::from_be_bytes(*word.first_chunk()?))));
    let total: u32 = words.sum();
    add((total >> 16) as u16, total as u16)
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A segment with its checksums, the long way.
    fn segment(four: bool, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0x1f, 0x90, 0xc0, 0x01];
        tcp.extend(seq.to_be_bytes());
        // An acknowledgement, 32 bytes of header, flags, a window; two no-operations and time stamps.
        tcp.extend([0, 0, 0, 9, 0x80, flags, 0x10, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6]);
        tcp.extend(payload);
        let (from, to) =
            if four { (vec![10, 9, 0, 1], vec![10, 9, 0, 2]) } else { (vec![0xfd; 16], vec![0xfe; 16]) };
        let mut pseudo = [from.clone(), to.clone()].concat();
        pseudo.extend([0, TCP]);
        pseudo.extend((tcp.len() as u16).to_be_bytes());
        pseudo.extend(&tcp);
        let checksum = !slow(&pseudo);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if four {
            let mut ip = vec![0x45, 0, 0, 0, seq as u8, 7, 0x40, 0, 64, TCP, 0, 0];
            ip.extend([from, to].concat());
            let total = 20 + tcp.len() as u16;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            let checksum = !slow(&ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend([8, 0]);
            frame.extend(ip);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 1]);
            frame.extend((tcp.len() as u16).to_be_bytes());
            frame.extend([TCP, 64]);
            frame.extend([from, to].concat());
        }
        frame.extend(tcp);
        frame
    }

    fn slow(bytes: &[u8]) -> u16 {
        let mut total = 0_u64;
        for word in bytes.chunks(2) {
            total += u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low));
        }
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        total as u16
    }

    /// In a buffer that holds 9000 bytes.
    fn joined(frames: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut buffer = frames[0].clone();
        let mut length = buffer.len();
        buffer.resize(9000, 0);
        for next in &frames[1..] {
            let before = buffer.clone();
            match join(&mut buffer, length, next) {
                Some(together) => length = together,
                None => {
                    assert_eq!(buffer, before);
                    return None;
                }
            }
        }
        buffer.truncate(length);
        Some(buffer)
    }

    proptest! {
        #[test]
        fn what_is_joined_is_what_one_segment_would_be(
            four: bool, seq: u32, parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..1400), 2..6), push: bool,
        ) {
            let mut at = seq;
            let last = parts.len() - 1;
            let frames: Vec<Vec<u8>> = parts.iter().enumerate().map(|(i, part)| {
                let frame = segment(four, at, if push && i == last { ACK | PSH } else { ACK }, part);
                at = at.wrapping_add(part.len() as u32);
                frame
            }).collect();
            let whole = segment(four, seq, if push { ACK | PSH } else { ACK }, &parts.concat());
            let mut found = joined(&frames).expect("they follow one another");
            // Both forms of zero are right.
            let at = if four { 34 } else { 54 } + 16;
            if word(&whole, at) == Some(0) && word(&found, at) == Some(0xffff) {
                set(&mut found, at, 0);
            }
            prop_assert_eq!(found, whole);
        }

        #[test]
        fn what_differs_stays_two(four: bool, bit in 0_usize..86 * 8) {
            let (a, mut b) = (segment(four, 7, ACK, b"abcd"), segment(four, 11, ACK, b"efgh"));
            let end = if four { 66 } else { 86 };
            prop_assume!(bit / 8 < end);
            b[bit / 8] ^= 1 << (bit % 8);
            // Of a header of IPv4 every bit is in its checksum; of the other one what is no matter to two that follow.
            let tcp = end - 32;
            let is_free = (bit / 8 == tcp + 13 && 1 << (bit % 8) == PSH) || (tcp + 16..tcp + 18).contains(&(bit / 8));
            prop_assert_eq!(joined(&[a, b]).is_some(), is_free);
        }

        #[test]
        fn no_bytes_break_it(mut a in proptest::collection::vec(any::<u8>(), 0..120), b in proptest::collection::vec(any::<u8>(), 0..120)) {
            let length = a.len();
            let _ = join(&mut a, length, &b);
        }
    }

    #[test]
    fn what_was_damaged_on_the_way_stays_damaged() {
        for four in [true, false] {
            let (a, mut b) = (segment(four, 7, ACK, b"abc"), segment(four, 10, ACK, b"defg"));
            *b.last_mut().unwrap() ^= 4;
            let found = joined(&[a, b]).unwrap();
            let right = segment(four, 7, ACK, b"abcdefc");
            assert_eq!(found.len(), right.len());
            assert_ne!(found, right);
        }
    }

    #[test]
    fn neither_too_long_nor_past_a_push_nor_out_of_turn() {
        let one = |seq, flags, length: usize| segment(true, seq, flags, &vec![1; length]);
        assert!(joined(&[one(0, ACK, 1400), one(1400, ACK, 1400)]).is_some());
        for frames in [
            [one(0, ACK, 8000), one(8000, ACK, 1000)],
            [one(0, ACK | PSH, 10), one(10, ACK, 10)],
            [one(0, ACK, 10), one(11, ACK, 10)],
            [one(10, ACK, 10), one(0, ACK, 10)],
            [one(0, ACK, 10), one(10, ACK | 1, 10)],
            [one(0, ACK, 10), one(10, ACK, 0)],
            [one(0, ACK | 2, 10), one(10, ACK, 10)],
        ] {
            assert_eq!(joined(&frames), None);
        }
    }
}
