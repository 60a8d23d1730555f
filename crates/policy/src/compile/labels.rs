//! Something for each value of each label.

use std::collections::HashMap;

use crate::identity::Workload;
use crate::selector::{Requirement, Selector, Test};

/// Whose label it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Namespace,
    Workload,
}

/// Something for each value of each label.
#[derive(Debug)]
pub(super) struct ByLabel<T> {
    namespace: HashMap<Box<str>, HashMap<Box<str>, T>>,
    workload: HashMap<Box<str>, HashMap<Box<str>, T>>,
}

impl<T: Default> ByLabel<T> {
    pub(super) fn get(&self, scope: Scope, key: &str, value: &str) -> Option<&T> {
        let all = match scope {
            Scope::Namespace => &self.namespace,
            Scope::Workload => &self.workload,
        };
        all.get(key)?.get(value)
    }

    pub(super) fn entry(&mut self, scope: Scope, key: &str, value: &str) -> &mut T {
        let all = match scope {
            Scope::Namespace => &mut self.namespace,
            Scope::Workload => &mut self.workload,
        };
        all.entry(key.into()).or_default().entry(value.into()).or_default()
    }

    /// Takes it out if it is empty now.
    pub(super) fn tidy(&mut self, scope: Scope, key: &str, value: &str, is_empty: impl Fn(&T) -> bool) {
        let all = match scope {
            Scope::Namespace => &mut self.namespace,
            Scope::Workload => &mut self.workload,
        };
        let Some(values) = all.get_mut(key) else { return };
        if values.get(value).is_some_and(is_empty) {
            values.remove(value);
        }
        if values.is_empty() {
            all.remove(key);
        }
    }
}

impl<T> Default for ByLabel<T> {
    fn default() -> ByLabel<T> {
        ByLabel { namespace: HashMap::new(), workload: HashMap::new() }
    }
}

/// The labels of a workload and of its namespace.
pub(super) fn labels_of(workload: &Workload) -> impl Iterator<Item = (Scope, &str, &str)> {
    let namespace = workload.namespace_labels().iter().map(|(key, value)| (Scope::Namespace, key, value));
    let own = workload.labels().iter().map(|(key, value)| (Scope::Workload, key, value));
    own.chain(namespace)
}

/// The labels of which a selector wants one of several values: those of workloads first, for they tell more.
pub(super) fn wanted(selector: &Selector) -> impl Iterator<Item = (Scope, &str, &[String])> {
    let one = |scope| {
        move |requirement| match requirement {
            &Requirement { ref key, test: Test::In(ref values) } => {
                Some((scope, key.as_str(), values.as_slice()))
            }
            _ => None,
        }
    };
    let own = selector.labels().iter().filter_map(one(Scope::Workload));
    own.chain(selector.namespace().iter().filter_map(one(Scope::Namespace)))
}
