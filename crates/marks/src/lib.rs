//! The 32 bits of the packet mark (`skb->mark`, SO_MARK, fwmark): where fief's field lies among everybody else's.
//!
//! Every program on a host may write all 32 bits and nobody coordinates them. fief owns one run of adjacent bits,
//! and only those: a write keeps the others, a comparison masks them.
//!
//! ```text
//!   31                             w+s      s                 0
//!  +--------------------------------+--------+-----------------+
//!  |  somebody else's               |  slot  | somebody else's |   mask = ((1 << w) - 1) << s
//!  +--------------------------------+--------+-----------------+
//! ```
//!
//! A leaf: this room uses nothing else of ours.
#![forbid(unsafe_code)]

pub mod collide;
pub mod drawing;
pub mod header;
pub mod reading;
pub mod registry;

use serde::{Deserialize, Serialize};

/// Where the slot's field lies in the packet mark: one run of 4 to 16 adjacent bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MarkLayout {
    mask: u32,
}

/// Where the slot stands in marks just now: while the field moves it is written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// The field that counts.
    pub read: MarkLayout,
    /// Another one that says the same, shares no bit with it, and does not count.
    pub also: Option<MarkLayout>,
}

impl Positions {
    /// The bits that are fief's.
    pub fn mask(self) -> u32 {
        self.read.mask() | self.also.map_or(0, MarkLayout::mask)
    }

    /// A mark with the slot in all places, other bits kept; `None` if the number does not fit everywhere.
    pub fn with(self, mark: u32, number: u16) -> Option<u32> {
        let also = self.also.map_or(Some(0), |also| also.mark(number))?;
        Some(mark & !self.mask() | self.read.mark(number)? | also)
    }
}

/// A mask that cannot hold slots.
#[derive(Debug, thiserror::Error)]
#[error(
    "mark mask `{0}` is not one run of 4 to 16 adjacent bits; write for example 0xffff, 0xffff0000 or 0x00ffff00"
)]
pub struct BadMask(String);

impl Default for MarkLayout {
    /// The low 16 bits: `ip rule` and `ss` then show the slot itself.
    fn default() -> MarkLayout {
        MarkLayout { mask: 0xffff }
    }
}

impl MarkLayout {
    /// The layout with this mask.
    pub fn new(mask: u32) -> Result<MarkLayout, BadMask> {
        let adjacent =
            mask.checked_shr(mask.trailing_zeros()).is_some_and(|run| run & run.wrapping_add(1) == 0);
        let wide_enough = (4..=16).contains(&mask.count_ones());
        if adjacent && wide_enough { Ok(MarkLayout { mask }) } else { Err(BadMask(format!("{mask:#x}"))) }
    }

    /// The field's mask.
    pub fn mask(self) -> u32 {
        self.mask
    }

    /// The field's lowest bit, 0..=28.
    pub fn shift(self) -> u32 {
        self.mask.trailing_zeros()
    }

    /// The field's width in bits, 4..=16.
    pub fn width(self) -> u32 {
        self.mask.count_ones()
    }

    /// The highest number that fits.
    pub fn highest(self) -> u16 {
        (self.mask >> self.shift()) as u16
    }

    /// The mark of a slot, other bits zero; `None` if the number does not fit.
    pub fn mark(self, number: u16) -> Option<u32> {
        (number <= self.highest()).then(|| u32::from(number) << self.shift())
    }

    /// How many tenants it holds: slots without 0 and those whose low byte is 253, 254 or 255.
    pub fn capacity(self) -> usize {
        (1..=self.highest()).filter(|number| number & 0xff < 253).count()
    }

    /// The slot number in a mark; 0 is the host.
    pub fn number(self, mark: u32) -> u16 {
        ((mark & self.mask) >> self.shift()) as u16
    }
}

impl std::str::FromStr for MarkLayout {
    type Err = BadMask;
    fn from_str(text: &str) -> Result<MarkLayout, BadMask> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mask = u32::from_str_radix(digits, 16).map_err(|_| BadMask(text.into()))?;
        MarkLayout::new(mask)
    }
}

impl TryFrom<String> for MarkLayout {
    type Error = BadMask;
    fn try_from(text: String) -> Result<MarkLayout, BadMask> {
        text.parse()
    }
}

impl From<MarkLayout> for String {
    fn from(layout: MarkLayout) -> String {
        layout.to_string()
    }
}

impl std::fmt::Display for MarkLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_run_of_four_to_sixteen_bits() {
        for mask in [0xf, 0xffff, 0xffff_0000, 0x00ff_ff00, 0x7ffe_0000, 0xf000_0000] {
            assert_eq!(MarkLayout::new(mask).unwrap().mask(), mask);
        }
        for mask in [0, 0x7, 0x1_ffff, 0xff0f, 0x5555_5555, 0xffff_ffff] {
            assert!(MarkLayout::new(mask).is_err(), "{mask:#x}");
        }
    }

    #[test]
    fn slots_come_back_and_foreign_bits_stay_out() {
        let layout = MarkLayout::new(0x00ff_f000).unwrap();
        assert_eq!((layout.shift(), layout.width(), layout.highest()), (12, 12, 0xfff));
        assert_eq!(layout.mark(0x123), Some(0x12_3000));
        assert_eq!(layout.mark(0x1000), None);
        assert_eq!(layout.number(0xff12_3fff), 0x123);
    }

    #[test]
    fn a_mask_is_read_as_it_is_shown() {
        let layout: MarkLayout = "0x00ffff00".parse().unwrap();
        assert_eq!(layout.to_string().parse::<MarkLayout>().unwrap(), layout);
        assert!("ffff1".parse::<MarkLayout>().is_err());
        assert!("sixteen".parse::<MarkLayout>().is_err());
    }
}
