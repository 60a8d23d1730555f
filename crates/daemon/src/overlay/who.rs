//! Which segment whoever is at the other end of a Unix socket may be on, by what the kernel says of him.

use fief_overlay::{Asker, Refused, Rules, Segment, SubordinateGroups, segment_for};

use crate::members::Caller;

/// Where the ranges stand that users may take numbers from by themselves (subgid(5)). A host that keeps them elsewhere
/// (nsswitch.conf: `subid`) sets `minGid` above or below them.
const SUBORDINATE: &str = "/etc/subgid";

/// A range that no group is outside of.
const EVERY: &str = "unknown:0:4294967296";

/// The segment of a caller, or one of its networks; of one of his groups, if he names it. The file is read each time: it changes with every user
/// that is added.
pub fn segment(caller: &Caller, asked: Option<u32>, network: u8, rules: &Rules) -> Result<Segment, Refused> {
    let subordinate = match std::fs::read_to_string(SUBORDINATE) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            tracing::warn!(%error, "{SUBORDINATE} cannot be read, so nobody's group can be told from a borrowed one");
            EVERY.to_owned()
        }
    };
    let (effective, supplementary) = caller.groups.split_first().map_or((0, &[][..]), |(e, s)| (*e, s));
    let asker = Asker { group: effective, supplementary };
    segment_for(&asker, asked, network, rules, &SubordinateGroups::read(&subordinate))
}
