//! The way from the root of a document to a value in it.

/// Where we are: a list that lives on the stack.
pub(super) struct Step<'s> {
    pub(super) above: Option<&'s Step<'s>>,
    pub(super) name: Name<'s>,
}

pub(super) enum Name<'s> {
    Root,
    Field(&'s str),
    /// A key of a mapping whose keys are free.
    Key(&'s str),
    Item(usize),
}

impl Step<'_> {
    pub(super) const ROOT: Step<'static> = Step { above: None, name: Name::Root };

    /// `spec.interfaces[0].name`
    pub(super) fn path(&self) -> String {
        let above = self.above.map(Step::path).unwrap_or_default();
        match self.name {
            Name::Root => above,
            Name::Item(index) => format!("{above}[{index}]"),
            Name::Field(name) | Name::Key(name) if above.is_empty() => name.into(),
            Name::Field(name) | Name::Key(name) => format!("{above}.{name}"),
        }
    }

    /// `spec.interfaces[].name`
    pub(super) fn pattern(&self) -> String {
        let above = self.above.map(Step::pattern).unwrap_or_default();
        match self.name {
            Name::Root => above,
            Name::Item(_) => above + "[]",
            Name::Key(_) => above + ".*",
            Name::Field(name) if above.is_empty() => name.into(),
            Name::Field(name) => format!("{above}.{name}"),
        }
    }
}
