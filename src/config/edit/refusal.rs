//! Why a change is not made, in the words of the API.
//!
//! It decides nothing, and holds no secret.

use std::fmt;

use serde::Serialize;

use crate::view::Problem;

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The body is not one of ours.
    BadRequest,
    /// The file is not the one that the request was made for.
    OtherBase,
    /// What the proposal saw is not there any more.
    Changed,
    /// The text cannot be shown to change exactly so.
    NotProvable,
    /// Only the file itself may say this.
    OnlyInFile,
    /// A saved credential would go somewhere new.
    SecretNeeded,
    /// The result is no configuration; `problems` says why.
    Invalid,
    /// The file cannot be written.
    ReadOnly,
    /// It could not be written, though it should have been possible.
    Failed,
}

impl Why {
    /// The word for programs, `code` in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::OtherBase | Self::Changed => "changed",
            Self::NotProvable => "not_provable",
            Self::OnlyInFile => "only_in_file",
            Self::SecretNeeded => "secret_needed",
            Self::Invalid => "unprocessable_content",
            Self::ReadOnly => "read_only",
            Self::Failed => "internal_server_error",
        }
    }

    /// The status of HTTP.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::OnlyInFile => 403,
            Self::Changed | Self::SecretNeeded | Self::ReadOnly => 409,
            Self::OtherBase => 412,
            Self::NotProvable | Self::Invalid => 422,
            Self::Failed => 500,
        }
    }
}

/// Why a change is not made.
#[derive(Debug, Serialize)]
pub struct EditRefusal {
    /// The kind.
    #[serde(skip)]
    pub why: Why,
    /// One sentence; it holds no secret.
    pub detail: String,
    /// What `check` says of the result; empty where that was not asked.
    pub problems: Vec<Problem>,
}

impl EditRefusal {
    pub(super) fn new(why: Why, detail: impl Into<String>) -> Self {
        Self {
            why,
            detail: detail.into(),
            problems: Vec::new(),
        }
    }

    pub(super) fn not_provable(detail: impl Into<String>) -> Self {
        Self::new(Why::NotProvable, detail)
    }
}

impl fmt::Display for EditRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for EditRefusal {}
