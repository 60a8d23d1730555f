//! bpf programs, by their instructions: which bits of `skb->mark` they read and write.
//!
//! A heuristic, and told as one. The instructions are those that the kernel runs, where a packet's mark is a word at a
//! fixed place behind the pointer that the program began with. That pointer, and what is loaded through it, are followed
//! in one pass from the first instruction to the last; where two ways meet, what they do not agree on is unknown. Not
//! seen: marks reached by other pointers (BTF, as netfilter and tracing programs have them), and bits that are computed in
//! a loop.

use std::collections::{BTreeSet, HashMap};

use fief_host::HostError;
use fief_host::programs::{self, Map, Program};
use fief_marks::registry::Mark;

use crate::sink::Sink;
use crate::uses::{Effects, Subsystem, Use};
use crate::word::Word;

/// What the type of a program is called (`enum bpf_prog_type`), for those that begin with a packet.
fn packet_kind(kind: u32) -> Option<&'static str> {
    Some(match kind {
        1 => "socket_filter",
        3 => "sched_cls",
        4 => "sched_act",
        8 => "cgroup_skb",
        10 => "lwt_in",
        11 => "lwt_out",
        12 => "lwt_xmit",
        14 => "sk_skb",
        19 => "lwt_seg6local",
        _ => return None,
    })
}

/// Those that begin with a socket, or may set one's options.
fn socket_kind(kind: u32) -> Option<&'static str> {
    Some(match kind {
        9 => "cgroup_sock",
        13 => "sock_ops",
        18 => "cgroup_sock_addr",
        25 => "cgroup_sockopt",
        _ => return None,
    })
}

/// Where the mark is in `struct sk_buff` and in `struct sock`.
#[derive(Debug, Clone, Copy)]
pub struct Offsets {
    packet: i16,
    socket: i16,
}

/// What stands for the namespace of a program for devices that sits on none that was looked at.
pub const ELSEWHERE: &str = "(elsewhere)";

/// Looks at all programs of the machine. Those for devices are in the namespaces where they sit (`attached`: their numbers
/// by namespace); those of control groups and routes are wherever packets are.
pub(crate) fn scan(sink: &mut Sink<'_>, attached: &[(&str, BTreeSet<u32>)]) -> Result<(), HostError> {
    let Some((packet, socket)) = programs::mark_offsets() else {
        return Err(HostError::Missing(
            "this process may not load bpf programs, nor read others' instructions".into(),
        ));
    };
    programs::visit(|program| {
        sink.seen();
        let sits = attached.iter().filter(|(_, ids)| ids.contains(&program.id)).map(|(netns, _)| *netns);
        let netns: Vec<&str> = match is_for_devices(program.kind) {
            true => sits.collect(),
            false => vec![""],
        };
        let netns = if netns.is_empty() { &[ELSEWHERE][..] } else { &netns };
        look_at(&program, Offsets { packet, socket }, netns, sink);
    })
}

/// sched_cls and sched_act.
fn is_for_devices(kind: u32) -> bool {
    matches!(kind, 3 | 4)
}

fn look_at(program: &Program, offsets: Offsets, netns: &[&str], sink: &mut Sink<'_>) {
    let (kind, effects) = match (packet_kind(program.kind), socket_kind(program.kind)) {
        (Some(kind), _) => (kind, read(program, offsets.packet, Mark::Packet)),
        (_, Some(kind)) => {
            let begins_with_it = program.kind == 9;
            let offset = if begins_with_it { offsets.socket } else { i16::MIN };
            (kind, read(program, offset, Mark::Socket))
        }
        _ => return,
    };
    let is_ours = program.maps.iter().any(|map| map.name.starts_with("fief_"));
    let mut names = vec![format!("program {}", program.name)];
    if is_ours {
        names.push("protocol fief".into());
    }
    let name = if program.name.is_empty() { "(no name)" } else { &program.name };
    let template = Use { heuristic: true, ..Use::at(Subsystem::Bpf, format!("{kind} {name}"), names) };
    for found in effects.uses(&template) {
        for netns in netns {
            let found = Use { netns: (*netns).to_owned(), ..found.clone() };
            sink.add(found, || format!("id {}", program.id));
        }
    }
}

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
fn read(program: &Program, offset: i16, mark: Mark) -> Effects {
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

/// For the fuzzer: reads these bytes as a program.
pub fn fuzz(bytes: &[u8]) {
    let (instructions, _) = bytes.as_chunks::<8>();
    let constants = Map { id: 1, name: String::new(), constants: bytes.to_vec() };
    let program = bare(instructions, vec![constants]);
    read(&program, 168, Mark::Packet);
    read(&program, 16, Mark::Socket);
}

fn bare(instructions: &[[u8; 8]], maps: Vec<Map>) -> Program {
    Program { id: 0, name: String::new(), kind: 3, maps, instructions: instructions.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: i16 = 168;

    fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> [u8; 8] {
        let ([o0, o1], [i0, i1, i2, i3]) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
        [code, from << 4 | to, o0, o1, i0, i1, i2, i3]
    }

    fn found(program: &[[u8; 8]]) -> Vec<(u32, u32)> {
        found_with(program, Vec::new())
    }

    fn found_with(program: &[[u8; 8]], maps: Vec<Map>) -> Vec<(u32, u32)> {
        let template = Use::at(Subsystem::Bpf, "", Vec::new());
        read(&bare(program, maps), MARK, Mark::Packet).uses(&template).map(|u| (u.reads, u.writes)).collect()
    }

    const LOAD: u8 = 0x61;
    const STORE: u8 = 0x63;
    const AND: u8 = 0x54;
    const OR: u8 = 0x44;
    const COPY: u8 = 0xbf;
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_masked_write_is_seen_as_one() {
        let program = [
            insn(COPY, 6, 1, 0, 0),
            insn(LOAD, 2, 6, MARK, 0),
            insn(AND, 2, 0, 0, 0xffff_00ff),
            insn(OR, 2, 0, 0, 0x1200),
            insn(STORE, 6, 2, MARK, 0),
            EXIT,
        ];
        assert_eq!(found(&program), [(0, 0xff00)]);
    }

    #[test]
    fn a_whole_write_and_a_comparison_are_seen() {
        let program = [
            insn(LOAD, 2, 1, MARK, 0),
            insn(AND, 2, 0, 0, 0xf00),
            insn(0x15, 2, 0, 2, 0x200), // if r2 == 0x200 goto +2
            insn(0xb7, 3, 0, 0, 0x539),
            insn(STORE, 1, 3, MARK, 0),
            EXIT,
        ];
        assert_eq!(found(&program), [(0xf00, u32::MAX)]);
    }

    #[test]
    fn a_mask_of_64_bits_and_a_cleared_upper_half_are_followed() {
        let program = [
            insn(LOAD, 2, 1, MARK, 0),
            insn(0x18, 3, 0, 0, 0xffff_f0ff), // r3 = 0xfffff0ff, in two instructions
            insn(0, 0, 0, 0, 0),
            insn(0x5f, 2, 3, 0, 0), // r2 &= r3
            insn(0x47, 2, 0, 0, 0x200),
            insn(STORE, 1, 2, MARK, 0),
            EXIT,
        ];
        assert_eq!(found(&program), [(0, 0xf00)]);
        let program = [
            insn(LOAD, 2, 1, MARK, 0),
            insn(0x57, 2, 0, 0, 0xf00),
            insn(0x67, 2, 0, 0, 32), // r2 <<= 32
            insn(0x77, 2, 0, 0, 40), // r2 >>= 40
            insn(0x15, 2, 0, 0, 2),
            EXIT,
        ];
        assert_eq!(found(&program), [(0xf00, 0)]);
    }

    /// As loaders hand a configuration over: constants that the program loads (`const volatile` in C).
    #[test]
    fn a_mask_from_a_map_of_constants_is_one() {
        let program = [
            insn(LOAD, 2, 1, MARK, 0),
            insn(0x18, 3, 2, 0, 7), // r3 = map 7's value, 4 bytes in
            insn(0, 0, 0, 0, 4),
            insn(LOAD, 3, 3, 0, 0),
            insn(0x5c, 2, 3, 0, 0), // w2 &= w3
            insn(STORE, 1, 2, MARK, 0),
            EXIT,
        ];
        let constants = [1_u32.to_ne_bytes(), 0xffff_00ff_u32.to_ne_bytes()].concat();
        let map = |id| vec![Map { id, name: String::new(), constants: constants.clone() }];
        assert_eq!(found_with(&program, map(7)), [(0, 0xff00)]);
        assert_eq!(found_with(&program, map(8)), [(u32::MAX, u32::MAX)], "another map says nothing");
    }

    #[test]
    fn another_place_or_pointer_is_no_mark() {
        let program = [
            insn(LOAD, 2, 1, MARK + 4, 0),
            insn(STORE, 7, 2, MARK, 0),
            insn(0x79, 8, 1, 200, 0), // r8 = *(u64 *)(r1 + 200)
            insn(STORE, 8, 2, MARK, 0),
            EXIT,
        ];
        assert_eq!(found(&program), []);
    }
}
