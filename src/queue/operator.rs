//! What an operator sees of the queue and wishes of it: entries and their states, filters, verbs, counts.

use std::{fmt, str::FromStr, time::SystemTime};

use crate::route::LaneId;
use crate::{
    mail::{message::MessageId, recipient::Notify},
    route::{ConnectorName, RouteName},
};

/// The state of a job as `queue list` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Due now or later.
    Waiting,
    /// Leased.
    Sending,
    /// Held by an operator.
    Held,
    /// Given up, kept.
    Failed,
    /// All recipients delivered (or dropped).
    Done,
}

impl JobState {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Sending,
        Self::Held,
        Self::Failed,
        Self::Done,
    ];
    /// All but [`JobState::Done`]: what a list shows unless it is asked for everything.
    pub const NOT_DONE: [Self; 4] = [Self::Waiting, Self::Sending, Self::Held, Self::Failed];

    /// The word in lists and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Sending => "sending",
            JobState::Held => "held",
            JobState::Failed => "failed",
            JobState::Done => "done",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What became of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecipientState {
    /// Not yet accepted by an upstream.
    Waiting,
    /// It may have arrived.
    InDoubt,
    /// Given up.
    Failed,
    /// Accepted by an upstream.
    Done,
    /// By an operator.
    Dropped,
}

impl RecipientState {
    /// The word in lists and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::InDoubt => "in doubt",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Dropped => "dropped",
        }
    }

    /// Whether it is still to be sent to.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::InDoubt)
    }
}

impl fmt::Display for RecipientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One message and route as an operator sees it (an entry joins the jobs of one message and route).
#[derive(Debug, Clone)]
pub struct Entry {
    /// The message.
    pub id: MessageId,
    /// The route.
    pub route: RouteName,
    /// Of the least finished job: sending, held, waiting, failed, done in this order.
    pub state: JobState,
    /// `None` is `<>`.
    pub sender: Option<String>,
    /// What its sender named it by (ENVID, RFC 3461), as it was written.
    pub envid: Option<String>,
    /// All recipients of this route.
    pub recipients: Vec<EntryRecipient>,
    /// The most attempts of any of its jobs.
    pub attempts: u32,
    /// Earliest due time of its waiting jobs.
    pub next_attempt: Option<SystemTime>,
    /// In-doubt connector, if any.
    pub pinned: Option<ConnectorName>,
    /// The lane whose turn a waiting job of it waits for.
    pub lane: Option<LaneId>,
    /// Octets of the content.
    pub size: u64,
    /// When.
    pub accepted: SystemTime,
    /// Who holds it, where that is no operator: `quota NAME`.
    pub held_by: Option<String>,
    /// The `[[client]]` that sent it, by name.
    pub client: Option<String>,
    /// The message that it is a copy of, for an archive.
    pub copy_of: Option<MessageId>,
    /// To be read; only where it was asked for and the message is still kept.
    pub subject: Option<String>,
    /// The gateway that took it in, among several.
    pub accepted_by: Option<String>,
    /// The one that sends it, or sent some of it last.
    pub sent_by: Option<String>,
}

/// A recipient in an [`Entry`].
#[derive(Debug, Clone)]
pub struct EntryRecipient {
    /// Wire form.
    pub address: String,
    /// What became of it.
    pub state: RecipientState,
    /// What the upstream said last, as one line.
    pub last_reply: Option<String>,
    /// What its sender wants to hear of, where it said so.
    pub notify: Option<Notify>,
}

/// What an operator may wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Due now; also brings failed recipients back.
    Retry,
    /// Not tried until released.
    Hold,
    /// Undo hold.
    Release,
    /// What a quota has held for too long goes where it is given up, with a report. Delivery's own.
    Expire,
    /// Give up now: to `failed`, no bounce.
    Fail,
    /// Gone, with its body; history keeps the line.
    Drop,
    /// To another route (a route that is no longer configured).
    Reroute(RouteName),
}

/// What became of a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commanded {
    /// It took so many entries.
    Taken(u64),
    /// It would have taken so many, which is not the number that was expected: nothing was done.
    Unexpected(u64),
}

impl Commanded {
    /// How many entries it took, or would have taken.
    pub fn count(self) -> u64 {
        match self {
            Self::Taken(count) | Self::Unexpected(count) => count,
        }
    }
}

/// The words in which a wish is kept; they read back.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Retry => "retry",
            Verb::Hold => "hold",
            Verb::Release => "release",
            Verb::Expire => "expire",
            Verb::Fail => "fail",
            Verb::Drop => "drop",
            Verb::Reroute(route) => return write!(f, "reroute {route}"),
        })
    }
}

impl FromStr for Verb {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "retry" => Verb::Retry,
            "hold" => Verb::Hold,
            "release" => Verb::Release,
            "expire" => Verb::Expire,
            "fail" => Verb::Fail,
            "drop" => Verb::Drop,
            _ => {
                let route = text.strip_prefix("reroute ").ok_or("not a verb")?;
                Verb::Reroute(RouteName::from(route))
            }
        })
    }
}

/// Counts for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Jobs.
    pub waiting: u64,
    /// Jobs.
    pub sending: u64,
    /// Jobs.
    pub held: u64,
    /// Jobs.
    pub failed: u64,
    /// Those of the jobs that wait that may have arrived.
    pub in_doubt: u64,
    /// Acceptance of the oldest waiting job.
    pub oldest: Option<SystemTime>,
}

/// A database that several gateways share, as this one sees it; and what of the queue lies here meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteState {
    /// Where it is.
    pub host: String,
    /// It cannot be reached: since when, and why, for people.
    pub away: Option<(SystemTime, String)>,
    /// What an acknowledged message is on; empty: it was not asked yet.
    pub durability: String,
    /// Messages that lie here.
    pub spilled: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<SystemTime>,
    /// Outcomes of its jobs that wait to be written there.
    pub unwritten: u64,
}
