//! What was accepted is written down: a message, its content and its jobs become rows.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use rusqlite::params;

use super::{
    op::Change,
    rows::{
        self, BLOCK, HELD, IN_FILE, IN_TABLE, JOB_BITS, SENDING, WAITING, micros, origin_to_json,
    },
};
use crate::{
    mail::{
        message::{Body, Message},
        recipient::Recipient,
    },
    queue::{
        store::{Event, JobId, Start},
        turns::Pair,
        wishes,
    },
    route::Routed,
};

/// A message with its content and jobs, and its copies. `None`: the store has one of this id, and nothing is written.
pub(super) fn insert(
    change: &mut Change<'_>,
    mail: &Routed,
    starts: &[Start],
    now: SystemTime,
) -> rusqlite::Result<Option<Vec<JobId>>> {
    let jobs = insert_alone(change, mail, starts, now)?;
    if jobs.is_some() {
        for copy in &mail.copies {
            insert_alone(change, copy, &[], now)?;
        }
    }
    Ok(jobs)
}

/// The same without its copies.
pub(super) fn insert_alone(
    change: &mut Change<'_>,
    mail: &Routed,
    starts: &[Start],
    now: SystemTime,
) -> rusqlite::Result<Option<Vec<JobId>>> {
    let message = &mail.message;
    let conn = change.conn;
    if rows::key(conn, message.id)?.is_some() {
        return Ok(None);
    }
    let key = insert_message(change, message, (micros(now), None), None)?;
    let sender = message.envelope.sender.as_ref().map(ToString::to_string);
    let pair = Pair::of(&message.origin, sender.as_deref().unwrap_or_default());
    // The recipients of an only job are in the order of the envelope already.
    let order: HashMap<_, _> = match mail.jobs.as_slice() {
        [_] => HashMap::new(),
        _ => message
            .envelope
            .recipients
            .iter()
            .map(|recipient| &recipient.address)
            .zip(0_i64..)
            .collect(),
    };
    let mut extra = order.len() as i64;
    let mut jobs = Vec::with_capacity(mail.jobs.len());
    let mut insert_recipient = conn.prepare_cached(
        "INSERT INTO recipient (message, position, job, address, state) VALUES (?1, ?2, ?3, ?4, 0)",
    )?;
    for (at, ((route, recipients), job)) in mail.jobs.iter().zip(rows::job_ids(key).0..).enumerate()
    {
        let (state, lane) = match starts.get(at) {
            Some(Start::Now(..)) => (SENDING, None),
            Some(Start::In(lane)) => (WAITING, Some(lane)),
            Some(Start::Any) | None => (WAITING, None),
            Some(Start::Held(lane)) => (HELD, Some(lane)),
        };
        let lane = rows::lane(lane);
        let of = (route.as_str(), "", lane.as_str());
        insert_job(change, job, of, pair, state, micros(now), 0)?;
        for Recipient { address, .. } in recipients {
            let position = order.get(address).copied().unwrap_or_else(|| {
                extra += 1;
                extra
            });
            insert_recipient.execute(params![key, position, job, address.to_string()])?;
        }
        jobs.push(JobId(job));
    }
    Ok(Some(jobs))
}

/// The rows of a message, which is not there, and of its content; when it was accepted, and ended. `bare`: its octets, where its content
/// is no longer kept.
pub(super) fn insert_message(
    change: &mut Change<'_>,
    message: &Message,
    (accepted, ended): (i64, Option<i64>),
    bare: Option<u64>,
) -> rusqlite::Result<i64> {
    let (kept, body) = match (bare, &message.body) {
        (Some(_), _) => (0, None),
        (None, Body::Memory(bytes)) => (IN_TABLE, Some(bytes.as_ref())),
        (None, Body::Stored(_)) => (IN_FILE, None),
    };
    let conn = change.conn;
    conn.prepare_cached(
        "INSERT INTO message (id, accepted, sender, eight_bit, origin, size, body_len, kept, ended)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        message.id.to_bytes(),
        accepted,
        message.envelope.sender.as_ref().map(ToString::to_string),
        message.envelope.eight_bit,
        origin_to_json(&message.origin),
        bare.unwrap_or_else(|| message.size()) as i64,
        message.body.len() as i64,
        kept,
        ended
    ])?;
    if let (None, Body::Stored(body)) = (bare, &message.body) {
        change.keep.push(Arc::clone(body));
    }
    let key = conn.last_insert_rowid();
    // Apart, so that a message of which nothing is asked pays nothing for it.
    if let Some(wishes) = wishes::to_json(&message.envelope) {
        conn.prepare_cached("UPDATE message SET dsn = ?2, tell_late = ?3 WHERE key = ?1")?
            .execute(params![
                key,
                wishes,
                wishes::asks_of_delay(&message.envelope)
            ])?;
    }
    if key % BLOCK == 0 {
        // Replaced: numbers of rows that were deleted are given again.
        conn.prepare_cached(
            "INSERT OR REPLACE INTO message_id SELECT id, key FROM message WHERE key BETWEEN ?1 AND ?2",
        )?
        .execute([key - BLOCK + 1, key])?;
    }
    if bare.is_none() {
        // Replaced: of a damaged file, that of a message which is gone may still be there.
        conn.prepare_cached(
            "INSERT OR REPLACE INTO content (message, header, body) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![key, message.header.as_ref(), body])?;
    }
    Ok(key)
}

pub(super) fn insert_job(
    change: &Change<'_>,
    id: i64,
    (route, pinned, lane): (&str, &str, &str),
    pair: Pair,
    state: i64,
    due: i64,
    attempts: i64,
) -> rusqlite::Result<()> {
    let message = id >> JOB_BITS;
    change
        .conn
        .prepare_cached(
            "INSERT INTO job (id, message, route, pinned, state, due, attempts, lane, client, sender)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            id, message, route, pinned, state, due, attempts, lane, pair.client, pair.sender
        ])
        .map(|_| ())
}

/// A line in the life of a message.
pub(super) fn add_event(change: &Change<'_>, key: i64, event: &Event) -> rusqlite::Result<()> {
    change
        .conn
        .prepare_cached(
            "INSERT INTO event (message, at, kind, recipients, text) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            key,
            micros(event.at),
            event.kind.as_str(),
            event.recipients.join("\n"),
            event.text
        ])?;
    Ok(())
}
