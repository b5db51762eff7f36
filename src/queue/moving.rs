//! A message on its way from one store into another, with all that is known of it. Between two stores it stands in both, and only one of
//! them sends it: where it is cut off, its id decides which.

use std::{fmt, sync::Arc, time::SystemTime};

use super::{
    coded,
    event::Event,
    store::{JobState, RecipientState},
    turns::Pair,
};
use crate::{
    mail::message::{Message, MessageId},
    route::{ConnectorName, LaneId, RouteName},
};

/// A message that is not over, or that failed and is kept; on the way back also one that is over.
#[derive(Debug, Clone)]
pub struct MovingMessage {
    /// With its content; its recipients in the order of the envelope.
    pub message: Arc<Message>,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// When the last of its jobs was given up, where all of them were.
    pub ended: Option<SystemTime>,
    /// Its sender is still to be told when it takes long.
    pub tells_late: bool,
    /// What is left to do, and what failed.
    pub jobs: Vec<MovingJob>,
    /// One for each recipient of the message, in the same order.
    pub recipients: Vec<MovingRecipient>,
    /// Its life, but for the lines that other rows tell.
    pub events: Vec<Event>,
    /// Its octets, where its content is no longer kept: then `message` has none. History, which goes back to a gateway alone.
    pub bare: Option<u64>,
}

/// A job that nobody is sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovingJob {
    /// Its number within the message.
    pub nr: i32,
    /// Of which route.
    pub route: RouteName,
    /// In doubt: only this connector may try again.
    pub pinned: Option<ConnectorName>,
    /// The lane whose turn it waits for.
    pub lane: Option<LaneId>,
    /// Whose turn it is.
    pub pair: Pair,
    /// Waiting, held or failed.
    pub state: JobState,
    /// When it is due.
    pub due: SystemTime,
    /// Attempts that were made.
    pub attempts: u32,
}

/// What became of a recipient so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovingRecipient {
    /// Its place among those of the message.
    pub position: i32,
    /// The number of its job, which may be done.
    pub job: i32,
    /// As the rows have it.
    pub address: String,
    /// What became of it.
    pub state: RecipientState,
    /// What the upstream said last.
    pub reply: Option<String>,
    /// When it was delivered, and how.
    pub delivered: Option<(SystemTime, String)>,
    /// Of its job, where that is done: route and attempts.
    pub over: Option<(RouteName, u32)>,
}

/// Rows of messages that move, to be compared when they have arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MovingTally {
    /// Messages.
    pub messages: u64,
    /// Jobs, by state: sending, held, waiting, failed.
    pub jobs: [u64; 4],
    /// Recipients, by state: waiting, in doubt, failed, done, dropped.
    pub recipients: [u64; 5],
}

impl MovingTally {
    /// Of one message.
    pub fn of(one: &MovingMessage) -> Self {
        let mut tally = Self {
            messages: 1,
            ..Self::default()
        };
        for job in &one.jobs {
            tally.job(coded::state_number(job.state));
        }
        for recipient in &one.recipients {
            tally.recipient(coded::recipient_state_number(recipient.state));
        }
        tally
    }

    /// One more job in this state.
    pub(super) fn job(&mut self, state: i64) {
        raise(&mut self.jobs, state);
    }

    /// One more recipient.
    pub(super) fn recipient(&mut self, state: i64) {
        raise(&mut self.recipients, state);
    }

    /// With these as well.
    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        for (sum, more) in self.jobs.iter_mut().zip(other.jobs) {
            *sum += more;
        }
        for (sum, more) in self.recipients.iter_mut().zip(other.recipients) {
            *sum += more;
        }
    }
}

impl fmt::Display for MovingTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sending, held, waiting, failed] = self.jobs;
        let [open, in_doubt, refused, done, dropped] = self.recipients;
        write!(
            f,
            "{} messages; jobs: {sending} sending, {held} held, {waiting} waiting, {failed} failed; \
             recipients: {open} waiting, {in_doubt} in doubt, {refused} failed, {done} done, {dropped} dropped",
            self.messages
        )
    }
}

fn raise(counts: &mut [u64], at: i64) {
    let count = usize::try_from(at).ok().and_then(|at| counts.get_mut(at));
    if let Some(count) = count {
        *count += 1;
    }
}

/// Messages of this page, and what is to be known beside them.
#[derive(Debug, Clone, Default)]
pub struct LeavingPage {
    /// In the order in which they came.
    pub messages: Vec<MovingMessage>,
    /// Those that cannot be read, and why.
    pub broken: Vec<(MessageId, String)>,
    /// Where the next page begins; `None`: there is none.
    pub last: Option<i64>,
    /// A gateway is at work on this database.
    pub is_at_work: bool,
}

/// What lies here of an earlier time among other gateways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftBehind {
    /// Messages that are on their way into their database: nobody here sends them.
    pub messages: u64,
    /// Outcomes of jobs that its database has.
    pub outcomes: u64,
}

/// What became of a job that is another store's, in words that only their writer reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOutcome {
    /// Of which message.
    pub message: MessageId,
    /// The number of the job in the other store.
    pub job: i64,
    /// Who had it.
    pub node: u64,
    /// By which claim.
    pub claim: u32,
    /// When it was settled.
    pub at: SystemTime,
    /// The rest of it.
    pub settlement: String,
}

/// How much lies here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpilledCount {
    /// Messages that are not over, or failed and are kept.
    pub messages: u64,
    /// Their octets.
    pub octets: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<SystemTime>,
    /// Outcomes that wait to be written.
    pub outcomes: u64,
}
