//! A group's segment: its VNI, and the multicast groups that carry what is for everybody.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::header::Header;
use crate::who::Refused;

/// vxvde's multicast groups, of which the last three bytes are a group's number.
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 0, 0, 1);
/// As [`GROUP4`], for IPv6.
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0x56de, 0, 0, 0, 0, 0, 1);

/// The last group that has a segment. The other half of the numbers is for tenants' networks, so that they never meet.
pub const LAST_GROUP: u32 = 0x7f_ffff;

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    header: Header,
}

impl Segment {
    /// The segment of a group of users.
    ///
    /// Errors: a number above [`LAST_GROUP`]. A header cannot carry more than 24 bits: cut off, it would be another group's.
    pub fn of_group(gid: u32) -> Result<Segment, Refused> {
        match Header::new(gid) {
            Some(_) if gid == 0 => Err(Refused::TooSmall { gid, least: 1 }),
            Some(header) if gid <= LAST_GROUP => Ok(Segment { header }),
            _ => Err(Refused::TooLarge { gid }),
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
        assert!(Segment::of_group(LAST_GROUP).is_ok());
        assert_eq!(Segment::of_group(LAST_GROUP + 1), Err(Refused::TooLarge { gid: LAST_GROUP + 1 }));
    }

    proptest! {
        #[test]
        fn two_groups_share_nothing(a in 1..=LAST_GROUP, b in 1..=LAST_GROUP) {
            prop_assume!(a != b);
            let [a, b] = [a, b].map(|gid| Segment::of_group(gid).unwrap());
            prop_assert_ne!(a.vni(), b.vni());
            prop_assert_ne!(a.group4(GROUP4), b.group4(GROUP4));
            prop_assert_ne!(a.group6(GROUP6), b.group6(GROUP6));
            prop_assert!(a.group4(GROUP4).is_multicast() && a.group6(GROUP6).is_multicast());
        }
    }
}
