//! A tenant's number on one host.

use serde::{Deserialize, Serialize};

/// The number of a tenant on this host: 1..=65535 without those whose low byte is 253, 254 or 255.
///
/// The kernel hashes routing tables by `id & 255`; `default`, `main` and `local` live at 253..255
/// (net/ipv4/fib_frontend.c, `fib_get_table`), and a tenant that shared their chain would pay for every lookup.
/// Slot 0 is the host itself and is not a `Slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

/// A number that no tenant may have.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a slot: 0 is the host, and a low byte of 253..255 is kept free")]
pub struct NotASlot(u16);

impl Slot {
    /// The slot with this number, if tenants may have it.
    pub const fn new(number: u16) -> Option<Slot> {
        if number == 0 || number & 0xff >= 253 { None } else { Some(Slot(number)) }
    }

    /// The number itself.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Every slot up to and including `highest`, ascending.
    pub fn up_to(highest: u16) -> impl Iterator<Item = Slot> {
        (1..=highest).filter_map(Slot::new)
    }
}

impl TryFrom<u16> for Slot {
    type Error = NotASlot;
    fn try_from(number: u16) -> Result<Slot, NotASlot> {
        Slot::new(number).ok_or(NotASlot(number))
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> u16 {
        slot.0
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_leave_the_kernels_own_table_chains_alone() {
        for number in [0, 253, 254, 255, 509, 510, 511, 65535] {
            assert!(Slot::new(number).is_none(), "{number}");
        }
        for number in [1, 252, 256, 508, 65532] {
            assert!(Slot::new(number).is_some(), "{number}");
        }
        assert_eq!(Slot::up_to(511).count(), 511 - 6);
    }
}
