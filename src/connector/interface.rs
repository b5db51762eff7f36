//! What a way out is to those who use it: the trait, the lane that a message takes, and what a connector is given.
//!
//! `mod.rs` knows the kinds; every connector needs this page, and none needs to know the others.

use std::{fmt, sync::Arc, time::Instant};

use async_trait::async_trait;

use super::oauth::TokenStore;
use crate::{
    mail::{
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
    /// Octets that delivering it will send, as far as [`Limits::upload`] counts them.
    fn upload(&self, _message: &Message, _recipients: &[Recipient]) -> u64 {
        0
    }
    /// One attempt; returns before `deadline`, since only the connector knows whether the last octet was sent.
    async fn deliver(
        &self,
        message: &Message,
        recipients: &[Recipient],
        deadline: Instant,
    ) -> Report;
    /// Logs in and sends nothing: `check --connect`, and a paused lane's probe. The text says what was found.
    async fn probe(&self, deadline: Instant) -> Result<String, Obstacle>;
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
