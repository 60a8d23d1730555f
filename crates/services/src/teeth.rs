//! Protections that can be switched off, to see whether a test notices (scripts/test-teeth.sh).

/// Is this protection switched off by `FIEF_TEETH`? Never in a build without the feature `teeth`.
pub(crate) fn is_off(protection: &str) -> bool {
    cfg!(feature = "teeth") && std::env::var("FIEF_TEETH").is_ok_and(|named| named == protection)
}
