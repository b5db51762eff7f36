//! What is said of a value that is not what its key takes, and what was probably meant.
//!
//! `table` finds such values. It must not show one that may be a secret.

use toml::de::DeValue;

use super::{
    keys::{Form, Key},
    values::{Fault, plain},
    words::{meant, nearest},
};

/// Of a value of another type.
pub(super) fn wrong_type(key: &Key, value: &DeValue<'_>) -> Fault {
    let name = key.name;
    // What was meant, where only quotes, brackets or a unit are wrong.
    let written = match (value, key.form) {
        (DeValue::Integer(number), Form::Duration(..)) => Some(format!("\"{number}s\"")),
        (DeValue::Integer(number), Form::Size(..)) => Some(format!("\"{number}B\"")),
        (DeValue::String(text), Form::Number(..)) => {
            text.parse::<u64>().ok().map(|_| text.to_string())
        }
        // `tls = true`, `verify = false`.
        (DeValue::Boolean(value), Form::Word(words)) => meant(name, &value.to_string())
            .filter(|word| words.contains(word))
            .map(|word| format!("\"{word}\"")),
        (DeValue::String(text), Form::Flag) => match text.as_ref() {
            "true" | "yes" | "on" => Some("true".to_owned()),
            "false" | "no" | "off" => Some("false".to_owned()),
            _ => None,
        },
        (DeValue::String(text), Form::List(_)) => Some(format!("[\"{}\"]", plain(text))),
        _ => None,
    };
    Fault {
        message: format!("`{name}` takes {}, not {}", wanted(key.form), named(value)),
        hint: written.map(|written| format!("write {name} = {written}")),
    }
}

/// In "`key` takes …".
fn wanted(form: Form) -> String {
    match form {
        Form::Flag => "true or false",
        Form::Number(..) => "a number",
        Form::Duration(..) => "a duration such as \"90s\" or \"5m\"",
        Form::Size(..) => "a size such as \"35MiB\"",
        Form::Day => "a day such as \"2027-05-01\"",
        Form::Word(words) => return either(words),
        Form::Text(text) | Form::TrueOr(text) => text.wanted,
        Form::List(_) => "a list of strings",
        Form::Secret => {
            "a string or a table such as { env = \"NAME\" }, { file = \"path\" }, { credential = \"name\" }"
        }
        Form::Names(_) => "a table such as { \"mail-admins\" = \"admin\" }",
        Form::Inner => "a table such as { provider = \"microsoft\" }",
        Form::Inners => "a list of tables",
        Form::Section | Form::Sections => "a section",
    }
    .to_owned()
}

/// `"one", "two" or "three"`.
fn either(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
}

pub(super) fn not_among(name: &str, words: &'static [&'static str], text: &str) -> Fault {
    let lower = text.to_lowercase();
    let words_of = || words.iter().copied();
    let meant = words_of()
        .find(|word| word.len() > 2 && lower.starts_with(word))
        .or_else(|| nearest(text, words_of()))
        .or_else(|| meant(name, &lower).filter(|meant| words.contains(meant)));
    Fault {
        message: format!("`{name}` takes {}, not \"{}\"", either(words), plain(text)),
        hint: meant.map(|word| format!("did you mean \"{word}\"?")),
    }
}

/// What the file holds in place of what was wanted.
pub(super) fn named(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether a value is written as a section is.
pub(super) fn is_section(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(array) => array
            .iter()
            .any(|item| matches!(item.get_ref(), DeValue::Table(_))),
        _ => false,
    }
}
