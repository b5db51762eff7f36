//! Values and sections as text.
//!
//! Only what is new is written so; what the file has already stays as it is.

use std::fmt::Write as _;

use toml::{Table, Value};

use crate::config::secrecy;

/// A value, on one line.
pub(super) fn value(value: &Value, section: &str) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(|item| self::value(item, section)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) if table.is_empty() => "{}".to_owned(),
        Value::Table(table) => {
            let pairs: Vec<_> = ordered(table, section)
                .into_iter()
                .map(|(key, value)| pair(std::slice::from_ref(key), value, section))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Integer(number) => toml_edit::Value::from(*number).to_string(),
        Value::Float(number) => toml_edit::Value::from(*number).to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
    }
}

/// On one line, whatever it holds.
fn string(text: &str) -> String {
    let rendered = toml_edit::Value::from(text).to_string();
    if !rendered.contains(['\n', '\r']) {
        return rendered;
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                // It cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A key with its value; `section` is where the key stands.
pub(super) fn pair(key: &[String], value: &Value, section: &str) -> String {
    let mut inner = section.to_owned();
    for word in key {
        inner = inside(&inner, word);
    }
    format!("{} = {}", key.join("."), self::value(value, &inner))
}

/// The name of the section that a table is as the value of this key.
pub(super) fn inside(section: &str, key: &str) -> String {
    if section.is_empty() {
        return key.to_owned();
    }
    format!("{section}.{key}")
}

/// A section with its header, and those below it with theirs; the last line has no end.
pub(super) fn section(name: &str, is_repeated: bool, table: &Table, newline: &str) -> String {
    let mut lines = vec![if is_repeated {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }];
    let (own, below): (Vec<_>, Vec<_>) = ordered(table, name)
        .into_iter()
        .partition(|(key, value)| !value.is_table() || secrecy::is_secret(name, key));
    for (key, value) in own {
        lines.push(pair(std::slice::from_ref(key), value, name));
    }
    for (key, value) in below {
        if let Value::Table(table) = value {
            lines.push(section(&inside(name, key), false, table, newline));
        }
    }
    lines.join(newline)
}

/// In the order of the documentation.
fn ordered<'a>(table: &'a Table, section: &str) -> Vec<(&'a String, &'a Value)> {
    let kind = ["type", "provider"]
        .iter()
        .find_map(|key| table.get(*key)?.as_str())
        .unwrap_or_default();
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| secrecy::rank(section, kind, key));
    pairs
}
