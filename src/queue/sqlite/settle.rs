//! What became of a job is written down: read, decide (`settling`), write.

use std::time::SystemTime;

use rusqlite::{OptionalExtension as _, params};

use super::{
    insert::{self, add_event, insert_job},
    op::Change,
    operate,
    retention::{close, done},
    rows::{self, FAILED, WAITING, micros},
};
use crate::{
    mail::message::MessageId,
    queue::{
        settling::{self, After, Before, Split},
        store::{EventKind, JobId, Settlement},
        turns::Pair,
    },
    route::ConnectorName,
};

/// A job, and what else its rows say.
struct JobRow {
    id: i64,
    /// The key of its message.
    key: i64,
    route: String,
    pair: Pair,
    wishes: Option<String>,
    /// Where the content of its message is.
    kept: i64,
    before: Before,
    /// Of its recipients, in the order of `before`.
    positions: Vec<i64>,
}

/// Writes back what became of a job.
pub(super) fn settle(
    change: &mut Change<'_>,
    settlement: &Settlement,
    now: SystemTime,
) -> rusqlite::Result<()> {
    let Some(row) = JobRow::read(change, settlement)? else {
        return lost(change, settlement);
    };
    let after = settling::apply(&row.before, settlement);
    for address in &after.strangers {
        tracing::error!(id = %settlement.message, %address, "settled a recipient that is not the job's");
    }
    row.write_recipients(change, &after)?;
    let mut jobs = vec![row.id];
    for split in &after.splits {
        jobs.push(row.split(change, split, after.attempts)?);
    }
    row.write(change, &after)?;
    // A delivery stands in the row of its recipient.
    for event in settlement
        .events
        .iter()
        .filter(|e| e.kind != EventKind::Delivered)
    {
        add_event(change, row.key, event)?;
    }
    for report in settlement.reports() {
        insert::insert(change, report, &[], now)?;
    }
    operate::obey(change, &jobs, row.wishes.as_deref(), now)?;
    close(change, row.key, Some((settlement.message, row.kept)), now)
}

/// There is no such job.
fn lost(change: &Change<'_>, settlement: &Settlement) -> rusqlite::Result<()> {
    let Settlement { job, message, .. } = settlement;
    // It was written before (a commit may fail and be on disk all the same), and the job was done. Otherwise it is a mistake of the
    // caller's, since nothing of a leased job is ever deleted; nothing a retry could mend.
    if rows::key(change.conn, *message)?.is_none() {
        tracing::error!(id = %message, job = job.0, "settled a job that is not in the store");
    }
    Ok(())
}

impl JobRow {
    fn read(change: &Change<'_>, settlement: &Settlement) -> rusqlite::Result<Option<Self>> {
        let JobId(id) = settlement.job;
        let of: MessageId = settlement.message;
        let found = change
            .conn
            .prepare_cached(
                "SELECT j.message, j.route, j.pinned, j.attempts, j.wishes, m.kept, j.client, j.sender FROM job j
                 JOIN message m ON m.key = j.message WHERE j.id = ?1 AND m.id = ?2",
            )?
            .query_row(params![id, of.to_bytes()], |row| {
                let pinned: String = row.get(2)?;
                Ok(Self {
                    id,
                    key: row.get(0)?,
                    route: row.get(1)?,
                    pair: Pair {
                        client: row.get(6)?,
                        sender: row.get(7)?,
                    },
                    wishes: row.get(4)?,
                    kept: row.get(5)?,
                    before: Before {
                        pinned: rows::some(&pinned).map(ConnectorName::from),
                        attempts: row.get(3)?,
                        recipients: Vec::new(),
                    },
                    positions: Vec::new(),
                })
            })
            .optional()?;
        let Some(mut job) = found else {
            return Ok(None);
        };
        let mut statement = change.conn.prepare_cached(
            "SELECT address, position, state FROM recipient WHERE message = ?1 AND job = ?2",
        )?;
        let mut recipients = statement.query([job.key, id])?;
        while let Some(row) = recipients.next()? {
            let state = rows::recipient_state(row.get(2)?);
            job.before.recipients.push((row.get(0)?, state));
            job.positions.push(row.get(1)?);
        }
        Ok(Some(job))
    }

    fn position(&self, at: usize) -> Option<i64> {
        self.positions.get(at).copied()
    }

    fn write_recipients(&self, change: &Change<'_>, after: &After<'_>) -> rusqlite::Result<()> {
        let mut write = change.conn.prepare_cached(
            "UPDATE recipient SET state = ?3, reply = ?4, at = ?5, said = ?6 WHERE message = ?1 AND position = ?2",
        )?;
        for recipient in &after.changes {
            write.execute(params![
                self.key,
                self.position(recipient.at),
                rows::recipient_state_number(recipient.state),
                recipient.reply,
                recipient.delivery.map(|event| micros(event.at)),
                recipient.delivery.map(|event| &event.text)
            ])?;
        }
        Ok(())
    }

    /// A job of their own for some of its recipients.
    fn split(&self, change: &Change<'_>, split: &Split, attempts: u32) -> rusqlite::Result<i64> {
        let conn = change.conn;
        // The rows of recipients know the numbers of jobs that are gone, too.
        let (first, last) = rows::job_ids(self.key);
        let id = conn
            .prepare_cached(
                "SELECT 1 + max((SELECT max(job) FROM recipient WHERE message = ?1),
                                (SELECT max(id) FROM job WHERE id BETWEEN ?2 AND ?3))",
            )?
            .query_row([self.key, first, last], |row| row.get(0))?;
        let pinned = split.pinned.as_ref().map_or("", ConnectorName::as_str);
        let of = (self.route.as_str(), pinned, "");
        let due = micros(split.due);
        insert_job(change, id, of, self.pair, WAITING, due, attempts.into())?;
        for at in &split.recipients {
            conn.prepare_cached(
                "UPDATE recipient SET job = ?3 WHERE message = ?1 AND position = ?2",
            )?
            .execute(params![self.key, self.position(*at), id])?;
        }
        Ok(id)
    }

    fn write(&self, change: &Change<'_>, after: &After<'_>) -> rusqlite::Result<()> {
        let Some(job) = &after.job else {
            return done(change, self.id, &self.route, after.attempts.into());
        };
        let state = if job.is_failed { FAILED } else { WAITING };
        change
            .conn
            .prepare_cached(
                "UPDATE job SET state = ?2, pinned = ?3, lane = ?4, due = ?5, attempts = ?6, wishes = NULL WHERE id = ?1",
            )?
            .execute(params![
                self.id,
                state,
                job.pinned.as_ref().map_or("", ConnectorName::as_str),
                rows::lane(job.lane.as_ref()),
                micros(job.due),
                after.attempts
            ])
            .map(|_| ())
    }
}
