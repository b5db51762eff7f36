//! What a connector says of an attempt, and what became of each recipient.
//!
//! Apart because connectors write it and `delivery::plan` reads it, and neither knows the other. It draws no
//! consequence: retry, failover and bounce are `plan`'s.

use std::time::Duration;

use super::{address::Address, reply::Reply};

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream took responsibility.
    Delivered(Reply),
    /// Not now: a 4xx, or the connection was lost before the last octet.
    Deferred {
        /// What the upstream (or the network) said.
        reply: Reply,
        /// The upstream's wish; the retry is not earlier than this.
        retry_after: Option<Duration>,
    },
    /// The last octet was sent and no answer came: it may have arrived.
    InDoubt(Reply),
    /// Never: a 5xx about this message or recipient.
    Failed(Reply),
    /// One of the recipients of the call or more cannot, and the upstream does not say which: nobody got it. They are to be tried
    /// in smaller sets.
    Apart(Reply),
    /// Never through *this* connector (its SIZE is too small, say): the next of the route, else failed.
    Unsuited(Reply),
}

impl Outcome {
    /// The reply, whatever the outcome.
    pub fn reply(&self) -> &Reply {
        match self {
            Outcome::Delivered(reply)
            | Outcome::Deferred { reply, .. }
            | Outcome::InDoubt(reply)
            | Outcome::Failed(reply)
            | Outcome::Apart(reply)
            | Outcome::Unsuited(reply) => reply,
        }
    }
}

/// What a connector reports of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Nothing was attempted: the upstream cannot be reached or is not taking mail. The lane closes.
    Down {
        /// Stage and cause, for people.
        reply: Reply,
        /// Not before this.
        retry_after: Option<Duration>,
    },
    /// Nothing was attempted: our configuration or credentials are wrong. The lane pauses. The text holds the remedy.
    Misconfigured(Reply),
    /// As `Misconfigured`, for the sending mailbox alone.
    MailboxRefused(Reply),
    /// As `MailboxRefused`, for this From in that mailbox alone.
    FromRefused(Reply),
    /// Nothing was taken: something in between answered in the upstream's place. As `Down`; but it may be this message that is let
    /// through to nobody, so others go first when it is seen whether the upstream is back.
    Intercepted(Reply),
    /// Nothing was taken: the upstream wants less in this time. The lane waits; it costs no attempt and is no reason to go elsewhere.
    Throttled {
        /// What the upstream said.
        reply: Reply,
        /// Not before this; `None`: the upstream did not say.
        retry_after: Option<Duration>,
    },
    /// It was attempted; an outcome for every recipient of the call.
    Tried {
        /// One for each recipient, in the order given.
        outcomes: Vec<(Address, Outcome)>,
        /// Where it went and how, for log and trace: `smtp.corp.example[192.0.2.7]:587 TLSv1.3`.
        via: String,
        /// It was answered, and nothing else is wanted before this.
        pause: Option<Duration>,
    },
}
