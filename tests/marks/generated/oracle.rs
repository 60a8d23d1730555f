//! What a rule does with marks, found by executing it: no step is understood, only its outcome is looked at.

use super::super::scanned::Counted;
use super::random::Random;

pub use super::super::scanned::hexadecimal;

pub const PACKET: usize = 0;
pub const CONNECTION: usize = 1;
pub const SOCKET: usize = 2;
/// What comes from elsewhere: a map, a counter.
pub const OTHER: usize = 3;

const NAMES: [&str; 3] = ["packet", "connection", "socket"];

/// Enough that no bit of a thousand rules escapes: each state shows a turned bit in one case of two.
const NOISE: u32 = 40;

/// One state of all marks, and of what is no mark.
#[derive(Debug, Clone, Copy)]
pub struct Marks(pub [u32; 4]);

/// What one rule reads and writes of one mark, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bits {
    pub place: String,
    pub mark: String,
    pub reads: u32,
    pub writes: u32,
}

/// What a rule has been seen to do, so far.
#[derive(Debug, Default)]
pub struct Touched {
    reads: [u32; 3],
    writes: [u32; 3],
}

impl Touched {
    /// Something goes by what comes out of this.
    pub fn decided(&mut self, of: impl Fn(Marks) -> u32) {
        for marks in states() {
            self.note_reads(marks, &of);
        }
    }

    /// A mark becomes what comes out of this.
    pub fn stored(&mut self, mark: usize, of: impl Fn(Marks) -> u32) {
        let changed = states().fold(0, |all, marks| all | (of(marks) ^ marks.0[mark]));
        self.writes[mark] |= changed;
        for marks in states() {
            self.note_reads(marks, |marks| of(marks) & changed);
        }
    }

    fn note_reads(&mut self, marks: Marks, of: impl Fn(Marks) -> u32) {
        let before = of(marks);
        for (mark, reads) in self.reads.iter_mut().enumerate() {
            for bit in 0..32 {
                let mut turned = marks;
                turned.0[mark] ^= 1 << bit;
                if of(turned) != before {
                    *reads |= 1 << bit;
                }
            }
        }
    }

    /// The whole packet's mark goes somewhere.
    pub fn packet_read(&mut self) {
        self.reads[PACKET] = u32::MAX;
    }

    /// Adds each mark that was touched.
    pub fn count(&self, place: &str, to: &mut Counted<Bits>) {
        for (i, mark) in NAMES.into_iter().enumerate() {
            let (reads, writes) = (self.reads[i], self.writes[i]);
            if reads | writes != 0 {
                let bits = Bits { place: place.to_owned(), mark: mark.to_owned(), reads, writes };
                *to.entry(bits).or_default() += 1;
            }
        }
    }
}

/// Each mark all zeros and all ones, beside each other; then noise.
fn states() -> impl Iterator<Item = Marks> {
    let plain = (0..16_u32)
        .map(|which| Marks(std::array::from_fn(|mark| if which >> mark & 1 == 1 { u32::MAX } else { 0 })));
    let mut random = Random::fixed();
    plain.chain((0..NOISE).map(move |_| Marks(std::array::from_fn(|_| random.word()))))
}
