//! What delivery and the listener write: insert, lease, settle.
//!
//! Apart from `operate`, which is the operator's, and from `writer`, which makes it durable. Each function runs inside
//! a transaction that it neither begins nor ends, and may be run a second time after a rollback.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use rusqlite::{OptionalExtension as _, params};

use super::{
    ending::{close, done},
    op::Change,
    operate,
    rows::{
        self, BLOCK, DELIVERED, DELIVERY, FAILED, GIVEN_UP, IN_DOUBT, IN_FILE, IN_TABLE, JOB_BITS,
        OPEN, SENDING, WAITING, micros, origin_to_json,
    },
};
use crate::{
    mail::{
        address::Address,
        message::{Body, MessageId},
        text::bounded,
    },
    queue::store::{Ask, Event, JobId, Settled, Settlement},
    route::Routed,
};

/// A message with its content and jobs. `None`: the store has one of this id.
pub(super) fn insert(
    change: &mut Change<'_>,
    mail: &Routed,
    leased: bool,
    now: SystemTime,
) -> rusqlite::Result<Option<Vec<JobId>>> {
    let message = &mail.message;
    let (kept, body) = match &message.body {
        Body::Memory(bytes) => (IN_TABLE, Some(bytes.as_ref())),
        Body::File(_) => (IN_FILE, None),
    };
    let conn = change.conn;
    if rows::key(conn, message.id)?.is_some() {
        return Ok(None);
    }
    conn.prepare_cached(
        "INSERT INTO message (id, accepted, sender, eight_bit, origin, size, body_len, kept)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        message.id.to_bytes(),
        micros(now),
        message.envelope.sender.as_ref().map(ToString::to_string),
        message.envelope.eight_bit,
        origin_to_json(&message.origin),
        message.size() as i64,
        message.body.len() as i64,
        kept
    ])?;
    if let Body::File(file) = &message.body {
        change.keep.push(file.clone());
    }
    let key = conn.last_insert_rowid();
    if key % BLOCK == 0 {
        // Replaced: numbers of rows that were deleted are given again.
        conn.prepare_cached(
            "INSERT OR REPLACE INTO message_id SELECT id, key FROM message WHERE key BETWEEN ?1 AND ?2",
        )?
        .execute([key - BLOCK + 1, key])?;
    }
    // Replaced: of a damaged file, that of a message which is gone may still be there.
    conn.prepare_cached(
        "INSERT OR REPLACE INTO content (message, header, body) VALUES (?1, ?2, ?3)",
    )?
    .execute(params![key, message.header.as_ref(), body])?;
    // The recipients of an only job are in the order of the envelope already.
    let order: HashMap<_, _> = match mail.jobs.as_slice() {
        [_] => HashMap::new(),
        _ => message.envelope.recipients.iter().zip(0_i64..).collect(),
    };
    let mut extra = order.len() as i64;
    let mut jobs = Vec::with_capacity(mail.jobs.len());
    let mut insert_recipient = conn.prepare_cached(
        "INSERT INTO recipient (message, position, job, address, state) VALUES (?1, ?2, ?3, ?4, 0)",
    )?;
    for ((route, recipients), job) in mail.jobs.iter().zip(rows::job_ids(key).0..) {
        let state = if leased { SENDING } else { WAITING };
        insert_job(change, job, route.as_str(), "", state, micros(now), 0)?;
        for address in recipients {
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

fn insert_job(
    change: &Change<'_>,
    id: i64,
    route: &str,
    pinned: &str,
    state: i64,
    due: i64,
    attempts: i64,
) -> rusqlite::Result<()> {
    let message = id >> JOB_BITS;
    change
        .conn
        .prepare_cached(
            "INSERT INTO job (id, message, route, pinned, state, due, attempts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![id, message, route, pinned, state, due, attempts])
        .map(|_| ())
}

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

/// Leases the due jobs of the asks, oldest due first.
pub(super) fn lease(
    change: &mut Change<'_>,
    asks: &[Ask],
    now: SystemTime,
) -> rusqlite::Result<Vec<Leased>> {
    let conn = change.conn;
    let mut leased = Vec::new();
    for ask in asks {
        let pinned = ask.pinned.as_ref().map_or("", |name| name.as_str());
        let lane = ask.lane.as_deref().unwrap_or_default();
        let found = conn
            .prepare_cached(CLAIM)?
            .query_map(
                params![
                    ask.route.as_str(),
                    pinned,
                    lane,
                    micros(now),
                    ask.limit as i64
                ],
                |row| {
                    Ok(Leased {
                        id: row.get(0)?,
                        message: row.get(1)?,
                        route: ask.route.as_str().to_owned(),
                        pinned: pinned.to_owned(),
                        lane: lane.to_owned(),
                        attempts: row.get(2)?,
                        accepted: row.get(3)?,
                        of: MessageId::from_bytes(row.get(4)?),
                    })
                },
            )?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut lease = conn.prepare_cached("UPDATE job SET state = 0 WHERE id = ?1")?;
        for job in found {
            lease.execute([job.id])?;
            leased.push(job);
        }
    }
    Ok(leased)
}

/// Reads `limit` rows of the index, however many wait.
pub(super) const CLAIM: &str = "SELECT j.id, j.message, j.attempts, m.accepted, m.id
     FROM job j INDEXED BY job_due CROSS JOIN message m ON m.key = j.message
     WHERE j.state = 2 AND j.route = ?1 AND j.pinned = ?2 AND j.lane = ?3 AND j.due <= ?4
     ORDER BY j.due LIMIT ?5";

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
            kind: "interrupted".to_owned(),
            recipients: Vec::new(),
            text: "the gateway ended while it was being sent: it may arrive twice".to_owned(),
        };
        add_event(change, *message, &event)?;
    }
    let ids: Vec<i64> = jobs.iter().map(|(job, _)| *job).collect();
    release(change, &ids)
}

/// Writes back what became of a job.
#[expect(
    clippy::too_many_lines,
    reason = "one settlement, one transaction: what it does to the rows stands in order"
)]
pub(super) fn settle(
    change: &mut Change<'_>,
    settlement: &Settlement,
    now: SystemTime,
) -> rusqlite::Result<()> {
    let conn = change.conn;
    let JobId(id) = settlement.job;
    let row = conn
        .prepare_cached(
            "SELECT j.message, j.route, j.pinned, j.attempts, j.wishes, m.kept FROM job j
             JOIN message m ON m.key = j.message WHERE j.id = ?1 AND m.id = ?2",
        )?
        .query_row(params![id, settlement.message.to_bytes()], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, i64>(3)?,
                row.get::<_, Option<String>>(4)?,
                row.get::<_, i64>(5)?,
            ))
        })
        .optional()?;
    let Some((key, route, mut pinned, attempts, wishes, kept)) = row else {
        // It was written before (a commit may fail and be on disk all the same), and the job was done.
        if rows::key(conn, settlement.message)?.is_some() {
            return Ok(());
        }
        // Nothing of a leased job is ever deleted, so this is a mistake of the caller's; nothing a retry could mend.
        tracing::error!(id = %settlement.message, job = id, "settled a job that is not in the store");
        return Ok(());
    };
    let attempts = attempts + i64::from(settlement.attempted);

    let known = conn
        .prepare_cached(
            "SELECT address, position, state FROM recipient WHERE message = ?1 AND job = ?2",
        )?
        .query_map([key, id], |row| {
            Ok((row.get::<_, String>(0)?, (row.get(1)?, row.get(2)?)))
        })?
        .collect::<rusqlite::Result<BTreeMap<String, (i64, i64)>>>()?;
    let mut open = known
        .values()
        .filter(|(_, state)| *state <= IN_DOUBT)
        .count();
    let mut failed = known.values().any(|(_, state)| *state == GIVEN_UP);
    let mut doubtful = Vec::new();
    let deliveries = Deliveries::of_settlement(settlement);
    for (address, settled) in &settlement.recipients {
        let Some(&(position, before)) = known.get(&address.to_string()) else {
            tracing::error!(id = %settlement.message, %address, "settled a recipient that is not the job's");
            continue;
        };
        // What was delivered, given up or dropped stays so: a settlement may be written twice.
        if before > IN_DOUBT {
            continue;
        }
        let (state, outcome) = match settled {
            Settled::Done(outcome) => (DELIVERED, outcome),
            Settled::Failed(outcome) => (GIVEN_UP, outcome),
            // A pinned job stays pinned: what was in doubt may still have arrived.
            Settled::Waiting(outcome) if pinned.is_empty() => (OPEN, outcome),
            Settled::Waiting(outcome) => (before, outcome),
            Settled::InDoubt(outcome) => (IN_DOUBT, outcome),
        };
        failed |= state == GIVEN_UP;
        if state > IN_DOUBT {
            open -= 1;
        }
        if matches!(settled, Settled::InDoubt(_)) {
            doubtful.push(position);
        }
        let line = (state == DELIVERED)
            .then(|| deliveries.of(address))
            .flatten();
        conn.prepare_cached(
            "UPDATE recipient SET state = ?3, reply = ?4, at = ?5, said = ?6 WHERE message = ?1 AND position = ?2",
        )?
        .execute(params![
            key,
            position,
            state,
            bounded(&outcome.reply().to_string()),
            line.map(|event| micros(event.at)),
            line.map(|event| &event.text)
        ])?;
    }

    let mut due = micros(settlement.next);
    let mut lane = settlement.lane.as_deref().unwrap_or_default();
    let mut jobs = vec![id];
    if let Some((connector, at)) = &settlement.in_doubt
        && !doubtful.is_empty()
    {
        if doubtful.len() == open {
            connector.as_str().clone_into(&mut pinned);
            due = micros(*at);
            lane = "";
        } else if pinned == connector.as_str() {
            due = due.max(micros(*at));
        } else {
            let pin = connector.as_str();
            let split = split(change, key, &doubtful, (&route, pin, micros(*at), attempts))?;
            open -= doubtful.len();
            jobs.push(split);
        }
    }
    let moved: Vec<i64> = known
        .iter()
        .filter(|(address, (position, state))| {
            *state <= IN_DOUBT
                && !doubtful.contains(position)
                && settlement
                    .apart
                    .iter()
                    .any(|apart| apart.to_string() == **address)
        })
        .map(|(_, (position, _))| *position)
        .collect();
    if !moved.is_empty() && moved.len() < open {
        jobs.push(split(
            change,
            key,
            &moved,
            (&route, &pinned, due, attempts),
        )?);
        open -= moved.len();
    }
    let state = match (open > 0, failed) {
        (true, _) => Some(WAITING),
        (false, true) => Some(FAILED),
        (false, false) => None,
    };
    match state {
        Some(state) => {
            conn.prepare_cached(
                "UPDATE job SET state = ?2, pinned = ?3, lane = ?4, due = ?5, attempts = ?6, wishes = NULL WHERE id = ?1",
            )?
            .execute(params![id, state, pinned, lane, due, attempts])?;
        }
        None => done(change, id, &route, attempts)?,
    }

    // A delivery is told by the row of its recipient.
    for event in settlement.events.iter().filter(|e| e.kind != DELIVERY) {
        add_event(change, key, event)?;
    }
    for bounce in &settlement.bounces {
        insert(change, bounce, false, now)?;
    }
    operate::obey(change, &jobs, wishes.as_deref(), now)?;
    close(change, key, Some((settlement.message, kept)), now)
}

/// A job of their own for some recipients of a message: its route, pin, due time and attempts.
fn split(
    change: &Change<'_>,
    key: i64,
    positions: &[i64],
    (route, pinned, due, attempts): (&str, &str, i64, i64),
) -> rusqlite::Result<i64> {
    let conn = change.conn;
    // The rows of recipients know the numbers of jobs that are gone, too.
    let (first, last) = rows::job_ids(key);
    let id = conn
        .prepare_cached(
            "SELECT 1 + max((SELECT max(job) FROM recipient WHERE message = ?1),
                            (SELECT max(id) FROM job WHERE id BETWEEN ?2 AND ?3))",
        )?
        .query_row([key, first, last], |row| row.get(0))?;
    insert_job(change, id, route, pinned, WAITING, due, attempts)?;
    for position in positions {
        conn.prepare_cached("UPDATE recipient SET job = ?3 WHERE message = ?1 AND position = ?2")?
            .execute([key, *position, id])?;
    }
    Ok(id)
}

/// The lines that say how the recipients were served.
enum Deliveries<'a> {
    /// All by one.
    One(&'a Event),
    /// By their addresses.
    Each(HashMap<&'a str, &'a Event>),
}

impl<'a> Deliveries<'a> {
    fn of_settlement(settlement: &'a Settlement) -> Self {
        let mut lines = settlement.events.iter().filter(|e| e.kind == DELIVERY);
        match (lines.next(), lines.next()) {
            (Some(one), None) if one.recipients.len() == settlement.recipients.len() => {
                Self::One(one)
            }
            _ => Self::Each(
                settlement
                    .events
                    .iter()
                    .filter(|e| e.kind == DELIVERY)
                    .flat_map(|e| e.recipients.iter().map(move |r| (r.as_str(), e)))
                    .collect(),
            ),
        }
    }

    fn of(&self, recipient: &Address) -> Option<&'a Event> {
        match self {
            Self::One(event) => Some(event),
            Self::Each(events) => events.get(recipient.to_string().as_str()).copied(),
        }
    }
}

pub(super) fn add_event(change: &Change<'_>, key: i64, event: &Event) -> rusqlite::Result<()> {
    change
        .conn
        .prepare_cached(
            "INSERT INTO event (message, at, kind, recipients, text) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            key,
            micros(event.at),
            event.kind,
            event.recipients.join("\n"),
            event.text
        ])?;
    Ok(())
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
        .prepare_cached("UPDATE job SET state = 1 WHERE id = ?1 AND state = 0")?
        .execute([job])?;
    let event = Event {
        at: now,
        kind: "held".to_owned(),
        recipients: Vec::new(),
        text: format!("put aside because it cannot be read: {why}"),
    };
    add_event(change, message, &event)
}
