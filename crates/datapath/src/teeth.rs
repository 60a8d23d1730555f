//! Protections that can be switched off, to see whether a test notices; never part of a shipped build.

/// The names of the bits of `fief_teeth`, as bpf/lib/abi.h numbers them.
const NAMES: [&str; 27] = [
    "lo",
    "connect",
    "sendmsg",
    "device-out",
    "device-in",
    "neighbours",
    "spoof-in",
    "spoof-out",
    "listener",
    "redirect",
    "reduce",
    "looped",
    "guard-in",
    "guard-out",
    "guard-source",
    "members",
    "mark",
    "message",
    "bind",
    "alias",
    "steer",
    "listed",
    "select",
    "taken-over",
    "vrf-bind",
    "vrf-out",
    "vrf-in",
];

/// The protections that `FIEF_TEETH` names, as bits.
pub(crate) fn off() -> u32 {
    let Ok(named) = std::env::var("FIEF_TEETH") else { return 0 };
    let bit = |(position, name): (usize, &&str)| if **name == named { 1 << position } else { 0 };
    NAMES.iter().enumerate().map(bit).sum()
}
