//! A connector as the fields of a form: what the file says and what was typed, and which operations lead from one to the other.
//!
//! It asks nobody: which fields there are comes from the configuration's keys, whether a value is right its check says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{
    admin::typed::SecretsByKey,
    view::{ConnectorForm, FormField, Operation, Problem},
};

const SECTION: &str = "connector";
const PROVIDER: &str = "oauth.provider";
const OAUTH: &str = "oauth";

/// What the form says of a connector.
#[derive(Debug, Clone)]
pub(super) struct ConnectorDraft {
    fields: Vec<FormField>,
    kind: &'static str,
    /// The section as the file has it, keys dotted, secrets masked. `None`: the connector is new.
    saved: Option<BTreeMap<String, Value>>,
    /// What stands in the fields, but the secrets.
    values: BTreeMap<String, String>,
    secrets: SecretsByKey,
    /// Saved secrets that are to go.
    gone: BTreeSet<String>,
}

/// The keys of a section, those of the table `oauth` dotted.
pub(super) fn flat(section: &Value) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    for (key, value) in section.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) if key == OAUTH => {
                keys.extend(
                    inner
                        .iter()
                        .map(|(name, value)| (format!("{OAUTH}.{name}"), value.clone())),
                );
            }
            value => {
                keys.insert(key.clone(), value.clone());
            }
        }
    }
    keys
}

/// As it stands in a field.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// As the file has it; what is no number and no flag is left for the check to refuse.
fn typed(form: &str, text: &str) -> Value {
    match form {
        "number" => text
            .parse::<i64>()
            .map_or_else(|_| text.into(), Value::from),
        "flag" => text
            .parse::<bool>()
            .map_or_else(|_| text.into(), Value::from),
        "list" => text
            .split([',', '\n'])
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect(),
        _ => text.into(),
    }
}

impl ConnectorDraft {
    /// As the file has it.
    pub(super) fn saved(form: ConnectorForm, section: &Value) -> Self {
        let saved = flat(section);
        let values = saved
            .iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect();
        Self {
            saved: Some(saved),
            ..Self::new(form, values)
        }
    }

    /// One that is not in the file.
    pub(super) fn new(form: ConnectorForm, values: BTreeMap<String, String>) -> Self {
        Self {
            kind: form.kind,
            fields: form.fields,
            saved: None,
            values,
            secrets: SecretsByKey::new(),
            gone: BTreeSet::new(),
        }
    }

    /// With what was typed: of each field, or nothing where it was not sent.
    pub(super) fn filled(
        mut self,
        typed: impl Fn(&str) -> Option<String>,
        secrets: SecretsByKey,
        gone: BTreeSet<String>,
    ) -> Self {
        let is_new = self.saved.is_none();
        for field in &self.fields {
            let is_fixed = field.name == "name" && !is_new || field.name == "type";
            if is_fixed || field.is_secret || !is_asked(field) {
                continue;
            }
            let text = typed(&field.name).unwrap_or_default();
            let text = text.trim().to_owned();
            self.values.insert(field.name.clone(), text);
        }
        (self.secrets, self.gone) = (secrets, gone);
        self
    }

    pub(super) fn is_saved(&self) -> bool {
        self.saved.is_some()
    }

    /// Of every field that holds a secret.
    pub(super) fn secret_keys(&self) -> BTreeSet<String> {
        let secret = self.fields.iter().filter(|field| field.is_secret);
        secret.map(|field| field.name.clone()).collect()
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its name; empty: it has none yet.
    pub(super) fn name(&self) -> &str {
        self.value("name")
    }

    fn value(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    fn saved_value(&self, key: &str) -> Option<&Value> {
        self.saved.as_ref()?.get(key)
    }

    /// The fields that it has with its provider of tokens, each once: what the provider says of a key goes before what all have.
    pub(super) fn fields(&self) -> Vec<&FormField> {
        let provider = self.value(PROVIDER);
        let mut found: Vec<&FormField> = Vec::new();
        for field in &self.fields {
            let is_oauth = field.name.starts_with("oauth.");
            if is_oauth && provider.is_empty() && field.name != PROVIDER {
                continue;
            }
            if !field.provider.is_empty() && field.provider != provider {
                continue;
            }
            match found.iter_mut().find(|other| other.name == field.name) {
                Some(other) if !field.provider.is_empty() => *other = field,
                Some(_) => {}
                None => found.push(field),
            }
        }
        found
    }

    /// What stands in a field.
    pub(super) fn shown(&self, key: &str) -> String {
        self.value(key).to_owned()
    }

    /// What is known of a secret.
    pub(super) fn standing(&self, key: &str) -> SecretStanding {
        match (self.secrets.contains_key(key), self.saved_value(key)) {
            (true, _) => SecretStanding::Typed,
            (false, Some(_)) if self.gone.contains(key) => SecretStanding::Goes,
            (false, Some(Value::Object(place))) => {
                let place = place.iter().next();
                let words = place.map(|(how, of)| format!("{how} {}", text(of)));
                SecretStanding::Saved(words.unwrap_or_default())
            }
            (false, Some(_)) => SecretStanding::Saved(String::new()),
            (false, None) => SecretStanding::Absent,
        }
    }

    /// Keys that the form does not ask for and the file has: with what the file says.
    pub(super) fn only_in_file(&self) -> Vec<(String, String)> {
        let fields = self.fields();
        let mut found = Vec::new();
        for field in fields.iter().filter(|field| !is_asked(field)) {
            if let Some(value) = self.saved_value(&field.name) {
                found.push((field.name.clone(), text(value)));
            }
        }
        found
    }

    /// Those that the file could have.
    pub(super) fn never_asked(&self) -> Vec<String> {
        let fields = self.fields().into_iter();
        let fields =
            fields.filter(|field| !is_asked(field) && self.saved_value(&field.name).is_none());
        fields.map(|field| field.name.clone()).collect()
    }

    /// Those of the fields that are written, with their values; secrets as the operations take them.
    fn wanted(&self) -> Map<String, Value> {
        let mut wanted = Map::new();
        for field in self.fields() {
            if field.is_secret {
                if let Some(secret) = self.secrets.get(&field.name) {
                    wanted.insert(field.name.clone(), json!({ "secret": secret.reveal() }));
                }
            } else if is_asked(field) {
                let text = self.value(&field.name);
                if !text.is_empty() && field.name != "type" {
                    wanted.insert(field.name.clone(), typed(field.form, text));
                }
            }
        }
        wanted.insert("type".to_owned(), self.kind.into());
        wanted
    }

    /// What is to be done to the file.
    pub(super) fn operations(&self) -> Vec<Operation> {
        let wanted = self.wanted();
        let section = SECTION.to_owned();
        let Some(saved) = &self.saved else {
            let name = Some(self.name().to_owned()).filter(|name| !name.is_empty());
            return vec![Operation::Add {
                section,
                name,
                values: wanted,
            }];
        };
        let name = Some(self.name().to_owned());
        let unset = |key: &str| Operation::Unset {
            section: section.clone(),
            name: name.clone(),
            at: None,
            key: key.to_owned(),
        };
        let mut operations = Vec::new();
        let mut all = self.fields.iter().map(|field| field.name.as_str());
        let own: BTreeSet<&str> = self
            .fields()
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        let loses_tokens = self.value(PROVIDER).is_empty() && saved.contains_key(PROVIDER);
        let mut seen = BTreeSet::new();
        for key in all.by_ref().filter(|key| seen.insert(*key)) {
            let old = saved.get(key);
            let is_secret = self
                .fields
                .iter()
                .any(|field| field.name == key && field.is_secret);
            let is_asked = self
                .fields
                .iter()
                .any(|field| field.name == key && is_asked(field));
            match (wanted.get(key), old) {
                // Its text is what counts: a number may be written as one likes.
                (Some(new), Some(old)) if !is_secret && text(new) == text(old) => {}
                (Some(new), _) => operations.push(Operation::Set {
                    section: section.clone(),
                    name: name.clone(),
                    at: None,
                    key: key.to_owned(),
                    value: new.clone(),
                }),
                // The table goes as a whole.
                (None, Some(_)) if loses_tokens && key.starts_with("oauth.") => {}
                // Keys of the provider that was go with it.
                (None, Some(_)) if !own.contains(key) => operations.push(unset(key)),
                (None, Some(_)) if is_secret && !self.gone.contains(key) => {}
                (None, Some(_)) if is_asked || is_secret => operations.push(unset(key)),
                (None, _) => {}
            }
        }
        if loses_tokens {
            operations.push(unset(OAUTH));
        }
        operations
    }

    /// As [`Self::operations`], to be compared and not to be done: no secret is in it.
    pub(super) fn fingerprint(&self) -> String {
        let mut operations = json!(self.operations());
        mask(&mut operations);
        operations.to_string()
    }

    /// For a test: all that it would have, saved secrets by name, and what only the file says as the file says it.
    pub(super) fn connector(&self) -> Value {
        let mut wanted = self.wanted();
        if self.name().is_empty() {
            wanted.remove("name");
        }
        for field in self.fields() {
            let Some(saved) = self.saved_value(&field.name) else {
                continue;
            };
            if field.is_secret {
                if !self.gone.contains(&field.name) {
                    wanted
                        .entry(field.name.clone())
                        .or_insert_with(|| json!({ "secret": "keep" }));
                }
            } else if !is_asked(field) {
                wanted.insert(field.name.clone(), saved.clone());
            }
        }
        Value::Object(wanted)
    }

    /// The keys that change, for a title.
    pub(super) fn changed(&self) -> Vec<String> {
        let operations = self.operations();
        let key = |operation: &Operation| match operation {
            Operation::Set { key, .. } | Operation::Unset { key, .. } => Some(key.clone()),
            _ => None,
        };
        operations.iter().filter_map(key).collect()
    }

    /// The field that a problem is about.
    pub(super) fn field_of(&self, problem: &Problem) -> Option<String> {
        let place = problem.place.as_ref()?;
        // One without a name is tried as `draft`, and looked at as nothing.
        let is_own = match (place.name.as_deref(), self.name()) {
            (None | Some("draft"), "") => true,
            (name, own) => name == Some(own),
        };
        if place.section != SECTION || !is_own {
            return None;
        }
        if self.has(&place.key) {
            return Some(place.key.clone());
        }
        self.named_in(&problem.message, &place.key)
    }

    /// The first of its fields that a sentence names between backticks; `table`: where it speaks of.
    pub(super) fn named_in(&self, sentence: &str, table: &str) -> Option<String> {
        let words = sentence.split('`').skip(1).step_by(2);
        let mut keys = words.flat_map(|word| [format!("{table}.{word}"), word.to_owned()]);
        keys.find(|key| self.has(key.trim_start_matches('.')))
            .map(|key| key.trim_start_matches('.').to_owned())
    }

    fn has(&self, key: &str) -> bool {
        self.fields().iter().any(|field| field.name == key)
    }
}

/// Whether the form asks for it.
pub(super) fn is_asked(field: &FormField) -> bool {
    !field.is_only_in_file && field.form != "table"
}

/// What is known of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretStanding {
    Absent,
    /// It is in the file, or where the file says.
    Saved(String),
    /// It came with the form.
    Typed,
    /// It is in the file, and is to go.
    Goes,
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(secret) = map.get_mut("secret") {
                *secret = "typed".into();
            }
            map.values_mut().for_each(mask);
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{secret::Secret, view::ProblemPlace};

    fn field(name: &str, form: &'static str, provider: &'static str) -> FormField {
        FormField {
            name: name.to_owned(),
            provider,
            form,
            choices: &[],
            bounds: None,
            default: "",
            words: "It is.",
            is_needed: false,
            is_secret: form == "secret",
            is_only_in_file: name == "ca_file",
        }
    }

    fn form() -> ConnectorForm {
        ConnectorForm {
            kind: "smtp",
            fields: vec![
                field("name", "text", ""),
                field("type", "word", ""),
                field("host", "text", ""),
                field("port", "number", ""),
                field("pipelining", "flag", ""),
                field("password", "secret", ""),
                field("ca_file", "text", ""),
                field("overrides", "table", ""),
                field(PROVIDER, "word", ""),
                field("oauth.mailbox", "text", ""),
                field("oauth.tenant_id", "text", "microsoft"),
                field("oauth.client_secret", "secret", "microsoft"),
                field("oauth.client_secret", "secret", "google"),
            ],
        }
    }

    fn saved() -> Value {
        json!({
            "name": "a", "type": "smtp", "host": "h", "port": 25, "password": "***", "ca_file": "r.pem",
            "oauth": { "provider": "microsoft", "mailbox": "m", "tenant_id": "t", "client_secret": { "file": "s" } },
        })
    }

    /// What is done, when the form is sent with this instead of what stands in its fields.
    fn done(
        changes: &[(&str, &str)],
        secrets: &[(&str, &str)],
        gone: &[&str],
    ) -> (ConnectorDraft, Vec<String>) {
        let draft = ConnectorDraft::saved(form(), &saved());
        let values: BTreeMap<String, String> = draft.values.clone();
        let typed = |key: &str| {
            let change = changes.iter().find(|(name, _)| *name == key);
            let change = change.map(|(_, text)| (*text).to_owned());
            change.or_else(|| values.get(key).cloned())
        };
        let secrets = secrets
            .iter()
            .map(|(key, secret)| ((*key).to_owned(), Secret::new(*secret)))
            .collect();
        let gone = gone.iter().map(|key| (*key).to_owned()).collect();
        let draft = draft.filled(typed, secrets, gone);
        let told = |operation: &Operation| match operation {
            Operation::Set { key, value, .. } => format!("{key}={value}"),
            Operation::Unset { key, .. } => format!("-{key}"),
            other => other.op().to_owned(),
        };
        let operations = draft.operations().iter().map(told).collect();
        (draft, operations)
    }

    #[test]
    fn only_what_was_changed_is_done() {
        assert_eq!(done(&[], &[], &[]).1, Vec::<String>::new());
        assert_eq!(done(&[("port", " 465 ")], &[], &[]).1, ["port=465"]);
        assert_eq!(done(&[("port", "many")], &[], &[]).1, ["port=\"many\""]);
        assert_eq!(
            done(&[("pipelining", "true")], &[], &[]).1,
            ["pipelining=true"]
        );
        assert_eq!(done(&[("host", "")], &[], &[]).1, ["-host"]);
        // Neither the name nor what only the file says comes from a form.
        assert!(
            done(&[("name", "b"), ("ca_file", "/x")], &[], &[])
                .1
                .is_empty()
        );
        let (draft, secret) = done(&[], &[("password", "hunter2")], &[]);
        assert_eq!(secret, ["password={\"secret\":\"hunter2\"}"]);
        assert!(!draft.fingerprint().contains("hunter2"));
        assert_eq!(done(&[], &[], &["password"]).1, ["-password"]);
        assert_eq!(done(&[(PROVIDER, "")], &[], &[]).1, ["-oauth"]);
        let google = done(
            &[(PROVIDER, "google")],
            &[("oauth.client_secret", "s")],
            &[],
        )
        .1;
        assert_eq!(
            google,
            [
                "oauth.provider=\"google\"",
                "-oauth.tenant_id",
                "oauth.client_secret={\"secret\":\"s\"}"
            ]
        );
    }

    #[test]
    fn a_test_has_what_the_file_has_and_the_form_cannot_say() {
        let (draft, _) = done(&[("port", "465")], &[("password", "p")], &[]);
        assert_eq!(
            draft.connector(),
            json!({
                "name": "a", "type": "smtp", "host": "h", "port": 465, "password": { "secret": "p" }, "ca_file": "r.pem",
                "oauth.provider": "microsoft", "oauth.mailbox": "m", "oauth.tenant_id": "t",
                "oauth.client_secret": { "secret": "keep" },
            })
        );
        let (draft, _) = done(&[(PROVIDER, "")], &[], &["password"]);
        let expected =
            json!({ "name": "a", "type": "smtp", "host": "h", "port": 25, "ca_file": "r.pem" });
        assert_eq!(draft.connector(), expected);
        assert_eq!(
            draft.only_in_file(),
            [("ca_file".to_owned(), "r.pem".to_owned())]
        );
        assert_eq!(draft.never_asked(), ["overrides"]);
    }

    #[test]
    fn a_new_one_is_added_with_what_was_typed() {
        let draft = ConnectorDraft::new(form(), BTreeMap::new());
        let typed = |key: &str| (key == "name").then(|| "b".to_owned());
        let draft = draft.filled(typed, SecretsByKey::new(), BTreeSet::new());
        let values = json!({ "name": "b", "type": "smtp" });
        let added = Operation::Add {
            section: "connector".to_owned(),
            name: Some("b".to_owned()),
            values: values.as_object().unwrap().clone(),
        };
        assert_eq!(draft.operations(), [added]);
    }

    #[test]
    fn a_problem_stands_beside_its_field() {
        let (draft, _) = done(&[], &[], &[]);
        let field_of = |name: &str, key: &str, message: &str| {
            draft.field_of(&Problem {
                severity: "error",
                line: None,
                column: None,
                message: message.to_owned(),
                hint: None,
                place: Some(ProblemPlace {
                    section: "connector".to_owned(),
                    name: Some(name.to_owned()),
                    key: key.to_owned(),
                }),
            })
        };
        assert_eq!(field_of("a", "port", "no").unwrap(), "port");
        assert_eq!(
            field_of("a", "", "[[connector]] needs `host`").unwrap(),
            "host"
        );
        assert_eq!(
            field_of("a", "oauth", "needs `mailbox`").unwrap(),
            "oauth.mailbox"
        );
        assert_eq!(field_of("b", "port", "no"), None);
        assert_eq!(field_of("a", "", "nothing is right"), None);
        let detail = "where its credentials go is changed: say `oauth.client_secret` again too";
        assert_eq!(draft.named_in(detail, "").unwrap(), "oauth.client_secret");
    }
}
