//! Each attack on a guarded socket that is known, with what is allowed beside it. docs/overlay.md lists them.

use std::time::Duration;

use crate::lan::{Family, Lan};
use crate::room::{NEVER, SOON, wait};

/// Says of each try what came of it.
#[track_caller]
fn outcomes(said: &str, wanted: &[(&str, &str)]) {
    for (what, outcome) in wanted {
        let line = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
        let line = line.unwrap_or_else(|| panic!("nothing of {what:?} in:\n{said}"));
        assert!(line.starts_with(outcome), "{what}: {line}, and not {outcome}\n{said}");
    }
}

#[test]
fn guarded_socket_hole_01() {
    let Some(lan) = Lan::open("hole-01", 1, "") else { return };
    let wire = lan.wire_of(0, "eth0");
    for family in Family::BOTH {
        let said = lan.attack(
            family,
            "evil = lambda h: lambda: u.sendto(h + frame('EVIL'), to)\n\
             tries('foreign', evil(theirs('')[:8]))\n\
             for bit in range(64):\n\
             \x20   other = bytearray(header); other[bit // 8] ^= 1 << bit % 8\n\
             \x20   tries(f'bit{bit}', evil(bytes(other)))\n\
             tries('short', lambda: u.sendto(header[:7], to))\n\
             tries('empty', lambda: u.sendto(b'', to))\n\
             tries('split', lambda: u.sendmsg([header[:5], b'\\xab\\xcd\\0', frame('EVIL')], [], 0, to))\n\
             tries('mine', lambda: u.sendmsg([header[:1], header[1:5], header[5:], frame('GOOD')], [], 0, to))\n\
             tries('goodbye', lambda: u.sendto(header, to))\n",
        );
        let bits: Vec<String> = (0..64).map(|bit| format!("bit{bit}")).collect();
        let refused = bits.iter().map(String::as_str).chain(["foreign", "short", "empty", "split"]);
        let wanted: Vec<(&str, &str)> = refused.map(|what| (what, "EPERM")).collect();
        outcomes(&said.stdout, &wanted);
        outcomes(&said.stdout, &[("mine", "did 26"), ("goodbye", "did 8")]);
        assert!(wire.wait_for(b"GOOD", SOON) && !wire.contains(b"EVIL"));
        wire.clear();
    }
}
