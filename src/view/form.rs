//! A form for a section of the configuration: its fields as the configuration knows its keys.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// The fields of a connector of one type, in the order of the example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectorForm {
    /// `smtp`, `graph`, `capture`, `discard`.
    pub kind: &'static str,
    /// Its keys; those of the table `oauth` behind its others.
    pub fields: Vec<FormField>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FormField {
    /// Below a table dotted: `oauth.mailbox`.
    pub name: String,
    /// The `provider` of `oauth` that it belongs to; empty: any.
    pub provider: &'static str,
    /// `flag`, `number`, `duration`, `size`, `word`, `text`, `list`, `secret`; `table`: no form can say it.
    pub form: &'static str,
    /// Of a word.
    pub choices: &'static [&'static str],
    /// Of a number.
    pub bounds: Option<(u64, u64)>,
    /// As the file writes it, a string without its quotes; empty: there is none, or the words say it.
    pub default: &'static str,
    /// What it is for.
    pub words: &'static str,
    /// It must be there, in its table.
    pub is_needed: bool,
    /// It holds a secret: `{"secret": "…"}` is what it takes.
    pub is_secret: bool,
    /// Only the file itself can say it.
    pub is_only_in_file: bool,
}

/// The connectors of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedConnectors {
    /// SHA-256 of the file in hex.
    pub base: String,
    /// The section of each, by its name, secrets as `***`.
    pub sections: BTreeMap<String, Value>,
}
