//! Accepts and drops: load tests.
//!
//! For tests of the rest of the gateway, which want a connector that costs nothing. It keeps nothing.

use std::time::Instant;

use async_trait::async_trait;

use super::{deadline::Deadline, interface::Connector};
use crate::{
    mail::{
        message::Message,
        outcome::{Obstacle, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    route::{ConnectorName, LaneId},
};

/// `type = "discard"`.
#[derive(Debug)]
pub struct Discard {
    name: ConnectorName,
}

impl Discard {
    /// One of this name.
    pub fn new(name: ConnectorName) -> Self {
        Self { name }
    }
}

#[async_trait]
impl Connector for Discard {
    fn lane(&self, _message: &Message) -> LaneId {
        LaneId::of(&self.name)
    }

    async fn deliver(
        &self,
        _message: &Message,
        recipients: &[Recipient],
        _deadline: &Deadline,
    ) -> Report {
        let outcome = Outcome::Delivered(Reply::new(250, (2, 0, 0), "discarded"));
        Report::all(recipients, &outcome, "discard").at_its_end()
    }

    async fn probe(&self, _deadline: Instant) -> Result<String, Obstacle> {
        Ok("discards everything".into())
    }
}
