//! Numbers that look random and come again with the same seed (splitmix64).

/// A seed for every run, unless `FIEF_SEED` says another.
const SEED: u64 = 20_260_117;

pub struct Random(u64);

impl Random {
    /// Numbers for one family; prints how to have them again.
    pub fn seeded(family: &str) -> Random {
        let seed = std::env::var("FIEF_SEED").ok().map(|text| text.parse().expect("FIEF_SEED is a number"));
        let seed = seed.unwrap_or(SEED);
        println!("{family}: FIEF_SEED={seed}");
        Random(family.bytes().fold(seed, |all, byte| all.wrapping_mul(31).wrapping_add(byte.into())))
    }

    /// The same each time.
    pub fn fixed() -> Random {
        Random(1)
    }

    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// A number below this.
    pub fn below(&mut self, end: u32) -> u32 {
        self.word() % end
    }

    pub fn one_in(&mut self, many: u32) -> bool {
        self.below(many) == 0
    }

    /// Bits as people choose them: one, a run, some, all; seldom none.
    pub fn mask(&mut self) -> u32 {
        match self.below(16) {
            0..=4 => 1 << self.below(32),
            5..=9 => {
                let width = 1 + self.below(16);
                (u32::MAX >> (32 - width)) << self.below(33 - width)
            }
            10..=13 => self.word(),
            14 => u32::MAX,
            _ => 0,
        }
    }

    /// The same, and at least one.
    pub fn bits(&mut self) -> u32 {
        match self.mask() {
            0 => 0xff00,
            mask => mask,
        }
    }

    /// A value and its mask.
    pub fn masked(&mut self) -> (u32, u32) {
        let mask = self.bits();
        (self.word() & mask, mask)
    }
}
