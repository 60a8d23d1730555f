//! The JSON schema of a document, for editors.

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use crate::document::{API_VERSION, KINDS};
use crate::policy::NETWORK_POLICY_VERSION;
use crate::{Endpoint, Network, NetworkPolicy, Tenant};

/// The JSON schema of a document: one of the kinds, by its `kind`.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    let kinds = [
        of_kind::<Tenant>(API_VERSION, "Tenant"),
        of_kind::<Network>(API_VERSION, "Network"),
        of_kind::<Endpoint>(API_VERSION, "Endpoint"),
        of_kind::<NetworkPolicy>(NETWORK_POLICY_VERSION, "NetworkPolicy"),
    ];
    let chosen = kinds.map(|mut schema| {
        let kind = schema["properties"]["kind"]["const"].clone();
        if let Some(Value::Object(own)) = schema.as_object_mut().and_then(|s| s.remove("$defs")) {
            definitions.extend(own);
        }
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("$schema");
        }
        definitions.insert(kind.as_str().unwrap_or_default().to_owned(), schema);
        json!({
            "if": { "properties": { "kind": { "const": kind } } },
            "then": { "$ref": format!("#/$defs/{}", kind.as_str().unwrap_or_default()) },
        })
    });
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": API_VERSION,
        "type": "object",
        "properties": {
            "apiVersion": {
                "description": "The version of this format.",
                "enum": [API_VERSION, NETWORK_POLICY_VERSION],
            },
            "kind": { "description": "What the document describes.", "enum": KINDS },
        },
        "required": ["apiVersion", "kind", "metadata"],
        "allOf": chosen,
        "$defs": definitions,
    });
    tidy(&mut schema);
    const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
    const DEVICE: &str = "^[!-.0-9;-~]{1,15}$";
    for (pointer, more) in [
        ("/$defs/Metadata/properties/name", json!({ "pattern": NAME })),
        ("/$defs/OwnedMetadata/properties/name", json!({ "pattern": NAME })),
        ("/$defs/OwnedMetadata/properties/tenant", json!({ "pattern": NAME })),
        ("/$defs/Interface/properties/name", json!({ "pattern": DEVICE })),
        ("/$defs/Attachment/properties/interface", json!({ "pattern": DEVICE })),
        ("/$defs/PortMap/properties/port", json!({ "minimum": 1, "maximum": 65535 })),
        ("/$defs/Mac", json!({ "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$" })),
        ("/$defs/Route/properties/metric", json!({ "maximum": 4_294_967_294_u32 })),
        ("/$defs/Route/properties/mtu", json!({ "minimum": 68, "maximum": 65535 })),
    ] {
        refine(&mut schema, pointer, more);
    }
    schema
}

/// A kind's own schema with the two keys that every document has.
fn of_kind<T: JsonSchema>(version: &str, kind: &str) -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    schema["title"] = json!(format!("{version} {kind}"));
    let header = json!({
        "apiVersion": { "description": "The version of this format.", "const": version },
        "kind": { "description": "What the document describes.", "const": kind },
    });
    if let Some(properties) = schema["properties"].as_object_mut()
        && let Value::Object(header) = header
    {
        let own = std::mem::replace(properties, header);
        properties.extend(own);
    }
    let mut required = vec![json!("apiVersion"), json!("kind")];
    required.extend(schema["required"].as_array().into_iter().flatten().cloned());
    schema["required"] = Value::Array(required);
    schema["additionalProperties"] = json!(false);
    schema
}

/// Takes out what Rust's types say and documents do not: an optional field may be left out, but not be null
/// ([`crate::parse`] refuses a key without a value), and formats that no editor knows.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    fields.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [Value::Object(only)] = &choices[..] {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
            if fields.get("format").is_some_and(|format| format == "ip" || format == "uint32") {
                fields.remove("format");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Adds what the type cannot say, where that type occurs.
fn refine(schema: &mut Value, pointer: &str, more: Value) {
    if let (Some(Value::Object(found)), Value::Object(more)) = (schema.pointer_mut(pointer), more) {
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_names_the_header_and_nothing_unknown() {
        let schema = schema();
        assert_eq!(
            schema["properties"]["apiVersion"]["enum"],
            json!(["fief/v1alpha1", "networking.k8s.io/v1"])
        );
        assert_eq!(schema["$defs"]["Tenant"]["properties"]["apiVersion"]["const"], "fief/v1alpha1");
        let kinds = json!(["Tenant", "Network", "Endpoint", "NetworkPolicy"]);
        assert_eq!(schema["properties"]["kind"]["enum"], kinds);
        assert_eq!(schema["required"], json!(["apiVersion", "kind", "metadata"]));
        assert_eq!(schema["$defs"]["Network"]["required"], json!(["apiVersion", "kind", "metadata", "spec"]));
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            if definition["type"] == "object" {
                assert_eq!(definition["additionalProperties"], false, "{name}");
            }
        }
        for pointer in [
            "/$defs/Metadata/properties/name/pattern",
            "/$defs/Interface/properties/name/pattern",
            "/$defs/Mac/pattern",
            "/$defs/Route/properties/mtu/maximum",
        ] {
            assert!(schema.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(!schema.to_string().contains("\"null\""), "{schema:#}");
    }
}
