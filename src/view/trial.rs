//! What comes of trying: a session that is played, a login, a message that is sent by itself.

use serde::Serialize;

/// `postern explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Explained {
    /// Whether the message would be queued.
    pub accepted: bool,
    /// The reply that refuses it.
    pub reply: Option<String>,
    /// By which it would leave.
    pub route: Option<String>,
    /// Those of the route, in order.
    pub connectors: Vec<String>,
    /// What was asked on the way, and what was found.
    pub steps: Vec<ExplainedStep>,
}

/// Something that was asked, or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ExplainedStep {
    /// `listener`, `tls`, `sender`, …
    pub step: String,
    /// In words.
    pub text: String,
}

/// `postern test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Tried {
    /// It works.
    pub ok: bool,
    /// Its name.
    pub connector: String,
    /// Who sent. `None`: it was only logged in.
    pub from: Option<String>,
    /// To whom. `None`: as above.
    pub to: Option<String>,
    /// `delivered`, `deferred`, `in doubt`, `failed`, …; of a connector that took nothing the state that it would be in; of a login
    /// that worked `open`.
    pub outcome: String,
    /// What the upstream said, or why nothing was tried.
    pub text: String,
    /// Through which host; empty: none.
    pub via: String,
    /// Of a connector that is not saved and was sent nothing by: what was looked at, in order. Else empty.
    pub checks: Vec<CheckView>,
    /// Line by line, secrets masked.
    pub conversation: Vec<String>,
}

/// A finding of `postern doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CheckView {
    /// What was looked at: `files`, `dns`, `token`, …
    pub check: String,
    /// `ok`, `failed`, `warning` or `skipped`.
    pub state: String,
    /// The word of the usual mistake that it is.
    pub cause: Option<String>,
    /// What was found.
    pub text: String,
    /// What helps.
    pub fix: Option<String>,
}

/// A login of `postern check --connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LoginView {
    /// Of the connector.
    pub connector: String,
    /// It worked.
    pub ok: bool,
    /// `open`, or that which the connector would be in.
    pub state: String,
    /// What was found, or why it did not work.
    pub text: String,
}
