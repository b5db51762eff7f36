//! What is asked for: operations on sections, as they come in JSON.
//!
//! A key below a table is dotted (`oauth.mailbox`). What they mean to a file is said in `model`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::refusal::{EditRefusal, Why};

/// A change of the configuration: its operations, one after the other, on the file with this hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// SHA-256 of the file that they were made for, in hex.
    pub base: String,
    /// What they are for.
    pub title: String,
    /// In this order.
    pub changes: Vec<Operation>,
}

/// One operation. A section that stands once has neither `name` nor `at`; one without names has `at`, counted from 1; the keys at the
/// top of the file are those of the section "".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// Gives a key a value, whether it has one or not.
    Set {
        /// The section.
        section: String,
        /// Which one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Which one, where they have no names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<usize>,
        /// The key.
        key: String,
        /// A secret is `{"secret": "…"}`.
        value: Value,
    },
    /// Takes a key away.
    Unset {
        /// The section.
        section: String,
        /// Which one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Which one, where they have no names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<usize>,
        /// The key.
        key: String,
    },
    /// Adds a section, behind the others of its kind.
    Add {
        /// The section.
        section: String,
        /// Its name; `values` need not have it too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its keys.
        values: Map<String, Value>,
    },
    /// Takes a section away.
    Remove {
        /// The section.
        section: String,
        /// Which one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Which one, where they have no names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<usize>,
    },
    /// Puts a section before another of its kind.
    Move {
        /// The section.
        section: String,
        /// Which one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Which one, where they have no names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<usize>,
        /// The other; none: the end.
        #[serde(default)]
        before: Option<Neighbour>,
    },
}

/// The section that another is put before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Neighbour {
    /// By its name.
    Name(String),
    /// Counted from 1, where they have no names.
    At(usize),
}

impl Changes {
    /// From JSON.
    ///
    /// # Errors
    /// It is not such a change: `bad_request`, or `unknown_key`.
    pub fn read(octets: &[u8]) -> Result<Self, EditRefusal> {
        serde_json::from_slice(octets).map_err(|error| {
            let said = error.to_string();
            let why = if said.starts_with("unknown field") {
                Why::UnknownKey
            } else {
                Why::BadRequest
            };
            EditRefusal::new(
                why,
                format!("this is no change of the configuration: {said}"),
            )
        })
    }
}

impl Operation {
    /// The word for it.
    pub fn op(&self) -> &'static str {
        match self {
            Self::Set { .. } => "set",
            Self::Unset { .. } => "unset",
            Self::Add { .. } => "add",
            Self::Remove { .. } => "remove",
            Self::Move { .. } => "move",
        }
    }

    /// The section, and which one: its name, or its number.
    pub fn place(&self) -> (&str, Option<&str>, Option<usize>) {
        match self {
            Self::Set {
                section, name, at, ..
            }
            | Self::Unset {
                section, name, at, ..
            }
            | Self::Remove { section, name, at }
            | Self::Move {
                section, name, at, ..
            } => (section, name.as_deref(), *at),
            Self::Add { section, name, .. } => (section, name.as_deref(), None),
        }
    }

    /// What it changes, in words for a list: `connector smarthost port`.
    pub fn object(&self) -> String {
        let (section, name, at) = self.place();
        let at = at.map(|at| at.to_string());
        let key = match self {
            Self::Set { key, .. } | Self::Unset { key, .. } => Some(key.as_str()),
            _ => None,
        };
        let words = [Some(section), name, at.as_deref(), key];
        let words: Vec<_> = words
            .into_iter()
            .flatten()
            .filter(|w| !w.is_empty())
            .collect();
        words.join(" ")
    }
}
