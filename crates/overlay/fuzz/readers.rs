//! Every reader of crates/overlay on the same bytes. Run by scripts/fuzz.sh.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fief_overlay::fuzz::all(bytes));
