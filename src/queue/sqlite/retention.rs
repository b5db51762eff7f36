//! How it ends: a job that is done, a message whose jobs have ended, and what retention no longer keeps.
//!
//! What is deleted here is the content first, and the history long after it.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    op::Change,
    rows::{self, FAILED, IN_FILE, JOB_BITS, micros},
};
use crate::mail::message::MessageId;

/// A job without anything left to do: its recipients keep what a list says of it.
pub(super) fn done(
    change: &Change<'_>,
    id: i64,
    route: &str,
    attempts: i64,
) -> rusqlite::Result<()> {
    let conn = change.conn;
    conn.prepare_cached(
        "UPDATE recipient SET route = ?3, attempts = ?4 WHERE message = ?1 AND job = ?2",
    )?
    .execute(params![id >> JOB_BITS, id, route, attempts])?;
    conn.prepare_cached("DELETE FROM job WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Ends a message whose jobs have all ended; without a failed recipient its content goes at once. `known`: its id and
/// `kept`, from whoever has read them.
pub(super) fn close(
    change: &mut Change<'_>,
    key: i64,
    known: Option<(MessageId, i64)>,
    now: SystemTime,
) -> rusqlite::Result<()> {
    let (first, last) = rows::job_ids(key);
    let least: Option<i64> = change
        .conn
        .prepare_cached("SELECT min(state) FROM job WHERE id BETWEEN ?1 AND ?2")?
        .query_row([first, last], |row| row.get(0))?;
    match least {
        None => discard(change, key, known, Some(now)),
        Some(FAILED) => change
            .conn
            .prepare_cached("UPDATE message SET ended = ?2 WHERE key = ?1 AND ended IS NULL")?
            .execute([key, micros(now)])
            .map(|_| ()),
        _ => Ok(()),
    }
}

/// Deletes the content of a message; the history stays. It `ended` then, if it has not before.
pub(super) fn discard(
    change: &mut Change<'_>,
    key: i64,
    known: Option<(MessageId, i64)>,
    ended: Option<SystemTime>,
) -> rusqlite::Result<()> {
    let known = match known {
        Some(known) => Some(known),
        None => change
            .conn
            .prepare_cached("SELECT id, kept FROM message WHERE key = ?1")?
            .query_row([key], |row| {
                Ok((MessageId::from_bytes(row.get(0)?), row.get(1)?))
            })
            .optional()?,
    };
    let Some((id, kept)) = known else {
        return Ok(());
    };
    if kept == IN_FILE {
        change.remove.push(id);
    }
    // In a damaged file to delete one body may touch the damage in another; that what was delivered is written down as
    // delivered matters more, else nothing would be sent any more.
    if !change.damaged {
        change
            .conn
            .prepare_cached("DELETE FROM content WHERE message = ?1")?
            .execute([key])?;
    }
    change
        .conn
        .prepare_cached("UPDATE message SET kept = 0, ended = coalesce(ended, ?2) WHERE key = ?1")?
        .execute(params![key, ended.map(micros)])?;
    Ok(())
}

/// Messages that are deleted in one transaction: mail waits for it.
pub(super) const STEP: usize = 200;
/// Rows that are looked at in one step, for which nobody waits.
const LOOK: i64 = 10_000;

/// Deletes what failed and was kept long enough, some of it: a line for each message, and whether there may be more.
pub(super) fn prune_failed(
    change: &mut Change<'_>,
    before: i64,
    now: SystemTime,
) -> rusqlite::Result<(Vec<String>, bool)> {
    let conn = change.conn;
    // By a clock that was ahead: its time begins now.
    conn.prepare_cached(
        "UPDATE message SET ended = ?1 WHERE ended IS NOT NULL AND kept > 0 AND ended > ?1",
    )?
    .execute([micros(now)])?;
    let failed: Vec<(i64, [u8; 16], Option<String>)> = conn
        .prepare_cached(
            "SELECT key, id, sender FROM message WHERE ended IS NOT NULL AND kept > 0 AND ended <= ?1 LIMIT ?2",
        )?
        .query_map([before, STEP as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut lines = Vec::new();
    for (key, id, sender) in &failed {
        let to: Vec<String> = conn
            .prepare_cached(
                "SELECT address FROM recipient WHERE message = ?1 AND state = 2 ORDER BY position LIMIT 5",
            )?
            .query_map([key], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        lines.push(format!(
            "{} from <{}> to {}: failed, kept long enough, deleted",
            MessageId::from_bytes(*id),
            sender.as_deref().unwrap_or_default(),
            to.join(", ")
        ));
        let (first, last) = rows::job_ids(*key);
        let jobs: Vec<(i64, String, i64)> = conn
            .prepare_cached("SELECT id, route, attempts FROM job WHERE id BETWEEN ?1 AND ?2")?
            .query_map([first, last], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        for (job, route, attempts) in jobs {
            done(change, job, &route, attempts)?;
        }
        conn.prepare_cached(
            "INSERT INTO event (message, at, kind, recipients, text) VALUES (?1, ?2, 'deleted', '', 'kept long enough in failed')",
        )?
        .execute([*key, micros(now)])?;
        discard(change, *key, None, None)?;
    }
    Ok((lines, failed.len() == STEP))
}

/// The keys of messages that ended long enough ago, among some with keys greater than this one; and the key to go on from, if
/// there may be more. They stand in the order in which they were accepted, so the first that was accepted too late ends the search:
/// nothing behind it can have ended earlier. (One from the future does not: a clock was wrong then; what stands behind it is found a
/// little later.)
pub(super) fn over(conn: &Connection, from: i64, before: i64, now: i64) -> rusqlite::Result<Over> {
    let mut statement = conn.prepare_cached(
        "SELECT key, accepted, kept = 0 AND ended IS NOT NULL AND ended <= ?3,
                kept = 0 AND coalesce(ended > ?4, 0) FROM message
         WHERE key > ?1 ORDER BY key LIMIT ?2",
    )?;
    let mut looked = statement.query([from, LOOK, before, now])?;
    let (mut over, mut last, mut count) = (Over::default(), from, 0);
    while let Some(row) = looked.next()? {
        let accepted: i64 = row.get(1)?;
        if row.get(3)? {
            over.ahead.push(row.get(0)?);
        }
        if before < accepted && accepted <= now {
            return Ok(over);
        }
        (last, count) = (row.get(0)?, count + 1);
        if row.get(2)? {
            over.keys.push(last);
        }
    }
    over.next = (count == LOOK).then_some(last);
    Ok(over)
}

/// What [`over`] found.
#[derive(Debug, Default)]
pub(super) struct Over {
    /// Messages that ended long enough ago.
    pub(super) keys: Vec<i64>,
    /// Messages that ended in the future: by a clock that was ahead.
    pub(super) ahead: Vec<i64>,
    /// Where to go on.
    pub(super) next: Option<i64>,
}

/// Forgets messages, as far as they are still over (what failed is only forgotten when it is no longer kept).
pub(super) fn forget(change: &mut Change<'_>, keys: &[i64], before: i64) -> rusqlite::Result<()> {
    let conn = change.conn;
    for key in keys {
        let id: Option<[u8; 16]> = conn
            .prepare_cached("SELECT id FROM message WHERE key = ?1 AND kept = 0 AND ended <= ?2")?
            .query_row([*key, before], |row| row.get(0))
            .optional()?;
        let Some(id) = id else { continue };
        for table in ["content", "event", "recipient"] {
            // In a damaged file to delete a body may touch the damage in another.
            if table == "content" && change.damaged {
                continue;
            }
            conn.prepare_cached(&format!("DELETE FROM {table} WHERE message = ?1"))?
                .execute([key])?;
        }
        conn.prepare_cached("DELETE FROM message_id WHERE id = ?1")?
            .execute([id])?;
        conn.prepare_cached("DELETE FROM message WHERE key = ?1")?
            .execute([key])?;
    }
    Ok(())
}
