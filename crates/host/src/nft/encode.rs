//! The attributes that everything in nf_tables is made of. Its numbers are in network byte order.

use crate::netlink::attribute::{nest, push, push_text};

/// NFTA_LIST_ELEM.
pub(super) const LIST_ELEMENT: u16 = 1;
/// NFTA_DATA_VALUE, NFTA_DATA_VERDICT.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// The verdict register.
pub(super) const VERDICT_REGISTER: u32 = 0;

/// The register that begins `words` words of four bytes behind the first (NFT_REG32_00 is 8; there are sixteen).
pub(super) fn register(words: usize) -> u32 {
    8 + words as u32
}

/// A number.
pub(super) fn number(into: &mut Vec<u8>, kind: u16, value: u32) {
    push(into, kind, &value.to_be_bytes());
}

/// Bytes to compare with or to load (`NFTA_DATA_VALUE`).
pub(super) fn value(into: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    nest(into, kind, |data| push(data, DATA_VALUE, bytes));
}

/// A verdict, with the chain where it names one (`NFTA_DATA_VERDICT`).
pub(super) fn verdict(into: &mut Vec<u8>, kind: u16, verdict: &super::Verdict) {
    let (code, chain) = verdict.parts();
    nest(into, kind, |data| {
        nest(data, DATA_VERDICT, |inner| {
            number(inner, 1, code);
            if let Some(chain) = chain {
                push_text(inner, 2, chain);
            }
        });
    });
}

/// One expression of a rule: its kind (NFTA_EXPR_NAME) and attributes (NFTA_EXPR_DATA).
pub(super) fn expression(into: &mut Vec<u8>, kind: &str, attributes: impl FnOnce(&mut Vec<u8>)) {
    nest(into, LIST_ELEMENT, |element| {
        push_text(element, 1, kind);
        nest(element, 2, attributes);
    });
}
