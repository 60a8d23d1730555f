//! Elements of sets and maps (NFTA_SET_ELEM_*).

use ipnet::IpNet;

use super::encode::{LIST_ELEMENT, number, value, verdict};
use super::value::concatenated;
use super::{Set, Value, Verdict};
use crate::netlink::attribute::nest;

const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const KEY_END: u16 = 10;
/// NFT_SET_ELEM_INTERVAL_END.
const INTERVAL_END: u32 = 1;

/// One field of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// This value.
    Value(Value),
    /// Every address of a prefix.
    Prefix(IpNet),
    /// From one value to another, both included.
    Range(Value, Value),
}

/// An element: a key, and in a map what it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    key: Vec<Key>,
    data: Option<Data>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Data {
    Values(Vec<Value>),
    Verdict(Verdict),
}

impl Element {
    /// With these values as the fields of its key.
    pub fn new(key: &[Value]) -> Element {
        Element { key: key.iter().cloned().map(Key::Value).collect(), data: None }
    }

    /// With fields that may be prefixes and ranges; for sets with intervals.
    pub fn of(key: &[Key]) -> Element {
        Element { key: key.to_vec(), data: None }
    }

    /// With every address of a prefix as its key; for sets with intervals.
    pub fn prefix(net: IpNet) -> Element {
        Element::of(&[Key::Prefix(net)])
    }

    /// With everything from one value to another as its key, both included; for sets with intervals.
    pub fn interval(from: Value, to: Value) -> Element {
        Element::of(&[Key::Range(from, to)])
    }

    /// Leads to these values.
    pub fn to(mut self, data: &[Value]) -> Element {
        self.data = Some(Data::Values(data.to_vec()));
        self
    }

    /// Leads to this verdict.
    pub fn to_verdict(mut self, verdict: Verdict) -> Element {
        self.data = Some(Data::Verdict(verdict));
        self
    }

    /// Adds it to NFTA_SET_ELEM_LIST_ELEMENTS.
    pub(super) fn encode(&self, set: &Set, into: &mut Vec<u8>) {
        let from = concatenated(self.key.iter().map(Key::first));
        let to = || concatenated(self.key.iter().map(Key::last));
        match set.shape() {
            (false, _) => self.one(into, &from, None),
            (true, true) => self.one(into, &from, Some(&to())),
            (true, false) => {
                self.one(into, &from, None);
                // The end is the first that is no longer in it; one that reaches the last value of all has none.
                if let Some(end) = successor(to()) {
                    nest(into, LIST_ELEMENT, |element| {
                        value(element, KEY, &end);
                        number(element, FLAGS, INTERVAL_END);
                    });
                }
            }
        }
    }

    fn one(&self, into: &mut Vec<u8>, from: &[u8], to: Option<&[u8]>) {
        nest(into, LIST_ELEMENT, |element| {
            value(element, KEY, from);
            if let Some(to) = to {
                value(element, KEY_END, to);
            }
            match &self.data {
                None => {}
                Some(Data::Values(values)) => {
                    value(element, DATA, &concatenated(values.iter().map(Value::bytes)));
                }
                Some(Data::Verdict(to)) => verdict(element, DATA, to),
            }
        });
    }
}

impl Key {
    fn first(&self) -> Vec<u8> {
        match self {
            Key::Value(value) | Key::Range(value, _) => value.bytes(),
            Key::Prefix(net) => Value::from(net.network()).bytes(),
        }
    }

    fn last(&self) -> Vec<u8> {
        match self {
            Key::Value(value) | Key::Range(_, value) => value.bytes(),
            Key::Prefix(net) => Value::from(net.broadcast()).bytes(),
        }
    }
}

impl From<Value> for Key {
    fn from(value: Value) -> Key {
        Key::Value(value)
    }
}

impl From<IpNet> for Key {
    fn from(net: IpNet) -> Key {
        Key::Prefix(net)
    }
}

/// The next number of so many bytes; `None` behind the last.
fn successor(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_ends_before_its_successor_or_never() {
        assert_eq!(successor(vec![10, 0, 0, 255]), Some(vec![10, 0, 1, 0]));
        assert_eq!(successor(vec![255, 255]), None);
    }
}
