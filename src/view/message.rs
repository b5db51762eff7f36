//! A message: its entries and their recipients, and its life.

use serde::Serialize;

use crate::{
    mail::{recipient::Notify, time::rfc3339},
    queue::store,
};

/// A message on one route.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EntryView {
    /// Of the message.
    pub id: String,
    /// Its route.
    pub route: String,
    /// `waiting`, `sending`, `held`, `failed`, `done`.
    pub state: &'static str,
    /// `<>` of a bounce.
    pub sender: String,
    /// What its sender named it by (ENVID), as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// All of this route.
    pub recipients: Vec<RecipientView>,
    /// The most that any recipient has had.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt: Option<String>,
    /// The connector that is shut, when that is what it waits for.
    pub blocked_by: Option<String>,
    /// The lane whose turn it waits for.
    pub waits_for: Option<String>,
    /// What holds it, where that is no operator: `quota NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Octets.
    pub size: u64,
    /// When it was accepted.
    pub accepted_at: String,
    /// The message that it is a copy of, for the archive that the route names: `archive NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<String>,
    /// The gateway that took it in, where several share the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_by: Option<String>,
    /// The one that sends it, or sent some of it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_by: Option<String>,
}

/// An entry in a list, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ListedMessage {
    /// As `queue list` shows it.
    #[serde(flatten)]
    pub entry: EntryView,
    /// The `[[client]]` that sent it, by name.
    pub client: Option<String>,
    /// To be read; only where it was asked for and the message is still kept.
    pub subject: Option<String>,
}

/// A part of a list of messages.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FoundMessages {
    /// Newest first.
    pub items: Vec<ListedMessage>,
    /// Where it goes on. `None`: there is no more.
    pub next: Option<String>,
    /// The time was over: what was accepted before that was not looked at yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searched_to: Option<String>,
}

/// A recipient of an entry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RecipientView {
    /// As it is sent to.
    pub address: String,
    /// What became of it.
    pub state: &'static str,
    /// What the upstream said last.
    pub last_reply: Option<String>,
    /// What its sender wants to be told of, where it said so (NOTIFY): `never`, or some of `success`, `failure`, `delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<Vec<&'static str>>,
}

impl EntryView {
    /// Of the store's; `blocked_by` is the connector that it waits for.
    pub fn new(entry: &store::Entry, blocked_by: Option<String>) -> Self {
        let recipient = |r: &store::EntryRecipient| RecipientView {
            address: r.address.clone(),
            state: r.state.as_str(),
            last_reply: r.last_reply.clone(),
            notify: r.notify.map(Notify::words),
        };
        Self {
            id: entry.id.to_string(),
            route: entry.route.to_string(),
            state: entry.state.as_str(),
            sender: sender(entry),
            envid: entry.envid.clone(),
            recipients: entry.recipients.iter().map(recipient).collect(),
            attempts: entry.attempts,
            next_attempt: entry.next_attempt.map(rfc3339),
            blocked_by,
            waits_for: entry.lane.as_ref().map(ToString::to_string),
            held_by: entry.held_by.clone(),
            size: entry.size,
            accepted_at: rfc3339(entry.accepted),
            copy_of: entry.copy_of.map(|id| id.to_string()),
            accepted_by: entry.accepted_by.clone(),
            sent_by: entry.sent_by.clone(),
        }
    }
}

/// Who sent an entry, `<>` of a bounce.
pub fn sender(entry: &store::Entry) -> String {
    entry.sender.clone().unwrap_or_else(|| "<>".to_owned())
}

/// Something that happened to a message.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EventView {
    /// When.
    pub at: String,
    /// `accepted`, `delivered`, `deferred`, …
    pub event: String,
    /// To whom; empty: to all of them.
    pub recipients: Vec<String>,
    /// The words of it.
    pub text: String,
}

impl From<&store::Event> for EventView {
    fn from(event: &store::Event) -> Self {
        Self {
            at: rfc3339(event.at),
            event: event.kind.to_string(),
            recipients: event.recipients.clone(),
            text: event.text.clone(),
        }
    }
}

/// The life of a message.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Life {
    /// Of the message.
    pub id: String,
    /// `<>` of a bounce, and of what is known by its events alone.
    pub sender: String,
    /// In their order.
    pub events: Vec<EventView>,
    /// On each route.
    pub entries: Vec<EntryView>,
    /// In a sentence, if it is not finished.
    pub waits_for: Option<String>,
}

/// `postern queue show`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ShownMessage {
    /// On each route.
    pub entries: Vec<EntryView>,
    /// As it is kept. `None`: it is no longer.
    pub header: Option<String>,
    /// In their order.
    pub events: Vec<EventView>,
}
