//! Who may have a socket or a port on which segment: a question about numbers that the kernel vouches for.
//!
//! The numbers are those of the initial user namespace, as SO_PEERCRED shows them to a process there: whatever a caller
//! calls his group inside a user namespace of his own, this is the real one. What a user may become by himself does not
//! count: a number from the ranges that newgidmap(1) hands out is nobody's group.

use std::ops::Range;

use crate::segment::Segment;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// His effective group.
    pub group: u32,
    /// The supplementary ones.
    pub supplementary: &'a [u32],
}

/// What a host lets him have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The first number of a group that has a segment.
    pub least: u32,
    /// Do supplementary groups count?
    pub supplementary: bool,
    /// How many networks a group has.
    pub networks: u8,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The system's groups have no segments.
    #[error("group {gid} is below {least}, where groups of users begin (minGid)")]
    TooSmall {
        /// The group.
        gid: u32,
        /// The first that may.
        least: u32,
    },
    /// There are 24 bits on the wire, and half of the numbers are not for groups.
    #[error("group {gid} is above {last}, the last that has a segment")]
    TooLarge {
        /// The group.
        gid: u32,
        /// The last that may.
        last: u32,
    },
    /// A group has so many.
    #[error("there is no network {network}: a group has {networks} here, from 0 on (networksPerGroup)")]
    NoSuchNetwork {
        /// The network.
        network: u8,
        /// How many there are.
        networks: u8,
    },
    /// Whoever owns the range can take the number by himself.
    #[error("group {gid} is one of the numbers that /etc/subgid hands out, and so nobody's group")]
    Subordinate {
        /// The group.
        gid: u32,
    },
    /// Not his.
    #[error("group {gid} is not the caller's effective group")]
    NotYours {
        /// The group.
        gid: u32,
    },
    /// Not his, though he is in it.
    #[error(
        "group {gid} is only a supplementary group of the caller; `newgrp` makes it the effective one, or \
         `supplementaryGroups: true` in fiefd.yaml lets it count"
    )]
    OnlySupplementary {
        /// The group.
        gid: u32,
    },
}

/// The segment that somebody may be on. `asked` names a group; without, it is his own.
pub fn segment_for(
    asker: &Asker<'_>,
    asked: Option<u32>,
    network: u8,
    rules: &Rules,
    subordinate: &SubordinateGroups,
) -> Result<Segment, Refused> {
    let gid = asked.unwrap_or(asker.group);
    if gid != asker.group {
        match asker.supplementary.contains(&gid) {
            false => return Err(Refused::NotYours { gid }),
            true if !rules.supplementary => return Err(Refused::OnlySupplementary { gid }),
            true => {}
        }
    }
    if gid < rules.least {
        return Err(Refused::TooSmall { gid, least: rules.least });
    }
    if subordinate.contains(gid) {
        return Err(Refused::Subordinate { gid });
    }
    Segment::of_network(gid, network, rules.networks)
}

/// The ranges of /etc/subgid (subgid(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubordinateGroups(Vec<Range<u64>>);

impl SubordinateGroups {
    /// Reads the file's text, `NAME:FIRST:COUNT` a line. A line that says nothing else is passed over, as newgidmap does.
    pub fn read(text: &str) -> SubordinateGroups {
        let range = |line: &str| {
            let mut fields = line.trim().split(':').skip(1);
            let first: u64 = fields.next()?.parse().ok()?;
            let count: u64 = fields.next()?.parse().ok()?;
            Some(first..first.saturating_add(count))
        };
        SubordinateGroups(text.lines().filter_map(range).collect())
    }

    /// Is this number in one of them?
    pub fn contains(&self, gid: u32) -> bool {
        self.0.iter().any(|range| range.contains(&u64::from(gid)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { least: 1000, supplementary: false, networks: 1 };

    fn ask(group: u32, supplementary: &[u32], asked: Option<u32>, rules: Rules) -> Result<u32, Refused> {
        let subordinate = SubordinateGroups::read("ada:100000:65536\nbad\n:1:\ncarl:300000:1\n");
        segment_for(&Asker { group, supplementary }, asked, 0, &rules, &subordinate).map(Segment::group)
    }

    #[test]
    fn the_effective_group_is_what_one_gets() {
        assert_eq!(ask(1000, &[], None, RULES), Ok(1000));
        assert_eq!(ask(1000, &[], Some(1000), RULES), Ok(1000));
        assert_eq!(ask(1000, &[], Some(1001), RULES), Err(Refused::NotYours { gid: 1001 }));
        // Root has no segment by being root.
        assert_eq!(ask(0, &[0], Some(1001), RULES), Err(Refused::NotYours { gid: 1001 }));
    }

    #[test]
    fn supplementary_groups_count_where_the_host_says_so() {
        let also = Rules { supplementary: true, ..RULES };
        assert_eq!(ask(1000, &[1001], Some(1001), RULES), Err(Refused::OnlySupplementary { gid: 1001 }));
        assert_eq!(ask(1000, &[1001], Some(1001), also), Ok(1001));
        assert_eq!(ask(1000, &[27], Some(27), also), Err(Refused::TooSmall { gid: 27, least: 1000 }));
        assert_eq!(ask(1000, &[1001], None, also), Ok(1000));
    }

    #[test]
    fn numbers_that_are_nobodys_group_have_no_segment() {
        assert_eq!(ask(999, &[], None, RULES), Err(Refused::TooSmall { gid: 999, least: 1000 }));
        assert_eq!(ask(0, &[], None, RULES), Err(Refused::TooSmall { gid: 0, least: 1000 }));
        for gid in [100_000, 165_535, 300_000] {
            assert_eq!(ask(gid, &[], None, RULES), Err(Refused::Subordinate { gid }));
        }
        for gid in [99_999, 165_536, 300_001, 2000] {
            assert_eq!(ask(gid, &[], None, RULES), Ok(gid));
        }
        for gid in [0x80_0000, 0x0100_03e8, 1 << 24, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert_eq!(ask(gid, &[], None, RULES), Err(Refused::TooLarge { gid, last: 0x7f_ffff }));
        }
        // 0 is nobody's wherever groups begin.
        assert!(ask(0, &[], None, Rules { least: 0, ..RULES }).is_err());
    }

    proptest! {
        #[test]
        fn nobody_gets_a_segment_that_is_not_his(
            group: u32, supplementary in proptest::collection::vec(any::<u32>(), 0..4), asked: Option<u32>, both: bool,
        ) {
            let rules = Rules { supplementary: both, ..RULES };
            if let Ok(got) = ask(group, &supplementary, asked, rules) {
                prop_assert!(got == group || both && supplementary.contains(&got));
                prop_assert!((1000..1 << 23).contains(&got));
            }
        }

        #[test]
        fn no_file_breaks_it(text in ".{0,200}", gid: u32) {
            let _ = SubordinateGroups::read(&text).contains(gid);
        }
    }
}
