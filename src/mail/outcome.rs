//! What a connector says of an attempt, and what became of each recipient.
//!
//! Connectors write it and `delivery::plan` reads it, and neither knows the other. It draws no
//! consequence: retry, failover and bounce are `plan`'s.

use std::{fmt, time::Duration};

use super::{address::Address, recipient::Recipient, reply::Reply};

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
    /// Not now, without a wish as to when.
    pub fn deferred(reply: Reply) -> Self {
        Outcome::Deferred {
            reply,
            retry_after: None,
        }
    }

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

/// Why a connector takes nothing: of a message, and as the state of its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What of the connector takes nothing.
    pub kind: ObstacleKind,
    /// Stage, cause and remedy, for people.
    pub reply: Reply,
    /// Not before this; `None`: nobody said.
    pub retry_after: Option<Duration>,
}

/// How far an [`Obstacle`] reaches, and what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObstacleKind {
    /// The upstream cannot be reached or is not taking mail. The lane closes.
    Down,
    /// Something in between answered in the upstream's place. As `Down`; but it may be this message that is let through to nobody,
    /// so others go first when it is seen whether the upstream is back.
    Intercepted,
    /// Our configuration or credentials are wrong. The lane pauses. The text holds the remedy.
    Misconfigured,
    /// Somebody has stopped the connector, and will start it again.
    Stopped,
    /// As `Misconfigured`, for the sending mailbox alone.
    MailboxRefused,
    /// As `MailboxRefused`, for this From in that mailbox alone.
    FromRefused,
    /// The upstream wants less in this time. The lane waits; it costs no attempt and is no reason to go elsewhere.
    Throttled,
}

impl ObstacleKind {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            ObstacleKind::Down => "down",
            ObstacleKind::Intercepted => "intercepted",
            ObstacleKind::Misconfigured => "misconfigured",
            ObstacleKind::Stopped => "stopped",
            ObstacleKind::MailboxRefused => "mailbox refused",
            ObstacleKind::FromRefused => "From refused",
            ObstacleKind::Throttled => "throttled",
        }
    }

    /// It waits for one of us, so no mail is given up for it.
    pub fn is_ours(self) -> bool {
        matches!(self, ObstacleKind::Misconfigured | ObstacleKind::Stopped)
    }

    /// It is the sender's, and stops no other mail.
    pub fn is_of_sender(self) -> bool {
        matches!(
            self,
            ObstacleKind::MailboxRefused | ObstacleKind::FromRefused
        )
    }
}

impl Obstacle {
    /// Without a wish as to when.
    pub fn new(kind: ObstacleKind, reply: Reply) -> Self {
        Self {
            kind,
            reply,
            retry_after: None,
        }
    }

    /// The upstream is down, by our own finding.
    pub fn down(text: impl Into<String>) -> Self {
        Self::new(ObstacleKind::Down, Reply::new(451, (4, 4, 1), text))
    }

    /// Our settings are wrong, by our own finding.
    pub fn misconfigured(text: impl Into<String>) -> Self {
        Self::new(
            ObstacleKind::Misconfigured,
            Reply::new(451, (4, 3, 5), text),
        )
    }

    /// Not before this.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }
}

/// Whether a lane takes mail, as its row and the log say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LaneState {
    /// It does.
    Open,
    /// It is down, and asked again after a while.
    Closed,
    /// It waits for somebody to repair our configuration or credentials.
    Paused,
    /// The upstream wants nothing for a while; then it goes on by itself.
    Throttled,
    /// Somebody has stopped the connector: nothing is tried until it is started again.
    Stopped,
}

impl LaneState {
    /// The word in rows, lists and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            LaneState::Open => "open",
            LaneState::Closed => "closed",
            LaneState::Paused => "paused",
            LaneState::Throttled => "throttled",
            LaneState::Stopped => "stopped",
        }
    }

    /// From the word; one that nobody knows is no reason to send.
    pub fn parse(word: &str) -> Self {
        [
            LaneState::Open,
            LaneState::Paused,
            LaneState::Throttled,
            LaneState::Stopped,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
        .unwrap_or(LaneState::Closed)
    }
}

impl fmt::Display for LaneState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who tells the sender what it asked to be told (RFC 3461), once it is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Onward {
    /// The upstream, which was given the wishes of all but these: of them we tell that they were passed on.
    Upstream(Vec<Address>),
    /// We, that it was passed on: the upstream was given none.
    #[default]
    Relayed,
    /// We, that it was delivered: it goes no further.
    Final,
}

impl Onward {
    /// What of `recipient` is ours to tell: whether it is at its end. `None`: nothing is.
    pub fn is_final_for(&self, recipient: &Address) -> Option<bool> {
        match self {
            Onward::Upstream(untold) => untold.contains(recipient).then_some(false),
            Onward::Relayed => Some(false),
            Onward::Final => Some(true),
        }
    }
}

/// What a connector reports of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Nothing was attempted, or nothing was taken.
    NotTried(Obstacle),
    /// It was attempted; an outcome for every recipient of the call.
    Tried {
        /// One for each recipient, in the order given.
        outcomes: Vec<(Address, Outcome)>,
        /// Where it went and how, for log and trace: `smtp.corp.example[192.0.2.7]:587 TLSv1.3`.
        via: String,
        /// It was answered, and nothing else is wanted before this.
        pause: Option<Duration>,
        /// Who tells the sender of what was taken.
        onward: Onward,
    },
}

impl Report {
    /// The same outcome for every recipient.
    pub fn all(recipients: &[Recipient], outcome: &Outcome, via: impl Into<String>) -> Self {
        let each = |recipient: &Recipient| (recipient.address.clone(), outcome.clone());
        Report::Tried {
            outcomes: recipients.iter().map(each).collect(),
            via: via.into(),
            pause: None,
            onward: Onward::default(),
        }
    }

    /// The same where what was taken goes no further.
    #[must_use]
    pub fn at_its_end(mut self) -> Self {
        if let Report::Tried { onward, .. } = &mut self {
            *onward = Onward::Final;
        }
        self
    }
}

impl From<Obstacle> for Report {
    fn from(obstacle: Obstacle) -> Self {
        Report::NotTried(obstacle)
    }
}
