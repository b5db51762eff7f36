//! The configuration as it may be shown: everything but its secrets.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use super::{
    Diagnostics, Secrets, edit,
    file::{LARGEST, read_bounded},
    keys::{self, Form},
    load::load,
    settings::Config,
};
use crate::view::SavedConnectors;

/// In the place of a secret.
const MASK: &str = "***";

/// The section of each connector, by its name, as it was taken.
pub fn connectors(config: &Config) -> BTreeMap<String, Value> {
    sections(&config.text.reveal().parse().unwrap_or_default())
}

/// The same of the file as it is now. `None`: it cannot be read, or is no TOML.
pub fn saved_connectors(path: &Path) -> Option<SavedConnectors> {
    let octets = read_bounded(path, LARGEST).ok()?;
    let text = std::str::from_utf8(&octets).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Some(SavedConnectors {
        base: edit::digest(&octets),
        sections: sections(&text.parse().ok()?),
    })
}

fn sections(root: &toml::Table) -> BTreeMap<String, Value> {
    let sections = root.get("connector").and_then(toml::Value::as_array);
    let mut shown = BTreeMap::new();
    for section in sections.into_iter().flatten() {
        let Some(table) = section.as_table() else {
            continue;
        };
        let Some(name) = table.get("name").and_then(toml::Value::as_str) else {
            continue;
        };
        shown.insert(name.to_owned(), masked("connector", table));
    }
    shown
}

fn masked(section: &str, table: &toml::Table) -> Value {
    let kind = ["type", "provider"]
        .iter()
        .find_map(|key| table.get(*key)?.as_str());
    let mut shown = serde_json::Map::new();
    for (name, value) in table {
        let form = keys::of(section, kind.unwrap_or_default())
            .find(|key| key.name == name)
            .map(|key| key.form);
        let value = match (form, value) {
            (Some(Form::Secret), toml::Value::Table(place)) => masked("secret", place),
            (Some(Form::Secret) | None, _) => MASK.into(),
            (_, toml::Value::Table(inner)) => masked(&format!("{section}.{name}"), inner),
            (_, toml::Value::String(text)) => without_login(text).into(),
            (_, other) => json!(other),
        };
        shown.insert(name.clone(), value);
    }
    Value::Object(shown)
}

/// A URL without the name and password in it.
pub(super) fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{MASK}@{host}{behind}"),
        None => text.to_owned(),
    }
}

/// A configuration file as it is now: SHA-256 in hex, the text with its secrets masked, what is wrong with it.
pub fn file(path: &Path) -> (Option<String>, Option<String>, Diagnostics) {
    let octets = read_bounded(path, LARGEST).ok();
    let sha256 = octets.as_deref().map(edit::digest);
    let text = octets.and_then(|octets| String::from_utf8(octets).ok());
    let shown = text.as_deref().and_then(edit::masked);
    let problems = match load(path, Secrets::Ignore) {
        Ok((_, notes)) => Diagnostics::new(notes),
        Err(problems) => problems,
    };
    (sha256, shown, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_connector_are_not_shown() {
        let table: toml::Table = r#"
            name = "up"
            type = "smtp"
            host = "mx.example"
            port = 465
            password = "geheim"
            unknown = "geheim"
            proxy = "http://user:geheim@proxy:3128/x"
            oauth = { provider = "google", refresh_token = "geheim", client_secret = { file = "s" } }
        "#
        .parse()
        .unwrap();
        let shown = masked("connector", &table);
        assert!(!shown.to_string().contains("geheim"), "{shown}");
        assert_eq!(shown["port"], 465);
        assert_eq!(shown["proxy"], "http://***@proxy:3128/x");
        assert_eq!(shown["oauth"]["client_secret"]["file"], "s");
        assert_eq!(shown["password"], "***");
    }
}
