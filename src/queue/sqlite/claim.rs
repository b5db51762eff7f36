//! Jobs are leased, and leases given back that nobody holds.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use rusqlite::{Connection, OptionalExtension as _, ToSql, params};

use super::{
    insert::add_event,
    op::Change,
    operate,
    rows::{self, micros, time},
};
use crate::{
    mail::{
        message::{Message, MessageId},
        recipient::Recipient,
    },
    queue::{
        store::{Ask, Event, EventKind, Job, JobId, Lease, Whose},
        turns::{Cursors, Mark, Pair, Pairs},
    },
    route::{ConnectorName, LaneId, RouteName},
};

/// A job just leased.
pub(super) struct Leased {
    pub(super) id: i64,
    pub(super) message: i64,
    pub(super) route: String,
    pub(super) pinned: String,
    pub(super) lane: String,
    pub(super) attempts: u32,
    pub(super) accepted: i64,
    /// The message's own id.
    pub(super) of: MessageId,
}

impl Leased {
    /// The job for delivery.
    pub(super) fn with(&self, message: Arc<Message>, recipients: Vec<Recipient>) -> Job {
        Job {
            id: JobId(self.id),
            lease: Lease::default(),
            message,
            route: RouteName::from(self.route.as_str()),
            recipients,
            pinned: rows::some(&self.pinned).map(ConnectorName::from),
            lane: rows::some(&self.lane).map(LaneId::parse),
            attempts: self.attempts,
            accepted: time(self.accepted),
        }
    }
}

/// Leases the due jobs of the asks. `found`: those of each ask that were found by [`accepted_by`].
pub(super) fn lease(
    change: &mut Change<'_>,
    asks: &[Ask],
    found: &[Vec<i64>],
    cursors: &mut Cursors,
    now: SystemTime,
) -> rusqlite::Result<Vec<Leased>> {
    let mut leased = Vec::new();
    for (at, ask) in asks.iter().enumerate() {
        let mut lane = LaneClaim::new(change.conn, ask, now, &mut leased);
        match ask.whose {
            Whose::InTurns => {
                cursors.of(ask.place()).claim(&mut lane, ask.limit)?;
            }
            Whose::Of(pair) => {
                lane.take(pair, ask.limit)?;
            }
            Whose::AcceptedBy(_) => {
                for job in found.get(at).into_iter().flatten() {
                    lane.take_job(*job)?;
                }
            }
        }
    }
    Ok(leased)
}

/// Places of a lane whose next pair is remembered within a claim: each look through them is a look through a list.
const KNOWN: usize = 64;

/// The lane that is asked for.
struct LaneClaim<'a> {
    conn: &'a Connection,
    pinned: &'a str,
    lane: String,
    route: &'a str,
    now: i64,
    leased: &'a mut Vec<Leased>,
    /// What was found from where on, as far as nothing was taken there: nobody else writes while this is claimed.
    found: Vec<(Pair, Option<(Pair, bool)>)>,
}

impl<'a> LaneClaim<'a> {
    fn new(
        conn: &'a Connection,
        ask: &'a Ask,
        now: SystemTime,
        leased: &'a mut Vec<Leased>,
    ) -> Self {
        Self {
            conn,
            pinned: ask.pinned.as_ref().map_or("", |name| name.as_str()),
            lane: rows::lane(ask.lane.as_ref()),
            route: ask.route.as_str(),
            now: micros(now),
            leased,
            found: Vec::new(),
        }
    }

    /// Leases what a question finds; how many it were.
    fn lease(&mut self, question: &str, values: &[&dyn ToSql]) -> rusqlite::Result<usize> {
        let found = self
            .conn
            .prepare_cached(question)?
            .query_map(values, |row| {
                Ok(Leased {
                    id: row.get(0)?,
                    message: row.get(1)?,
                    route: self.route.to_owned(),
                    pinned: self.pinned.to_owned(),
                    lane: self.lane.clone(),
                    attempts: row.get(2)?,
                    accepted: row.get(3)?,
                    of: MessageId::from_bytes(row.get(4)?),
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut lease = self
            .conn
            .prepare_cached("UPDATE job SET state = 0 WHERE id = ?1")?;
        for job in &found {
            lease.execute([job.id])?;
        }
        let count = found.len();
        self.leased.extend(found);
        Ok(count)
    }

    fn take_job(&mut self, job: i64) -> rusqlite::Result<usize> {
        let (route, pinned, lane, now) = (self.route, self.pinned, self.lane.clone(), self.now);
        self.lease(CLAIM_JOB, params![route, pinned, lane, job, now])
    }
}

impl Pairs for LaneClaim<'_> {
    type Error = rusqlite::Error;

    fn from(&mut self, pair: Pair) -> rusqlite::Result<Option<(Pair, bool)>> {
        let is_known = |(from, next): &&(Pair, Option<(Pair, bool)>)| {
            *from <= pair && next.is_none_or(|(next, _)| pair <= next)
        };
        if let Some((_, next)) = self.found.iter().find(is_known) {
            return Ok(*next);
        }
        let found = next_pair(self.conn, (self.route, self.pinned, &self.lane), pair)?;
        let found = found.map(|(pair, due)| (pair, due <= self.now));
        if self.found.len() < KNOWN {
            self.found.push((pair, found));
        }
        Ok(found)
    }

    fn take(&mut self, Pair { client, sender }: Pair, limit: usize) -> rusqlite::Result<usize> {
        let (route, pinned, lane, now) = (self.route, self.pinned, self.lane.clone(), self.now);
        let values = params![route, pinned, lane, client, sender, now, limit as i64];
        let pair = Pair { client, sender };
        self.found
            .retain(|(_, next)| next.is_none_or(|(next, _)| next != pair));
        self.lease(CLAIM, values)
    }
}

/// The first pair of a lane from this one on that has waiting jobs, and when the first of them is due.
pub(super) fn next_pair(
    conn: &Connection,
    (route, pinned, lane): (&str, &str, &str),
    from: Pair,
) -> rusqlite::Result<Option<(Pair, i64)>> {
    conn.prepare_cached(NEXT_PAIR)?
        .query_row(
            params![route, pinned, lane, from.client, from.sender],
            |row| {
                let pair = Pair {
                    client: row.get(0)?,
                    sender: row.get(1)?,
                };
                Ok((pair, row.get(2)?))
            },
        )
        .optional()
}

/// The jobs of an ask that were accepted by then, from where the last look ended; and where the next one goes on, when there may be more.
pub(super) fn accepted_by(
    conn: &Connection,
    ask: &Ask,
    by: SystemTime,
    from: Option<Mark>,
    now: SystemTime,
) -> rusqlite::Result<(Vec<i64>, Option<Mark>)> {
    let (pair, due) = from.unwrap_or((Pair::default(), i64::MIN));
    let mut statement = conn.prepare_cached(ACCEPTED_BY)?;
    let mut found = statement.query(params![
        ask.route.as_str(),
        ask.pinned.as_ref().map_or("", |name| name.as_str()),
        rows::lane(ask.lane.as_ref()),
        pair.client,
        pair.sender,
        due,
        micros(now),
        micros(by),
        ask.limit as i64
    ])?;
    let (mut jobs, mut last) = (Vec::new(), None);
    while let Some(row) = found.next()? {
        jobs.push(row.get(0)?);
        let pair = Pair {
            client: row.get(1)?,
            sender: row.get(2)?,
        };
        last = Some((pair, row.get(3)?));
    }
    let is_more = jobs.len() == ask.limit;
    Ok((jobs, last.filter(|_| is_more)))
}

/// Reads `limit` rows of the index, however many wait.
pub(super) const CLAIM: &str = "SELECT j.id, j.message, j.attempts, m.accepted, m.id
     FROM job j INDEXED BY job_due CROSS JOIN message m ON m.key = j.message
     WHERE j.state = 2 AND j.route = ?1 AND j.pinned = ?2 AND j.lane = ?3 AND j.client = ?4 AND j.sender = ?5 AND j.due <= ?6
     ORDER BY j.due LIMIT ?7";

/// Reads one row of the index, however many wait.
pub(super) const NEXT_PAIR: &str = "SELECT client, sender, due FROM job INDEXED BY job_due
     WHERE state = 2 AND route = ?1 AND pinned = ?2 AND lane = ?3 AND (client, sender) >= (?4, ?5)
     ORDER BY client, sender, due LIMIT 1";

/// Reads what is due of a lane, which may be much: nobody may wait for it but whoever asks.
const ACCEPTED_BY: &str = "SELECT j.id, j.client, j.sender, j.due
     FROM job j INDEXED BY job_due CROSS JOIN message m ON m.key = j.message
     WHERE j.state = 2 AND j.route = ?1 AND j.pinned = ?2 AND j.lane = ?3 AND (j.client, j.sender, j.due) >= (?4, ?5, ?6)
       AND j.due <= ?7 AND m.accepted <= ?8
     ORDER BY j.client, j.sender, j.due LIMIT ?9";

/// A job that was found by [`ACCEPTED_BY`], if it is still there as it was.
const CLAIM_JOB: &str = "SELECT j.id, j.message, j.attempts, m.accepted, m.id
     FROM job j CROSS JOIN message m ON m.key = j.message
     WHERE j.id = ?4 AND j.state = 2 AND j.route = ?1 AND j.pinned = ?2 AND j.lane = ?3 AND j.due <= ?5";

/// Gives leases back as if they had not been claimed; wishes are obeyed.
pub(super) fn release(change: &mut Change<'_>, jobs: &[i64]) -> rusqlite::Result<()> {
    for job in jobs {
        let wishes: Option<Option<String>> = change
            .conn
            .prepare_cached("SELECT wishes FROM job WHERE id = ?1 AND state = 0")?
            .query_row([job], |row| row.get(0))
            .optional()?;
        let Some(wishes) = wishes else { continue };
        change
            .conn
            .prepare_cached("UPDATE job SET state = 2, wishes = NULL WHERE id = ?1")?
            .execute([job])?;
        // A store has no clock, but the lease was lost, not settled: now is when it is noticed.
        operate::obey(change, &[*job], wishes.as_deref(), SystemTime::now())?;
    }
    Ok(())
}

/// After a restart: what was leased may have been sent or not; it is due again, its attempts as they were.
pub(super) fn recover(change: &mut Change<'_>) -> rusqlite::Result<()> {
    let jobs: Vec<(i64, i64)> = change
        .conn
        .prepare_cached("SELECT id, message FROM job WHERE state = 0")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (_, message) in &jobs {
        let event = Event {
            at: SystemTime::now(),
            kind: EventKind::Interrupted,
            recipients: Vec::new(),
            text: "the gateway ended while it was being sent: it may arrive twice".to_owned(),
        };
        add_event(change, *message, &event)?;
    }
    let ids: Vec<i64> = jobs.iter().map(|(job, _)| *job).collect();
    release(change, &ids)
}

/// Leases whose claimer went away before it heard of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Abandoned(Arc<Mutex<Vec<i64>>>);

impl Abandoned {
    /// All of them, to be given back; dropped before that is committed, they are here again.
    pub(super) fn take(&self) -> Leases {
        self.unless_heard(std::mem::take(&mut *self.lock()))
    }

    /// Leases that were just committed.
    pub(super) fn unless_heard(&self, jobs: Vec<i64>) -> Leases {
        Leases {
            jobs,
            abandoned: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Committed leases on their way to whoever asked for them: a caller may go away at any await, and a job leased to nobody would
/// never be sent.
pub(super) struct Leases {
    jobs: Vec<i64>,
    abandoned: Abandoned,
}

impl Leases {
    pub(super) fn jobs(&self) -> &[i64] {
        &self.jobs
    }

    pub(super) fn handed_over(mut self) {
        self.jobs.clear();
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if !self.jobs.is_empty() {
            self.abandoned.lock().append(&mut self.jobs);
        }
    }
}

/// Puts a job aside that cannot be read, so that the others go on.
pub(super) fn quarantine(
    change: &mut Change<'_>,
    job: i64,
    message: i64,
    why: &str,
    now: SystemTime,
) -> rusqlite::Result<()> {
    change
        .conn
        .prepare_cached("UPDATE job SET state = 1, lane = '' WHERE id = ?1 AND state = 0")?
        .execute([job])?;
    let event = Event {
        at: now,
        kind: EventKind::Held,
        recipients: Vec::new(),
        text: format!("put aside because it cannot be read: {why}"),
    };
    add_event(change, message, &event)
}

/// Gives back what was leased to callers that had gone, and reads the number that changes with every write of another process.
pub(super) fn beat(
    change: &mut Change<'_>,
    abandoned: &Abandoned,
) -> rusqlite::Result<(i64, Leases)> {
    let leases = abandoned.take();
    release(change, leases.jobs())?;
    // On the connection that writes: it sees every commit but its own.
    let version = change
        .conn
        .pragma_query_value(None, "data_version", |row| row.get(0))?;
    Ok((version, leases))
}
