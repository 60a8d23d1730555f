//! Labels as they are kept: tens of thousands of workloads have a few each, and those of a namespace are the same for many.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Labels by their names.
pub type Labels = BTreeMap<String, String>;

/// Ends each name and each value: no text in UTF-8 has this byte (RFC 3629, section 3).
const END: u8 = 0xff;

/// Labels that do not change, in one piece of memory, in the order of their names. A copy is the same memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Labels", into = "Labels")]
pub struct LabelSet(Arc<[u8]>);

impl LabelSet {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pieces().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| text(value))
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pieces().map(|(key, value)| (text(key), text(value)))
    }

    fn pieces(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut pieces = self.0.split(|byte| *byte == END);
        // Behind the last end is nothing, which has no value.
        std::iter::from_fn(move || Some((pieces.next()?, pieces.next()?)))
    }

    /// Is this the only copy?
    pub(super) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl From<Labels> for LabelSet {
    fn from(labels: Labels) -> LabelSet {
        let texts = labels.iter().flat_map(|(key, value)| [key, value]);
        LabelSet(texts.flat_map(|text| text.bytes().chain([END])).collect())
    }
}

impl Default for LabelSet {
    fn default() -> LabelSet {
        LabelSet::from(Labels::new())
    }
}

/// What went in as text comes out as text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl From<LabelSet> for Labels {
    fn from(labels: LabelSet) -> Labels {
        labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_out_as_they_went_in() {
        let cases = [
            &[][..],
            &[("", "")],
            &[("a", "")],
            &[("a", "b"), ("a-b", "\0"), ("\u{ff}", "\u{10ffff}"), ("é", "é=é")],
        ];
        for case in cases {
            let labels: Labels =
                case.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let set = LabelSet::from(labels.clone());
            assert_eq!(Labels::from(set.clone()), labels);
            assert!(labels.iter().all(|(key, value)| set.get(key) == Some(value)));
            assert_eq!(set.get("b"), None);
            assert_eq!(set.iter().count(), labels.len());
        }
        assert_ne!(
            LabelSet::from(Labels::new()),
            LabelSet::from(Labels::from([(String::new(), String::new())]))
        );
    }
}
