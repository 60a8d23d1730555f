//! YAML as a tree in which every node knows its place.
//!
//! Only what a configuration needs: no tags, no merge keys, no directives. Anchors and aliases work, and
//! everything they copy is paid for from a fixed allowance, so that no text costs much more than its length.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, options};

/// How deep lists and mappings may nest.
const MAX_DEPTH: usize = 32;

/// How much one document's anchors and aliases may copy, in nodes of 64 bytes.
const MAX_COPIES: usize = 4096;

/// How many nodes all documents of one input may have together, copies included.
pub(super) const MAX_NODES: usize = 2 << 20;

/// A line and a column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// What is wrong at a place, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) help: String,
}

#[derive(Debug, Clone)]
pub(super) struct Node<'i> {
    pub(super) place: Place,
    pub(super) content: Content<'i>,
}

#[derive(Debug, Clone)]
pub(super) enum Content<'i> {
    Scalar { text: Cow<'i, str>, plain: bool },
    Sequence(Vec<Node<'i>>),
    Mapping(Vec<Entry<'i>>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry<'i> {
    pub(super) key: Cow<'i, str>,
    pub(super) place: Place,
    pub(super) value: Node<'i>,
}

/// The documents of one text that are not empty. After a broken one it goes on with the next.
pub(super) struct Reader<'i, 'a> {
    parser: Parser<'i, StrInput<'i>>,
    allowance: &'a mut usize,
    anchors: HashMap<usize, Node<'i>>,
    copies: usize,
    done: bool,
}

impl<'i, 'a> Reader<'i, 'a> {
    pub(super) fn new(text: &'i str, allowance: &'a mut usize) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut options = options! { disallow_directives: true };
        options.set_emit_comments(false);
        let parser = Parser::new_from_str_with_options(text, options);
        Reader { parser, allowance, anchors: HashMap::new(), copies: 0, done: false }
    }

    fn document(&mut self) -> Result<Option<Node<'i>>, Complaint> {
        self.anchors.clear();
        self.copies = 0;
        let root = self.event()?;
        let root = self.node(root, 1)?;
        Ok(if root.is_absent() { None } else { Some(root) })
    }

    fn event(&mut self) -> Result<(Event<'i>, Span), Complaint> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(syntax(&error)),
            None => Err(Place::NONE.refuse("the text ends too early", "finish the document")),
        }
    }

    fn node(&mut self, (event, span): (Event<'i>, Span), depth: usize) -> Result<Node<'i>, Complaint> {
        let place = Place::of(&span);
        self.spend(1, place)?;
        if let Some(tag) = event.tag() {
            let place = span.tag_start.map_or(place, |start| Place::of(&Span::empty(start)));
            let message = format!("the tag `{}` is not supported", tag.original());
            return Err(
                place.refuse(&message, "delete the tag; a text that looks like a number goes in quotes")
            );
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(place));
        }
        let anchor = event.anchor_id().unwrap_or(0);
        let content = match event {
            // The parser says `~` where nothing was written.
            Event::Scalar(_, ScalarStyle::Plain, ..) if span.start == span.end => {
                Content::Scalar { text: "".into(), plain: true }
            }
            Event::Scalar(text, style, ..) => Content::Scalar { text, plain: style == ScalarStyle::Plain },
            Event::SequenceStart(..) => self.sequence(depth)?,
            Event::MappingStart(..) => self.mapping(depth)?,
            Event::Alias(id) => return self.alias(id, place, depth),
            other => {
                let message = format!("unexpected {other:?}");
                return Err(place.refuse(&message, "write a value here"));
            }
        };
        let node = Node { place, content };
        if anchor != 0 {
            self.copy(node.size().weight, place)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Content<'i>, Complaint> {
        let mut nodes = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Content::Sequence(nodes)),
                event => nodes.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Content<'i>, Complaint> {
        let mut entries = Vec::new();
        loop {
            let key = match self.event()? {
                (Event::MappingEnd, _) => return Ok(Content::Mapping(entries)),
                event => self.node(event, depth + 1)?,
            };
            let Content::Scalar { text, plain } = key.content else {
                let message = format!("{} cannot be a key", key.noun());
                return Err(key.place.refuse(&message, "write a plain word before the colon"));
            };
            if plain && text == "<<" {
                let help = "write the fields out, or alias (`*name`) a whole value";
                return Err(key.place.refuse("merge keys (`<<`) are not supported", help));
            }
            let event = self.event()?;
            let mut value = self.node(event, depth + 1)?;
            if value.is_absent() {
                // A value that is not there has no place of its own; its key has.
                value.place = key.place;
            }
            entries.push(Entry { key: text, place: key.place, value });
        }
    }

    fn alias(&mut self, id: usize, place: Place, depth: usize) -> Result<Node<'i>, Complaint> {
        let Some(target) = self.anchors.get(&id) else {
            return Err(place.refuse("this alias stands inside what it refers to", "write the value out"));
        };
        let Size { weight, height } = target.size();
        if depth + height - 1 > MAX_DEPTH {
            return Err(too_deep(place));
        }
        let copy = Node { place, content: target.content.clone() };
        self.copy(weight, place)?;
        Ok(copy)
    }

    fn copy(&mut self, weight: usize, place: Place) -> Result<(), Complaint> {
        self.copies += weight;
        if self.copies > MAX_COPIES {
            let message = format!("anchors and aliases copy more than {MAX_COPIES} nodes in this document");
            return Err(place.refuse(&message, "write the values out, or split the document"));
        }
        self.spend(weight, place)
    }

    fn spend(&mut self, nodes: usize, place: Place) -> Result<(), Complaint> {
        let Some(left) = self.allowance.checked_sub(nodes) else {
            self.done = true;
            let message = format!("more than {MAX_NODES} values in one input");
            return Err(place.refuse(&message, "apply the documents in several parts"));
        };
        *self.allowance = left;
        Ok(())
    }
}

impl<'i> Iterator for Reader<'i, '_> {
    type Item = Result<Node<'i>, Complaint>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let read = match self.parser.next_event()? {
                Ok((Event::DocumentStart(..), _)) => self.document(),
                Ok(_) => continue,
                Err(error) => Err(syntax(&error)),
            };
            match read {
                Ok(None) => {}
                Ok(Some(node)) => return Some(Ok(node)),
                Err(complaint) => {
                    self.done |= !matches!(self.parser.proceed_next_document(), Ok(true));
                    return Some(Err(complaint));
                }
            }
        }
        None
    }
}

impl Node<'_> {
    /// The value of a key, if this is a mapping that has it.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        let Content::Mapping(entries) = &self.content else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// What a person would call this value.
    pub(super) fn noun(&self) -> &'static str {
        match &self.content {
            Content::Mapping(_) => "a mapping",
            Content::Sequence(_) => "a list",
            Content::Scalar { plain: false, .. } => "a text",
            Content::Scalar { text, .. } => match Plain::of(text) {
                Plain::Null => "empty",
                Plain::Bool(_) => "a yes-or-no value",
                Plain::Number => "a number",
                Plain::Text => "a text",
            },
        }
    }

    fn is_absent(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if text.is_empty())
    }

    fn size(&self) -> Size {
        let of_text = |text: &str| 1 + text.len() / 64;
        match &self.content {
            Content::Scalar { text, .. } => Size { weight: of_text(text), height: 1 },
            Content::Sequence(nodes) => nodes.iter().map(Node::size).fold(Size::ONE, Size::under),
            Content::Mapping(entries) => entries.iter().fold(Size::ONE, |size, entry| {
                let Size { weight, height } = entry.value.size();
                size.under(Size { weight: weight + of_text(&entry.key), height })
            }),
        }
    }
}

struct Size {
    weight: usize,
    height: usize,
}

impl Size {
    const ONE: Size = Size { weight: 1, height: 1 };

    fn under(self, child: Size) -> Size {
        Size { weight: self.weight + child.weight, height: self.height.max(child.height + 1) }
    }
}

/// What an unquoted scalar means (YAML 1.2, core schema).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Null,
    Bool(bool),
    Number,
    Text,
}

impl Plain {
    pub(super) fn of(text: &str) -> Plain {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
            "true" | "True" | "TRUE" => Plain::Bool(true),
            "false" | "False" | "FALSE" => Plain::Bool(false),
            _ if is_number(text) => Plain::Number,
            _ => Plain::Text,
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    if let Some(rest) = text.strip_prefix("0x") {
        return digits(rest, 16);
    }
    if let Some(rest) = text.strip_prefix("0o") {
        return digits(rest, 8);
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    // Rust reads `inf` and `nan` as numbers too; the core schema wants a digit or a dot in front.
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok()
}

impl Place {
    /// The place of a complaint about a whole source.
    pub(super) const NONE: Place = Place { line: 0, column: 0 };

    fn of(span: &Span) -> Place {
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { line: narrow(span.start.line()), column: narrow(span.start.col() + 1) }
    }

    pub(super) fn refuse(self, message: &str, help: &str) -> Complaint {
        Complaint { place: self, message: message.into(), help: help.into() }
    }
}

fn too_deep(place: Place) -> Complaint {
    let message = format!("lists and mappings nest more than {MAX_DEPTH} deep");
    place.refuse(&message, "no document of fief needs that; look for a stray bracket or indentation")
}

fn syntax(error: &ScanError) -> Complaint {
    use serde_saphyr::granit_parser::ErrorKind as Kind;
    let help = match error.kind() {
        Kind::TabNotAllowed | Kind::TabInBlockIndentation | Kind::TabInIndentation => "indent with spaces",
        Kind::UnclosedQuotedScalar | Kind::DocumentIndicatorInQuotedScalar => "close the quotes",
        Kind::InvalidQuotedScalarIndent => "close the quotes further up, or indent the text's next line",
        Kind::UnclosedFlowCollection { open: '[' } | Kind::UnexpectedEofFlowSequence => "close it with `]`",
        Kind::UnclosedFlowCollection { .. } | Kind::UnexpectedEofFlowMapping => "close it with `}`",
        Kind::ExpectedFlowSequenceSeparator => "put a comma between the items, or close the list with `]`",
        Kind::ExpectedFlowMappingSeparator => "put a comma between the fields, or close the mapping with `}`",
        Kind::UnknownAnchor => "write the value out, or mark it with `&name` further up in the same document",
        Kind::DirectiveDisallowed => "delete the line that begins with `%`",
        Kind::MappingValueNotAllowed => "put a text that contains `: ` in quotes, and check the indentation",
        Kind::RecursionLimitExceeded => "no document of fief nests so deep; look for a stray bracket",
        _ => "check the indentation, brackets and quotes here and on the line above",
    };
    let at = Place::of(&Span::empty(*error.marker()));
    at.refuse(&format!("this is not YAML: {}", error.info()), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for number in
            ["0", "-1", "+1", "007", "1.", ".5", "1e3", "-1.5E-3", "0x1F", "0o17", ".inf", "-.INF", ".nan"]
        {
            assert_eq!(Plain::of(number), Plain::Number, "{number}");
        }
        for text in
            ["no", "yes", "on", "inf", "nan", "1_000", "0xg", "-", ".", "10.0.0.1", "1:20", "infinity", "0x"]
        {
            assert_eq!(Plain::of(text), Plain::Text, "{text}");
        }
        for null in ["", "~", "null"] {
            assert_eq!(Plain::of(null), Plain::Null, "{null}");
        }
    }
}
