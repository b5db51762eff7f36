//! One finding of `postern doctor`, and of a draft that is tried on the page.

use serde::Serialize;

use super::cause::Cause;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It is as it should be.
    Ok,
    /// It is not, and mail waits for it.
    Failed,
    /// Mail may go all the same.
    Warning,
    /// It could not be looked at: what it needs has failed, or is not there.
    Skipped,
}

impl CheckState {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckState::Ok => "ok",
            CheckState::Failed => "failed",
            CheckState::Warning => "warning",
            CheckState::Skipped => "skipped",
        }
    }
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Of which connector; `None`: of this machine.
    pub connector: Option<String>,
    /// What was looked at: `config`, `dns`, `token`, …
    pub check: &'static str,
    /// How it came out.
    pub state: CheckState,
    /// The word of the usual mistake that it is.
    pub cause: Option<&'static str>,
    /// What was found.
    pub text: String,
    /// What helps.
    pub fix: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::plain(check, CheckState::Ok, text)
    }

    /// It needs what has failed, or what is not there.
    pub fn skipped(check: &'static str, needs: &str) -> Self {
        Self::plain(check, CheckState::Skipped, format!("needs {needs}"))
    }

    /// A fault, or with `Warning` what may become one; the cause and what helps are read from the text.
    pub fn found(check: &'static str, state: CheckState, text: &str, connector: &str) -> Self {
        let cause = Cause::of(text);
        // What helps has a line of its own, and the word a place of its own.
        let short = cause.map(|cause| {
            text.replace(&format!("; {} [{cause}]", cause.fix), "")
                .replace(&format!(" [{cause}]"), "")
        });
        Self {
            cause: cause.map(|cause| cause.word),
            fix: cause.map(|cause| cause.fix_for(connector)),
            ..Self::plain(check, state, short.unwrap_or_else(|| text.to_owned()))
        }
    }

    fn plain(check: &'static str, state: CheckState, text: impl Into<String>) -> Self {
        Self {
            connector: None,
            check,
            state,
            cause: None,
            text: text.into(),
            fix: None,
        }
    }
}
