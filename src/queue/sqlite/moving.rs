//! Messages that go into another store: they are marked, so that nobody here sends what may be there already, and deleted once they are.

use rusqlite::{OptionalExtension as _, Row, params};

use super::{
    SqliteStore,
    op::Change,
    rows::{self, FAILED, IN_FILE, JOB_BITS, SENDING, Unread, recipient_state, some, state, time},
};
use crate::{
    mail::message::MessageId,
    queue::{
        body::BodyStore,
        coded::ON_ITS_WAY,
        event::{Event, EventKind},
        moving::{MovingJob, MovingMessage, MovingRecipient},
        store::StoreError,
        turns::Pair,
    },
    route::{ConnectorName, LaneId, RouteName},
};

impl SqliteStore {
    /// Messages that nobody is sending, the oldest first, at most so many: on their way into another store from now on, so sent by
    /// nobody here until they [stay](Self::stay), also after a restart. `after`: behind this place, which is said for the next call.
    ///
    /// # Errors
    /// [`StoreError`]. One that cannot be read stays where it is, and is told in the log.
    pub async fn leave(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<(Vec<MovingMessage>, Option<i64>), StoreError> {
        let keys = self.write(move |change| mark(change, after, limit)).await?;
        let (last, bodies) = (keys.last().copied(), self.bodies.clone());
        let read_all = move |conn: &rusqlite::Connection| {
            let mut all = Vec::new();
            for key in &keys {
                match read(conn, *key, &bodies) {
                    Ok(Some(message)) => all.push(message),
                    Ok(None) => {}
                    Err(Unread::Broken(why)) => {
                        tracing::error!(
                            message = *key,
                            why,
                            "a queued message cannot be read and stays in queue.db"
                        );
                    }
                    Err(Unread::Store(error)) => return Err(error),
                }
            }
            Ok(all)
        };
        Ok((self.readers.query(read_all).await?, last))
    }

    /// Forgets messages that have arrived in the other store.
    ///
    /// # Errors
    /// [`StoreError`]: they are still here, and on their way.
    pub async fn left(&self, ids: Vec<MessageId>) -> Result<(), StoreError> {
        self.write(move |change| forget(change, &ids)).await
    }

    /// What is on its way and has not left is this store's to send again: how many jobs. Only where the other one certainly has none
    /// of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stay(&self) -> Result<usize, StoreError> {
        self.write(|change| stay(change)).await
    }
}

/// The message behind this job, by the jobs' own order.
const NEXT: &str = "SELECT message FROM job WHERE id > ?1 ORDER BY id LIMIT 1";
const IS_SENT: &str = "SELECT 1 FROM job WHERE id BETWEEN ?1 AND ?2 AND state = ?3";
const MARK: &str = "UPDATE job SET state = state + ?3 WHERE id BETWEEN ?1 AND ?2 AND state < ?3";

/// Marks some that nobody is sending, the oldest first, and says their keys. They are sent by nobody until they are deleted or stay;
/// those that a crash left on their way are among them.
pub(super) fn mark(change: &Change<'_>, after: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    let conn = change.conn;
    let (mut next, mut is_sent) = (conn.prepare_cached(NEXT)?, conn.prepare_cached(IS_SENT)?);
    let mut mark = conn.prepare_cached(MARK)?;
    let (mut keys, mut looked) = (Vec::new(), rows::job_ids(after).1);
    while keys.len() < limit
        && let Some(key) = next
            .query_row([looked], |row| row.get::<_, i64>(0))
            .optional()?
    {
        let (first, last) = rows::job_ids(key);
        looked = last;
        if is_sent.exists([first, last, SENDING])? {
            continue;
        }
        mark.execute([first, last, ON_ITS_WAY])?;
        keys.push(key);
    }
    Ok(keys)
}

/// Those on their way stay after all.
pub(super) fn stay(change: &Change<'_>) -> rusqlite::Result<usize> {
    change
        .conn
        .prepare_cached("UPDATE job SET state = state - ?1 WHERE state >= ?1")?
        .execute([ON_ITS_WAY])
}

/// Deletes what has arrived, history and all: it goes on there.
pub(super) fn forget(change: &mut Change<'_>, ids: &[MessageId]) -> rusqlite::Result<()> {
    let conn = change.conn;
    for id in ids {
        let Some(key) = rows::key(conn, *id)? else {
            continue;
        };
        let (first, last) = rows::job_ids(key);
        let kept: Option<i64> = conn
            .prepare_cached("SELECT kept FROM message WHERE key = ?1")?
            .query_row([key], |row| row.get(0))
            .optional()?;
        if kept == Some(IN_FILE) {
            change.remove.push(*id);
        }
        conn.prepare_cached("DELETE FROM job WHERE id BETWEEN ?1 AND ?2")?
            .execute([first, last])?;
        for table in [
            "DELETE FROM recipient WHERE message = ?1",
            "DELETE FROM event WHERE message = ?1",
            "DELETE FROM content WHERE message = ?1",
            "DELETE FROM message WHERE key = ?1",
        ] {
            conn.prepare_cached(table)?.execute([key])?;
        }
        conn.prepare_cached("DELETE FROM message_id WHERE id = ?1")?
            .execute(params![id.to_bytes()])?;
    }
    Ok(())
}

/// A message on its way, whole. `None`: its content is gone.
pub(super) fn read(
    conn: &rusqlite::Connection,
    key: i64,
    bodies: &BodyStore,
) -> Result<Option<MovingMessage>, Unread> {
    let Some((message, _)) = rows::load(conn, key, bodies)? else {
        return Ok(None);
    };
    let (accepted, ended, tells_late): (i64, Option<i64>, bool) = conn
        .prepare_cached("SELECT accepted, ended, tell_late FROM message WHERE key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let (first, last) = rows::job_ids(key);
    let jobs: Vec<MovingJob> = conn
        .prepare_cached(
            "SELECT id, route, pinned, lane, state, due, attempts, client, sender FROM job WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        )?
        .query_map([first, last], job)?
        .collect::<Result<_, _>>()?;
    let recipients = conn
        .prepare_cached(
            "SELECT position, job, address, state, reply, at, said, route, attempts FROM recipient WHERE message = ?1 ORDER BY position",
        )?
        .query_map([key], recipient)?
        .collect::<Result<_, _>>()?;
    let events = conn
        .prepare_cached(
            "SELECT at, kind, recipients, text FROM event WHERE message = ?1 ORDER BY id",
        )?
        .query_map([key], |row| {
            Ok(Event {
                at: time(row.get(0)?),
                kind: EventKind::parse(&row.get::<_, String>(1)?),
                recipients: row
                    .get::<_, String>(2)?
                    .lines()
                    .map(str::to_owned)
                    .collect(),
                text: row.get(3)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let is_over = jobs
        .iter()
        .all(|job| rows::state_number(job.state) == FAILED);
    Ok(Some(MovingMessage {
        message,
        accepted: time(accepted),
        ended: ended.filter(|_| is_over).map(time),
        tells_late,
        jobs,
        recipients,
        events,
        bare: None,
    }))
}

/// A number within its message.
fn nr(id: i64) -> i32 {
    i32::try_from(id & ((1 << JOB_BITS) - 1)).unwrap_or(i32::MAX)
}

fn job(row: &Row<'_>) -> rusqlite::Result<MovingJob> {
    let (pinned, lane): (String, String) = (row.get(2)?, row.get(3)?);
    Ok(MovingJob {
        nr: nr(row.get(0)?),
        route: RouteName::from(row.get::<_, String>(1)?.as_str()),
        pinned: some(&pinned).map(ConnectorName::from),
        lane: some(&lane).map(LaneId::parse),
        pair: Pair {
            client: row.get(7)?,
            sender: row.get(8)?,
        },
        state: state(row.get(4)?),
        due: time(row.get(5)?),
        attempts: row.get(6)?,
    })
}

fn recipient(row: &Row<'_>) -> rusqlite::Result<MovingRecipient> {
    let (at, said): (Option<i64>, Option<String>) = (row.get(5)?, row.get(6)?);
    let (route, attempts): (Option<String>, Option<u32>) = (row.get(7)?, row.get(8)?);
    Ok(MovingRecipient {
        position: row.get(0)?,
        job: nr(row.get(1)?),
        address: row.get(2)?,
        state: recipient_state(row.get(3)?),
        reply: row.get(4)?,
        delivered: at.map(time).zip(said),
        over: route
            .map(|route| RouteName::from(route.as_str()))
            .zip(attempts),
    })
}
