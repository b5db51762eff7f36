//! Lines in the lives of messages, gathered until they are written by one statement.

use super::{link::Spoken, values::clean};
use crate::{mail::message::MessageId, queue::event::EventKind};

const TELL: &str = "INSERT INTO event (message, at, kind, recipients, text, node)
    SELECT e.message, e.at, e.kind, e.recipients, e.text, $6::bigint
    FROM unnest($1::bytea[], $2::bigint[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
         AS e (message, at, kind, recipients, text, nth) ORDER BY e.nth";

/// Lines to be written together, of one node.
#[derive(Debug, Default)]
pub(super) struct LifeLines {
    messages: Vec<Vec<u8>>,
    at: Vec<i64>,
    kinds: Vec<&'static str>,
    recipients: Vec<String>,
    texts: Vec<String>,
    pub(super) node: i64,
}

impl LifeLines {
    /// Of a node; 0: of nobody's.
    pub(super) fn of(node: i64) -> Self {
        Self {
            node,
            ..Self::default()
        }
    }

    pub(super) fn add(
        &mut self,
        message: MessageId,
        at: i64,
        kind: EventKind,
        recipients: &[String],
        text: &str,
    ) {
        self.messages.push(message.to_bytes().to_vec());
        self.at.push(at);
        self.kinds.push(kind.as_str());
        self.recipients
            .push(clean(&recipients.join("\n")).into_owned());
        self.texts.push(clean(text).into_owned());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn spoken(&self) -> Spoken<'_> {
        (
            TELL,
            vec![
                &self.messages,
                &self.at,
                &self.kinds,
                &self.recipients,
                &self.texts,
                &self.node,
            ],
        )
    }
}
