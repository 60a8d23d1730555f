//! The largest TCP segment (RFC 9293, 3.7.1) of connections that leave a network.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What TCP segments are lowered to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mss {
    /// What the MTUs of network and uplink take.
    #[default]
    Auto,
    /// And so many bytes at most.
    Bytes(u16),
}

impl Mss {
    /// The least that makes sense: what every host must take (RFC 9293, 3.7.1: 576 bytes less two headers).
    pub const LEAST: u16 = 536;

    /// Is it what a document means that says nothing?
    pub fn is_auto(&self) -> bool {
        *self == Mss::Auto
    }
}

impl Serialize for Mss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Mss::Auto => serializer.serialize_str("auto"),
            Mss::Bytes(bytes) => serializer.serialize_u16(*bytes),
        }
    }
}

impl<'de> Deserialize<'de> for Mss {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mss, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Mss;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`auto` or a number of bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Mss, E> {
        match text {
            "auto" => Ok(Mss::Auto),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Mss, E> {
        let fits = u16::try_from(bytes).map(Mss::Bytes);
        fits.map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
    }
}

impl JsonSchema for Mss {
    fn schema_name() -> Cow<'static, str> {
        "Mss".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What TCP segments are lowered to.",
            "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": Mss::LEAST, "maximum": u16::MAX }]
        })
    }
}
