//! What a refusal can mean, where in the conversation it can come, and whose matter it can be.
//!
//! The table of what is known and the rules that read it share these words.

use std::{fmt, time::Duration};

use crate::mail::outcome::ObstacleKind;

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// As a 4xx.
    Deferred,
    /// As a 5xx.
    Failed,
    /// It is not about this message: the lane stops.
    Obstacle(ObstacleKind),
    /// There are too many connections: the message waits for one of the others. Where there is no other, as a 4xx.
    Crowded,
}

/// Where in the conversation a reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The beginning.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH with a password.
    Auth,
    /// AUTH with a token.
    Token,
    /// RSET.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The content, or the dot behind it.
    Content,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Greeting => "greeting",
            Place::Hello => "EHLO",
            Place::StartTls => "STARTTLS",
            Place::Auth => "AUTH",
            Place::Token => "AUTH with a token",
            Place::Reset => "RSET",
            Place::Mail => "MAIL",
            Place::Rcpt => "RCPT",
            Place::Data => "DATA",
            Place::Content => "the message",
        })
    }
}

/// Whose matter a refusal is, so that nobody else waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Ours, for whatever mail.
    Us,
    /// Ours; or, where the upstream takes other recipients of ours, that recipient's.
    Relay,
    /// Ours; or, where the upstream takes mail of ours, that sender's.
    Origin,
    /// The sender's.
    Sender,
    /// Nobody's: a quota is used up. With the time after which it is worth another attempt.
    Quota(Option<Duration>),
    /// This recipient's or message's, for now.
    Later,
    /// This recipient's or message's, for good.
    Message,
}

impl Blame {
    pub(super) fn class(self) -> Class {
        match self {
            Blame::Us | Blame::Relay | Blame::Origin => {
                Class::Obstacle(ObstacleKind::Misconfigured)
            }
            Blame::Sender => Class::Obstacle(ObstacleKind::MailboxRefused),
            Blame::Quota(_) => Class::Obstacle(ObstacleKind::Throttled),
            Blame::Later => Class::Deferred,
            Blame::Message => Class::Failed,
        }
    }
}
