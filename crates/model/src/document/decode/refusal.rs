//! The error that travels through serde.

use std::fmt;

use serde::de;

use crate::document::tree::Complaint;

/// Why reading stopped.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Box<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) what: What,
    /// The node to leave out on the next reading.
    pub(super) node: Option<usize>,
}

#[derive(Debug)]
pub(super) enum What {
    /// A type's own words; it does not know where it stood.
    Said(String),
    /// A type misses a field.
    Missing(&'static str),
    /// Complete.
    Complaint(Complaint),
    /// Follows from something that has been complained about.
    Silent,
}

impl Refusal {
    pub(super) fn new(what: What, node: Option<usize>) -> Refusal {
        Refusal(Box::new(Inner { what, node }))
    }
}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(said: T) -> Refusal {
        Refusal::new(What::Said(said.to_string()), None)
    }

    fn missing_field(field: &'static str) -> Refusal {
        Refusal::new(What::Missing(field), None)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.what)
    }
}

impl std::error::Error for Refusal {}
