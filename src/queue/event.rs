//! The life of a message, a line at a time: what happened to it, when and to whom.

use std::{fmt, time::SystemTime};

/// What happened, in the life of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// By a listener.
    Accepted,
    /// By an upstream. The row of the recipient tells it.
    Delivered,
    /// Put off.
    Deferred,
    /// It may have arrived.
    InDoubt,
    /// Given up, or refused for good.
    Failed,
    /// A connector was, so that it went to another.
    PassedOver,
    /// A report was made of a failure.
    Bounced,
    /// A report was made of what was taken, or takes long.
    Reported,
    /// The sender got no report.
    NotTold,
    /// By an operator, or because it cannot be read.
    Held,
    /// By an operator.
    Released,
    /// By an operator.
    Retried,
    /// By an operator.
    Dropped,
    /// Its route is gone.
    Rerouted,
    /// The gateway ended while it was being sent.
    Interrupted,
    /// It was kept long enough.
    Deleted,
    /// A word that this version does not know.
    Other,
}

impl EventKind {
    const ALL: [Self; 17] = [
        Self::Accepted,
        Self::Delivered,
        Self::Deferred,
        Self::InDoubt,
        Self::Failed,
        Self::PassedOver,
        Self::Bounced,
        Self::Reported,
        Self::NotTold,
        Self::Held,
        Self::Released,
        Self::Retried,
        Self::Dropped,
        Self::Rerouted,
        Self::Interrupted,
        Self::Deleted,
        Self::Other,
    ];

    /// The word in rows, lists and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::InDoubt => "in doubt",
            Self::Failed => "failed",
            Self::PassedOver => "passed over",
            Self::Bounced => "bounced",
            Self::Reported => "reported",
            Self::NotTold => "not told",
            Self::Held => "held",
            Self::Released => "released",
            Self::Retried => "retried",
            Self::Dropped => "dropped",
            Self::Rerouted => "rerouted",
            Self::Interrupted => "interrupted",
            Self::Deleted => "deleted",
            Self::Other => "other",
        }
    }

    /// From the word.
    pub fn parse(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == word);
        known.unwrap_or(Self::Other)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One line in the life of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// What.
    pub kind: EventKind,
    /// The recipients it is about, empty for all.
    pub recipients: Vec<String>,
    /// In plain words: connector, via, reply, next attempt.
    pub text: String,
}
