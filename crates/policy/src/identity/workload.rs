//! What policies know of a workload.

use std::collections::{BTreeSet, HashSet};

use fief_model::policy::NAMESPACE_LABEL;
use serde::{Deserialize, Serialize};

use super::labels::{LabelSet, Labels};

/// What policies know of a workload: the labels of its namespace, its own, and what it calls its ports.
///
/// The names of ports belong to it, because a rule may mean one: two workloads with the same labels and different
/// numbers behind `http` are different to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    namespace: LabelSet,
    labels: LabelSet,
    ports: BTreeSet<NamedPort>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocol's number (IANA).
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

impl Workload {
    /// A workload of a namespace. The label with the namespace's name is there by itself.
    pub fn new(
        namespace: &str,
        mut namespace_labels: Labels,
        labels: Labels,
        ports: impl IntoIterator<Item = NamedPort>,
    ) -> Workload {
        namespace_labels.insert(NAMESPACE_LABEL.to_owned(), namespace.to_owned());
        let ports = ports.into_iter().collect();
        Workload { namespace: namespace_labels.into(), labels: labels.into(), ports }
    }

    /// The name of its namespace.
    pub fn namespace(&self) -> &str {
        self.namespace.get(NAMESPACE_LABEL).unwrap_or("")
    }

    /// The labels of its namespace.
    pub fn namespace_labels(&self) -> &LabelSet {
        &self.namespace
    }

    /// Its own labels.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// Its ports.
    pub fn ports(&self) -> &BTreeSet<NamedPort> {
        &self.ports
    }

    /// The port that it calls so.
    pub fn port(&self, name: &str, protocol: u8) -> Option<u16> {
        self.ports.iter().find(|port| port.name == name && port.protocol == protocol).map(|port| port.port)
    }

    /// Without the labels that a filter leaves out.
    pub(super) fn filtered(mut self, filter: &super::LabelFilter) -> Workload {
        if self.labels.iter().any(|(key, _)| !filter.keeps(key)) {
            let mut labels = Labels::from(self.labels);
            labels.retain(|key, _| filter.keeps(key));
            self.labels = labels.into();
        }
        self
    }

    /// With the labels of its namespace where others have the same.
    pub(super) fn beside(mut self, namespaces: &mut HashSet<LabelSet>) -> Workload {
        match namespaces.get(&self.namespace) {
            Some(same) => self.namespace = same.clone(),
            None => drop(namespaces.insert(self.namespace.clone())),
        }
        self
    }
}
