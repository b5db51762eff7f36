//! Messages that come back from the store of several gateways, with all that has become of them. Until all of them are here they count as
//! on their way, so nobody here sends what another may send; what was here before and is not on its way stays as it is.

use rusqlite::{Connection, params};

use super::{
    SqliteStore,
    insert::{add_event, insert_job, insert_message},
    late,
    op::{Change, Purpose},
    rows::{self, IN_FILE, micros, recipient_state_number, state_number},
};
use crate::{
    mail::message::MessageId,
    queue::{
        coded::ON_ITS_WAY,
        moving::{LeftBehind, MovingMessage, MovingTally},
        store::StoreError,
    },
};

impl SqliteStore {
    /// Which of these are here, and whether they are on their way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known(&self, ids: Vec<MessageId>) -> Result<Vec<Option<bool>>, StoreError> {
        let look = move |conn: &Connection| {
            let known = ids.iter().map(|id| {
                let key = rows::key(conn, *id)?;
                key.map(|key| is_on_its_way(conn, key)).transpose()
            });
            known.collect()
        };
        self.readers.query(look).await
    }

    /// Takes messages from the other store, all of them in one transaction, on their way until they [stay](Self::stay). What is here on its
    /// way becomes as it is there; what is here otherwise stays as it is. Says which were taken.
    ///
    /// # Errors
    /// [`StoreError`]. To take them again changes nothing.
    pub async fn arrive(&self, messages: Vec<MovingMessage>) -> Result<Vec<MessageId>, StoreError> {
        let arrive = move |change: &mut Change<'_>| {
            let mut taken = Vec::new();
            for one in &messages {
                if take(change, one)? {
                    taken.push(one.message.id);
                }
            }
            Ok(taken)
        };
        self.submit(Purpose::TakesIn, arrive, |taken| taken).await
    }

    /// The rows of these messages, counted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tally(&self, ids: Vec<MessageId>) -> Result<MovingTally, StoreError> {
        self.readers
            .query(move |conn| {
                let mut tally = MovingTally::default();
                for id in &ids {
                    if let Some(key) = rows::key(conn, *id)? {
                        tally.messages += 1;
                        count(conn, key, &mut tally)?;
                    }
                }
                Ok(tally)
            })
            .await
    }

    /// What lies here of an earlier time among other gateways.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn left_behind(&self) -> Result<LeftBehind, StoreError> {
        self.readers
            .query(|conn| {
                conn.prepare_cached(
                    "SELECT (SELECT count(DISTINCT message) FROM job WHERE state >= ?1), (SELECT count(*) FROM outcome)",
                )?
                .query_row([ON_ITS_WAY], |row| {
                    let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
                    Ok(LeftBehind {
                        messages: number(0)?,
                        outcomes: number(1)?,
                    })
                })
            })
            .await
    }
}

fn is_on_its_way(conn: &Connection, key: i64) -> rusqlite::Result<bool> {
    let (first, last) = rows::job_ids(key);
    conn.prepare_cached("SELECT 1 FROM job WHERE id BETWEEN ?1 AND ?2 AND state >= ?3")?
        .exists([first, last, ON_ITS_WAY])
}

/// Whether it was taken.
fn take(change: &mut Change<'_>, one: &MovingMessage) -> rusqlite::Result<bool> {
    let ended = one.ended.map(micros);
    let key = match rows::key(change.conn, one.message.id)? {
        None => insert_message(
            change,
            &one.message,
            (micros(one.accepted), ended),
            one.bare,
        )?,
        Some(key) if is_on_its_way(change.conn, key)? => {
            clear(change, key, one)?;
            key
        }
        Some(_) => return Ok(false),
    };
    late::is_left(change, key, one.tells_late)?;
    let (first, _) = rows::job_ids(key);
    for job in &one.jobs {
        let (pinned, lane) = (job.pinned.as_ref(), rows::lane(job.lane.as_ref()));
        let pinned = pinned.map_or("", |name| name.as_str());
        let state = state_number(job.state) + ON_ITS_WAY;
        insert_job(
            change,
            first + i64::from(job.nr),
            (job.route.as_str(), pinned, &lane),
            job.pair,
            state,
            micros(job.due),
            job.attempts.into(),
        )?;
    }
    let mut recipients = change.conn.prepare_cached(
        "INSERT INTO recipient (message, position, job, address, state, reply, at, said, route, attempts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for recipient in &one.recipients {
        let (delivered, over) = (&recipient.delivered, &recipient.over);
        recipients.execute(params![
            key,
            recipient.position,
            first + i64::from(recipient.job),
            recipient.address,
            recipient_state_number(recipient.state),
            recipient.reply,
            delivered.as_ref().map(|(at, _)| micros(*at)),
            delivered.as_ref().map(|(_, said)| said),
            over.as_ref().map(|(route, _)| route.as_str()),
            over.as_ref().map(|(_, attempts)| attempts),
        ])?;
    }
    for event in &one.events {
        add_event(change, key, event)?;
    }
    Ok(true)
}

/// What is known of one that is on its way gives way to what the other store knows. Its content is the same, as long as it is kept there.
fn clear(change: &mut Change<'_>, key: i64, one: &MovingMessage) -> rusqlite::Result<()> {
    let conn = change.conn;
    let (first, last) = rows::job_ids(key);
    conn.prepare_cached("DELETE FROM job WHERE id BETWEEN ?1 AND ?2")?
        .execute([first, last])?;
    for rows in [
        "DELETE FROM recipient WHERE message = ?1",
        "DELETE FROM event WHERE message = ?1",
    ] {
        conn.prepare_cached(rows)?.execute([key])?;
    }
    conn.prepare_cached("UPDATE message SET accepted = ?2, ended = ?3 WHERE key = ?1")?
        .execute(params![key, micros(one.accepted), one.ended.map(micros)])?;
    if one.bare.is_some() {
        let kept: i64 = conn
            .prepare_cached("SELECT kept FROM message WHERE key = ?1")?
            .query_row([key], |row| row.get(0))?;
        if kept == IN_FILE {
            change.remove.push(one.message.id);
        }
        conn.prepare_cached("DELETE FROM content WHERE message = ?1")?
            .execute([key])?;
        conn.prepare_cached("UPDATE message SET kept = 0 WHERE key = ?1")?
            .execute([key])?;
    }
    Ok(())
}

/// The jobs and recipients of a message.
fn count(conn: &Connection, key: i64, tally: &mut MovingTally) -> rusqlite::Result<()> {
    let (first, last) = rows::job_ids(key);
    let mut jobs = conn.prepare_cached("SELECT state FROM job WHERE id BETWEEN ?1 AND ?2")?;
    for state in jobs.query_map([first, last], |row| row.get::<_, i64>(0))? {
        tally.job(state? % ON_ITS_WAY);
    }
    let mut recipients = conn.prepare_cached("SELECT state FROM recipient WHERE message = ?1")?;
    for state in recipients.query_map([key], |row| row.get::<_, i64>(0))? {
        tally.recipient(state?);
    }
    Ok(())
}
