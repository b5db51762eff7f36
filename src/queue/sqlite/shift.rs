//! The wall clock was set: every time that still matters moves with it.
//!
//! It is done some messages at a time, since mail
//! waits for each transaction; how far it came stands beside them, so that a crash moves nothing twice.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::{
    beside::{note, set_note},
    op::Change,
    rows::{self, JOB_BITS, micros},
};
use crate::queue::store::{CLOCK, Shift};

/// Messages that are moved in one transaction.
const MOVED: i64 = 1_000;
/// What was written while the clock was being looked at.
const MEANWHILE: i64 = 10_000_000;
/// How far it came, as long as it is not done.
const PROGRESS: &str = "shift";

#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    by: i64,
    since: i64,
    now: i64,
    latest: i64,
    /// The message that was moved last, and the one that is the last.
    at: i64,
    last: i64,
}

/// Whether there is anything to do: something to go on with, a step, or something that lies in the future.
pub(super) fn is_needed(conn: &Connection, shift: Option<&Shift>) -> rusqlite::Result<bool> {
    let Some(shift) = shift else {
        return Ok(note(conn, PROGRESS)?.is_some());
    };
    if shift.by != 0 {
        return Ok(true);
    }
    let now = micros(shift.now);
    let found: Option<i64> = conn
        .prepare_cached(&format!("SELECT j.id FROM job j WHERE {AHEAD} LIMIT 1"))?
        .query_row(
            params![latest(shift), now.saturating_add(MEANWHILE)],
            |row| row.get(0),
        )
        .optional()?;
    Ok(found.is_some())
}

/// Jobs that wait for too long, or came in the future: `?1` and `?2` are the latest times that can be right.
const AHEAD: &str = "(j.due > ?1 OR (SELECT accepted FROM message WHERE key = j.message) > ?2)";

fn latest(shift: &Shift) -> i64 {
    let longest = i64::try_from(shift.longest.as_micros()).unwrap_or(i64::MAX);
    micros(shift.now).saturating_add(longest)
}

/// Notes what is to be done, and moves the lanes.
pub(super) fn begin(change: &mut Change<'_>, shift: &Shift) -> rusqlite::Result<()> {
    let conn = change.conn;
    let now = micros(shift.now);
    let progress = Progress {
        by: shift.by,
        since: micros(shift.since),
        now,
        latest: latest(shift),
        at: 0,
        last: conn.query_row("SELECT coalesce(max(key), 0) FROM message", [], |row| {
            row.get(0)
        })?,
    };
    conn.execute(
        &format!(
            "UPDATE lane SET since = {}, probe = {}",
            moved("since", "?3"),
            moved("probe", "?5")
        ),
        params![progress.by, progress.since, now, MEANWHILE, progress.latest],
    )?;
    set_note(change, CLOCK, &shift.note)?;
    save(change, &progress)
}

/// Some more of it; whether there may still be more.
pub(super) fn go_on(change: &mut Change<'_>) -> rusqlite::Result<bool> {
    let conn = change.conn;
    let found = note(conn, PROGRESS)?;
    let Some(mut progress) = found.and_then(|text| serde_json::from_str::<Progress>(&text).ok())
    else {
        return Ok(false);
    };
    // Only what is not over has jobs. Where nothing moves, only what lies in the future is looked for.
    let which = if progress.by == 0 {
        AHEAD
    } else {
        "?1 = ?1 AND ?2 = ?2"
    };
    let keys: Vec<i64> = conn
        .prepare_cached(&format!(
            "SELECT DISTINCT j.message FROM job j WHERE {which} AND j.id >= ?3 AND j.id <= ?4 ORDER BY j.id LIMIT ?5"
        ))?
        .query_map(
            params![
                progress.latest,
                progress.now.saturating_add(MEANWHILE),
                rows::job_ids(progress.at).1.saturating_add(1),
                rows::job_ids(progress.last).1,
                MOVED
            ],
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    for key in &keys {
        message(change, *key, &progress)?;
    }
    match keys.last() {
        Some(last) if keys.len() as i64 == MOVED => {
            progress.at = *last;
            save(change, &progress)?;
            Ok(true)
        }
        _ => {
            conn.execute("DELETE FROM note WHERE key = ?1", [PROGRESS])?;
            Ok(false)
        }
    }
}

/// A time after the step: `?1` by how much, `?2` to `?3` (and `?4` later) is the new clock's own.
fn moved(column: &str, latest: &str) -> String {
    format!(
        "CASE WHEN {column} BETWEEN ?2 AND ?3 + ?4 THEN min({column}, {latest}) ELSE min({column} + ?1, {latest}) END"
    )
}

fn message(change: &Change<'_>, key: i64, progress: &Progress) -> rusqlite::Result<()> {
    let conn = change.conn;
    let Progress {
        by,
        since,
        now,
        latest,
        ..
    } = *progress;
    let accepted: Option<i64> = conn
        .prepare_cached("SELECT accepted FROM message WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    let Some(accepted) = accepted else {
        return Ok(());
    };
    if by < 0 && (since..=now.saturating_add(MEANWHILE)).contains(&accepted) {
        return Ok(());
    }
    let (first, last) = rows::job_ids(key);
    debug_assert_eq!(first >> JOB_BITS, key);
    // What waits for its turn is due since it was accepted, and stays in its place in the line. After a step forward what is
    // due after the last look at the old clock may have been written by the new one: at worst it is tried a little early.
    let due = if by > 0 {
        "CASE WHEN due >= ?2 THEN min(due, ?5) ELSE min(due + ?1, ?5) END".to_owned()
    } else {
        moved("due", "?5")
    };
    let own = moved("?8", "?3");
    conn.prepare_cached(&format!(
        "UPDATE job SET due = CASE WHEN due = ?8 THEN {own} ELSE {due} END WHERE id BETWEEN ?6 AND ?7"
    ))?
    .execute(params![by, since, now, MEANWHILE, latest, first, last, accepted])?;
    let by_now = |column: &str| moved(column, "?3");
    for statement in [
        format!(
            "UPDATE message SET accepted = {}, ended = {} WHERE key = ?5",
            by_now("accepted"),
            by_now("ended")
        ),
        format!("UPDATE event SET at = {} WHERE message = ?5", by_now("at")),
        format!(
            "UPDATE recipient SET at = {} WHERE message = ?5",
            by_now("at")
        ),
    ] {
        conn.prepare_cached(&statement)?
            .execute(params![by, since, now, MEANWHILE, key])?;
    }
    Ok(())
}

fn save(change: &Change<'_>, progress: &Progress) -> rusqlite::Result<()> {
    let text = serde_json::to_string(progress).unwrap_or_default();
    set_note(change, PROGRESS, &text)
}

/// Nothing can have ended in the future: what retention finds there has ended now.
pub(super) fn ended_now(change: &Change<'_>, keys: &[i64], now: i64) -> rusqlite::Result<()> {
    for key in keys {
        change
            .conn
            .prepare_cached("UPDATE message SET ended = min(ended, ?2) WHERE key = ?1")?
            .execute([*key, now])?;
    }
    Ok(())
}
