//! What is told, whatever the channel, and who carries what no channel can by itself: mail.

use std::{fmt, time::SystemTime};

use async_trait::async_trait;

use crate::{
    incident::catalogue::IncidentSeverity,
    mail::{address::Address, time::rfc3339},
    route::ConnectorName,
    view::IncidentView,
};

/// The transition that nothing else brings about.
pub const TEST: &str = "test";

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmMessage {
    /// The same for the same transition, however often it is said: `i42/3/opened`.
    pub key: String,
    /// `opened`, `reminded`, `recovered`, `test`.
    pub transition: String,
    /// The incident as it was.
    pub incident: IncidentView,
    /// Of this try.
    pub at: SystemTime,
}

impl AlarmMessage {
    /// One that says nothing but that it arrives.
    pub fn test(channel: &str, at: SystemTime, random: u64) -> Self {
        Self {
            key: format!("test/{random:016x}/{TEST}"),
            transition: TEST.to_owned(),
            incident: IncidentView {
                id: "i0".to_owned(),
                kind: TEST.to_owned(),
                object: channel.to_owned(),
                severity: IncidentSeverity::Info.as_str().to_owned(),
                state: "open".to_owned(),
                opened_at: rfc3339(at),
                last_seen_at: rfc3339(at),
                recovered_at: None,
                count: 1,
                cause: None,
                title: format!("A test of the channel {channel}: nothing has happened"),
                evidence: Vec::new(),
                causes: vec!["an operator asked for it".to_owned()],
                remedy: "Nothing is to be done. What needs somebody arrives here the same way."
                    .to_owned(),
                note: None,
                told: Vec::new(),
            },
            at,
        }
    }

    /// How bad it is.
    pub(super) fn severity(&self) -> IncidentSeverity {
        IncidentSeverity::parse(&self.incident.severity).unwrap_or(IncidentSeverity::Info)
    }
}

/// A mail about an incident: past the queue, whose trouble it may be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmLetter {
    /// To whom.
    pub to: Vec<Address>,
    /// By which connector. `None`: the first that is open.
    pub connector: Option<ConnectorName>,
    /// The connector that it is about, which it does not take.
    pub about: Option<ConnectorName>,
    /// The left side of its Message-ID, the same at each try.
    pub id: String,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// What a channel needs that it does not have itself.
#[async_trait]
pub trait Postman: Send + Sync + fmt::Debug {
    /// Hands a letter to a connector now.
    ///
    /// # Errors
    /// Why nobody took it.
    async fn post(&self, letter: AlarmLetter) -> Result<String, String>;
    /// A try was made.
    fn tried(&self, channel: &str, is_taken: bool);
}
