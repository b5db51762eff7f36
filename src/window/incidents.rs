//! Incidents, and the outbox: what is to be told of them to whom, written in the same transaction.
//!
//! What opens or is told is decided by whoever makes the rows.

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::mail::time::{from_micros, micros};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS incident (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT NOT NULL,
    object    TEXT NOT NULL,
    severity  TEXT NOT NULL,
    stage     INTEGER NOT NULL,
    state     TEXT NOT NULL,      -- open, acknowledged, recovered
    opened    INTEGER NOT NULL,   -- microseconds since 1970 (UTC)
    seen      INTEGER NOT NULL,
    recovered INTEGER,
    count     INTEGER NOT NULL,
    number    INTEGER NOT NULL,   -- of its last transition
    told      INTEGER NOT NULL,   -- when that was
    cause     TEXT,
    evidence  TEXT NOT NULL,      -- lines
    members   TEXT NOT NULL,      -- lines: what a storm stands for
    note      TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS incident_state ON incident (state);
CREATE TABLE IF NOT EXISTS outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    incident   INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    transition TEXT NOT NULL,
    channel    TEXT NOT NULL,
    content    TEXT NOT NULL,     -- the incident as it was, in JSON
    made       INTEGER NOT NULL,
    tries      INTEGER NOT NULL,
    next       INTEGER NOT NULL,
    at         INTEGER,           -- of the last try
    result     TEXT,
    over       INTEGER NOT NULL,  -- 0 waits, 1 taken, 2 given up, 3 not to be told any more
    UNIQUE (incident, number, channel)
) STRICT;
CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (channel, id) WHERE over = 0;
";

/// No try lies further ahead than this: what does was written by another clock.
const LONGEST: Duration = Duration::from_hours(1);

/// An incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentRow {
    /// Given when it is first written; 0 before.
    pub id: i64,
    /// A word.
    pub kind: String,
    /// What it is about; empty: the gateway.
    pub object: String,
    /// A word.
    pub severity: String,
    /// How far it has come, of what gets worse by steps.
    pub stage: u32,
    /// `open`, `acknowledged`, `recovered`.
    pub state: String,
    /// When it opened first.
    pub opened: SystemTime,
    /// When it was last so.
    pub seen: SystemTime,
    /// When it was over.
    pub recovered: Option<SystemTime>,
    /// How often it has opened.
    pub count: u32,
    /// Of its last transition, counted from 1.
    pub number: u32,
    /// When that was.
    pub told: SystemTime,
    /// A word for the cause.
    pub cause: Option<String>,
    /// What was last said.
    pub evidence: Vec<String>,
    /// What a storm stands for.
    pub members: Vec<String>,
    /// Of who acknowledged it.
    pub note: Option<String>,
}

/// How far a row of the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxState {
    /// For its next try.
    Waiting,
    /// Somebody was told.
    Taken,
    /// It was tried for long enough.
    GivenUp,
    /// There is no such channel any more, or what came before was not told.
    Ended,
}

impl OutboxState {
    const ALL: [Self; 4] = [Self::Waiting, Self::Taken, Self::GivenUp, Self::Ended];

    fn number(self) -> i64 {
        self as i64
    }

    fn of(number: i64) -> Self {
        let found = Self::ALL.into_iter().find(|one| one.number() == number);
        found.unwrap_or(Self::Ended)
    }
}

/// Something to be told to one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Given when it is written.
    pub id: i64,
    /// Of which incident.
    pub incident: i64,
    /// Which of its transitions.
    pub number: u32,
    /// `opened`, `reminded`, `recovered`.
    pub transition: String,
    /// By name.
    pub channel: String,
    /// The incident as it was, in JSON.
    pub content: String,
    /// When.
    pub made: SystemTime,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next.
    pub next: SystemTime,
    /// When it was last tried.
    pub at: Option<SystemTime>,
    /// What came of that.
    pub result: Option<String>,
    /// How far it is.
    pub state: OutboxState,
}

const COLUMNS: &str = "id, kind, object, severity, stage, state, opened, seen, recovered, count, number, told, cause, evidence, members, note";

fn incident(row: &Row<'_>) -> rusqlite::Result<IncidentRow> {
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    Ok(IncidentRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        object: row.get(2)?,
        severity: row.get(3)?,
        stage: row.get(4)?,
        state: row.get(5)?,
        opened: from_micros(row.get(6)?),
        seen: from_micros(row.get(7)?),
        recovered: row.get::<_, Option<i64>>(8)?.map(from_micros),
        count: row.get(9)?,
        number: row.get(10)?,
        told: from_micros(row.get(11)?),
        cause: row.get(12)?,
        evidence: lines(row.get(13)?),
        members: lines(row.get(14)?),
        note: row.get(15)?,
    })
}

/// Those that are not over, and those that were over no earlier than `since`.
///
/// # Errors
/// The file cannot be read.
pub fn live(tx: &Transaction<'_>, since: SystemTime) -> rusqlite::Result<Vec<IncidentRow>> {
    let question = format!(
        "SELECT {COLUMNS} FROM incident WHERE state IN ('open', 'acknowledged') OR (state = 'recovered' AND recovered >= ?1) ORDER BY id"
    );
    tx.prepare_cached(&question)?
        .query_map([micros(since)], incident)?
        .collect()
}

/// One of them.
///
/// # Errors
/// The file cannot be read.
pub fn one(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<IncidentRow>> {
    let question = format!("SELECT {COLUMNS} FROM incident WHERE id = ?1");
    tx.prepare_cached(&question)?
        .query_row([id], incident)
        .optional()
}

/// A part of the list, newest first. `before`: only older ones than this.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    tx: &Transaction<'_>,
    state: Option<&str>,
    before: Option<i64>,
    limit: usize,
) -> rusqlite::Result<Vec<IncidentRow>> {
    let question = format!(
        "SELECT {COLUMNS} FROM incident WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.prepare_cached(&question)?
        .query_map(params![state, before, limit], incident)?
        .collect()
}

/// How many are open, by their severity.
///
/// # Errors
/// The file cannot be read.
pub fn open(tx: &Transaction<'_>) -> rusqlite::Result<Vec<(String, u64)>> {
    tx.prepare_cached(
        "SELECT severity, count(*) FROM incident WHERE state = 'open' GROUP BY severity",
    )?
    .query_map([], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?
    .collect()
}

/// Writes one; the number it has. A new one gets the next, above `floor`.
///
/// # Errors
/// The file cannot be written.
pub fn put(tx: &Transaction<'_>, row: &IncidentRow, floor: i64) -> rusqlite::Result<i64> {
    let id = if row.id == 0 {
        let last: Option<i64> = tx
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'incident'")?
            .query_row([], |row| row.get(0))
            .optional()?;
        last.unwrap_or(0).max(floor) + 1
    } else {
        row.id
    };
    let question = format!(
        "INSERT OR REPLACE INTO incident ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
    );
    tx.prepare_cached(&question)?.execute(params![
        id,
        row.kind,
        row.object,
        row.severity,
        row.stage,
        row.state,
        micros(row.opened),
        micros(row.seen),
        row.recovered.map(micros),
        row.count,
        row.number,
        micros(row.told),
        row.cause,
        row.evidence.join("\n"),
        row.members.join("\n"),
        row.note,
    ])?;
    Ok(id)
}

/// Somebody looks after it. `None`: there is no such incident; false: it is over.
///
/// # Errors
/// The file cannot be written.
pub fn acknowledge(
    tx: &Transaction<'_>,
    id: i64,
    note: Option<&str>,
) -> rusqlite::Result<Option<bool>> {
    let Some(row) = one(tx, id)? else {
        return Ok(None);
    };
    if row.state == "recovered" {
        return Ok(Some(false));
    }
    tx.execute(
        "UPDATE incident SET state = 'acknowledged', note = coalesce(?2, note) WHERE id = ?1",
        params![id, note],
    )?;
    Ok(Some(true))
}

/// Deletes what was over before, with what was told of it; a part at a time.
///
/// # Errors
/// The file cannot be written.
pub fn forget(tx: &Transaction<'_>, before: SystemTime) -> rusqlite::Result<usize> {
    let gone = tx.execute(
        "DELETE FROM incident WHERE id IN (SELECT id FROM incident WHERE state = 'recovered' AND recovered < ?1 LIMIT 1000)",
        [micros(before)],
    )?;
    if gone > 0 {
        tx.execute(
            "DELETE FROM outbox WHERE incident NOT IN (SELECT id FROM incident)",
            [],
        )?;
    }
    Ok(gone)
}

const OUTBOX: &str =
    "id, incident, number, transition, channel, content, made, tries, next, at, result, over";

fn outbox(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        id: row.get(0)?,
        incident: row.get(1)?,
        number: row.get(2)?,
        transition: row.get(3)?,
        channel: row.get(4)?,
        content: row.get(5)?,
        made: from_micros(row.get(6)?),
        tries: row.get(7)?,
        next: from_micros(row.get(8)?),
        at: row.get::<_, Option<i64>>(9)?.map(from_micros),
        result: row.get(10)?,
        state: OutboxState::of(row.get(11)?),
    })
}

/// Something is to be told.
///
/// # Errors
/// The file cannot be written.
pub fn tell(tx: &Transaction<'_>, row: &OutboxRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO outbox (incident, number, transition, channel, content, made, tries, next, over)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?6, 0)",
    )?
    .execute(params![
        row.incident,
        row.number,
        row.transition,
        row.channel,
        row.content,
        micros(row.made),
    ])?;
    Ok(())
}

/// What was told of an incident, or is to be, in its order.
///
/// # Errors
/// The file cannot be read.
pub fn told(tx: &Transaction<'_>, incident: i64) -> rusqlite::Result<Vec<OutboxRow>> {
    let question = format!("SELECT {OUTBOX} FROM outbox WHERE incident = ?1 ORDER BY number, id");
    tx.prepare_cached(&question)?
        .query_map([incident], outbox)?
        .collect()
}

/// The channels for which something is due.
///
/// # Errors
/// The file cannot be read.
pub fn channels_due(tx: &Transaction<'_>, now: SystemTime) -> rusqlite::Result<Vec<String>> {
    tx.prepare_cached(
        "SELECT DISTINCT channel FROM outbox WHERE over = 0 AND (next <= ?1 OR next > ?2)",
    )?
    .query_map([micros(now), micros(now + LONGEST)], |row| row.get(0))?
    .collect()
}

/// The first that a channel is to tell now. Of one incident nothing is told before what came earlier is over.
///
/// # Errors
/// The file cannot be read.
pub fn due(
    tx: &Transaction<'_>,
    channel: &str,
    now: SystemTime,
) -> rusqlite::Result<Option<OutboxRow>> {
    let question = format!(
        "SELECT {OUTBOX} FROM outbox AS row WHERE over = 0 AND channel = ?1 AND (next <= ?2 OR next > ?3)
         AND NOT EXISTS (SELECT 1 FROM outbox AS other WHERE other.over = 0 AND other.channel = row.channel
                         AND other.incident = row.incident AND other.number < row.number)
         ORDER BY next, id LIMIT 1"
    );
    tx.prepare_cached(&question)?
        .query_row(params![channel, micros(now), micros(now + LONGEST)], outbox)
        .optional()
}

/// What came of a try.
///
/// # Errors
/// The file cannot be written.
pub fn tried(tx: &Transaction<'_>, row: &OutboxRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE outbox SET tries = ?2, next = ?3, at = ?4, result = ?5, over = ?6 WHERE id = ?1 AND over = 0",
    )?
    .execute(params![
        row.id,
        row.tries,
        micros(row.next),
        row.at.map(micros),
        row.result,
        row.state.number(),
    ])?;
    if row.state == OutboxState::GivenUp {
        // Who was not told that it began is not told how it went on.
        tx.execute(
            "UPDATE outbox SET over = ?4, result = 'what came before was not told' WHERE incident = ?1 AND channel = ?2 AND number > ?3 AND over = 0",
            params![row.incident, row.channel, row.number, OutboxState::Ended.number()],
        )?;
    }
    Ok(())
}

/// Ends what waits for channels that are not among these.
///
/// # Errors
/// The file cannot be written.
pub fn keep_channels(tx: &Transaction<'_>, names: &[String]) -> rusqlite::Result<()> {
    let waiting: Vec<String> = tx
        .prepare_cached("SELECT DISTINCT channel FROM outbox WHERE over = 0")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for gone in waiting.iter().filter(|name| !names.contains(name)) {
        tx.execute(
            "UPDATE outbox SET over = ?2, result = 'there is no such channel any more' WHERE channel = ?1 AND over = 0",
            params![gone, OutboxState::Ended.number()],
        )?;
    }
    Ok(())
}

/// A channel has told somebody something: what it could not tell before is no fault any more.
///
/// # Errors
/// The file cannot be written.
pub fn has_told(tx: &Transaction<'_>, channel: &str) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE outbox SET over = ?2 WHERE channel = ?1 AND over = ?3",
        params![
            channel,
            OutboxState::Ended.number(),
            OutboxState::GivenUp.number()
        ],
    )?;
    Ok(())
}

/// The channels whose last word was given up, with the fault.
///
/// # Errors
/// The file cannot be read.
pub fn failing(tx: &Transaction<'_>) -> rusqlite::Result<Vec<(String, String)>> {
    tx.prepare_cached(
        "SELECT channel, coalesce(result, '') FROM outbox AS row WHERE over = 2 AND NOT EXISTS
         (SELECT 1 FROM outbox AS later WHERE later.channel = row.channel AND later.over IN (1, 2)
          AND (later.at > row.at OR later.at = row.at AND later.id > row.id))",
    )?
    .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}
