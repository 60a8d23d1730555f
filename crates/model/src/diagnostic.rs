//! What is wrong with a document: where, what, and what to write instead.

use serde::{Deserialize, Serialize};

/// One complaint about a document, pointing at a place in its source text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Name of the source (a file name, or `-`).
    pub source: String,
    /// Line, counted from 1; 0 where the complaint is about the whole source.
    pub line: u32,
    /// Column in characters, counted from 1; 0 where the complaint is about the whole line.
    pub column: u32,
    /// What is wrong, in lower case, with the offending value in it.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", self.source, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
