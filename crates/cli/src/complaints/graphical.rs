//! A complaint with the line it is about, by miette.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::ops::Range;
use std::sync::Arc;

use fief_api::SourceText;
use fief_model::Diagnostic;
use miette::{
    LabeledSpan, MietteError, MietteHandlerOpts, MietteSpanContents, ReportHandler, SourceCode, SourceSpan,
    SpanContents,
};

use crate::text::visible;

/// A longer line would bury the complaint; it is named by its number alone.
const LONGEST_LINE: usize = 400;

/// The complaints with their lines.
pub fn render(diagnostics: &[Diagnostic], sources: &[SourceText], colour: bool) -> String {
    let handler = MietteHandlerOpts::new().color(colour).terminal_links(false).context_lines(1).build();
    let mut texts = HashMap::<&str, Arc<str>>::new();
    let mut rendered = String::new();
    for diagnostic in diagnostics {
        let source = sources.iter().find(|source| source.name == diagnostic.source);
        let text = source.map(|source| {
            Arc::clone(texts.entry(&source.name).or_insert_with(|| visible(&source.text).into()))
        });
        rendered += &Rendered(&handler, &Complaint::new(diagnostic, text)).to_string();
    }
    rendered
}

/// A diagnostic as miette wants it.
#[derive(Debug)]
struct Complaint {
    message: String,
    help: Option<String>,
    place: Option<(Text, Range<usize>)>,
}

impl Complaint {
    fn new(diagnostic: &Diagnostic, text: Option<Arc<str>>) -> Complaint {
        let Diagnostic { source, line, column, message, help } = diagnostic;
        let place = text.and_then(|text| {
            let span = span(&text, *line, *column)?;
            Some((Text { name: visible(source), text }, span))
        });
        let message = visible(message);
        Complaint {
            message: match (&place, line) {
                (Some(_), _) => message,
                (None, 0) => format!("{}: {message}", visible(source)),
                (None, line) => format!("{}:{line}:{column}: {message}", visible(source)),
            },
            help: help.as_deref().map(visible),
            place,
        }
    }
}

/// The bytes of the word at a line and column (characters, both from 1), or of the whole line for column 0.
fn span(text: &str, line: u32, column: u32) -> Option<Range<usize>> {
    let line_index = usize::try_from(line.checked_sub(1)?).ok()?;
    let line = text.split('\n').nth(line_index)?;
    if line.len() > LONGEST_LINE {
        return None;
    }
    let begin = line.as_ptr().addr() - text.as_ptr().addr();
    let Some(column) = column.checked_sub(1) else {
        let indent = line.len() - line.trim_start().len();
        return Some(begin + indent..begin + line.trim_end().len().max(indent));
    };
    let offset = line.char_indices().nth(column as usize).map_or(line.len(), |(offset, _)| offset);
    let word = line[offset..].find(|c: char| c.is_whitespace() || ",[]{}".contains(c));
    let end = word.unwrap_or(line.len() - offset).max(usize::from(offset < line.len()));
    Some(begin + offset..begin + offset + end)
}

impl Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Complaint {}

impl miette::Diagnostic for Complaint {
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|(source, _)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, span) = self.place.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::underline(span.clone()))))
    }
}

/// A source whose columns are characters, as in every other complaint; miette's own are bytes.
#[derive(Debug)]
struct Text {
    name: String,
    text: Arc<str>,
}

impl SourceCode for Text {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.read_span(span, before, after)?;
        let offset = found.span().offset();
        let before_it = self.text.get(offset - found.column()..offset);
        let column = before_it.map_or(found.column(), |text| text.chars().count());
        let (name, line, count) = (self.name.clone(), found.line(), found.line_count());
        let contents = MietteSpanContents::new_named(name, found.data(), *found.span(), line, column, count);
        Ok(Box::new(contents))
    }
}

struct Rendered<'a>(&'a miette::MietteHandler, &'a Complaint);

impl Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug(self.1, f)?;
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind: Tenant\nspec:\n  größe: [eins, zwei]\n";

    #[test]
    fn a_place_becomes_its_word() {
        let word = |line, column| span(TEXT, line, column).map(|span| &TEXT[span]);
        assert_eq!(word(1, 7), Some("Tenant"));
        assert_eq!(word(3, 11), Some("eins"));
        assert_eq!(word(3, 17), Some("zwei"));
        assert_eq!(word(3, 0), Some("größe: [eins, zwei]"));
        assert_eq!(word(3, 10), Some("["));
        assert_eq!(word(2, 6), Some(""));
        assert_eq!(word(2, 60), Some(""));
        assert_eq!(word(4, 1), Some(""));
        assert_eq!(word(5, 1), None);
        assert_eq!(word(0, 0), None);
    }

    #[test]
    fn the_line_and_the_help_are_shown() {
        let diagnostic = Diagnostic {
            source: "a.yaml".into(),
            line: 3,
            column: 11,
            message: "`eins` is no number".into(),
            help: Some("write 1".into()),
        };
        let sources = [SourceText { name: "a.yaml".into(), text: TEXT.into() }];
        let text = render(&[diagnostic], &sources, false);
        for part in ["`eins` is no number", "a.yaml:3:11", "größe: [eins, zwei]", "help: write 1"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn a_place_that_is_not_there_leaves_the_numbers() {
        let diagnostic =
            Diagnostic { source: "a.yaml".into(), line: 9, column: 1, message: "no".into(), help: None };
        assert!(render(&[diagnostic], &[], false).contains("a.yaml:9:1: no"));
    }
}
