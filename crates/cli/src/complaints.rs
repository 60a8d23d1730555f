//! Complaints about documents: with the source line for people, one a line for programs.

mod graphical;

use std::fmt::Write;

use fief_api::{ClientError, ErrorBody, SourceText};
use fief_model::Diagnostic;

use crate::text::{counted, visible};

/// More than these are counted, not printed.
const SHOWN: usize = 20;

/// Documents that were refused, here or by the daemon.
#[derive(Debug, thiserror::Error)]
#[error("{}", body.error)]
pub struct Refused {
    /// What is wrong with them.
    pub body: ErrorBody,
    sources: Vec<SourceText>,
}

impl Refused {
    /// Refused because of `diagnostics`, of which there is at least one.
    pub fn new(diagnostics: Vec<Diagnostic>, sources: Vec<SourceText>) -> Refused {
        let error = format!("{} about the documents", counted(diagnostics.len(), "complaint"));
        Refused { body: ErrorBody { error, help: None, diagnostics }, sources }
    }

    /// The daemon's answer to `sources`: complaints about them are shown with their lines.
    pub fn explain(error: ClientError, sources: Vec<SourceText>) -> anyhow::Error {
        match error {
            ClientError::Api { body, .. } if !body.diagnostics.is_empty() => Refused { body, sources }.into(),
            other => other.into(),
        }
    }

    /// The first complaints, each with its source line.
    pub fn graphical(&self, colour: bool) -> String {
        let mut text = graphical::render(self.shown(), &self.sources, colour);
        self.count_rest(&mut text);
        text
    }

    /// The first complaints, one a line.
    pub fn plain(&self) -> String {
        let mut text = String::new();
        for diagnostic in self.shown() {
            text += &plain(diagnostic);
            text.push('\n');
        }
        self.count_rest(&mut text);
        text
    }

    fn shown(&self) -> &[Diagnostic] {
        &self.body.diagnostics[..self.body.diagnostics.len().min(SHOWN)]
    }

    fn count_rest(&self, text: &mut String) {
        let rest = self.body.diagnostics.len().saturating_sub(SHOWN);
        if rest > 0 {
            let _ = writeln!(text, "... and {rest} more");
        }
    }
}

/// `file:line:column: message (help)`, without the numbers that are unknown.
fn plain(diagnostic: &Diagnostic) -> String {
    let Diagnostic { source, line, column, message, help } = diagnostic;
    let place = match (line, column) {
        (0, _) => source.clone(),
        (line, 0) => format!("{source}:{line}"),
        (line, column) => format!("{source}:{line}:{column}"),
    };
    let help = help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
    visible(&format!("{place}: {message}{help}")).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(count: u32) -> Refused {
        let diagnostic = |line| Diagnostic {
            source: "a.yaml".into(),
            line,
            column: 3,
            message: "`\x1b[1m` is no\nname".into(),
            help: Some("mend it".into()),
        };
        let sources = vec![SourceText { name: "a.yaml".into(), text: "kind: x\n".repeat(count as usize) }];
        Refused::new((1..=count).map(diagnostic).collect(), sources)
    }

    #[test]
    fn a_complaint_is_one_line() {
        assert_eq!(refused(1).plain(), "a.yaml:1:3: `\u{241b}[1m` is no name (mend it)\n");
    }

    #[test]
    fn unknown_numbers_are_left_out() {
        let mut diagnostic = refused(1).body.diagnostics.remove(0);
        diagnostic.column = 0;
        assert!(plain(&diagnostic).starts_with("a.yaml:1: "));
        diagnostic.line = 0;
        assert!(plain(&diagnostic).starts_with("a.yaml: "));
    }

    #[test]
    fn many_complaints_are_counted() {
        let text = refused(50).plain();
        assert_eq!(text.lines().count(), 21);
        assert!(text.ends_with("... and 30 more\n"), "{text}");
        assert!(refused(50).graphical(false).ends_with("... and 30 more\n"));
        assert!(!refused(20).plain().contains("more"));
    }
}
