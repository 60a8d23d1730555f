//! Who is meant, by labels.

use fief_model::policy::{LabelExpression, LabelOperator, LabelSelector, NAMESPACE_LABEL};

use crate::identity::{LabelSet, Workload};

/// Workloads of one tenant, by their labels and those of their namespace. Without requirements: all that have labels.
///
/// Requirements are sorted, so that two selectors that ask the same are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    namespace: Vec<Requirement>,
    labels: Vec<Requirement>,
}

/// What must hold for one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// The label's name.
    pub key: String,
    /// What must hold.
    pub test: Test,
}

/// What must hold for a label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Test {
    /// It is one of these.
    In(Vec<String>),
    /// It is none of these, or is not there.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Selector {
    /// All of these.
    pub fn new(mut namespace: Vec<Requirement>, mut labels: Vec<Requirement>) -> Selector {
        for requirements in [&mut namespace, &mut labels] {
            requirements.sort();
            requirements.dedup();
        }
        Selector { namespace, labels }
    }

    /// The workloads of a namespace that a pod selector selects.
    pub fn in_namespace(name: &str, pods: &LabelSelector) -> Selector {
        let test = Test::In(vec![name.to_owned()]);
        Selector::new(vec![Requirement { key: NAMESPACE_LABEL.to_owned(), test }], requirements(pods))
    }

    /// The workloads that a pod selector selects, in the namespaces that another one selects.
    pub fn in_namespaces(namespaces: &LabelSelector, pods: &LabelSelector) -> Selector {
        Selector::new(requirements(namespaces), requirements(pods))
    }

    /// What must hold for the labels of the namespace.
    pub fn namespace(&self) -> &[Requirement] {
        &self.namespace
    }

    /// What must hold for the labels of the workload.
    pub fn labels(&self) -> &[Requirement] {
        &self.labels
    }

    /// Does it ask for nothing?
    pub fn is_everybody(&self) -> bool {
        self.namespace.is_empty() && self.labels.is_empty()
    }

    /// Is this one of those it means?
    pub fn selects(&self, workload: &Workload) -> bool {
        self.labels.iter().all(|requirement| requirement.holds(workload.labels()))
            && self.namespace.iter().all(|requirement| requirement.holds(workload.namespace_labels()))
    }
}

impl Requirement {
    fn holds(&self, labels: &LabelSet) -> bool {
        let value = labels.get(&self.key);
        let is_among = |values: &[String]| value.is_some_and(|value| values.iter().any(|v| v == value));
        match &self.test {
            Test::In(values) => is_among(values),
            Test::NotIn(values) => !is_among(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

fn requirements(selector: &LabelSelector) -> Vec<Requirement> {
    let equal = selector
        .match_labels
        .iter()
        .map(|(key, value)| Requirement { key: key.clone(), test: Test::In(vec![value.clone()]) });
    let more = selector.match_expressions.iter().map(|LabelExpression { key, operator, values }| {
        let mut values = values.clone();
        values.sort();
        values.dedup();
        let test = match operator {
            LabelOperator::In => Test::In(values),
            LabelOperator::NotIn => Test::NotIn(values),
            LabelOperator::Exists => Test::Exists,
            LabelOperator::DoesNotExist => Test::DoesNotExist,
        };
        Requirement { key: key.clone(), test }
    });
    equal.chain(more).collect()
}
