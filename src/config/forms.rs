//! The keys of a connector as the fields of a form.
//!
//! What is said of a key comes from `keys`, and who may change it from `secrecy`; nothing is decided here.

use std::collections::BTreeSet;

use super::{
    keys::{self, Form, Key},
    secrecy,
};
use crate::view::{ConnectorForm, FormField};

const SECTION: &str = "connector";

/// Of each type, in their order.
pub fn connectors() -> Vec<ConnectorForm> {
    let form = |kind| ConnectorForm {
        kind,
        fields: fields(kind),
    };
    keys::kinds(SECTION).map(form).collect()
}

fn fields(kind: &str) -> Vec<FormField> {
    let mut fields = Vec::new();
    let mut seen = BTreeSet::new();
    let needed = keys::needed(SECTION, kind);
    let has_oauth = keys::of(SECTION, kind).any(|key| key.name == "oauth");
    // What the kind says of a key comes first, and every type has a name.
    let own = keys::of(SECTION, kind).filter(|key| key.form != Form::Inner);
    for key in own {
        if seen.insert(key.name) {
            fields.push(field(SECTION, "", key, &needed));
        }
    }
    fields.sort_by_key(|field| secrecy::rank("", "", &field.name).min(3));
    if has_oauth {
        oauth(&mut fields);
    }
    fields
}

/// Those of the table: what each provider has of its own, and what is the same for all.
fn oauth(fields: &mut Vec<FormField>) {
    const TABLE: &str = "connector.oauth";
    let kinds: Vec<&'static str> = keys::kinds(TABLE).collect();
    let shared = keys::of(TABLE, "");
    for key in shared {
        fields.push(field(TABLE, "", key, &keys::needed(TABLE, "")));
    }
    for kind in kinds {
        let needed = keys::needed(TABLE, kind);
        let same = |key: &Key| keys::of(TABLE, "").any(|other| other == key);
        for key in keys::of(TABLE, kind).filter(|key| !same(key)) {
            fields.push(field(TABLE, kind, key, &needed));
        }
    }
}

fn field(section: &str, provider: &'static str, key: &Key, needed: &[&str]) -> FormField {
    let above = section.strip_prefix("connector.");
    let (form, choices, bounds) = match key.form {
        Form::Flag => ("flag", &[][..], None),
        Form::Number(least, most) => ("number", &[][..], Some((least, most))),
        Form::Duration(..) => ("duration", &[][..], None),
        Form::Size(..) => ("size", &[][..], None),
        Form::Word(words) => ("word", words, None),
        Form::Day | Form::Text(_) | Form::TrueOr(_) => ("text", &[][..], None),
        Form::List(_) => ("list", &[][..], None),
        Form::Secret => ("secret", &[][..], None),
        Form::Names(_) | Form::Inner | Form::Inners | Form::Section | Form::Sections => {
            ("table", &[][..], None)
        }
    };
    FormField {
        name: above.map_or_else(
            || key.name.to_owned(),
            |above| format!("{above}.{}", key.name),
        ),
        provider,
        form,
        choices,
        bounds,
        default: key.default,
        words: key.words,
        is_needed: needed.contains(&key.name),
        is_secret: secrecy::is_secret(section, key.name),
        is_only_in_file: secrecy::is_only_in_file(section, key.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_every_key_of_its_type_once() {
        let all = connectors();
        let kinds: Vec<_> = all.iter().map(|form| form.kind).collect();
        assert_eq!(kinds, ["smtp", "graph", "capture", "discard"]);
        for form in &all {
            assert_eq!(form.fields[0].name, "name", "{}", form.kind);
            let mut seen = BTreeSet::new();
            for field in &form.fields {
                let is_new = seen.insert((field.name.clone(), field.provider));
                assert!(is_new, "{} {field:?}", form.kind);
                assert!(!field.words.is_empty());
                assert_eq!(field.is_secret, field.form == "secret", "{field:?}");
            }
            for key in keys::of(SECTION, form.kind).filter(|key| key.name != "oauth") {
                assert!(seen.contains(&(key.name.to_owned(), "")), "{}", key.name);
            }
        }
        let find = |kind: usize, name: &str, provider: &str| {
            let mut fields = all[kind].fields.iter();
            let is_it = |field: &&FormField| field.name == name && field.provider == provider;
            fields.find(is_it).unwrap().clone()
        };
        assert!(find(0, "password", "").is_secret);
        assert!(find(0, "ca_file", "").is_only_in_file);
        assert_eq!(find(0, "tls", "").default, "starttls");
        assert_eq!(find(0, "port", "").bounds, Some((1, 65_535)));
        assert!(find(0, "oauth.mailbox", "").form == "text");
        assert!(find(0, "oauth.client_secret", "google").is_secret);
        assert!(find(0, "oauth.tenant_id", "microsoft").form == "text");
        assert!(
            find(0, "oauth.client_id", "google")
                .words
                .contains("google")
        );
        // What its type says of a key goes before what every connector has.
        assert_eq!(find(1, "rate", "").default, "30/min");
        assert!(
            !all[1]
                .fields
                .iter()
                .any(|field| field.name.starts_with("oauth"))
        );
    }
}
