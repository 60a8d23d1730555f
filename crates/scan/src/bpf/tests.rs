//! Programs of a few instructions, written by hand.

use super::*;
use crate::bpf::bare;
use crate::uses::{Subsystem, Use};

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
