//! Matches and targets of iptables, wherever they stand (linux/netfilter/xt_*.h): what each does with marks.

use fief_host::netlink::attribute::number;
use fief_marks::registry::Mark;

use crate::uses::Effects;
use crate::word::Word;

/// XT_CT_ZONE_MARK: the zone is the low half of the packet's mark.
const CT_ZONE_MARK: u16 = 1 << 4;
/// XT_SOCKET_RESTORESKMARK.
const SOCKET_RESTORE: u8 = 1 << 2;
/// XT_RPFILTER_VALID_MARK.
const RPFILTER_MARK: u8 = 1 << 1;
/// IPSET_FLAG_MAP_SKBMARK.
const SET_MAP_MARK: u32 = 1 << 8;

/// Notes what this match or target does, and says whether it is one that knows marks.
pub(crate) fn effects(is_target: bool, name: &str, revision: u8, info: &[u8], effects: &mut Effects) -> bool {
    let word = |at: usize| info.get(at..).and_then(number).unwrap_or(0);
    let byte = |at: usize| info.get(at).copied().unwrap_or(0);
    let masked = |mark: Mark, keep_out: u32| Word::mark(mark).and(Word::constant(!keep_out));
    match (is_target, name) {
        // Behind value and mask: whether anything else is meant.
        (false, "mark") => effects.compared(Mark::Packet, word(0), word(4), byte(8) == 0),
        (false, "connmark") => effects.compared(Mark::Connection, word(0), word(4), byte(8) == 0),
        (false, "mark_m") => effects.matched(Mark::Packet, word(0), word(8)),
        (false, "socket") if byte(0) & SOCKET_RESTORE != 0 => {
            effects.store(Mark::Packet, Word::mark(Mark::Socket))
        }
        (false, "rpfilter") if byte(0) & RPFILTER_MARK != 0 => effects.routed(),
        (true, "MARK" | "TPROXY") => {
            // TPROXY has the mask first.
            let (value, mask) = if name == "MARK" { (word(0), word(4)) } else { (word(4), word(0)) };
            effects.store(Mark::Packet, masked(Mark::Packet, mask).xor(Word::constant(value)));
        }
        (true, "CONNMARK") => connmark(revision, &word, &byte, effects),
        (true, "CT") if word(0) as u16 & CT_ZONE_MARK != 0 => effects.read_mark(Mark::Packet, 0xffff),
        (true, "HMARK") => effects.store(Mark::Packet, Word::default()),
        (true, "SET") if word(12) & SET_MAP_MARK != 0 => effects.store(Mark::Packet, Word::default()),
        (true, "mark") => ebtables_mark(word(0), word(8), effects),
        _ => return false,
    }
    true
}

/// `struct xt_connmark_tginfo1` and `2`: ctmark, ctmask, nfmask, then the mode, before which 2 has a shift.
fn connmark(revision: u8, word: &dyn Fn(usize) -> u32, byte: &dyn Fn(usize) -> u8, effects: &mut Effects) {
    let (value, ct_mask, nf_mask) = (word(0), word(4), word(8));
    let (left, bits, mode) = match revision {
        2.. => (byte(12) == 0, u32::from(byte(13)), byte(14)),
        _ => (true, 0, byte(12)),
    };
    let (packet, connection) = (Word::mark(Mark::Packet), Word::mark(Mark::Connection));
    let (ct, nf) = (Word::constant(ct_mask), Word::constant(nf_mask));
    let (not_ct, not_nf) = (Word::constant(!ct_mask), Word::constant(!nf_mask));
    match mode {
        0 => {
            let set = connection.and(not_ct).xor(Word::constant(value)).shift(bits, left);
            effects.store(Mark::Connection, set);
        }
        1 => {
            let saved = packet.and(nf).shift(bits, left);
            effects.store(Mark::Connection, connection.and(not_ct).xor(saved));
        }
        2 => {
            let restored = connection.and(ct).shift(bits, left);
            effects.store(Mark::Packet, packet.and(not_nf).xor(restored));
        }
        _ => {}
    }
}

/// `struct ebt_mark_t_info`: what to do with the mark stands in the bits of the verdict that are always 1.
fn ebtables_mark(value: u32, verdict: u32, effects: &mut Effects) {
    let (mark, value) = (Word::mark(Mark::Packet), Word::constant(value));
    match verdict & 0xffff_fff0 {
        0xffff_ffe0 => effects.store(Mark::Packet, mark.or(value)),
        0xffff_ffd0 => effects.store(Mark::Packet, mark.and(value)),
        0xffff_ffc0 => effects.store(Mark::Packet, mark.xor(value)),
        _ => effects.store(Mark::Packet, value),
    }
}
