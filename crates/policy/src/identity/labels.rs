//! Labels as they are kept: tens of thousands of workloads have a few each, and those of a namespace are the same for many.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Labels by their names.
pub type Labels = BTreeMap<String, String>;

/// Labels that do not change, close together, in the order of their names. A copy is the same memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Labels", into = "Labels")]
pub struct LabelSet(Arc<[(Box<str>, Box<str>)]>);

impl LabelSet {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(name, _)| name.as_ref().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value.as_ref())
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// Is this the only copy?
    pub(super) fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl From<Labels> for LabelSet {
    fn from(labels: Labels) -> LabelSet {
        LabelSet(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<LabelSet> for Labels {
    fn from(labels: LabelSet) -> Labels {
        labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}
