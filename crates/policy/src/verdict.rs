//! The verdict machine: what becomes of a packet when several rules match it.
//!
//! Rules lie in tiers. In each tier the first matching rule counts: `Pass` leaves the packet to the next tier, as if
//! none had matched, everything else is final. What no tier decides is allowed; whoever wants it forbidden has a rule
//! that says so.
//!
//! What two lookups found is merged tier by tier, for a `Pass` that one of them found must not let the other one's
//! later rule of the same tier speak.

use std::fmt;

/// Where a rule lies; asked in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tier {
    /// Before everything that tenants write.
    Admin,
    /// Lists of one endpoint.
    Endpoint,
    /// Policies of namespaces.
    Namespace,
    /// For what nobody else spoke of.
    Baseline,
}

/// What a rule does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Lets it go on.
    Allow,
    /// Drops it.
    Deny,
    /// Leaves it to the next tier.
    Pass,
    /// Hands it to a proxy.
    Redirect,
}

/// How many tiers there are.
pub const TIERS: usize = 4;

/// How many rules one set may have: what the upper bits of a [`Hit`] can count.
pub const MAX_RANK: u32 = (1 << 30) - 2;

/// The first rule that matched in one tier: its rank among the rules of its set in the upper 30 bits, so that the
/// smaller number is the rule that is asked first, and its action in the lower two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hit(u32);

/// The first rule that matched, for each tier: the value of the verdict table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hits(pub [Hit; TIERS]);

impl Tier {
    /// All, in their order.
    pub const ALL: [Tier; TIERS] = [Tier::Admin, Tier::Endpoint, Tier::Namespace, Tier::Baseline];
}

impl Hit {
    /// No rule matched.
    pub const NONE: Hit = Hit(u32::MAX);

    /// A rule with this rank in its set.
    pub fn new(rank: u32, action: Action) -> Hit {
        debug_assert!(rank <= MAX_RANK, "a set with {rank} rules");
        Hit(rank << 2 | action as u32)
    }

    /// The number in the table.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The rule's rank and action, if there is one.
    pub fn rule(self) -> Option<(u32, Action)> {
        let action = match self.0 & 3 {
            _ if self == Hit::NONE => return None,
            0 => Action::Allow,
            1 => Action::Deny,
            2 => Action::Pass,
            _ => Action::Redirect,
        };
        Some((self.0 >> 2, action))
    }
}

impl Hits {
    /// No rule of any tier matched.
    pub const NONE: Hits = Hits([Hit::NONE; TIERS]);

    /// Notes a rule that matches. Rules are noted in the order of their ranks.
    pub(crate) fn note(&mut self, tier: Tier, hit: Hit) {
        if let Some(first) = self.0.get_mut(tier as usize) {
            *first = hit.min(*first);
        }
    }

    /// What matched in either.
    pub fn merge(self, other: Hits) -> Hits {
        let mut merged = self;
        merged.0.iter_mut().zip(other.0).for_each(|(mine, other)| *mine = other.min(*mine));
        merged
    }

    /// The rule that decides, if one does.
    pub fn decide(self) -> Option<(u32, Action)> {
        self.0.into_iter().filter_map(Hit::rule).find(|(_, action)| *action != Action::Pass)
    }
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule() {
            None => f.write_str("-"),
            Some((rank, action)) => write!(f, "{action:?}#{rank}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(found: &[(Tier, u32, Action)]) -> Hits {
        let mut hits = Hits::NONE;
        found.iter().for_each(|(tier, rank, action)| hits.note(*tier, Hit::new(*rank, *action)));
        hits
    }

    #[test]
    fn the_first_of_a_tier_decides_and_tiers_are_asked_in_order() {
        use Action::{Allow, Deny, Pass};
        use Tier::{Admin, Baseline, Namespace};
        for (found, decided) in [
            (&[][..], None),
            (&[(Namespace, 3, Allow), (Namespace, 4, Deny)], Some((3, Allow))),
            (&[(Namespace, 4, Deny), (Namespace, 3, Allow)], Some((3, Allow))),
            (&[(Baseline, 9, Deny), (Namespace, 3, Allow)], Some((3, Allow))),
            (&[(Admin, 0, Pass), (Namespace, 3, Deny)], Some((3, Deny))),
            (&[(Admin, 0, Pass), (Admin, 1, Deny), (Namespace, 3, Allow)], Some((3, Allow))),
            (&[(Admin, 1, Pass), (Admin, 0, Deny), (Namespace, 3, Allow)], Some((0, Deny))),
            (&[(Admin, 0, Pass)], None),
        ] {
            assert_eq!(hits(found).decide(), decided, "{found:?}");
        }
    }

    #[test]
    fn a_pass_of_one_lookup_silences_the_others_later_rule() {
        let labels = hits(&[(Tier::Admin, 7, Action::Deny), (Tier::Namespace, 9, Action::Allow)]);
        let block = hits(&[(Tier::Admin, 5, Action::Pass)]);
        assert_eq!(labels.decide(), Some((7, Action::Deny)), "the control");
        assert_eq!(labels.merge(block).decide(), Some((9, Action::Allow)));
        assert_eq!(block.merge(labels), labels.merge(block));
    }

    #[test]
    fn numbers_are_read_back() {
        for action in [Action::Allow, Action::Deny, Action::Pass, Action::Redirect] {
            for rank in [0, 1, 77, MAX_RANK] {
                assert_eq!(Hit::new(rank, action).rule(), Some((rank, action)));
            }
        }
    }
}
