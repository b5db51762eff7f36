//! Rows to values and back: times, states, the origin, a whole message. What a number in the database means is said here and
//! nowhere else. It decides nothing and writes nothing.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};

pub(super) use crate::mail::time::{from_micros as time, micros};
pub(super) use crate::queue::coded::{
    FAILED, HELD, SENDING, WAITING, before, client_of, copy_of, lane, origin_from_json,
    origin_to_json, recipient_state, recipient_state_number, some, state, state_number,
};
use crate::{
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId},
        recipient::Recipient,
    },
    queue::{body::BodyStore, store::RecipientState, wishes::KeptWishes},
};

/// The jobs of a message have the ids from `message << JOB_BITS` on: see `sqlite.sql`.
pub(super) const JOB_BITS: i64 = 20;

/// The ids that the jobs of a message can have, first and last.
pub(super) fn job_ids(message: i64) -> (i64, i64) {
    let first = message << JOB_BITS;
    (first, first | ((1 << JOB_BITS) - 1))
}

/// So many messages come into `message_id` at once.
pub(super) const BLOCK: i64 = 16;

/// [`key`], which is asked with every message; [`BLOCK`] stands in it as a number.
const KEY: &str = "SELECT coalesce((SELECT message FROM message_id WHERE id = ?1),
           (SELECT key FROM message WHERE key > (SELECT max(key) FROM message) / 16 * 16 AND id = ?1))";
const _: () = assert!(BLOCK == 16);

/// The key of a message, if there is one of this id.
pub(super) fn key(conn: &Connection, id: MessageId) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(KEY)?
        .query_row([id.to_bytes()], |row| row.get(0))
}

/// `message.kept`.
pub(super) const IN_TABLE: i64 = 1;
pub(super) const IN_FILE: i64 = 2;

/// Why a message could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The row or the file is damaged; the others are not.
    Broken(String),
    /// The database cannot be read at all.
    Store(rusqlite::Error),
}

impl From<rusqlite::Error> for Unread {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        match &error {
            // One damaged page breaks one message, as far as anyone can tell.
            Error::SqliteFailure(e, _) if e.code != ErrorCode::DatabaseCorrupt => {
                Self::Store(error)
            }
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// A recipient of a message, its job and its state.
pub(super) struct RecipientRow {
    pub(super) recipient: Recipient,
    pub(super) job: i64,
    pub(super) state: RecipientState,
}

/// A message, and its recipients with their states.
pub(super) type Loaded = (Arc<Message>, Vec<RecipientRow>);

/// A message as long as its content is kept, with its recipients in the order of the envelope.
pub(super) fn load(
    conn: &Connection,
    key: i64,
    bodies: &BodyStore,
) -> Result<Option<Loaded>, Unread> {
    let broken = |what: &str| Unread::Broken(what.to_owned());
    let row = conn
        .prepare_cached(
            "SELECT m.id, m.sender, m.eight_bit, m.origin, m.body_len, m.kept, c.header, c.body, m.dsn
             FROM message m LEFT JOIN content c ON c.message = m.key WHERE m.key = ?1",
        )?
        .query_row([key], |row| {
            Ok((
                row.get::<_, [u8; 16]>(0)?,
                row.get::<_, Option<String>>(1)?,
                row.get::<_, bool>(2)?,
                row.get::<_, String>(3)?,
                row.get::<_, i64>(4)?,
                row.get::<_, i64>(5)?,
                row.get::<_, Option<Vec<u8>>>(6)?,
                row.get::<_, Option<Vec<u8>>>(7)?,
                row.get::<_, Option<String>>(8)?,
            ))
        })
        .optional()?;
    let Some((id, sender, eight_bit, origin, body_len, kept, header, body, dsn)) = row else {
        return Ok(None);
    };
    if kept != IN_TABLE && kept != IN_FILE {
        return Ok(None);
    }
    let id = MessageId::from_bytes(id);
    let header = header.ok_or_else(|| broken("its content is missing"))?;
    let body_len = u64::try_from(body_len).unwrap_or(0);
    let body = if kept == IN_FILE {
        bodies.stored(id, body_len).map_err(Unread::Broken)?
    } else {
        let body = body.ok_or_else(|| broken("its body is missing"))?;
        if body.len() as u64 != body_len {
            return Err(broken("its body has another length than its row says"));
        }
        Body::Memory(body.into())
    };
    let wishes = KeptWishes::read(dsn.as_deref());
    let recipients = conn
        .prepare_cached(
            "SELECT address, job, state FROM recipient WHERE message = ?1 ORDER BY position",
        )?
        .query_map([key], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        })?
        .map(|row| {
            let (address, job, state) = row?;
            let dsn = wishes.of(&address);
            let address = Address::parse(&address).map_err(|e| Unread::Broken(e.to_string()))?;
            Ok(RecipientRow {
                recipient: Recipient { address, dsn },
                job,
                state: recipient_state(state),
            })
        })
        .collect::<Result<Vec<_>, Unread>>()?;
    let message = Message {
        id,
        envelope: Envelope {
            sender: sender
                .map(|text| Address::parse(&text))
                .transpose()
                .map_err(|e| Unread::Broken(e.to_string()))?,
            recipients: recipients.iter().map(|r| r.recipient.clone()).collect(),
            eight_bit,
            dsn: wishes.of_message(),
        },
        origin: origin_from_json(&origin).ok_or_else(|| broken("its origin cannot be read"))?,
        header: header.into(),
        body,
    };
    Ok(Some((Arc::new(message), recipients)))
}
