//! A change of the configuration: what is asked for, operations on sections, and what is shown of it.
//!
//! A key below a table is dotted (`oauth.mailbox`). What the operations mean to a file is said in `config::edit`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Problem;
use crate::{
    mail::time::rfc3339,
    window::proposals::{ProposalRow, ProposalState},
};

/// A change of the configuration: its operations, one after the other, on the file with this hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
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
        #[schema(value_type = Object)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Neighbour {
    /// By its name.
    Name(String),
    /// Counted from 1, where they have no names.
    At(usize),
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

/// What would become of the file.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct CheckedChange {
    /// Unified, secrets masked; empty: nothing.
    pub diff: String,
    /// Warnings and notes of `check` about the result.
    pub problems: Vec<Problem>,
}

/// A change of the configuration that waits, or did.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ProposalView {
    /// `p` and its number.
    pub id: String,
    /// What became of it.
    pub state: ProposalState,
    /// Whose it is.
    pub by: String,
    /// When it was made.
    pub at: String,
    /// What it is for.
    pub title: String,
    /// What becomes of the file, as it was then; unified, secrets masked.
    pub diff: String,
    /// Warnings and notes of `check` about the result.
    pub problems: Vec<Problem>,
    /// SHA-256 of the file that it was made for, in hex. `None`: whoever asks may not have it.
    pub base: Option<String>,
}

impl ProposalView {
    /// Of its row.
    pub fn of(row: &ProposalRow) -> Self {
        Self {
            id: format!("p{}", row.number),
            state: row.state,
            by: row.by.clone(),
            at: rfc3339(row.at),
            title: row.title.clone(),
            diff: row.diff.clone(),
            problems: kept(&row.problems),
            base: Some(row.base.clone()),
        }
    }

    /// For whoever may not change the file: what is masked in its text could be guessed, and each guess held against the hash.
    #[must_use]
    pub fn without_hash(self) -> Self {
        Self { base: None, ..self }
    }

    /// The number in an id.
    pub fn number(id: &str) -> Option<i64> {
        let digits = id.strip_prefix('p')?;
        let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|_| is_number)
    }
}

/// A problem as it is kept.
#[derive(Deserialize)]
struct KeptProblem {
    severity: String,
    line: Option<usize>,
    column: Option<usize>,
    message: String,
    hint: Option<String>,
}

/// What cannot be read is only advice.
fn kept(text: &str) -> Vec<Problem> {
    let all: Vec<KeptProblem> = serde_json::from_str(text).unwrap_or_default();
    let problem = |one: KeptProblem| Problem {
        severity: if one.severity == "warning" {
            "warning"
        } else {
            "note"
        },
        line: one.line,
        column: one.column,
        message: one.message,
        hint: one.hint,
        place: None,
    };
    all.into_iter().map(problem).collect()
}

/// The lines that a diff takes away, and those that it adds.
pub fn sides(diff: &str) -> (String, String) {
    // Its first two lines name the file.
    let side = |sign: char| {
        let lines = diff.lines().skip(2);
        let own: Vec<&str> = lines.filter_map(|line| line.strip_prefix(sign)).collect();
        own.join("\n")
    };
    (side('-'), side('+'))
}
