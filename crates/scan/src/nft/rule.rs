//! One rule's expressions, executed on what is known of the registers (net/netfilter/nft_*.c).

use fief_host::netlink::attribute::{all, find, number, number_be, text};
use fief_marks::registry::Mark;

use super::Set;
use crate::uses::Effects;
use crate::word::{Word, index};
use crate::xtables;

const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

const META_MARK: u32 = 3;
const CT_MARK: u32 = 3;
const SOCKET_MARK: u32 = 1;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
/// NFTA_FIB_F_MARK: the look-up takes the packet's mark along.
const FIB_MARK: u32 = 1 << 2;
/// Verdicts go to register 0.
const VERDICT: u32 = 0;
/// `struct nft_regs`: 20 words, of which the first four are the verdict.
const WORDS: usize = 20;

/// What a rule does with marks.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub effects: Effects,
    /// It has a match or target of iptables that is about marks.
    pub is_compat: bool,
    /// What `-m comment` says.
    pub comments: Vec<String>,
}

impl Read {
    pub fn touches(&self) -> bool {
        self.effects != Effects::default()
    }
}

/// What values have in common, one more among them.
pub(super) fn common(values: Option<Word>, value: u32) -> Word {
    match values {
        None => Word::constant(value),
        Some(so_far) => {
            let known = so_far.known & !(so_far.ones ^ value);
            Word::partly(value, known)
        }
    }
}

/// Executes the expressions.
pub(super) fn read(expressions: &[u8], sets: &dyn Fn(&str) -> Option<Set>) -> Read {
    let mut machine = Machine { words: [Word::default(); WORDS], read: Read::default(), sets };
    for (_, expression) in all(expressions) {
        let name = find(expression, EXPRESSION_NAME).unwrap_or_default();
        let data = find(expression, EXPRESSION_DATA).unwrap_or_default();
        machine.step(name.strip_suffix(b"\0").unwrap_or(name), data);
    }
    machine.read
}

struct Machine<'a> {
    words: [Word; WORDS],
    read: Read,
    sets: &'a dyn Fn(&str) -> Option<Set>,
}

impl Machine<'_> {
    fn step(&mut self, name: &[u8], data: &[u8]) {
        let be = |kind| find(data, kind).and_then(number_be);
        match name {
            b"meta" => self.mark(Mark::Packet, be(2) == Some(META_MARK), be(1), be(3)),
            b"ct" => self.mark(Mark::Connection, be(2) == Some(CT_MARK), be(1), be(4)),
            b"socket" => {
                let word =
                    if be(1) == Some(SOCKET_MARK) { Word::mark(Mark::Socket) } else { Word::default() };
                self.put(be(2), 4, word);
            }
            b"immediate" => self.immediate(be(1), find(data, 2).unwrap_or_default()),
            b"bitwise" => self.bitwise(data),
            b"byteorder" => {
                let blurred = self.get(be(1)).blurred(Word::default());
                self.put(be(2), be(4).unwrap_or(4), blurred);
            }
            b"cmp" => self.compare(be(1), be(2), find(data, 3).and_then(|d| find(d, DATA_VALUE))),
            b"range" => self.decide(be(1), 4),
            b"lookup" => self.look_up(data),
            b"dynset" => {
                // NFTA_DYNSET_*: SET_NAME 1, SREG_KEY 4, SREG_DATA 5. What a map is taught is copied from a mark.
                let (key, value) =
                    self.set(find(data, 1)).map_or((4, 4), |set| (set.key_length, set.data_length));
                self.decide(be(4), key);
                self.decide(be(5), value);
            }
            b"objref" => {
                let length = self.set(find(data, 4)).map_or(4, |set| set.key_length);
                self.decide(be(3), length);
            }
            b"fib" => {
                if be(3).is_some_and(|flags| flags & FIB_MARK != 0) {
                    self.read.effects.routed();
                }
                self.put(be(1), 16, Word::default());
            }
            b"hash" => {
                let from = self.get(be(1));
                self.put(be(2), 4, from.blurred(Word::default()));
            }
            b"match" | b"target" => self.compat(name == b"target", data),
            // Whatever else a register is loaded with is no mark; its number comes in different places.
            b"payload" | b"numgen" | b"rt" | b"osf" | b"tunnel" => self.put(be(1), 16, Word::default()),
            b"exthdr" => self.put(be(1), 16, Word::default()),
            b"xfrm" => self.put(be(1), 16, Word::default()),
            _ => {}
        }
    }

    /// A word of the registers: NFT_REG_1..4 are of sixteen bytes, NFT_REG32_00.. (8 and above) of four.
    fn at(register: Option<u32>) -> Option<usize> {
        let register = register? as usize;
        let word = match register {
            0..=4 => register * 4,
            8..=23 => register - 8 + 4,
            _ => return None,
        };
        (word < WORDS).then_some(word)
    }

    fn get(&self, register: Option<u32>) -> Word {
        Self::at(register).map_or(Word::default(), |at| self.words[at])
    }

    /// Writes `length` bytes; what is behind the first word is no mark.
    fn put(&mut self, register: Option<u32>, length: u32, word: Word) {
        let Some(at) = Self::at(register) else { return };
        self.words.iter_mut().skip(at).take((length as usize).div_ceil(4)).for_each(|w| *w = Word::default());
        self.words[at] = word;
    }

    fn mark(&mut self, mark: Mark, is_mark: bool, to: Option<u32>, from: Option<u32>) {
        match (from, is_mark) {
            (Some(_), true) => {
                let word = self.get(from);
                self.read.effects.store(mark, word);
            }
            (Some(_), false) => {}
            (None, true) => self.put(to, 4, Word::mark(mark)),
            (None, false) => self.put(to, 16, Word::default()),
        }
    }

    fn immediate(&mut self, to: Option<u32>, data: &[u8]) {
        if to == Some(VERDICT) {
            return;
        }
        let value = find(data, DATA_VALUE).unwrap_or_default();
        self.put(to, value.len() as u32, number(value).map_or(Word::default(), Word::constant));
    }

    /// NFTA_BITWISE_*: SREG 1, DREG 2, LEN 3, MASK 4, XOR 5, OP 6, DATA 7, SREG2 8.
    fn bitwise(&mut self, data: &[u8]) {
        let be = |kind| find(data, kind).and_then(number_be);
        let value = |kind| find(data, kind).and_then(|d| find(d, DATA_VALUE)).and_then(number);
        let length = be(3).unwrap_or(4);
        let from = self.get(be(1));
        let other = || be(8).map(|_| self.get(be(8)));
        let word = match be(6).unwrap_or(0) {
            0 => match (value(4), value(5)) {
                (Some(mask), Some(xor)) => from.and(Word::constant(mask)).xor(Word::constant(xor)),
                _ => from.blurred(Word::default()),
            },
            op @ (1 | 2) => match value(7) {
                Some(bits) => from.shift(bits, op == 1),
                None => from.blurred(Word::default()),
            },
            op @ 3..=5 => match other().or_else(|| value(7).map(Word::constant)) {
                Some(other) if op == 3 => from.and(other),
                Some(other) if op == 4 => from.or(other),
                Some(other) => from.xor(other),
                None => from.blurred(Word::default()),
            },
            _ => from.blurred(Word::default()),
        };
        self.put(be(2), length, if length == 4 { word } else { from.blurred(Word::default()) });
    }

    fn compare(&mut self, register: Option<u32>, op: Option<u32>, value: Option<&[u8]>) {
        let value = value.unwrap_or_default();
        // Several words at once: what was concatenated, or an address.
        for (at, chunk) in (0..).zip(value.chunks(4)) {
            let Some(word) = Self::at(register).and_then(|first| self.words.get(first + at)).copied() else {
                return;
            };
            let bits = word.depends_on();
            match (word.plain(), number(chunk), op) {
                (Some(mark), Some(value), Some(op @ (CMP_EQ | CMP_NEQ))) => {
                    self.read.effects.compared(mark, value, bits[index(mark)], op == CMP_EQ);
                }
                _ => self.read.effects.read(bits),
            }
        }
    }

    /// What stands in `length` bytes decides something.
    fn decide(&mut self, register: Option<u32>, length: u32) {
        let Some(at) = Self::at(register) else { return };
        let words = self.words.iter().skip(at).take((length as usize).div_ceil(4));
        words.for_each(|word| self.read.effects.read(word.depends_on()));
    }

    fn set(&self, name: Option<&[u8]>) -> Option<Set> {
        name.and_then(|name| (self.sets)(&text(name)))
    }

    /// NFTA_LOOKUP_*: SET 1, SREG 2, DREG 3.
    fn look_up(&mut self, data: &[u8]) {
        let be = |kind| find(data, kind).and_then(number_be);
        let set = self.set(find(data, 1));
        self.decide(be(2), set.map_or(4, |set| set.key_length));
        let Some(to) = be(3).filter(|to| *to != VERDICT) else { return };
        match set {
            Some(set) if set.data_length == 4 => self.put(Some(to), 4, set.values),
            _ => self.put(Some(to), 16, Word::default()),
        }
    }

    /// NFTA_MATCH_* and NFTA_TARGET_*: NAME 1, REV 2, INFO 3.
    fn compat(&mut self, is_target: bool, data: &[u8]) {
        let name = find(data, 1).map(text).unwrap_or_default();
        let revision = find(data, 2).and_then(number_be).unwrap_or(0);
        let info = find(data, 3).unwrap_or_default();
        if !is_target && name == "comment" {
            self.read.comments.push(text(info));
            return;
        }
        let revision = u8::try_from(revision).unwrap_or(u8::MAX);
        self.read.is_compat |= xtables::effects(is_target, &name, revision, info, &mut self.read.effects);
    }
}
