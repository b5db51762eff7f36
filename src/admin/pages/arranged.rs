//! The fields of a connector as somebody fills them in: what it is, how it logs in, what is left as it is by most.

use super::fields::{ConnectorDraft, SecretStanding, is_asked};
use crate::view::FormField;

/// Some fields under one heading.
#[derive(Debug, Clone)]
pub(super) struct FieldGroup {
    pub(super) title: &'static str,
    pub(super) rows: Vec<FieldRow>,
    /// It can be folded, and is not.
    pub(super) is_open: bool,
    /// It can be folded.
    pub(super) is_rare: bool,
    /// Its fields follow from the first of them.
    pub(super) is_tokens: bool,
}

/// A field.
#[derive(Debug, Clone)]
pub(super) struct FieldRow {
    /// The key.
    pub(super) name: String,
    pub(super) words: &'static str,
    pub(super) default: &'static str,
    pub(super) value: String,
    /// What it may be; empty: anything.
    pub(super) choices: Vec<String>,
    pub(super) is_number: bool,
    pub(super) is_needed: bool,
    /// It cannot be changed here.
    pub(super) is_fixed: bool,
    /// Of a secret.
    pub(super) secret: Option<SecretStanding>,
    /// What is wrong with it.
    pub(super) faults: Vec<String>,
}

impl FieldRow {
    /// What a reader is told with its name.
    pub(super) fn described_by(&self) -> String {
        let mut ids = format!("about-{}", self.name);
        if !self.faults.is_empty() {
            ids.push_str(" wrong-");
            ids.push_str(&self.name);
        }
        ids
    }

    /// Where a saved secret is; nothing: there is none that could be kept.
    pub(super) fn saved(&self) -> Option<&str> {
        match &self.secret {
            Some(SecretStanding::Saved(place)) => Some(place),
            _ => None,
        }
    }

    pub(super) fn is_typed(&self) -> bool {
        self.secret == Some(SecretStanding::Typed)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.secret == Some(SecretStanding::Goes)
    }
}

const SERVER: [&str; 4] = ["name", "host", "port", "tls"];
const SERVICE: [&str; 2] = ["name", "service"];
const APPLICATION: [&str; 5] = ["name", "tenant_id", "client_id", "client_secret", "mailbox"];
const LOGIN: [&str; 3] = ["username", "password", "auth"];

/// The groups of a draft. `faults`: what is wrong with a field, by its key.
pub(super) fn groups(draft: &ConnectorDraft, faults: &[(String, String)]) -> Vec<FieldGroup> {
    let fields: Vec<&FormField> = draft
        .fields()
        .into_iter()
        .filter(|field| is_asked(field) && field.name != "type")
        .collect();
    let row = |field: &FormField| row(draft, field, faults);
    let of = |keys: &[&str]| -> Vec<FieldRow> {
        let found = keys
            .iter()
            .filter_map(|key| fields.iter().find(|field| field.name == *key));
        found.map(|field| row(field)).collect()
    };
    let (first, login): (&[&str], &[&str]) = match draft.kind() {
        "smtp" if !draft.shown("service").is_empty() => (&SERVICE, &LOGIN),
        "smtp" => (&SERVER, &LOGIN),
        "graph" => (&APPLICATION, &[]),
        _ => (&["name"], &[]),
    };
    let is_token = |field: &&&FormField| field.name.starts_with("oauth.");
    let tokens: Vec<FieldRow> = fields
        .iter()
        .filter(is_token)
        .map(|field| row(field))
        .collect();
    let is_rest = |field: &&&FormField| {
        let name = field.name.as_str();
        !(is_token(field) || first.contains(&name) || login.contains(&name))
    };
    let rest: Vec<FieldRow> = fields
        .iter()
        .filter(is_rest)
        .map(|field| row(field))
        .collect();
    let group = |title, rows: Vec<FieldRow>, is_rare| FieldGroup {
        is_open: rows
            .iter()
            .any(|row| !row.value.is_empty() || !row.faults.is_empty()),
        is_tokens: title == TOKENS,
        title,
        rows,
        is_rare,
    };
    let title = match draft.kind() {
        "graph" => "The application",
        "smtp" => "The server",
        _ => "The connector",
    };
    let groups = [
        group(title, of(first), false),
        group("The login", of(login), false),
        group(TOKENS, tokens, true),
        group("More settings", rest, true),
    ];
    groups
        .into_iter()
        .filter(|group| !group.rows.is_empty())
        .collect()
}

const TOKENS: &str = "Tokens (OAuth 2.0) in place of a password";

fn row(draft: &ConnectorDraft, field: &FormField, faults: &[(String, String)]) -> FieldRow {
    let value = draft.shown(&field.name);
    let mut choices: Vec<String> = match field.form {
        "flag" => ["true", "false"].map(str::to_owned).into(),
        _ => field.choices.iter().map(|&word| word.to_owned()).collect(),
    };
    if !(choices.is_empty() || value.is_empty() || choices.contains(&value)) {
        choices.push(value.clone());
    }
    let own = faults.iter().filter(|(key, _)| *key == field.name);
    FieldRow {
        name: field.name.clone(),
        words: field.words,
        default: field.default,
        value: if field.is_secret {
            String::new()
        } else {
            value
        },
        choices,
        is_number: field.form == "number",
        is_needed: field.is_needed,
        is_fixed: field.name == "name" && draft.is_saved(),
        secret: field.is_secret.then(|| draft.standing(&field.name)),
        faults: own.map(|(_, text)| text.clone()).collect(),
    }
}
