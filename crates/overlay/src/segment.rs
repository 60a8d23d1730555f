//! A group's segment: its VNI, and the multicast groups that carry what is for everybody.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::header::Header;
use crate::who::Refused;

/// vxvde's multicast groups, of which the last three bytes are a group's number.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 0, 0, 1);
/// As [`GROUP4`], for IPv6.
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0x56de, 0, 0, 0, 0, 0, 1);

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    header: Header,
}

impl Segment {
    /// The segment of a group of users.
    ///
    /// Errors: a number with more than 24 bits, which a header cannot carry. Cut off, it would be another group's.
    pub fn of_group(gid: u32) -> Result<Segment, Refused> {
        match Header::new(gid) {
            Some(header) if gid > 0 => Ok(Segment { header }),
            Some(_) => Err(Refused::TooSmall { gid, least: 1 }),
            None => Err(Refused::TooLarge { gid }),
        }
    }

    /// The group's number.
    pub fn group(self) -> u32 {
        self.header.vni()
    }

    /// The number on the wire, which is the group's.
    pub fn vni(self) -> u32 {
        self.header.vni()
    }

    /// What stands before each frame.
    pub fn header(self) -> Header {
        self.header
    }

    /// The multicast group, made of the configured one.
    pub fn group4(self, base: Ipv4Addr) -> Ipv4Addr {
        let ([first, ..], [_, high, middle, low]) = (base.octets(), self.group().to_be_bytes());
        Ipv4Addr::new(first, high, middle, low)
    }

    /// The multicast group, made of the configured one.
    pub fn group6(self, base: Ipv6Addr) -> Ipv6Addr {
        let mut octets = base.octets();
        let [_, last @ ..] = self.group().to_be_bytes();
        octets[13..].copy_from_slice(&last);
        octets.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_end_in_the_number() {
        let segment = Segment::of_group(1000).unwrap();
        assert_eq!(segment.group4(GROUP4), Ipv4Addr::new(239, 0, 3, 232));
        assert_eq!(segment.group6(GROUP6), "ff05:56de::3e8".parse::<Ipv6Addr>().unwrap());
        assert_eq!(segment.header().bytes(), [8, 0, 0, 0, 0, 3, 0xe8, 0]);
    }

    #[test]
    fn no_number_is_cut_off() {
        assert_eq!(Segment::of_group(0x0100_03e8), Err(Refused::TooLarge { gid: 0x0100_03e8 }));
        assert_eq!(Segment::of_group(u32::MAX), Err(Refused::TooLarge { gid: u32::MAX }));
        assert!(Segment::of_group(0).is_err());
        assert!(Segment::of_group(0xff_ffff).is_ok());
    }

    proptest! {
        #[test]
        fn two_groups_share_nothing(a in 1_u32..1 << 24, b in 1_u32..1 << 24) {
            prop_assume!(a != b);
            let [a, b] = [a, b].map(|gid| Segment::of_group(gid).unwrap());
            prop_assert_ne!(a.vni(), b.vni());
            prop_assert_ne!(a.group4(GROUP4), b.group4(GROUP4));
            prop_assert_ne!(a.group6(GROUP6), b.group6(GROUP6));
            prop_assert!(a.group4(GROUP4).is_multicast() && a.group6(GROUP6).is_multicast());
        }
    }
}
