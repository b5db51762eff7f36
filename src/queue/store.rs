//! What a store must do; one conformance suite runs on every implementation.
//!
//! Times are `SystemTime`s given as arguments: a store has no clock.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;

use super::body::BodyStore;
pub use super::event::{Event, EventKind};
pub use super::filter::{Filter, FoundEntries, ListMark, Needle, OfConnector, Search};
pub use super::lane::{LaneRow, seen_by};
pub use super::node::{Beat, NodeId, NodeRow, Standing, Used};
pub use super::operator::{
    Commanded, Entry, EntryRecipient, JobState, RecipientState, RemoteState, Stats, Verb,
};
use super::turns::{Pair, RouteLane};
pub use crate::mail::health::Health;
use crate::{
    mail::{
        address::Address,
        message::{Message, MessageId},
        outcome::Outcome,
        recipient::Recipient,
    },
    route::{ConnectorName, LaneId, RouteName, Routed},
};

/// `[queue]`, but for retry and give_up, which are the routes'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `data_dir`: the database and `spool/` are in it.
    pub data_dir: PathBuf,
    /// How long a message with a failed recipient is kept.
    pub keep_failed: Duration,
    /// How long it is remembered who, when, what became of it.
    pub keep_history: Duration,
}

/// Why the store did not do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left.
    #[error("the disk is full")]
    Full,
    /// There are as many gateways on it as there may be.
    #[error("eight gateways are at work on this queue already")]
    Crowded,
    /// A newer program wrote it, which this one may not work on; the whole sentence.
    #[error("{0}")]
    Newer(String),
    /// Anything else.
    #[error("the store does not work: {0}")]
    Unavailable(String),
    /// The database that has the queue cannot be reached, or takes nothing; later it may.
    #[error("the database is away ({0})")]
    Away(String),
}

/// Who has a job, and since which of its claims. It ends with the settlement, or with its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub node: NodeId,
    /// How often the job was claimed. A store of one gateway does not count.
    pub claim: u32,
}

/// How a job that is inserted begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Leased: this node has a permit of this connector for it (the fast path).
    Now(NodeId, ConnectorName),
    /// It waits for its turn in this lane.
    In(LaneId),
    /// It waits for whoever has a permit.
    Any,
    /// It is held there by a quota ([`LaneId::held_by`]).
    Held(LaneId),
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is written, now or before.
    Written,
    /// The lease had been taken over meanwhile: what was delivered is written.
    Late,
    /// Somebody has claimed the job since: nothing is written.
    Lost,
}

/// A job: a number that is its own within its message. A store may give it a meaning beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub i64);

/// One attempt for some recipients of a message: message × route × its unfinished recipients (in-doubt ones apart,
/// since they are pinned). A claimed job is leased: no one else sees it until it is settled or its node has ended.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its row.
    pub id: JobId,
    /// To be shown when it is settled.
    pub lease: Lease,
    /// With header; a large body is a handle.
    pub message: Arc<Message>,
    /// By name; resolved at each attempt.
    pub route: RouteName,
    /// Unfinished.
    pub recipients: Vec<Recipient>,
    /// In doubt: only this connector may try again.
    pub pinned: Option<ConnectorName>,
    /// The lane whose turn it waited for, as [`Settlement::lane`] said.
    pub lane: Option<LaneId>,
    /// Attempts that were made before (closed lanes do not count).
    pub attempts: u32,
    /// When the message was accepted.
    pub accepted: SystemTime,
}

/// Which of the due jobs of a lane are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's, in turns ([`super::turns`]); where the last turn was is remembered.
    InTurns,
    /// Of these alone, oldest due first: nobody else had any when it was looked.
    Of(Pair),
    /// Everybody's that was accepted by then. A claim goes on where the one before it ended, and begins anew after one that found
    /// less than it asked for.
    AcceptedBy(SystemTime),
}

impl Whose {
    /// What to claim where a look met so many pairs, this one first.
    pub fn met(first: Pair, pairs: usize) -> Self {
        match pairs {
            ..=1 => Self::Of(first),
            _ => Self::InTurns,
        }
    }
}

/// What to claim: due jobs of one route, pin and lane.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The route.
    pub route: RouteName,
    /// `None`: jobs that are not pinned.
    pub pinned: Option<ConnectorName>,
    /// `None`: jobs that wait for no lane.
    pub lane: Option<LaneId>,
    /// Which of them.
    pub whose: Whose,
    /// Whose permits they are claimed for, so that it is known where they may have gone when the node falls silent.
    pub connector: Option<ConnectorName>,
    /// At most so many.
    pub limit: usize,
}

impl Ask {
    /// Where it is claimed.
    pub fn place(&self) -> RouteLane {
        (self.route.clone(), self.pinned.clone(), self.lane.clone())
    }
}

/// Waiting jobs of one route, pin and lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// As in [`Ask`].
    pub route: RouteName,
    /// As in [`Ask`].
    pub pinned: Option<ConnectorName>,
    /// As in [`Ask`].
    pub lane: Option<LaneId>,
    /// The earliest due time among them. Where some are due it is that of one of them; where more wait than is looked at
    /// ([`super::turns::LOOKED_AT`]) it is no later than now.
    pub at: SystemTime,
    /// Whose they are, as far as it was looked: how to claim them.
    pub whose: Whose,
}

/// What is written back for a job, in one transaction; the lease ends. Recipients of the job that are not named in
/// `finished`, `failed` or `waiting` stay as they were.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which.
    pub job: JobId,
    /// As it was claimed.
    pub lease: Lease,
    /// Of which message (for the row lookups).
    pub message: MessageId,
    /// What became of each recipient that was tried (all of them, or none when nothing was attempted).
    pub recipients: Vec<(Address, Settled)>,
    /// An attempt was made (counts).
    pub attempted: bool,
    /// When a recipient stays waiting: when the job is due again. Ignored when none does.
    pub next: SystemTime,
    /// When a recipient stays waiting, and not in doubt: it waits for its turn in this lane, and is
    /// claimed only by an ask for it. So those behind it need not wait for what the lane cannot take yet.
    pub lane: Option<LaneId>,
    /// These of the waiting recipients get a job of their own, due as the others are.
    pub apart: Vec<Address>,
    /// The waiting recipients that are in doubt get a job of their own, pinned to this connector, due then.
    pub in_doubt: Option<(ConnectorName, SystemTime)>,
    /// Reports of what failed, inserted in the same transaction.
    pub bounces: Vec<Routed>,
    /// Reports of what was taken, the same way; written also where somebody else has taken over the job meanwhile.
    pub receipts: Vec<Routed>,
    /// Lines of the life of the message, for `postern trace`.
    pub events: Vec<Event>,
}

impl Settlement {
    /// All reports of it.
    pub fn reports(&self) -> impl Iterator<Item = &Routed> {
        self.bounces.iter().chain(&self.receipts)
    }
}

/// The sender of a message is told that it takes long.
#[derive(Debug, Clone)]
pub struct LateNotice {
    /// Of which message.
    pub message: MessageId,
    /// What tells it; none where nobody may be told.
    pub reports: Vec<Routed>,
    /// The line in its life, where there is one.
    pub event: Option<Event>,
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

/// What a store is to tidy up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// What is deleted; `None`: nothing.
    pub keep: Option<KeepTimes>,
    /// What is given back to the disk of the space that nothing uses; `None`: nothing.
    pub give_back: Option<GiveBack>,
}

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepTimes {
    /// A message with a failed recipient.
    pub failed: Duration,
    /// Who, when, what became of it.
    pub history: Duration,
}

/// How much of the unused space is given back, a part at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveBack {
    /// All of it.
    All,
    /// All but some for the mail to come.
    Spare,
}

/// What was tidied up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Maintained {
    /// A line for the log for each failed message that was deleted.
    pub deleted: Vec<String>,
    /// There is more space to give back.
    pub is_more: bool,
}

/// What the keys of notes begin with in which gateways tell each other how many connections an upstream was found to take.
pub const LEARNED: &str = "learned by ";

/// The key of that note.
pub const CLOCK: &str = "clock";

/// The jobs that `insert` made.
#[derive(Debug, Clone)]
pub struct Inserted {
    /// Its rows, in the order of `Routed::jobs`.
    pub jobs: Vec<JobId>,
    /// Of those that begin leased, in their order; none where they wait after all.
    pub leases: Vec<Lease>,
}

/// Durable messages. Every call is one transaction to its caller; an implementation may put many into one sync.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Returns when the message, its body and its jobs are on disk; each begins as its `Start` says, one for each in their order.
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError>;
    /// Leases due jobs for a node. Held ones are never claimed.
    async fn claim(
        &self,
        asks: &[Ask],
        node: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError>;
    /// Writes back what happened and ends the lease; obeys an operator's wish that came meanwhile.
    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<Kept, StoreError>;
    /// Says before a leased job goes on to another connector which that is: where its node falls silent it may have gone there.
    async fn goes_by(&self, _job: &Job, _connector: &ConnectorName) -> Result<(), StoreError> {
        Ok(())
    }
    /// Messages that were accepted by then, are not over, and whose senders asked to be told when it takes long, and were not: at most
    /// so many.
    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError>;
    /// They are told, once. False: they were told before, or it is over, and nothing is written.
    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError>;
    /// Every route, pin and lane that has waiting jobs, and when the first of them is due.
    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError>;
    /// Between two looks at what is due, at least.
    fn looks_every(&self) -> Duration {
        Duration::ZERO
    }
    /// For lists.
    async fn list(&self, filter: &Filter, now: SystemTime) -> Result<Vec<Entry>, StoreError>;
    /// For pages: newest first, until there is enough of it or the time is over.
    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError>;
    /// The message itself, as long as its body is kept.
    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError>;
    /// The life of a message.
    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError>;
    /// An operator's verb. On a leased job the wish is kept and obeyed by `settle`. `expect`: where it would take another number
    /// of entries nothing is done, and the number is told.
    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError>;
    /// The same, however many entries it takes: how many it took.
    async fn command(
        &self,
        filter: &Filter,
        verb: &Verb,
        now: SystemTime,
    ) -> Result<u64, StoreError> {
        let done = self.command_if(filter, verb, None, now).await?;
        Ok(done.count())
    }
    /// Counts.
    async fn stats(&self) -> Result<Stats, StoreError>;
    /// How many jobs wait in each route, pin and lane.
    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError>;
    /// Every lane that was ever not open, but for mailboxes that are open again.
    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError>;
    /// The same, as the gateway of this directory has them.
    async fn lanes_here(&self) -> Result<Vec<LaneRow>, StoreError> {
        Ok(seen_by(self.lanes().await?, self.here()))
    }
    /// The node of the gateway that works on this directory, as far as it is known.
    fn here(&self) -> NodeId {
        NodeId::default()
    }
    /// Writes one, unless somebody has written it since `lane.version`: then nothing is written, and it says false.
    async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError>;
    /// A named note beside the queue (what the gateway last said of itself, for `status`).
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError>;
    /// Writes one.
    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError>;
    /// Writes one over what was `seen` of it, or where nothing was. False: something else is there now, and stays; the value itself is
    /// nothing else, so it can be asked again where the answer was lost.
    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError>;
    /// The notes that others share, and whose keys begin so; of a store of one gateway none.
    async fn shared_notes(&self, _beginning: &str) -> Result<Vec<(String, String)>, StoreError> {
        Ok(Vec::new())
    }
    /// Has a note to itself for so long, where others share it. False: somebody else has it.
    async fn take_note(&self, _key: &str, _time: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }
    /// Gives it back before that.
    async fn give_note_back(&self, _key: &str) -> Result<(), StoreError> {
        Ok(())
    }
    /// Moves when jobs are due, when messages that are not over were accepted, and the times of their lives and of the lanes.
    /// `None`: goes on where a crash cut one off.
    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError>;
    /// Deletes what is no longer kept, and gives unused space back to the disk, in steps that nobody waits for long.
    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError>;
    /// Said once a second by a gateway. The first word of a start makes it a node: what its predecessor held is due again, and
    /// bodies without a row are deleted; so it comes before anything is accepted.
    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError>;
    /// Waits until another process has written (an operator's verb, say), or another node. A beat finds that out.
    async fn changed(&self);
    /// Takes a lane whose limits hold for all nodes together: what was used of them of late. `None`: another node has it. A node
    /// alone has every lane.
    async fn hold(&self, _lane: &LaneId, _node: NodeId) -> Result<Option<Used>, StoreError> {
        Ok(Some(Used::default()))
    }
    /// Gives such a lane back, and says to the next holder what was used. One that it does not hold stays as it is.
    async fn let_go(&self, _lane: &LaneId, _node: NodeId, _used: &Used) -> Result<(), StoreError> {
        Ok(())
    }
    /// What a node held that has fallen silent is free: its lanes at once, its jobs when they are `due`, since they may have
    /// arrived. Whether it was so: where the node has been heard of since that row, nothing happens.
    async fn take_over(
        &self,
        _silent: &NodeRow,
        _due: SystemTime,
        _now: SystemTime,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    /// The database that has the queue, where that is not on this machine.
    fn remote(&self) -> Option<RemoteState> {
        None
    }
    /// The starts of gateways that count for those that share the store, or did so of late.
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        Ok(Vec::new())
    }
    /// A start that is over, and was taken over, counts as one that has left.
    async fn forget(&self, _over: &NodeRow, _now: SystemTime) -> Result<(), StoreError> {
        Ok(())
    }
    /// How it is. Whoever asks would like it to work: one that fails is tried again.
    fn health(&self) -> Health;
    /// Where a large body is written before `insert` names it.
    fn bodies(&self) -> &BodyStore;
}
