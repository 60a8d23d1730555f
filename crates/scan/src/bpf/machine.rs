//! A program's instructions, followed in one pass from the first to the last (linux/bpf.h, bpf_common.h).
//!
//! The instructions are those that the kernel runs, where a packet's mark is a word at a fixed place behind the pointer that
//! the program began with. That pointer, what is loaded through it, and constants from maps are followed through registers
//! and the stack; where two ways meet, what they do not agree on is unknown.

use std::collections::HashMap;

use fief_host::programs::{Map, Program};
use fief_marks::registry::Mark;

use crate::uses::Effects;
use crate::word::Word;

/// What a register, or a place on the stack, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Unknown,
    /// The pointer that the program began with.
    Context,
    /// A place in a map of constants: the map's number, and how many bytes in.
    Constants(u32, i32),
    /// The lower 32 bits; the upper ones are 0, or nobody asks for them.
    Word(Word),
    /// The upper 32 bits, the lower being 0: half of what clears, or extends the sign of, an upper half.
    Upper(Word),
}

#[derive(Debug, Clone)]
struct State {
    registers: [Value; 11],
    stack: HashMap<i16, Value>,
}

impl State {
    fn begin() -> State {
        let mut registers = [Value::Unknown; 11];
        registers[1] = Value::Context;
        State { registers, stack: HashMap::new() }
    }

    fn meet(&mut self, other: &State) {
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            *mine = join(*mine, *theirs);
        }
        self.stack.retain(|at, mine| {
            *mine = other.stack.get(at).map_or(Value::Unknown, |theirs| join(*mine, *theirs));
            *mine != Value::Unknown
        });
    }
}

fn join(a: Value, b: Value) -> Value {
    match (a, b) {
        _ if a == b => a,
        // It may be the program's own pointer: better seen once too often.
        (Value::Context, _) | (_, Value::Context) => Value::Context,
        (Value::Word(a), Value::Word(b)) => Value::Word(a.blurred(b)),
        (Value::Word(a), _) | (_, Value::Word(a)) => Value::Word(a.blurred(Word::default())),
        _ => Value::Unknown,
    }
}

/// BPF_PSEUDO_MAP_VALUE: the immediate is a map's number, and an offset into its value.
const MAP_VALUE: usize = 2;

/// SOL_SOCKET and SO_MARK, as arguments of bpf_setsockopt.
const SOL_SOCKET: u32 = 1;
const SO_MARK: u32 = 36;

/// What a program does with the mark that is `offset` bytes behind the pointer it begins with.
pub(super) fn read(program: &Program, offset: i16, mark: Mark) -> Effects {
    let Program { instructions, maps, .. } = program;
    let mut machine = Machine { state: State::begin(), effects: Effects::default(), maps, offset, mark };
    // States that a jump has brought to a later instruction.
    let mut ahead: HashMap<usize, State> = HashMap::new();
    let mut falls_in = true;
    let mut at = 0;
    while let Some(bytes) = instructions.get(at) {
        if let Some(brought) = ahead.remove(&at) {
            if falls_in {
                machine.state.meet(&brought);
            } else {
                machine.state = brought;
            }
        } else if !falls_in {
            // Nothing jumps here that we have seen: a function, or code behind a loop.
            machine.state = State::begin();
        }
        let [code, registers, o0, o1, i0, i1, i2, i3] = *bytes;
        let instruction = Instruction {
            code,
            to: usize::from(registers & 0xf),
            from: usize::from(registers >> 4),
            offset: i16::from_ne_bytes([o0, o1]),
            immediate: u32::from_ne_bytes([i0, i1, i2, i3]),
        };
        falls_in = true;
        match instruction.flow() {
            Flow::On => machine.step(instruction),
            Flow::Wide => {
                let second = instructions
                    .get(at + 1)
                    .map_or(0, |[.., i0, i1, i2, i3]| i32::from_ne_bytes([*i0, *i1, *i2, *i3]));
                let value = match instruction.from {
                    // A number, whose lower half stands here.
                    0 => Value::Word(Word::constant(instruction.immediate)),
                    MAP_VALUE => Value::Constants(instruction.immediate, second),
                    _ => Value::Unknown,
                };
                machine.set(instruction.to, value);
                at += 1;
            }
            Flow::End => falls_in = false,
            Flow::Jump { distance, always } => {
                machine.judge(instruction);
                let target = at.checked_add_signed(distance as isize + 1);
                if let Some(target) = target.filter(|target| *target > at && *target < instructions.len()) {
                    let state = machine.state.clone();
                    ahead.entry(target).and_modify(|known| known.meet(&state)).or_insert(state);
                }
                falls_in = !always;
            }
        }
        at += 1;
    }
    machine.effects
}

#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u8,
    to: usize,
    from: usize,
    offset: i16,
    immediate: u32,
}

enum Flow {
    On,
    /// An immediate of 64 bits, in two instructions.
    Wide,
    End,
    Jump {
        distance: i32,
        always: bool,
    },
}

impl Instruction {
    /// The class, in the lower three bits (linux/bpf_common.h).
    fn class(self) -> u8 {
        self.code & 7
    }

    fn flow(self) -> Flow {
        match (self.class(), self.code & 0xf0) {
            (0, _) if self.code == 0x18 => Flow::Wide,
            (5, 0x90) => Flow::End,
            // A goto over 32 bits has its distance in the immediate.
            (6, 0x00) => Flow::Jump { distance: self.immediate.cast_signed(), always: true },
            (5, 0x00) => Flow::Jump { distance: self.offset.into(), always: true },
            (5 | 6, kind) if kind != 0x80 => Flow::Jump { distance: self.offset.into(), always: false },
            _ => Flow::On,
        }
    }
}

struct Machine<'a> {
    state: State,
    effects: Effects,
    maps: &'a [Map],
    offset: i16,
    mark: Mark,
}

impl Machine<'_> {
    fn get(&self, register: usize) -> Value {
        self.state.registers.get(register).copied().unwrap_or(Value::Unknown)
    }

    fn set(&mut self, register: usize, value: Value) {
        if let Some(slot) = self.state.registers.get_mut(register) {
            *slot = value;
        }
    }

    fn word(&self, register: usize) -> Word {
        match self.get(register) {
            Value::Word(word) => word,
            _ => Word::default(),
        }
    }

    /// Something comes of what this register holds.
    fn spent(&mut self, register: usize) {
        let depends = self.word(register).depends_on();
        self.effects.read(depends);
    }

    /// A conditional jump compares.
    fn judge(&mut self, instruction: Instruction) {
        if instruction.code & 0xf0 != 0 {
            self.spent(instruction.to);
            if instruction.code & 8 != 0 {
                self.spent(instruction.from);
            }
        }
    }

    fn step(&mut self, instruction: Instruction) {
        let Instruction { code, to, from, offset, immediate } = instruction;
        let is_word = code & 0x18 == 0;
        match instruction.class() {
            // LDX
            1 if from == 10 => {
                let value = self.state.stack.get(&offset).copied().unwrap_or(Value::Unknown);
                self.set(to, value);
            }
            1 if self.get(from) == Value::Context && offset == self.offset && is_word => {
                self.set(to, Value::Word(Word::mark(self.mark)));
            }
            1 if self.get(from) == Value::Context => self.part_of_mark(to, offset, code),
            1 => {
                let value = self.constant(self.get(from), offset).filter(|_| is_word);
                self.set(to, value.map_or(Value::Unknown, |value| Value::Word(Word::constant(value))));
            }
            // ST and STX
            2 if self.get(to) == Value::Context && offset == self.offset && is_word => {
                self.effects.store(self.mark, Word::constant(immediate));
            }
            3 if self.get(to) == Value::Context && offset == self.offset && is_word => {
                let word = self.word(from);
                self.effects.store(self.mark, word);
            }
            3 if to == 10 => drop(self.state.stack.insert(offset, self.get(from))),
            2 if to == 10 => drop(self.state.stack.insert(offset, Value::Word(Word::constant(immediate)))),
            3 => self.spent(from),
            4 | 7 => self.compute(instruction),
            5 if code & 0xf0 == 0x80 => self.call(),
            _ => {}
        }
    }

    /// The number at a place in a map of constants.
    fn constant(&self, place: Value, offset: i16) -> Option<u32> {
        let Value::Constants(map, at) = place else { return None };
        let constants = &self.maps.iter().find(|known| known.id == map)?.constants;
        let at = usize::try_from(at.checked_add(offset.into())?).ok()?;
        Some(u32::from_ne_bytes(*constants.get(at..)?.first_chunk()?))
    }

    /// A load of one or two bytes of the mark (a compiler does that for `mark & 0xff00`).
    fn part_of_mark(&mut self, to: usize, offset: i16, code: u8) {
        let width = match code & 0x18 {
            0x08 => 16,
            0x10 => 8,
            _ => return self.set(to, Value::Unknown),
        };
        let within = i32::from(offset) - i32::from(self.offset);
        let value = match u32::try_from(within) {
            Ok(byte) if byte * 8 + width <= 32 => {
                let shift = if cfg!(target_endian = "little") { byte * 8 } else { 32 - byte * 8 - width };
                let mask = (u32::MAX >> (32 - width)) << shift;
                Value::Word(Word::mark(self.mark).and(Word::constant(mask)).shift(shift, false))
            }
            _ => Value::Unknown,
        };
        self.set(to, value);
    }

    fn call(&mut self) {
        let constant = |machine: &Machine, register: usize| machine.word(register).value();
        let is_mark = constant(self, 2) == Some(SOL_SOCKET) && constant(self, 3) == Some(SO_MARK);
        if is_mark && self.mark == Mark::Socket {
            self.effects.store(Mark::Socket, Word::default());
        }
        (2..=5).for_each(|register| self.spent(register));
        (0..=5).for_each(|register| self.set(register, Value::Unknown));
    }

    fn compute(&mut self, instruction: Instruction) {
        let Instruction { code, to, from, immediate, .. } = instruction;
        let operand = if code & 8 != 0 { self.get(from) } else { Value::Word(Word::constant(immediate)) };
        let kind = code & 0xf0;
        if kind == 0xb0 {
            return self.set(to, operand);
        }
        if let (Value::Constants(map, at), 0x00, Value::Word(more)) = (self.get(to), kind, operand)
            && let Some(at) = more.value().and_then(|more| at.checked_add(more.cast_signed()))
        {
            return self.set(to, Value::Constants(map, at));
        }
        if instruction.class() == 7
            && let Some(moved) = moved(kind, self.get(to), operand)
        {
            return self.set(to, moved);
        }
        let (Value::Word(left), Value::Word(right)) = (self.get(to), operand) else {
            let blurred = match (self.get(to), operand) {
                (Value::Word(word), _) | (_, Value::Word(word)) if word.value().is_none() => {
                    Value::Word(word.blurred(Word::default()))
                }
                _ => Value::Unknown,
            };
            // A mask takes bits away from whatever was there.
            let masked = match (kind, operand) {
                (0x50, Value::Word(mask)) => Value::Word(Word::default().and(mask)),
                _ => blurred,
            };
            return self.set(to, masked);
        };
        let word = match kind {
            0x40 => left.or(right),
            0x50 => left.and(right),
            0xa0 => left.xor(right),
            0x60 | 0x70 => match right.value() {
                Some(bits) => left.shift(bits, kind == 0x60),
                None => left.blurred(right),
            },
            _ => match (left.value(), right.value(), kind) {
                (Some(a), Some(b), 0x00) => Word::constant(a.wrapping_add(b)),
                _ => left.blurred(right),
            },
        };
        self.set(to, Value::Word(word));
    }
}

/// Shifts of 64 bits that carry a word into the upper half, or back from it.
fn moved(kind: u8, value: Value, by: Value) -> Option<Value> {
    let Value::Word(by) = by else { return None };
    let bits = by.value().filter(|bits| (32..64).contains(bits))?;
    match (kind, value) {
        (0x60, Value::Word(word)) => Some(Value::Upper(word.shift(bits - 32, true))),
        (0x70 | 0xc0, Value::Upper(word)) => Some(Value::Word(word.shift(bits - 32, false))),
        _ => None,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
