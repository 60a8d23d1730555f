//! Sets and maps (NFTA_SET_*).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::encode::{LIST_ELEMENT, number};
use super::value::{type_length, type_number, type_order};
use super::{Type, comment};
use crate::Family;
use crate::netlink::attribute::{nest, push, push_text};

const INTERVAL: u32 = 4;
const MAP: u32 = 8;
const TIMEOUT: u32 = 0x10;
const EVAL: u32 = 0x20;
const CONCAT: u32 = 0x80;
/// NFT_DATA_VERDICT.
const VERDICT: u32 = 0xffff_ff00;

/// A named set, or a map: what it is called and what is in it, without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    name: String,
    key: Vec<Type>,
    data: Data,
    intervals: bool,
    forgets_after: Option<Duration>,
}

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Data {
    None,
    Values(Vec<Type>),
    Verdict,
}

impl Set {
    /// A set of keys of these fields; more than one are a concatenation.
    pub fn new(name: &str, key: &[Type]) -> Set {
        Set {
            name: name.to_owned(),
            key: key.to_vec(),
            data: Data::None,
            intervals: false,
            forgets_after: None,
        }
    }

    /// A map to values of these fields.
    pub fn map(mut self, data: &[Type]) -> Set {
        self.data = Data::Values(data.to_vec());
        self
    }

    /// A map to verdicts.
    pub fn verdict_map(mut self) -> Set {
        self.data = Data::Verdict;
        self
    }

    /// Its keys may be prefixes and ranges (`flags interval`). Those are compared as bytes, so only of types in network
    /// byte order: not of marks, devices and zones, which can be single values of a concatenation though.
    pub fn with_intervals(mut self) -> Set {
        self.intervals = true;
        self
    }

    /// Packets may add elements ([`super::Expr::Remember`]), which go after this time (`flags dynamic,timeout`). What
    /// is in it is nobody's to write.
    pub fn remembering(mut self, time: Duration) -> Set {
        self.forgets_after = Some(time);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The types of its data; none of a set or a verdict map.
    pub(super) fn data_types(&self) -> &[Type] {
        match &self.data {
            Data::Values(types) => types,
            _ => &[],
        }
    }

    /// The family of the addresses that it leads to.
    pub(super) fn data_family(&self) -> Family {
        if self.data_types().first() == Some(&Type::Ipv6) { Family::V6 } else { Family::V4 }
    }

    /// Does it take intervals, and is its key more than one field?
    pub(super) fn shape(&self) -> (bool, bool) {
        (self.intervals, self.key.len() > 1)
    }

    /// Everything of NFT_MSG_NEWSET behind the table.
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        // The kernel wants a number that no other set of the transaction has; rules name sets by name here.
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let (intervals, many) = self.shape();
        let mut flags = if intervals { INTERVAL } else { 0 };
        flags |= if intervals && many { CONCAT } else { 0 };
        flags |= if self.data == Data::None { 0 } else { MAP };
        flags |= if self.forgets_after.is_some() { TIMEOUT | EVAL } else { 0 };
        push_text(into, 2, &self.name);
        number(into, 3, flags);
        number(into, 4, type_number(&self.key));
        number(into, 5, type_length(&self.key) as u32);
        match &self.data {
            Data::None => {}
            Data::Verdict => {
                number(into, 6, VERDICT);
                number(into, 7, 16);
            }
            Data::Values(types) => {
                number(into, 6, type_number(types));
                number(into, 7, type_length(types) as u32);
            }
        }
        if flags & CONCAT != 0 {
            // NFTA_SET_DESC, in it NFTA_SET_DESC_CONCAT, in it the length of each field.
            nest(into, 9, |description| {
                nest(description, 2, |fields| {
                    for field in &self.key {
                        nest(fields, LIST_ELEMENT, |element| number(element, 1, field.length() as u32));
                    }
                });
            });
        }
        if let Some(time) = self.forgets_after {
            push(into, 11, &u64::try_from(time.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        }
        number(into, 10, NUMBERS.fetch_add(1, Ordering::Relaxed));
        let data_order = match &self.data {
            Data::Values(types) => Some(type_order(types)),
            _ => None,
        };
        push(into, 13, &comment::of_set(type_order(&self.key), data_order));
    }
}
