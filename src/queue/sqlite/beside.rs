//! Rows beside the mail: the states of the lanes, and notes by name (what the gateway last said of itself, say).

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    op::Change,
    rows::{micros, time},
};
use crate::mail::outcome::LaneState;
use crate::queue::store::{LaneRow, NodeId};
use crate::route::LaneId;

pub(super) fn lanes(conn: &Connection) -> rusqlite::Result<Vec<LaneRow>> {
    conn.prepare_cached("SELECT lane, state, since, why, probe, version FROM lane ORDER BY lane")?
        .query_map([], |row| {
            Ok(LaneRow {
                lane: LaneId::parse(&row.get::<_, String>(0)?),
                state: LaneState::parse(&row.get::<_, String>(1)?),
                since: time(row.get(2)?),
                why: row.get(3)?,
                probe: row.get::<_, Option<i64>>(4)?.map(time),
                version: row.get::<_, i64>(5)? as u64,
                node: NodeId::default(),
            })
        })?
        .collect()
}

/// Whether it is written: nobody has written it since the version that it names.
pub(super) fn set_lane(change: &Change<'_>, lane: &LaneRow) -> rusqlite::Result<bool> {
    let (conn, name) = (change.conn, lane.lane.to_string());
    let found: Option<i64> = conn
        .prepare_cached("SELECT version FROM lane WHERE lane = ?1")?
        .query_row([&name], |row| row.get(0))
        .optional()?;
    let seen = i64::try_from(lane.version).unwrap_or(i64::MAX);
    if found.unwrap_or(0) != seen {
        return Ok(false);
    }
    // Of connectors there are few, of mailboxes as many as senders; one that is open again is like one never seen.
    if lane.state == LaneState::Open && lane.lane.mailbox.is_some() {
        conn.prepare_cached("DELETE FROM lane WHERE lane = ?1")?
            .execute([name])?;
        return Ok(true);
    }
    conn.prepare_cached("INSERT OR REPLACE INTO lane (lane, state, since, why, probe, version) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            name,
            lane.state.as_str(),
            micros(lane.since),
            lane.why,
            lane.probe.map(micros),
            seen + 1
        ])?;
    Ok(true)
}

pub(super) fn note(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM note WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

pub(super) fn replace_note(
    change: &Change<'_>,
    key: &str,
    seen: Option<&str>,
    value: &str,
) -> rusqlite::Result<bool> {
    let there = note(change.conn, key)?;
    let is_ours = there.as_deref() == seen || there.as_deref() == Some(value);
    if is_ours {
        set_note(change, key, value)?;
    }
    Ok(is_ours)
}

pub(super) fn set_note(change: &Change<'_>, key: &str, value: &str) -> rusqlite::Result<()> {
    change
        .conn
        .prepare_cached("INSERT OR REPLACE INTO note (key, value) VALUES (?1, ?2)")?
        .execute([key, value])
        .map(|_| ())
}
