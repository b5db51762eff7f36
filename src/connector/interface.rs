//! What a way out is to those who use it: the trait, the lane that a message takes, and what a connector is given.
//!
//! `mod.rs` knows the kinds; every connector needs this page, and none needs to know the others.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use async_trait::async_trait;

use super::{deadline::Deadline, oauth::TokenStore};
use crate::{
    mail::{
        address::Address,
        message::Message,
        outcome::{Obstacle, Report},
        recipient::Recipient,
    },
    route::LaneId,
};

/// A way out. It never retries, never sleeps to pace itself and never touches the queue.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// The lane this message takes.
    fn lane(&self, message: &Message) -> LaneId;
    /// Octets that delivering it will send, as far as [`LaneLimits::upload`] counts them.
    fn upload(&self, _message: &Message, _recipients: &[Recipient]) -> u64 {
        0
    }
    /// One attempt; returns before `deadline`. Only the connector knows whether the last octet was sent: it says so there.
    async fn deliver(
        &self,
        message: &Message,
        recipients: &[Recipient],
        deadline: &Deadline,
    ) -> Report;
    /// Logs in and sends nothing: `check --connect`, and a paused lane's probe. The text says what was found.
    async fn probe(&self, deadline: Instant) -> Result<String, Obstacle>;
    /// Asks whether mail of these senders would be taken, without sending any: of each, as far as it can be known. Where all mail leaves from
    /// one mailbox, that one is asked for.
    async fn knock(&self, _mail: ExpectedMail<'_>, _deadline: Instant) -> Vec<Knock> {
        Vec::new()
    }
    /// The end is near: what waits in it for its turn goes back untouched.
    fn stop(&self) {}
    /// So many connections are its part of those that the upstream takes, from now on: what is above goes after its message.
    fn set_part(&self, _connections: usize) {}
    /// How many connections it has, where it keeps any.
    fn connections(&self) -> Option<Connections> {
        None
    }
    /// What it found out about its upstream and a restart should know.
    fn memory(&self, _now: SystemTime) -> Memory {
        Memory::default()
    }
    /// What an earlier run found out about the same upstream.
    fn recall(&self, _memory: &Memory, _now: SystemTime) {}
}

/// The mail that is to be expected of a connector.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedMail<'a> {
    /// From these.
    pub senders: &'a [Address],
    /// In octets, the most that is taken in.
    pub largest: u64,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knock {
    /// The largest mail that is taken in is larger than what the upstream takes.
    Narrow(String),
    /// Its mail would be taken.
    Open(String),
    /// Something was refused that need not be refused to mail: the word says what.
    Doubtful(String),
    /// Its mail would wait, or come back.
    Shut(String),
}

/// The connections of a connector at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Busy, idle and taking leave.
    pub open: usize,
    /// As many as may be open now.
    pub width: usize,
    /// `max_connections`.
    pub most: usize,
    /// What the upstream was found to take, if it refused more.
    pub learned: Option<usize>,
}

/// What a connector found out about its upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// How many connections it takes.
    pub learned: Option<Learned>,
    /// A message's commands behind the content of another confuse it; they are not tried again before this.
    pub not_early: Option<SystemTime>,
    /// There are connections at this moment.
    pub is_connected: bool,
}

/// A number of connections that an upstream was found to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// So many.
    pub connections: usize,
    /// Since then.
    pub since: SystemTime,
}

/// What a connector is given besides its settings.
#[derive(Clone, Default)]
pub struct Services {
    /// Gets the conversation.
    pub recorder: Option<Recorder>,
    /// Keeps rotated refresh tokens.
    pub token_store: Option<Arc<dyn TokenStore>>,
}

/// Where a connector puts its conversation when someone wants to read it (`postern test`); secrets already masked.
pub type Recorder = Arc<dyn Fn(&str) + Send + Sync>;
