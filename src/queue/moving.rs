//! A message on its way from one store into another, with all that is known of it. Between two stores it stands in both, and only one of
//! them sends it: where it is cut off, its id decides which.

use std::{sync::Arc, time::SystemTime};

use super::{
    event::Event,
    store::{JobState, RecipientState},
    turns::Pair,
};
use crate::{
    mail::message::{Message, MessageId},
    route::{ConnectorName, LaneId, RouteName},
};

/// A message that is not over, or that failed and is kept.
#[derive(Debug, Clone)]
pub struct MovingMessage {
    /// With its content; its recipients in the order of the envelope.
    pub message: Arc<Message>,
    /// When it was accepted.
    pub accepted: SystemTime,
    /// When the last of its jobs was given up, where all of them were.
    pub ended: Option<SystemTime>,
    /// What is left to do, and what failed.
    pub jobs: Vec<MovingJob>,
    /// One for each recipient of the message, in the same order.
    pub recipients: Vec<MovingRecipient>,
    /// Its life, but for the lines that other rows tell.
    pub events: Vec<Event>,
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
