//! What is known of 32 bits in a register of the kernel: for each bit, where it comes from.
//!
//! nf_tables, and bpf programs, compute marks step by step: load, mask, or, store. Followed bit by bit, a store says
//! exactly which bits it changes and which it keeps, however the steps are arranged.

use fief_marks::registry::Mark;

/// The marks that can be loaded into a register.
pub const LOADED: [Mark; 3] = [Mark::Packet, Mark::Connection, Mark::Socket];

/// A mask for each of [`LOADED`].
pub type PerMark = [u32; 3];

/// Where a kind of mark stands in a [`PerMark`]; IPsec's is never in a register.
pub fn index(mark: Mark) -> usize {
    match mark {
        Mark::Packet | Mark::Ipsec => 0,
        Mark::Connection => 1,
        Mark::Socket => 2,
    }
}

/// 32 bits, each by where it comes from. A bit that is in no mask is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word {
    /// Bits whose value is known.
    pub known: u32,
    /// Those of them that are 1.
    pub ones: u32,
    /// Bits that are the same bit of a mark, as it was found.
    same: PerMark,
    /// Bits that are the opposite of the same bit of a mark.
    flipped: PerMark,
    /// Bits of a mark on which some unknown bit may depend.
    mixed: PerMark,
}

impl Word {
    /// A number.
    pub fn constant(value: u32) -> Word {
        Word { known: u32::MAX, ones: value, ..Word::default() }
    }

    /// A number of which only these bits are known, and which comes from no mark.
    pub fn partly(value: u32, known: u32) -> Word {
        Word { known, ones: value & known, ..Word::default() }
    }

    /// A mark as it was found.
    pub fn mark(mark: Mark) -> Word {
        let mut word = Word::default();
        word.same[index(mark)] = u32::MAX;
        word
    }

    /// The bits of each mark on which this depends.
    pub fn depends_on(&self) -> PerMark {
        std::array::from_fn(|i| self.same[i] | self.flipped[i] | self.mixed[i])
    }

    /// The bits that storing this into a mark would change.
    pub fn changes(&self, mark: Mark) -> u32 {
        !self.same[index(mark)]
    }

    /// Is it one value, whatever the packet?
    pub fn value(&self) -> Option<u32> {
        (self.known == u32::MAX).then_some(self.ones)
    }

    /// The one mark whose bits this is, unturned and in their places; all others are 0.
    pub fn plain(&self) -> Option<Mark> {
        let mut marks = LOADED.into_iter().filter(|mark| self.depends_on()[index(*mark)] != 0);
        let mark = marks.next().filter(|_| marks.next().is_none())?;
        let i = index(mark);
        (self.flipped[i] | self.mixed[i] == 0 && self.ones == 0 && self.same[i] | self.known == u32::MAX)
            .then_some(mark)
    }

    /// `self & other`.
    pub fn and(self, other: Word) -> Word {
        let zero = |w: &Word| w.known & !w.ones;
        let one = |w: &Word| w.known & w.ones;
        let (zeros, both) = (zero(&self) | zero(&other), one(&self) & one(&other));
        // Where one side is 1, the other side's bit comes through.
        self.through(other, one(&other), one(&self), zeros, both)
    }

    /// `self | other`.
    pub fn or(self, other: Word) -> Word {
        let zero = |w: &Word| w.known & !w.ones;
        let one = |w: &Word| w.known & w.ones;
        let (ones, both) = (one(&self) | one(&other), zero(&self) & zero(&other));
        self.through(other, zero(&other), zero(&self), both, ones)
    }

    /// `self ^ other`.
    pub fn xor(self, other: Word) -> Word {
        let mut out = self.through(other, other.known, self.known, 0, 0);
        // A known bit on one side keeps or turns the bit of the other.
        out.known = self.known & other.known;
        out.ones = (self.ones ^ other.ones) & out.known;
        let turn = (self.known & self.ones) ^ (other.known & other.ones);
        for i in 0..3 {
            let (same, flipped) = (out.same[i], out.flipped[i]);
            out.same[i] = (same & !turn | flipped & turn) & !out.known;
            out.flipped[i] = (flipped & !turn | same & turn) & !out.known;
        }
        out.settle()
    }

    /// Bits moved up (`left`) or down; 32 and more leave nothing.
    pub fn shift(self, bits: u32, left: bool) -> Word {
        let by = |mask: u32| if left { mask.checked_shl(bits) } else { mask.checked_shr(bits) }.unwrap_or(0);
        if bits == 0 {
            return self;
        }
        // A bit in another place is no longer the same bit.
        let emptied = !by(u32::MAX);
        let mixed = std::array::from_fn(|i| {
            self.depends_on()[i] & back(by, self.same[i], self.flipped[i], left, bits) | self.mixed[i]
        });
        Word { known: by(self.known) | emptied, ones: by(self.ones), same: [0; 3], flipped: [0; 3], mixed }
            .settle()
    }

    /// Something that depends on these in a way that is not followed.
    pub fn blurred(self, other: Word) -> Word {
        let (a, b) = (self.depends_on(), other.depends_on());
        Word { mixed: std::array::from_fn(|i| a[i] | b[i]), ..Word::default() }
    }

    fn through(self, other: Word, of_self: u32, of_other: u32, zeros: u32, ones: u32) -> Word {
        let known = zeros | ones;
        let pick = |a: u32, b: u32| (a & of_self | b & of_other) & !known;
        let (a, b) = (self.depends_on(), other.depends_on());
        let lost = |i: usize| {
            // Where both sides are open, the bit depends on both.
            let open = !(of_self | of_other | known);
            (a[i] | b[i]) & open | self.mixed[i] | other.mixed[i]
        };
        Word {
            known,
            ones,
            same: std::array::from_fn(|i| pick(self.same[i], other.same[i])),
            flipped: std::array::from_fn(|i| pick(self.flipped[i], other.flipped[i])),
            mixed: std::array::from_fn(lost),
        }
        .settle()
    }

    /// Without an unknown bit nothing depends on anything.
    fn settle(mut self) -> Word {
        let followed = self.known | self.same.iter().chain(&self.flipped).fold(0, |all, mask| all | mask);
        if followed == u32::MAX {
            self.mixed = [0; 3];
        }
        self
    }
}

/// Which bits of the source are still there after a shift.
fn back(by: impl Fn(u32) -> u32, same: u32, flipped: u32, left: bool, bits: u32) -> u32 {
    let there = by(same | flipped);
    if left { there.checked_shr(bits) } else { there.checked_shl(bits) }.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(value: u32) -> Word {
        Word::constant(value)
    }

    #[test]
    fn a_masked_write_changes_its_bits_only() {
        let mark = Word::mark(Mark::Packet);
        let written = mark.and(c(0xffff_00ff)).or(c(0x1200));
        assert_eq!(written.changes(Mark::Packet), 0xff00);
        assert_eq!((written.known, written.ones), (0xff00, 0x1200));
        // The kernel's own form: (mark & and) ^ xor.
        let written = mark.and(c(!0x4000)).xor(c(0x4000));
        assert_eq!((written.changes(Mark::Packet), written.known, written.ones), (0x4000, 0x4000, 0x4000));
        let flipped = mark.xor(c(0x1));
        assert_eq!((flipped.changes(Mark::Packet), flipped.known), (1, 0));
    }

    #[test]
    fn what_is_masked_away_is_not_read() {
        assert_eq!(Word::mark(Mark::Connection).and(c(0xf0)).depends_on(), [0, 0xf0, 0]);
        assert_eq!(Word::mark(Mark::Packet).or(c(0xffff_0000)).depends_on(), [0xffff, 0, 0]);
        assert_eq!(Word::mark(Mark::Packet).and(c(0)).value(), Some(0));
        let shifted = Word::mark(Mark::Packet).and(c(0xff00)).shift(8, false);
        assert_eq!((shifted.depends_on(), shifted.known), ([0xff00, 0, 0], 0xffff_ff00));
        assert_eq!(Word::mark(Mark::Packet).shift(16, true).depends_on(), [0xffff, 0, 0]);
    }

    #[test]
    fn two_marks_are_put_together() {
        let kept = Word::mark(Mark::Packet).and(c(0xffff_ff00));
        let restored = kept.or(Word::mark(Mark::Connection).and(c(0xff)));
        assert_eq!(restored.changes(Mark::Packet), 0xff);
        assert_eq!(restored.depends_on(), [0xffff_ff00, 0xff, 0]);
        let restored = kept.xor(Word::mark(Mark::Connection).and(c(0xff)));
        assert_eq!(restored.changes(Mark::Packet), 0xff);
        let blurred = Word::mark(Mark::Packet).or(Word::mark(Mark::Connection));
        assert_eq!(blurred.changes(Mark::Packet), u32::MAX);
        assert_eq!(blurred.depends_on(), [u32::MAX, u32::MAX, 0]);
    }
}
