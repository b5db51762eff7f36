//! Rewriting of senders.
use crate::mail::{address::Address, pattern::Pattern};

/// What becomes of Reply-To when a From is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyTo {
    /// Add the replaced From as Reply-To unless there is one or its domain is localhost.
    #[default]
    Original,
    /// Leave it.
    Keep,
}

/// One `[[rewrite]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Which senders.
    pub senders: Vec<Pattern>,
    /// What they become.
    pub to: Address,
    /// What becomes of Reply-To.
    pub reply_to: ReplyTo,
}
