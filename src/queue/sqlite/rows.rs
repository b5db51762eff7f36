//! Rows to values and back: times, states, the origin, a whole message. What a number in the database means is said here and
//! nowhere else. It decides nothing and writes nothing.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

pub(super) use crate::mail::time::{from_micros as time, micros};
use crate::{
    mail::{
        address::Address,
        message::{Body, Envelope, Message, MessageId, Origin},
        recipient::Recipient,
    },
    queue::{
        body::BodyStore,
        store::{JobState, RecipientState},
    },
    route::LaneId,
};

/// `job.state`: smaller is less finished, so the state of an entry is the least of its jobs'.
pub(super) const SENDING: i64 = 0;
pub(super) const HELD: i64 = 1;
pub(super) const WAITING: i64 = 2;
pub(super) const FAILED: i64 = 3;
/// Of an entry without a job: there is no row with it.
const DONE: i64 = 4;

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

/// `recipient.state`; the first two are open.
const RECIPIENT_STATES: [RecipientState; 5] = [
    RecipientState::Waiting,
    RecipientState::InDoubt,
    RecipientState::Failed,
    RecipientState::Done,
    RecipientState::Dropped,
];

pub(super) fn recipient_state(number: i64) -> RecipientState {
    usize::try_from(number)
        .ok()
        .and_then(|at| RECIPIENT_STATES.get(at).copied())
        .unwrap_or(RecipientState::Done)
}

pub(super) fn recipient_state_number(state: RecipientState) -> i64 {
    match state {
        RecipientState::Waiting => 0,
        RecipientState::InDoubt => 1,
        RecipientState::Failed => 2,
        RecipientState::Done => 3,
        RecipientState::Dropped => 4,
    }
}

/// A column in which nothing is an empty text.
pub(super) fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// `message.kept`.
pub(super) const IN_TABLE: i64 = 1;
pub(super) const IN_FILE: i64 = 2;

pub(super) fn state_number(state: JobState) -> i64 {
    match state {
        JobState::Sending => SENDING,
        JobState::Held => HELD,
        JobState::Waiting => WAITING,
        JobState::Failed => FAILED,
        JobState::Done => DONE,
    }
}

pub(super) fn state(number: i64) -> JobState {
    match number {
        SENDING => JobState::Sending,
        HELD => JobState::Held,
        WAITING => JobState::Waiting,
        FAILED => JobState::Failed,
        _ => JobState::Done,
    }
}

/// `job.lane`; empty: it waits for none.
pub(super) fn lane(lane: Option<&LaneId>) -> String {
    lane.map_or_else(String::new, ToString::to_string)
}

/// Microseconds since 1970; a time before or absurdly far behind it becomes the nearest one that fits.
/// `now - back`, in microseconds.
pub(super) fn before(now: SystemTime, back: Duration) -> i64 {
    micros(now).saturating_sub(i64::try_from(back.as_micros()).unwrap_or(i64::MAX))
}

/// [`Origin`] as its column has it.
#[derive(Serialize, Deserialize)]
struct OriginRow<'a> {
    listener: Cow<'a, str>,
    peer: SocketAddr,
    client: Option<Cow<'a, str>>,
    helo: Cow<'a, str>,
    tls: bool,
    esmtp: bool,
    user: Option<Cow<'a, str>>,
    at: i64,
}

pub(super) fn origin_to_json(origin: &Origin) -> String {
    let row = OriginRow {
        listener: Cow::Borrowed(&origin.listener),
        peer: origin.peer,
        client: origin.client.as_deref().map(Cow::Borrowed),
        helo: Cow::Borrowed(&origin.helo),
        tls: origin.tls,
        esmtp: origin.esmtp,
        user: origin.user.as_deref().map(Cow::Borrowed),
        at: micros(origin.at),
    };
    // It has no part that cannot be written as JSON.
    serde_json::to_string(&row).unwrap_or_default()
}

pub(super) fn origin_from_json(text: &str) -> Option<Origin> {
    let row: OriginRow<'_> = serde_json::from_str(text).ok()?;
    Some(Origin {
        listener: row.listener.into_owned(),
        peer: row.peer,
        client: row.client.map(Cow::into_owned),
        helo: row.helo.into_owned(),
        tls: row.tls,
        esmtp: row.esmtp,
        user: row.user.map(Cow::into_owned),
        at: time(row.at),
    })
}

/// The client's name in a column of origins; nothing else of it is read.
pub(super) fn client_of(origin: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct ClientRow<'a> {
        #[serde(borrow)]
        client: Option<Cow<'a, str>>,
    }
    let row: ClientRow<'_> = serde_json::from_str(origin).ok()?;
    row.client.map(Cow::into_owned)
}

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
            "SELECT m.id, m.sender, m.eight_bit, m.origin, m.body_len, m.kept, c.header, c.body
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
            ))
        })
        .optional()?;
    let Some((id, sender, eight_bit, origin, body_len, kept, header, body)) = row else {
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
    let recipients = conn
        .prepare_cached(
            "SELECT address, job, state FROM recipient WHERE message = ?1 ORDER BY position",
        )?
        .query_map([key], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        })?
        .map(|row| {
            let (address, job, state) = row?;
            let address = Address::parse(&address).map_err(|e| Unread::Broken(e.to_string()))?;
            Ok(RecipientRow {
                recipient: address.into(),
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
        },
        origin: origin_from_json(&origin).ok_or_else(|| broken("its origin cannot be read"))?,
        header: header.into(),
        body,
    };
    Ok(Some((Arc::new(message), recipients)))
}
