//! What no kernel sends: every reader on random bytes, on attributes without sense, and on real messages gone wrong.
//! A reader passes over what it does not understand; it never panics and always comes to an end.
//!
//! `FIEF_SEED` repeats a run, `FIEF_SOAK=1` makes it fifty times as long. `scripts/fuzz.sh` searches by coverage.

use std::time::Duration;

use fief_testkit::computed;

/// Inputs for each reader.
const INPUTS: u64 = 60_000;
/// No input of a page or two may take longer, on a machine however busy.
const LONGEST: Duration = Duration::from_secs(2);

/// Real messages, captured from a kernel: hexadecimal, one a line.
const SEEDS: [&str; 8] = [
    include_str!("seeds/connections.hex"),
    include_str!("seeds/devices.hex"),
    include_str!("seeds/ip6tables.hex"),
    include_str!("seeds/iptables.hex"),
    include_str!("seeds/nftables.hex"),
    include_str!("seeds/routing.hex"),
    include_str!("seeds/traffic-control.hex"),
    include_str!("seeds/xfrm.hex"),
];

/// xorshift64* (Vigna 2016): good enough to go wrong in many ways, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

#[test]
fn no_reader_panics() {
    let seed = std::env::var("FIEF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    let times = if std::env::var("FIEF_SOAK").is_ok_and(|soak| soak == "1") { 50 } else { 1 };
    let seeds: Vec<Vec<u8>> = SEEDS.iter().flat_map(|file| file.lines()).map(bytes_of).collect();
    assert!(seeds.len() > 40, "{} seeds", seeds.len());
    println!("FIEF_SEED={seed}, {} seeds, {} inputs for each reader", seeds.len(), INPUTS * times);
    for (number, read) in fief_scan::fuzz::READERS.iter().enumerate() {
        let mut random = Random(seed + number as u64);
        // The real ones first: a reader that fails on these would fail on anything.
        seeds.iter().for_each(|seed| read(seed));
        for _ in 0..INPUTS * times {
            let input = match random.below(8) {
                0 => (0..random.below(300)).map(|_| random.next() as u8).collect(),
                1 | 2 => nonsense(&mut random, 3),
                _ => gone_wrong(&mut random, &seeds),
            };
            let ((), took) = computed(|| read(&input));
            assert!(took < LONGEST, "reader {number} on {input:02x?}");
        }
    }
}

fn bytes_of(line: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    line.trim().as_bytes().chunks(2).map(|pair| byte(pair).expect("hexadecimal")).collect()
}

/// A header and attributes that are right in form, of any type and value, one within another.
fn nonsense(random: &mut Random, depth: usize) -> Vec<u8> {
    let header = [0, 4, 12, 16, 20, 112, 168, 224][random.below(8)];
    let mut bytes: Vec<u8> = (0..header).map(|_| random.next() as u8).collect();
    for _ in 0..random.below(6) {
        let value = match random.below(4) {
            0 if depth > 0 => nonsense(random, depth - 1),
            1 => random.next().to_ne_bytes()[..4].to_vec(),
            2 => b"mark\0"[..random.below(6)].to_vec(),
            _ => (0..random.below(40)).map(|_| random.next() as u8).collect(),
        };
        bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        bytes.extend((random.below(30) as u16 | (random.below(4) as u16) << 14).to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A real message with bits turned, lengths changed, parts cut out, doubled, or taken from another.
fn gone_wrong(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 3, 4, 0x7f, 0x80, 0xff][random.below(7)],
            // Where a length may stand.
            2 => bytes[at & !3] = random.next() as u8,
            3 => bytes.truncate(at),
            4 => {
                let end = at + random.below(bytes.len() - at);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let end = from + random.below(other.len() - from);
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    bytes
}
