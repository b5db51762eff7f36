//! What lies here because the database that has the queue is away: messages that nobody sends before it is back, and what became of its
//! jobs meanwhile. What these mean is not decided here.

use std::time::SystemTime;

use rusqlite::params;

use super::{
    SqliteStore,
    insert::{insert, insert_alone},
    op::{Change, Purpose},
    rows::{self, micros, time},
};
use crate::{
    mail::message::MessageId,
    queue::{
        coded::ON_ITS_WAY,
        moving::{KeptOutcome, SpilledCount},
        store::StoreError,
    },
    route::Routed,
};

const KEEP: &str = "INSERT OR IGNORE INTO outcome (message, job, node, claim, at, settlement)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const OUTCOMES: &str =
    "SELECT id, message, job, node, claim, at, settlement FROM outcome WHERE id > ?1
    ORDER BY id LIMIT ?2";
/// By the jobs, of which there are as many as there is to do: history may be long.
const COUNT: &str =
    "SELECT count(*), coalesce(sum(size), 0), min(accepted), (SELECT count(*) FROM outcome)
    FROM message WHERE key IN (SELECT id >> 20 FROM job)";

impl SqliteStore {
    /// Takes a message that the other store may have already: nobody sends it before that is known.
    ///
    /// # Errors
    /// As an insert.
    pub async fn insert_on_its_way(
        &self,
        mail: &Routed,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let mail = mail.clone();
        let work = move |change: &mut Change<'_>| insert_apart(change, &mail, now);
        let is_new = self.submit(Purpose::TakesIn, work, |new| new).await?;
        if is_new {
            return Ok(());
        }
        let there = "a message with this id is already there".to_owned();
        Err(StoreError::Unavailable(there))
    }

    /// Keeps an outcome with its bounces, which are sent from here or wait as what is on its way. Whether it is new: kept before, it
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_outcome(
        &self,
        outcome: KeptOutcome,
        bounces: Vec<Routed>,
        sends: bool,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        self.write(move |change| {
            let KeptOutcome { message, job, .. } = &outcome;
            let kept = change.conn.prepare_cached(KEEP)?.execute(params![
                message.to_bytes(),
                job,
                i64::try_from(outcome.node).unwrap_or(i64::MAX),
                outcome.claim,
                micros(outcome.at),
                outcome.settlement
            ])?;
            if kept == 0 {
                return Ok(false);
            }
            for bounce in &bounces {
                if sends {
                    insert(change, bounce, &[], now)?;
                } else {
                    insert_apart(change, bounce, now)?;
                }
            }
            Ok(true)
        })
        .await
    }

    /// Outcomes in the order in which they were kept, at most so many, behind this one; each with its number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn kept_outcomes(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, KeptOutcome)>, StoreError> {
        self.readers
            .query(move |conn| {
                conn.prepare_cached(OUTCOMES)?
                    .query_map(params![after, limit as i64], |row| {
                        let outcome = KeptOutcome {
                            message: MessageId::from_bytes(row.get(1)?),
                            job: row.get(2)?,
                            node: row.get::<_, i64>(3)?.unsigned_abs(),
                            claim: row.get(4)?,
                            at: time(row.get(5)?),
                            settlement: row.get(6)?,
                        };
                        Ok((row.get(0)?, outcome))
                    })?
                    .collect()
            })
            .await
    }

    /// Forgets outcomes that the other store has.
    ///
    /// # Errors
    /// [`StoreError`]: they are still here.
    pub async fn forget_outcomes(&self, numbers: Vec<i64>) -> Result<(), StoreError> {
        self.write(move |change| {
            let mut delete = change
                .conn
                .prepare_cached("DELETE FROM outcome WHERE id = ?1")?;
            for number in &numbers {
                delete.execute([number])?;
            }
            Ok(())
        })
        .await
    }

    /// A message on its way that the other store does not take is this store's to send again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stays(&self, id: MessageId) -> Result<(), StoreError> {
        self.write(move |change| {
            let Some(key) = rows::key(change.conn, id)? else {
                return Ok(());
            };
            let (first, last) = rows::job_ids(key);
            change
                .conn
                .prepare_cached(
                    "UPDATE job SET state = state - ?3 WHERE id BETWEEN ?1 AND ?2 AND state >= ?3",
                )?
                .execute([first, last, ON_ITS_WAY])
                .map(|_| ())
        })
        .await
    }

    /// How much lies here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn spilled(&self) -> Result<SpilledCount, StoreError> {
        self.readers
            .query(|conn| {
                conn.prepare_cached(COUNT)?.query_row([], |row| {
                    let number = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
                    Ok(SpilledCount {
                        messages: number(0)?,
                        octets: number(1)?,
                        oldest: row.get::<_, Option<i64>>(2)?.map(time),
                        outcomes: number(3)?,
                    })
                })
            })
            .await
    }
}

/// Inserts a message and its copies, whose jobs are on their way. Whether it is new here.
fn insert_apart(change: &mut Change<'_>, mail: &Routed, now: SystemTime) -> rusqlite::Result<bool> {
    let Some(mut jobs) = insert_alone(change, mail, &[], now)? else {
        return Ok(false);
    };
    for copy in &mail.copies {
        jobs.extend(insert_alone(change, copy, &[], now)?.unwrap_or_default());
    }
    let mut mark = change
        .conn
        .prepare_cached("UPDATE job SET state = state + ?2 WHERE id = ?1")?;
    for job in jobs {
        mark.execute([job.0, ON_ITS_WAY])?;
    }
    Ok(true)
}
