//! What a way out is to those who use it: the trait, the lane that a message takes, and what a connector is given.
//!
//! Apart from `mod.rs`, which knows the kinds: every connector needs this page, and none needs to know the others.

use std::{fmt, sync::Arc, time::Instant};

use async_trait::async_trait;

use super::oauth::TokenStore;
use crate::{
    mail::{
        message::Message,
        outcome::{Obstacle, Report},
        recipient::Recipient,
    },
    route::ConnectorName,
};

/// A way out. It never retries, never sleeps to pace itself and never touches the queue.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// The lane this message takes.
    fn lane(&self, message: &Message) -> Lane;
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

/// A lane: the connector, the mailbox that sends, and a From other than it. What is limited, closed and paused. It prints and
/// parses itself as `connector`, `connector/mailbox` or `connector/mailbox/from`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The connector.
    pub connector: ConnectorName,
    /// The mailbox, where the connector has several.
    pub mailbox: Option<String>,
    /// The From, where it is not the mailbox.
    pub from: Option<String>,
}

impl Lane {
    /// Of a connector as a whole.
    pub fn of(connector: &ConnectorName) -> Self {
        Self {
            connector: connector.clone(),
            mailbox: None,
            from: None,
        }
    }

    /// Of the mailbox, whatever the From.
    #[must_use]
    pub fn of_mailbox(&self) -> Self {
        Self {
            from: None,
            ..self.clone()
        }
    }

    /// From the way it displays.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let connector = parts.next().unwrap_or_default().into();
        let mut part = || {
            let part = parts.next()?;
            Some(part.replace("%2F", "/").replace("%25", "%"))
        };
        Self {
            connector,
            mailbox: part(),
            from: part(),
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.connector)?;
        for part in self.mailbox.iter().chain(&self.from) {
            // A local part may hold a slash.
            write!(f, "/{}", part.replace('%', "%25").replace('/', "%2F"))?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_print_and_parse() {
        for (mailbox, from, expected) in [
            (None, None, "up"),
            (Some("a@b.c"), None, "up/a@b.c"),
            (Some("a@b.c"), Some("d@e.f"), "up/a@b.c/d@e.f"),
            (
                Some("a/b%2F@c"),
                Some("%/%25"),
                "up/a%2Fb%252F@c/%25%2F%2525",
            ),
        ] {
            let lane = Lane {
                connector: "up".into(),
                mailbox: mailbox.map(str::to_owned),
                from: from.map(str::to_owned),
            };
            assert_eq!(lane.to_string(), expected);
            assert_eq!(Lane::parse(expected), lane);
        }
    }
}
