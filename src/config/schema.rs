//! The keys as a JSON schema (draft 2020-12), for editors that complete a file and check it while it is written.
//!
//! It says how each key is written. What needs another key, a file or a name is `postern check`'s to find.

use serde_json::{Map, Value, json};

use super::keys::{self, DURATION, Form, Key, SIZE, Text};

/// The schema of the whole file.
pub fn schema() -> Value {
    let mut schema = object("", "");
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Postern".into();
    let mut secret = object("secret", "");
    secret["minProperties"] = 1.into();
    secret["maxProperties"] = 1.into();
    schema["$defs"] = json!({ "secret": secret });
    schema
}

/// A section: one of its kinds, where it has several.
fn section(name: &str) -> Value {
    let kinds: Vec<_> = keys::kinds(name).map(|kind| object(name, kind)).collect();
    if kinds.is_empty() {
        return object(name, "");
    }
    json!({ "oneOf": kinds })
}

fn object(section: &str, kind: &str) -> Value {
    let mut properties = Map::new();
    for key in keys::of(section, kind) {
        // What the kind says comes first.
        if !properties.contains_key(key.name) {
            properties.insert(key.name.to_owned(), value(section, kind, key));
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": keys::needed(section, kind),
        "additionalProperties": false,
    })
}

fn value(of: &str, kind: &str, key: &Key) -> Value {
    let inner = || section(&format!("{of}.{}", key.name));
    let mut schema = match key.form {
        Form::Flag => json!({ "type": "boolean" }),
        Form::Number(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Form::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        Form::Size(..) => json!({ "type": "string", "pattern": SIZE }),
        Form::Word(_) if ["type", "provider"].contains(&key.name) => json!({ "const": kind }),
        Form::Word(words) => json!({ "enum": words }),
        Form::Day => json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" }),
        Form::Text(text) => string(text),
        Form::List(text) => json!({ "type": "array", "items": string(text) }),
        Form::TrueOr(text) => json!({ "oneOf": [{ "const": true }, string(text)] }),
        Form::Secret => {
            let text = json!({ "type": "string", "minLength": 1 });
            json!({ "oneOf": [text, { "$ref": "#/$defs/secret" }] })
        }
        Form::Names(words) => {
            json!({ "type": "object", "additionalProperties": { "enum": words } })
        }
        Form::Inner => inner(),
        Form::Inners => json!({ "type": "array", "items": inner() }),
        Form::Section => section(key.name),
        Form::Sections => json!({ "type": "array", "items": section(key.name) }),
    };
    schema["description"] = key.words.into();
    let default = match key.form {
        Form::Flag | Form::Number(..) | Form::List(_) => serde_json::from_str(key.default).ok(),
        _ => (!key.default.is_empty()).then(|| key.default.into()),
    };
    if let Some(default) = default {
        schema["default"] = default;
    }
    schema
}

fn string(text: Text) -> Value {
    json!({ "type": "string", "pattern": text.pattern })
}
