//! Users and what they may do.
use crate::{mail::pattern::Pattern, secret::Secret};

/// One `[[user]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name that SMTP AUTH gives.
    pub name: String,
    /// The argon2id hash, a PHC string that was checked at load.
    pub password: Secret,
    /// Narrows the allowlist.
    pub senders: Option<Vec<Pattern>>,
    /// Narrows the allowlist.
    pub recipients: Option<Vec<Pattern>>,
}
