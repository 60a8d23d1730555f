//! The eight bytes before each frame.
//!
//! ```text
//!      0        1        2        3        4        5        6        7
//!  ┌────────┬────────────────────────┬────────────────────────┬────────┐
//!  │  0x08  │        reserved        │     VNI, big endian    │reserved│  then the Ethernet frame, without FCS
//!  └────────┴────────────────────────┴────────────────────────┴────────┘
//! ```
//!
//! RFC 7348 lets a receiver ignore what is reserved. vxvde compares all eight, and so does fief: whatever another
//! dialect puts there (group policy, GPE) is not of this segment.

/// The port of a segment's multicast group.
pub const PORT: u16 = 14789;
/// Bytes before a frame.
pub const HEADER_SIZE: usize = 8;
/// A frame is at least one byte longer than its addresses and type.
pub const SHORTEST_FRAME: usize = 15;

/// The flag that says that the VNI counts.
const FLAGS: u8 = 0x08;

/// The header of one VNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Header {
    vni: u32,
}

/// What a datagram brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The sender goes: forget the addresses behind it.
    Goodbye,
    /// An Ethernet frame.
    Frame(&'a [u8]),
}

impl Header {
    /// The header of a VNI, unless it has more than 24 bits.
    pub fn new(vni: u32) -> Option<Header> {
        (vni < 1 << 24).then_some(Header { vni })
    }

    /// The VNI.
    pub fn vni(self) -> u32 {
        self.vni
    }

    /// As it stands before a frame.
    pub fn bytes(self) -> [u8; HEADER_SIZE] {
        let [_, high, middle, low] = self.vni.to_be_bytes();
        [FLAGS, 0, 0, 0, high, middle, low, 0]
    }
}

/// Reads a datagram: its header, and what is behind it. `None`: not of this protocol, or a frame that is too short.
pub fn read(datagram: &[u8]) -> Option<(Header, Payload<'_>)> {
    let (header, frame) = datagram.split_first_chunk::<HEADER_SIZE>()?;
    let [FLAGS, 0, 0, 0, high, middle, low, 0] = *header else { return None };
    let header = Header { vni: u32::from_be_bytes([0, high, middle, low]) };
    match frame.len() {
        0 => Some((header, Payload::Goodbye)),
        length if length >= SHORTEST_FRAME => Some((header, Payload::Frame(frame))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn group_1000_is_03_e8() {
        let header = Header::new(1000).unwrap();
        assert_eq!(header.bytes(), [8, 0, 0, 0, 0, 0x03, 0xe8, 0]);
        assert_eq!(Header::new(0x0100_03e8), None, "it would be taken for 1000");
    }

    #[test]
    fn a_goodbye_is_a_header_alone_and_a_frame_has_more_than_addresses() {
        let mut datagram = Header::new(7).unwrap().bytes().to_vec();
        let header = Header::new(7).unwrap();
        assert_eq!(read(&datagram), Some((header, Payload::Goodbye)));
        assert_eq!(read(&datagram[..7]), None);
        datagram.extend([0; 14]);
        assert_eq!(read(&datagram), None);
        datagram.push(1);
        assert_eq!(read(&datagram), Some((header, Payload::Frame(&datagram[8..]))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(vni in 0_u32..1 << 24, frame in proptest::collection::vec(any::<u8>(), 15..200)) {
            let header = Header::new(vni).unwrap();
            let mut datagram = header.bytes().to_vec();
            datagram.extend(&frame);
            prop_assert_eq!(read(&datagram), Some((header, Payload::Frame(&frame))));
        }

        #[test]
        fn any_other_bit_is_another_protocol(vni in 0_u32..1 << 24, bit in 0_usize..64) {
            let mut bytes = Header::new(vni).unwrap().bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = read(&bytes);
            // Bits of the VNI make another VNI; any other one nothing.
            prop_assert_eq!(read.is_some(), (32..56).contains(&bit));
            prop_assert!(read.is_none_or(|(header, _)| header.vni() != vni));
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some((header, payload)) = read(&bytes) {
                prop_assert_eq!(&header.bytes()[..], &bytes[..8]);
                prop_assert_eq!(payload == Payload::Goodbye, bytes.len() == 8);
            }
        }
    }
}
