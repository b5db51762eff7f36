//! Whose senders are to be told that it takes long: found by an index that has nobody else in it, and told in one transaction with the
//! word that they were. How long is long, delivery says.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    insert::{add_event, insert},
    op::Change,
    rows::{self, micros},
};
use crate::{mail::message::MessageId, queue::store::LateNotice};

/// What is on its way into another store is the other one's to tell.
const LATE: &str = "SELECT id FROM message m INDEXED BY message_late
     WHERE tell_late = 1 AND accepted <= ?1
       AND EXISTS (SELECT 1 FROM job j WHERE j.id BETWEEN m.key << 20 AND (m.key << 20) + 1048575 AND +j.state < 3)
     ORDER BY accepted LIMIT ?2";
const TELL: &str = "UPDATE message SET tell_late = 0 WHERE key = ?1 AND tell_late = 1
       AND EXISTS (SELECT 1 FROM job j WHERE j.id BETWEEN ?1 << 20 AND (?1 << 20) + 1048575 AND +j.state < 3)";

pub(super) fn late(
    conn: &Connection,
    by: SystemTime,
    limit: usize,
) -> rusqlite::Result<Vec<MessageId>> {
    conn.prepare_cached(LATE)?
        .query_map(params![micros(by), limit as i64], |row| {
            row.get(0).map(MessageId::from_bytes)
        })?
        .collect()
}

pub(super) fn tell(
    change: &mut Change<'_>,
    notice: &LateNotice,
    now: SystemTime,
) -> rusqlite::Result<bool> {
    let Some(key) = rows::key(change.conn, notice.message)? else {
        return Ok(false);
    };
    if change.conn.prepare_cached(TELL)?.execute([key])? == 0 {
        return Ok(false);
    }
    for report in &notice.reports {
        insert(change, report, &[], now)?;
    }
    if let Some(event) = &notice.event {
        add_event(change, key, event)?;
    }
    Ok(true)
}

/// Of a message that came from another store: whether that is still to be done.
pub(super) fn is_left(change: &Change<'_>, key: i64, tells_late: bool) -> rusqlite::Result<()> {
    let is: Option<bool> = change
        .conn
        .prepare_cached("SELECT tell_late FROM message WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    if is != Some(tells_late) {
        change
            .conn
            .prepare_cached("UPDATE message SET tell_late = ?2 WHERE key = ?1")?
            .execute(params![key, tells_late])?;
    }
    Ok(())
}
