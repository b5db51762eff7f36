//! What is known of one message: its entries and what happened to it.

use std::time::SystemTime;

use super::situation::Situation;
use crate::{
    mail::{message::MessageId, pattern::Pattern},
    queue::store::{Entry, Event, Filter, Store, StoreError},
    view::{self, EventView, Life, ShownMessage},
};

/// One message: what it is now, and what happened to it.
#[derive(Debug)]
pub struct History {
    /// Which.
    pub id: MessageId,
    /// One for each route.
    pub entries: Vec<Entry>,
    /// In their order.
    pub events: Vec<Event>,
}

impl History {
    /// Everything that the store knows of it; nothing of a message that is not there.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(
        store: &dyn Store,
        id: MessageId,
        now: SystemTime,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            id,
            entries: store.list(&Filter::of(id), now).await?,
            events: store.events(id).await?,
        })
    }

    /// Whether there is no such message.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.events.is_empty()
    }

    /// `<>` of a bounce, and of what is known by its events alone.
    pub fn sender(&self) -> String {
        let first = self.entries.first();
        first.map_or_else(|| "<>".to_owned(), view::sender)
    }

    /// As `trace` shows it.
    pub fn life(&self, situation: &Situation) -> Life {
        let entries = self.entries.iter();
        Life {
            id: self.id.to_string(),
            sender: self.sender(),
            events: self.events.iter().map(EventView::from).collect(),
            waits_for: entries.clone().find_map(|e| situation.waits(e)),
            entries: entries.map(|e| situation.view(e)).collect(),
        }
    }

    /// As `queue show` shows it; `header`: what is kept of it.
    pub fn shown(&self, situation: &Situation, header: Option<&[u8]>) -> ShownMessage {
        ShownMessage {
            entries: self.entries.iter().map(|e| situation.view(e)).collect(),
            header: header.map(|header| String::from_utf8_lossy(header).into_owned()),
            events: self.events.iter().map(EventView::from).collect(),
        }
    }
}

/// Every message from or to an address, oldest first.
///
/// # Errors
/// Those of the store.
pub async fn messages_of(
    store: &dyn Store,
    address: &Pattern,
    now: SystemTime,
) -> Result<Vec<MessageId>, StoreError> {
    let from = Filter {
        sender: Some(address.clone()),
        ..Filter::default()
    };
    let to = Filter {
        recipient: Some(address.clone()),
        ..Filter::default()
    };
    let mut ids = Vec::new();
    for filter in [from, to] {
        let entries = store.list(&filter, now).await?;
        ids.extend(entries.into_iter().map(|entry| entry.id));
    }
    // Ids sort by time.
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
