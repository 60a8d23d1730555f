//! From a tree to a plain type, by way of the `Deserialize` it has anyway.
//!
//! Serde gives up at the first mistake. So a mistake is noted together with the innermost value it was made
//! in, and the tree is read once more as if that value were not there, until nothing new comes up. Unknown
//! and repeated keys are noted in passing, since a mapping's readable rest does not depend on them.

mod refusal;
mod step;

use std::cell::RefCell;
use std::collections::HashSet;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::hints::Hint;
use super::suggest;
use super::tree::{Complaint, Content, Entry, Node, Plain};
use refusal::{Inner, Refusal, What};
use step::{Name, Step};

/// One document's complaints; whoever has more is better served by reading these first.
const MAX_COMPLAINTS: usize = 20;

/// Keys that every document has and no type mentions.
const HEADER: [&str; 2] = ["apiVersion", "kind"];

/// Reads a document, header aside.
pub(super) fn decode<T: DeserializeOwned>(root: &Node<'_>, hints: &[&[Hint]]) -> Result<T, Vec<Complaint>> {
    let session = Session { hints, complaints: RefCell::default(), refused: RefCell::default() };
    loop {
        let refused = session.refused.borrow().len();
        let decoder = Decoder { node: root, step: &Step::ROOT, session: &session };
        match decoder.place(T::deserialize(decoder)) {
            Ok(value) if session.complaints.borrow().is_empty() => return Ok(value),
            Ok(_) => break,
            Err(refusal) => session.note(refusal),
        }
        if session.refused.borrow().len() == refused || session.is_full() {
            break;
        }
    }
    let mut complaints = session.complaints.into_inner();
    complaints.sort_by_key(|complaint| (complaint.place.line, complaint.place.column));
    Err(complaints)
}

struct Session<'h> {
    hints: &'h [&'h [Hint]],
    complaints: RefCell<Vec<Complaint>>,
    /// Addresses of the nodes that are wrong and have been complained about.
    refused: RefCell<HashSet<usize>>,
}

impl Session<'_> {
    fn note(&self, refusal: Refusal) {
        let Inner { what, node } = *refusal.0;
        if let What::Complaint(complaint) = what {
            self.complain(complaint);
        }
        self.refused.borrow_mut().extend(node);
    }

    fn complain(&self, complaint: Complaint) {
        let mut complaints = self.complaints.borrow_mut();
        if complaints.len() < MAX_COMPLAINTS && !complaints.contains(&complaint) {
            complaints.push(complaint);
        }
    }

    fn is_full(&self) -> bool {
        self.complaints.borrow().len() >= MAX_COMPLAINTS
    }

    fn is_refused(&self, node: &Node<'_>) -> bool {
        let refused = self.refused.borrow();
        !refused.is_empty() && refused.contains(&identity(node))
    }
}

fn identity(node: &Node<'_>) -> usize {
    std::ptr::from_ref(node).addr()
}

#[derive(Clone, Copy)]
struct Decoder<'t, 's> {
    node: &'t Node<'t>,
    step: &'s Step<'s>,
    session: &'s Session<'s>,
}

impl<'t> Decoder<'t, '_> {
    /// The remedy for what is in this place.
    fn hint(&self) -> Option<&Hint> {
        let pattern = self.step.pattern();
        self.session.hints.iter().copied().flatten().find(|hint| hint.pattern == pattern)
    }

    fn complaint(&self, message: String, help: String) -> Refusal {
        let complaint = Complaint { place: self.node.place, message, help };
        Refusal::new(What::Complaint(complaint), Some(identity(self.node)))
    }

    /// This value is not what belongs here; `wanted` says what does, where no hint knows it better.
    fn wrong(&self, wanted: &str) -> Refusal {
        let (what, remedy) = match self.hint() {
            Some(hint) => (hint.what, hint.remedy(self.scalar().unwrap_or_default())),
            None => (wanted, format!("write {wanted}")),
        };
        let path = self.step.path();
        let message = match &self.node.content {
            Content::Scalar { text, plain } if !plain || Plain::of(text) != Plain::Null => {
                format!("`{}` is not {what}", brief(text))
            }
            Content::Scalar { .. } => format!("`{path}` has no value"),
            _ => format!("`{path}` is {}, not {what}", self.node.noun()),
        };
        self.complaint(message, remedy)
    }

    fn scalar(&self) -> Option<&'t str> {
        match &self.node.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A text: quoted, or nothing else that YAML knows.
    fn text(&self) -> Result<&'t str, Refusal> {
        match &self.node.content {
            Content::Scalar { text, plain } if !plain || Plain::of(text) == Plain::Text => Ok(text),
            Content::Scalar { text, .. } if Plain::of(text) != Plain::Null => {
                let message = format!("`{}` is {}, not a text", brief(text), self.node.noun());
                Err(self.complaint(message, format!("put it in quotes: \"{}\"", brief(text))))
            }
            _ => Err(self.wrong("a text")),
        }
    }

    /// An unquoted scalar.
    fn plain(&self, wanted: &str) -> Result<&'t str, Refusal> {
        match &self.node.content {
            Content::Scalar { text, plain: true } => Ok(text),
            Content::Scalar { text, plain: false }
                if !matches!(Plain::of(text), Plain::Text | Plain::Null) =>
            {
                let message = format!("`{}` in quotes is a text, not {wanted}", brief(text));
                Err(self.complaint(message, format!("write it without quotes: {}", brief(text))))
            }
            _ => Err(self.wrong(wanted)),
        }
    }

    fn number<N: std::str::FromStr>(&self) -> Result<N, Refusal> {
        self.plain("a number")?.parse().map_err(|_| self.wrong("a number"))
    }

    /// Gives what went wrong in a visitor, or after it (a `try_from`), the place of this value.
    fn place<V>(&self, result: Result<V, Refusal>) -> Result<V, Refusal> {
        result.map_err(|refusal| match *refusal.0 {
            inner @ Inner { what: What::Complaint(_) | What::Silent, .. } => Refusal(Box::new(inner)),
            Inner { what: What::Missing(field), .. } => self.missing(field),
            Inner { what: What::Said(said), .. } => match self.hint() {
                Some(_) => self.wrong(""),
                None => self.complaint(format!("`{}`: {said}", self.step.path()), "run `fief schema`".into()),
            },
        })
    }

    fn missing(&self, field: &str) -> Refusal {
        if self.node.field(field).is_some() {
            // It is there, and has been complained about.
            return Refusal::new(What::Silent, Some(identity(self.node)));
        }
        let step = Step { above: Some(self.step), name: Name::Field(field) };
        let help = match (Decoder { step: &step, ..*self }).hint() {
            Some(hint) => hint.write.into(),
            None => format!("add `{field}`"),
        };
        self.complaint(format!("`{}` is missing", step.path()), help)
    }

    /// Complains about keys that no field has, and about keys that come twice.
    fn check_keys(&self, entries: &[Entry<'_>], fields: Option<&[&str]>) {
        let mut seen = HashSet::with_capacity(entries.len());
        for entry in entries {
            if self.session.is_full() {
                return;
            }
            let key = brief(&entry.key);
            if !seen.insert(&*entry.key) {
                let first = entries.iter().find(|other| other.key == entry.key).map_or(0, |e| e.place.line);
                self.session.complain(Complaint {
                    place: entry.place,
                    message: format!("`{key}` is given twice"),
                    help: format!("keep one of them; the first is on line {first}"),
                });
            }
            if let Some(fields) = fields
                && !fields.contains(&&*entry.key)
                && !self.is_header(&entry.key)
            {
                let place = match self.step.path() {
                    path if path.is_empty() => "the document".into(),
                    path => format!("`{path}`"),
                };
                let help = match suggest::nearest(&entry.key, fields.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the fields here are {}", fields.join(", ")),
                };
                let message = format!("unknown field `{key}` in {place}");
                self.session.complain(Complaint { place: entry.place, message, help });
            }
        }
    }

    fn is_header(&self, key: &str) -> bool {
        matches!(self.step.name, Name::Root) && HEADER.contains(&key)
    }

    fn entries<'de, V: Visitor<'de>>(self, fields: Option<&[&str]>, visitor: V) -> Result<V::Value, Refusal> {
        let Content::Mapping(entries) = &self.node.content else { return Err(self.wrong("a mapping")) };
        self.check_keys(entries, fields);
        let access =
            Entries { decoder: self, rest: entries.iter(), fields, value: None, seen: HashSet::new() };
        self.place(visitor.visit_map(access))
    }
}

/// As much of a text as fits in a complaint.
fn brief(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}

impl<'de> de::Deserializer<'de> for Decoder<'_, '_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Content::Scalar { text, plain } = &self.node.content else {
            let is_list = matches!(self.node.content, Content::Sequence(_));
            return if is_list { self.deserialize_seq(visitor) } else { self.deserialize_map(visitor) };
        };
        let unsigned = || text.parse::<u64>().ok();
        let signed = || text.parse::<i64>().ok();
        self.place(match if *plain { Plain::of(text) } else { Plain::Text } {
            Plain::Text => visitor.visit_str(text),
            Plain::Bool(value) => visitor.visit_bool(value),
            Plain::Null => Err(self.wrong("a value")),
            Plain::Number => match (unsigned(), signed(), text.parse::<f64>()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., Ok(number)) => visitor.visit_f64(number),
                _ => Err(self.wrong("a decimal number")),
            },
        })
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match Plain::of(self.plain("true or false")?) {
            Plain::Bool(value) => self.place(visitor.visit_bool(value)),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.place(visitor.visit_u8(self.number()?))
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.place(visitor.visit_u16(self.number()?))
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.place(visitor.visit_u32(self.number()?))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.place(visitor.visit_u64(self.number()?))
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.place(visitor.visit_i32(self.number()?))
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.place(visitor.visit_i64(self.number()?))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.place(visitor.visit_str(self.text()?))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    /// A key that is there has a value. An empty one is more often a slip than a wish, and what it would mean
    /// (for `neighbours`: anybody) can be the opposite of what was meant.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Content::Sequence(nodes) = &self.node.content else { return Err(self.wrong("a list")) };
        self.place(visitor.visit_seq(Items { decoder: self, rest: nodes.iter().enumerate() }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.entries(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.entries(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let text = self.text()?;
        if variants.contains(&text) {
            let variant: StrDeserializer<'_, Refusal> = text.into_deserializer();
            return self.place(visitor.visit_enum(variant));
        }
        Err(self.wrong(&variants.join(", ")))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'t, 's> {
    decoder: Decoder<'t, 's>,
    rest: std::iter::Enumerate<std::slice::Iter<'t, Node<'t>>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let Decoder { step, session, .. } = self.decoder;
        let Some((index, node)) = self.rest.find(|(_, node)| !session.is_refused(node)) else {
            return Ok(None);
        };
        let step = Step { above: Some(step), name: Name::Item(index) };
        let decoder = Decoder { node, step: &step, session };
        decoder.place(seed.deserialize(decoder)).map(Some)
    }
}

struct Entries<'t, 's, 'f> {
    decoder: Decoder<'t, 's>,
    rest: std::slice::Iter<'t, Entry<'t>>,
    fields: Option<&'f [&'f str]>,
    value: Option<&'t Entry<'t>>,
    /// Fields already handed over; serde's own refusal of a second one would hide what comes after it.
    seen: HashSet<&'t str>,
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_, '_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let session = self.decoder.session;
        for entry in self.rest.by_ref() {
            let known = self.fields.is_none_or(|fields| fields.contains(&&*entry.key));
            if known && !session.is_refused(&entry.value) && self.seen.insert(&entry.key) {
                self.value = Some(entry);
                let key: StrDeserializer<'_, Refusal> = (&*entry.key).into_deserializer();
                return seed.deserialize(key).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Decoder { step, session, .. } = self.decoder;
        let Some(entry) = self.value.take() else { return Err(Refusal::new(What::Silent, None)) };
        let name = if self.fields.is_some() { Name::Field(&entry.key) } else { Name::Key(&entry.key) };
        let step = Step { above: Some(step), name };
        let decoder = Decoder { node: &entry.value, step: &step, session };
        decoder.place(seed.deserialize(decoder))
    }
}
