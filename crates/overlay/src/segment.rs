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

/// How many networks a group can have. Each but the first has the number of one that is then no group's:
///
/// ```text
///    bit 23   22..20     19..0
///  ┌───────┬─────────┬──────────┐
///  │   0   │ network │  group   │   network 0: the group alone, of 23 bits where a group has one network
///  └───────┴─────────┴──────────┘
/// ```
pub const MOST_NETWORKS: u8 = 8;
/// The last group that has a segment on hosts where a group has several.
pub const LAST_OF_SEVERAL: u32 = (1 << NETWORK_SHIFT) - 1;

const NETWORK_SHIFT: u32 = 20;

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Segment {
    header: Header,
    group: u32,
    network: u8,
}

impl Segment {
    /// The segment of a group of users.
    ///
    /// Errors: a number above [`LAST_GROUP`]. A header cannot carry more than 24 bits: cut off, it would be another group's.
    pub fn of_group(gid: u32) -> Result<Segment, Refused> {
        match Header::new(gid) {
            Some(_) if gid == 0 => Err(Refused::TooSmall { gid, least: 1 }),
            Some(header) if gid <= LAST_GROUP => Ok(Segment { header, group: gid, network: 0 }),
            _ => Err(Refused::TooLarge { gid, last: LAST_GROUP }),
        }
    }

    /// One of the networks of a group of users, on a host that has so many for each. Networks of two groups never have one
    /// number, on hosts of which all have several or all have one.
    ///
    /// Errors: as [`Segment::of_group`], and a network that there is not.
    pub fn of_network(gid: u32, network: u8, networks: u8) -> Result<Segment, Refused> {
        let networks = networks.clamp(1, MOST_NETWORKS);
        if network >= networks {
            return Err(Refused::NoSuchNetwork { network, networks });
        }
        if networks > 1 && gid > LAST_OF_SEVERAL {
            return Err(Refused::TooLarge { gid, last: LAST_OF_SEVERAL });
        }
        let vni = Segment::of_group(gid)?.vni() | u32::from(network) << NETWORK_SHIFT;
        let header = Header::new(vni).ok_or(Refused::TooLarge { gid, last: LAST_OF_SEVERAL })?;
        Ok(Segment { header, group: gid, network })
    }

    /// The group's number.
    pub fn group(self) -> u32 {
        self.group
    }

    /// Which of its networks: 0, if there is one.
    pub fn network(self) -> u8 {
        self.network
    }

    /// The number on the wire, which is the group's, but for its further networks.
    pub fn vni(self) -> u32 {
        self.header.vni()
    }

    /// What stands before each frame.
    pub fn header(self) -> Header {
        self.header
    }

    /// The multicast group, made of the configured one.
    pub fn group4(self, base: Ipv4Addr) -> Ipv4Addr {
        let ([first, ..], [_, high, middle, low]) = (base.octets(), self.vni().to_be_bytes());
        Ipv4Addr::new(first, high, middle, low)
    }

    /// The multicast group, made of the configured one.
    pub fn group6(self, base: Ipv6Addr) -> Ipv6Addr {
        let mut octets = base.octets();
        let [_, last @ ..] = self.vni().to_be_bytes();
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
        assert_eq!(
            Segment::of_group(0x0100_03e8),
            Err(Refused::TooLarge { gid: 0x0100_03e8, last: LAST_GROUP })
        );
        assert_eq!(Segment::of_group(u32::MAX), Err(Refused::TooLarge { gid: u32::MAX, last: LAST_GROUP }));
        assert!(Segment::of_group(0).is_err());
        assert!(Segment::of_group(LAST_GROUP).is_ok());
        assert_eq!(
            Segment::of_group(LAST_GROUP + 1),
            Err(Refused::TooLarge { gid: LAST_GROUP + 1, last: LAST_GROUP })
        );
    }

    #[test]
    fn networks_of_a_group_have_numbers_that_are_no_groups() {
        let second = Segment::of_network(1000, 1, 4).unwrap();
        assert_eq!((second.vni(), second.group(), second.network()), (0x10_03e8, 1000, 1));
        assert_eq!(second.group4(GROUP4), Ipv4Addr::new(239, 0x10, 3, 0xe8));
        assert_eq!(Segment::of_network(1000, 0, 4), Segment::of_group(1000));
        for networks in [0, 1] {
            assert_eq!(Segment::of_network(0x10_03e8, 0, networks), Segment::of_group(0x10_03e8));
            let refused = Segment::of_network(1000, 1, networks);
            assert_eq!(refused, Err(Refused::NoSuchNetwork { network: 1, networks: 1 }));
        }
        // Whose number is another's second network.
        let refused = Segment::of_network(0x10_03e8, 0, 2);
        assert_eq!(refused, Err(Refused::TooLarge { gid: 0x10_03e8, last: LAST_OF_SEVERAL }));
        assert!(Segment::of_network(1000, 4, 4).is_err() && Segment::of_network(1000, 8, 255).is_err());
    }

    proptest! {
        #[test]
        fn two_networks_share_nothing(
            a in (1..=LAST_OF_SEVERAL, 0..MOST_NETWORKS), b in (1..=LAST_OF_SEVERAL, 0..MOST_NETWORKS),
        ) {
            prop_assume!(a != b);
            let [a, b] = [a, b].map(|(gid, network)| Segment::of_network(gid, network, MOST_NETWORKS).unwrap());
            prop_assert_ne!(a.vni(), b.vni());
            prop_assert_ne!(a.group4(GROUP4), b.group4(GROUP4));
            prop_assert_ne!(a.group6(GROUP6), b.group6(GROUP6));
            prop_assert!(a.vni() <= LAST_GROUP && b.vni() <= LAST_GROUP);
        }

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
