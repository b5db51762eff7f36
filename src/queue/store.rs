//! What a store must do; one conformance suite runs on every implementation.
//!
//! Apart from `Queue`, which wakes delivery, and from `sqlite`, which keeps the rows. Times are `SystemTime`s given as
//! arguments: a store has no clock.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::body::BodyStore;
use crate::{
    mail::{
        address::Address,
        message::{Message, MessageId},
        outcome::Outcome,
    },
    route::{ConnectorName, RouteName, Routed},
};

/// Why the store did not do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left.
    #[error("the disk is full")]
    Full,
    /// Anything else.
    #[error("the store does not work: {0}")]
    Unavailable(String),
}

/// Whether a store works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It takes mail.
    Fine,
    /// The disk was full and has too little room yet: no mail is taken in, what was sent is recorded.
    Full,
    /// The last write failed.
    Failing,
}

/// The row of a job in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub i64);

/// One attempt for some recipients of a message: message × route × its unfinished recipients (in-doubt ones apart,
/// since they are pinned). A claimed job is leased: no one else sees it until it is settled or the gateway restarts.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its row.
    pub id: JobId,
    /// With header; a large body is a file.
    pub message: Arc<Message>,
    /// By name; resolved at each attempt.
    pub route: RouteName,
    /// Unfinished.
    pub recipients: Vec<Address>,
    /// In doubt: only this connector may try again.
    pub pinned: Option<ConnectorName>,
    /// The lane whose turn it waited for, as [`Settlement::lane`] said.
    pub lane: Option<String>,
    /// Attempts that were made before (closed lanes do not count).
    pub attempts: u32,
    /// When the message was accepted.
    pub accepted: SystemTime,
}

/// What to claim: due jobs of one route, pin and lane, oldest due first.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The route.
    pub route: RouteName,
    /// `None`: jobs that are not pinned.
    pub pinned: Option<ConnectorName>,
    /// `None`: jobs that wait for no lane.
    pub lane: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Waiting jobs of one route, pin and lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// As in [`Ask`].
    pub route: RouteName,
    /// As in [`Ask`].
    pub pinned: Option<ConnectorName>,
    /// As in [`Ask`].
    pub lane: Option<String>,
    /// The earliest due time among them.
    pub at: SystemTime,
}

/// What is written back for a job, in one transaction; the lease ends. Recipients of the job that are not named in
/// `finished`, `failed` or `waiting` stay as they were.
#[derive(Debug)]
pub struct Settlement {
    /// Which.
    pub job: JobId,
    /// Of which message (for the row lookups).
    pub message: MessageId,
    /// What became of each recipient that was tried (all of them, or none when nothing was attempted).
    pub recipients: Vec<(Address, Settled)>,
    /// An attempt was made (counts).
    pub attempted: bool,
    /// When a recipient stays waiting: when the job is due again. Ignored when none does.
    pub next: SystemTime,
    /// When a recipient stays waiting, and not in doubt: it waits for its turn in this lane (as it displays), and is
    /// claimed only by an ask for it. So those behind it need not wait for what the lane cannot take yet.
    pub lane: Option<String>,
    /// These of the waiting recipients get a job of their own, due as the others are.
    pub apart: Vec<Address>,
    /// The waiting recipients that are in doubt get a job of their own, pinned to this connector, due then.
    pub in_doubt: Option<(ConnectorName, SystemTime)>,
    /// Bounces, inserted in the same transaction.
    pub bounces: Vec<Routed>,
    /// Lines of the life of the message, for `postern trace`.
    pub events: Vec<Event>,
}

/// What a settlement says of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Accepted by the upstream; never tried again.
    Done(Outcome),
    /// Given up: kept in `failed`.
    Failed(Outcome),
    /// Waits for `next`.
    Waiting(Outcome),
    /// Waits pinned, see `in_doubt`.
    InDoubt(Outcome),
}

/// The kind of event that says how a recipient was served.
pub const DELIVERY: &str = "delivered";

/// One line in the life of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// `accepted`, `delivered`, `deferred`, `in doubt`, `failed`, `passed over`, `bounced`, `held`, `released`, `retried`, …
    pub kind: String,
    /// The recipients it is about, empty for all.
    pub recipients: Vec<String>,
    /// In plain words: connector, via, reply, next attempt.
    pub text: String,
}

/// The state of a job as `queue list` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
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

impl State {
    /// The word in lists and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Sending => "sending",
            State::Held => "held",
            State::Failed => "failed",
            State::Done => "done",
        }
    }
}

impl fmt::Display for State {
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

/// Which entries; every `Some` must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One message.
    pub id: Option<MessageId>,
    /// States; empty = any.
    pub states: Vec<State>,
    /// A pattern as in the config, over the envelope sender.
    pub sender: Option<crate::mail::pattern::Pattern>,
    /// A pattern over any recipient.
    pub recipient: Option<crate::mail::pattern::Pattern>,
    /// By name.
    pub route: Option<RouteName>,
    /// Accepted at least this long before `now`.
    pub older: Option<SystemTime>,
    /// At most so many entries, oldest first.
    pub limit: Option<usize>,
}

/// One message and route as an operator sees it (an entry joins the jobs of one message and route).
#[derive(Debug, Clone)]
pub struct Entry {
    /// The message.
    pub id: MessageId,
    /// The route.
    pub route: RouteName,
    /// Of the least finished job: sending, held, waiting, failed, done in this order.
    pub state: State,
    /// `None` is `<>`.
    pub sender: Option<String>,
    /// All recipients of this route.
    pub recipients: Vec<EntryRecipient>,
    /// The most attempts of any of its jobs.
    pub attempts: u32,
    /// Earliest due time of its waiting jobs.
    pub next_attempt: Option<SystemTime>,
    /// In-doubt connector, if any.
    pub pinned: Option<ConnectorName>,
    /// The lane whose turn a waiting job of it waits for.
    pub lane: Option<String>,
    /// Octets of the content.
    pub size: u64,
    /// When.
    pub accepted: SystemTime,
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
    /// Give up now: to `failed`, no bounce.
    Fail,
    /// Gone, with its body; history keeps the line.
    Drop,
    /// To another route (a route that is no longer configured).
    Reroute(RouteName),
}

/// The words in which a wish is kept; they read back.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Retry => "retry",
            Verb::Hold => "hold",
            Verb::Release => "release",
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
            "fail" => Verb::Fail,
            "drop" => Verb::Drop,
            _ => {
                let route = text.strip_prefix("reroute ").ok_or("not a verb")?;
                Verb::Reroute(RouteName::from(route))
            }
        })
    }
}

/// A lane's state (a connector, for graph with its mailbox), as a row every command sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRow {
    /// `connector`, `connector/mailbox` or `connector/mailbox/from`.
    pub lane: String,
    /// `open`, `closed`, `paused`, `throttled`.
    pub state: String,
    /// Since when.
    pub since: SystemTime,
    /// The report that did it, with the remedy.
    pub why: String,
    /// When one job (or a login) tries again, or the upstream wants mail again.
    pub probe: Option<SystemTime>,
}

/// The wall clock was set: what the store holds of what is not over moves with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// By so many microseconds; 0: only what lies in the future is put right.
    pub by: i64,
    /// A time between this and `now` was written by the new clock already, and stays.
    pub since: SystemTime,
    /// By the new clock.
    pub now: SystemTime,
    /// Nothing that waits is due later than this after `now`.
    pub longest: Duration,
    /// What is noted of the clock in the same transaction, so that a crash moves nothing twice.
    pub note: String,
}

/// The key of that note.
pub const CLOCK: &str = "clock";

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
    /// Acceptance of the oldest waiting job.
    pub oldest: Option<SystemTime>,
}

/// The jobs that `insert` made.
#[derive(Debug, Clone)]
pub struct Inserted {
    /// Its rows, in the order of `Routed::jobs`.
    pub jobs: Vec<JobId>,
}

/// Durable messages. Every call is one transaction to its caller; an implementation may put many into one sync.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Returns when the message, its body and its jobs are on disk. `leased`: the jobs are inserted already claimed (the fast path).
    async fn insert(
        &self,
        mail: &Routed,
        leased: bool,
        now: SystemTime,
    ) -> Result<Inserted, StoreError>;
    /// Leases due jobs. Held ones are never claimed.
    async fn claim(&self, asks: &[Ask], now: SystemTime) -> Result<Vec<Job>, StoreError>;
    /// Writes back what happened and ends the lease; obeys an operator's wish that came meanwhile.
    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<(), StoreError>;
    /// Every route, pin and lane that has waiting jobs, and when the first of them is due.
    async fn due(&self) -> Result<Vec<Due>, StoreError>;
    /// For lists.
    async fn list(&self, filter: &Filter, now: SystemTime) -> Result<Vec<Entry>, StoreError>;
    /// The message itself, as long as its body is kept.
    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError>;
    /// The life of a message.
    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError>;
    /// An operator's verb; the number of entries it took. On a leased job the wish is kept and obeyed by `settle`.
    async fn command(
        &self,
        filter: &Filter,
        verb: &Verb,
        now: SystemTime,
    ) -> Result<u64, StoreError>;
    /// Counts.
    async fn stats(&self) -> Result<Stats, StoreError>;
    /// Every lane that was ever not open, but for mailboxes that are open again.
    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError>;
    /// Writes one.
    async fn set_lane(&self, lane: LaneRow) -> Result<(), StoreError>;
    /// A named note beside the queue (what the gateway last said of itself, for `status`).
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError>;
    /// Writes one.
    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError>;
    /// Moves when jobs are due, when messages that are not over were accepted, and the times of their lives and of the lanes.
    /// `None`: goes on where a crash cut one off.
    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError>;
    /// Deletes what retention no longer keeps; returns a line for the log for each failed message deleted.
    async fn prune(
        &self,
        keep_failed: Duration,
        keep_history: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, StoreError>;
    /// Gives unused room back to the disk, all of it or all but some for the mail to come, and a part of it at a time: true
    /// while there is more.
    async fn shrink(&self, all: bool) -> Result<bool, StoreError>;
    /// Releases every lease (this gateway's own, after a restart) and deletes spool files without a row. Called once, by the gateway,
    /// before anything is accepted.
    async fn recover(&self) -> Result<(), StoreError>;
    /// How it is. Whoever asks would like it to work: one that fails is tried again.
    fn health(&self) -> Health;
    /// Changes whenever another process wrote to the store (an operator's verb).
    async fn version(&self) -> Result<u64, StoreError>;
    /// Where a large body is written before `insert` names it.
    fn bodies(&self) -> &BodyStore;
}
