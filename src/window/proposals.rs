//! Changes of the configuration that wait, and those that were made or given up. What is in them no row says: no secret is.

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::mail::time::{from_micros, micros};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS proposal (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    state    TEXT NOT NULL,     -- open, applied, dropped
    who      TEXT NOT NULL,
    at       INTEGER NOT NULL,  -- microseconds since 1970 (UTC)
    title    TEXT NOT NULL,
    diff     TEXT NOT NULL,
    problems TEXT NOT NULL,     -- JSON
    base     TEXT NOT NULL,
    body     TEXT NOT NULL      -- JSON: what is done, and what was seen where it is done
) STRICT;
CREATE TABLE IF NOT EXISTS writing (
    proposal INTEGER PRIMARY KEY,
    pid      INTEGER NOT NULL,  -- of who writes
    at       INTEGER NOT NULL,
    after    TEXT NOT NULL      -- SHA-256 of the file as it is to be, in hex
) STRICT;
";

/// Nobody writes a file for longer.
const WRITES: Duration = Duration::from_mins(5);

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProposalState {
    /// It waits.
    Open,
    /// The file was changed so.
    Applied,
    /// Nobody wants it any more.
    Dropped,
}

impl ProposalState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Applied => "applied",
            Self::Dropped => "dropped",
        }
    }

    fn parse(word: &str) -> Self {
        [Self::Open, Self::Applied]
            .into_iter()
            .find(|state| state.as_str() == word)
            .unwrap_or(Self::Dropped)
    }
}

/// A proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalRow {
    /// From 1; not used before it is kept.
    pub number: i64,
    /// What became of it.
    pub state: ProposalState,
    /// Whose it is.
    pub by: String,
    /// When it was made.
    pub at: SystemTime,
    /// What it is for.
    pub title: String,
    /// What becomes of the file, secrets masked.
    pub diff: String,
    /// What `check` says of the result, in JSON.
    pub problems: String,
    /// SHA-256 of the file that it was made for, in hex.
    pub base: String,
    /// What is done, in JSON.
    pub body: String,
}

/// One more, which is open; its number.
///
/// # Errors
/// The file cannot be written.
pub fn add(tx: &Transaction<'_>, row: &ProposalRow) -> rusqlite::Result<i64> {
    tx.prepare_cached(
        "INSERT INTO proposal (state, who, at, title, diff, problems, base, body)
         VALUES ('open', ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        row.by,
        micros(row.at),
        row.title,
        row.diff,
        row.problems,
        row.base,
        row.body
    ])?;
    Ok(tx.last_insert_rowid())
}

/// The one of that number.
///
/// # Errors
/// The file cannot be read.
pub fn find(tx: &Transaction<'_>, number: i64) -> rusqlite::Result<Option<ProposalRow>> {
    tx.prepare_cached(
        "SELECT number, state, who, at, title, diff, problems, base, body FROM proposal WHERE number = ?1",
    )?
    .query_row([number], read)
    .optional()
}

/// Newest first: those older than the one of the number `before`, at most so many.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    tx: &Transaction<'_>,
    before: Option<i64>,
    limit: usize,
) -> rusqlite::Result<Vec<ProposalRow>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.prepare_cached(
        "SELECT number, state, who, at, title, diff, problems, base, body FROM proposal
         WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2",
    )?
    .query_map(params![before, limit], read)?
    .collect()
}

/// What is done by those that are open.
///
/// # Errors
/// The file cannot be read.
pub fn open_bodies(tx: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    tx.prepare_cached("SELECT body FROM proposal WHERE state = 'open'")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Nobody wants an open one any more. False: there is none of that number that is open, or it is being written.
///
/// # Errors
/// The file cannot be written.
pub fn discard(tx: &Transaction<'_>, number: i64) -> rusqlite::Result<bool> {
    let changed = tx.execute(
        "UPDATE proposal SET state = 'dropped' WHERE number = ?1 AND state = 'open'
         AND NOT EXISTS (SELECT 1 FROM writing WHERE proposal = number)",
        [number],
    )?;
    Ok(changed > 0)
}

/// From now on this process writes an open one into the configuration, which then has the hash `after`: so that whoever finds it
/// unfinished knows what became of it. False: it is not open, or somebody else writes it.
///
/// # Errors
/// The file cannot be written.
pub fn begin(
    tx: &Transaction<'_>,
    number: i64,
    after: &str,
    now: SystemTime,
) -> rusqlite::Result<bool> {
    let begun = tx.execute(
        "INSERT OR IGNORE INTO writing (proposal, pid, at, after)
         SELECT number, ?2, ?3, ?4 FROM proposal WHERE number = ?1 AND state = 'open'",
        params![number, std::process::id(), micros(now), after],
    )?;
    Ok(begun > 0)
}

/// It was written, or it was not and the file is as before.
///
/// # Errors
/// The file cannot be written.
pub fn finish(tx: &Transaction<'_>, number: i64, is_written: bool) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM writing WHERE proposal = ?1", [number])?;
    if is_written {
        tx.execute(
            "UPDATE proposal SET state = 'applied' WHERE number = ?1 AND state = 'open'",
            [number],
        )?;
    }
    Ok(())
}

/// Whose writing counts as cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutOff {
    /// Everybody's: a gateway begins.
    All,
    /// That of a process that is gone, and what takes too long.
    Gone,
}

/// Says of those whose writing was cut off what became of them: the file has the hash `file` now.
///
/// # Errors
/// The file cannot be read or written.
pub fn settle(
    tx: &Transaction<'_>,
    file: &str,
    which: CutOff,
    now: SystemTime,
) -> rusqlite::Result<()> {
    let all: Vec<(i64, i32, i64, String)> = tx
        .prepare_cached("SELECT proposal, pid, at, after FROM writing")?
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (number, pid, at, after) in all {
        let age = now.duration_since(from_micros(at));
        // Of a clock that was set back nothing is known; that of a process that is gone is over all the same.
        let is_over = age.is_ok_and(|age| age > WRITES) || !is_alive(pid);
        if which == CutOff::All || is_over {
            finish(tx, number, after == file)?;
        }
    }
    Ok(())
}

fn is_alive(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid);
    // Who may not ask knows that it is there.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Drops open ones that are older than `open`, and deletes the others that are older than `closed`.
///
/// # Errors
/// The file cannot be written.
pub fn expire(
    tx: &Transaction<'_>,
    open: SystemTime,
    closed: Option<SystemTime>,
) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE proposal SET state = 'dropped' WHERE state = 'open' AND at < ?1
         AND NOT EXISTS (SELECT 1 FROM writing WHERE proposal = number)",
        [micros(open)],
    )?;
    tx.execute(
        "DELETE FROM proposal WHERE state <> 'open' AND at < ?1",
        [closed.map(micros)],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<ProposalRow> {
    Ok(ProposalRow {
        number: row.get(0)?,
        state: ProposalState::parse(&row.get::<_, String>(1)?),
        by: row.get(2)?,
        at: from_micros(row.get(3)?),
        title: row.get(4)?,
        diff: row.get(5)?,
        problems: row.get(6)?,
        base: row.get(7)?,
        body: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::window::WindowDb;

    #[test]
    fn a_proposal_is_open_once_and_for_its_days() {
        let home = tempfile::tempdir().unwrap();
        let window = WindowDb::make(home.path()).unwrap();
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365);
        let row = |days: u64| ProposalRow {
            number: 0,
            state: ProposalState::Open,
            by: "kim".to_owned(),
            at: start + Duration::from_hours(24 * days),
            title: format!("day {days}"),
            diff: "-a\n+b\n".to_owned(),
            problems: "[]".to_owned(),
            base: "00".to_owned(),
            body: format!("{{{days}}}"),
        };
        let rows: Vec<_> = [0, 10, 40].into_iter().map(row).collect();
        window
            .wait(move |tx| {
                for row in &rows {
                    add(tx, row)?;
                }
                assert!(begin(tx, 2, "after", start)?);
                // One writes it at a time, and nobody drops it meanwhile.
                assert!(!begin(tx, 2, "other", start)? && !discard(tx, 2)?);
                finish(tx, 2, true)?;
                // Nothing becomes of it twice.
                assert!(!discard(tx, 2)? && !begin(tx, 2, "after", start)?);
                assert!(!discard(tx, 9)? && !begin(tx, 9, "after", start)?);
                // One that was not written can be again.
                assert!(begin(tx, 3, "after", start)?);
                finish(tx, 3, false)?;
                assert!(begin(tx, 3, "after", start)?);
                finish(tx, 3, false)
            })
            .unwrap();
        let (states, bodies, part) = window
            .wait(move |tx| {
                expire(tx, start + Duration::from_hours(24 * 30), None)?;
                let all = list(tx, None, 10)?;
                let states: Vec<_> = all.iter().map(|row| (row.number, row.state)).collect();
                Ok((states, open_bodies(tx)?, list(tx, Some(3), 1)?))
            })
            .unwrap();
        let expected = [
            (3, ProposalState::Open),
            (2, ProposalState::Applied),
            (1, ProposalState::Dropped),
        ];
        assert_eq!(states, expected);
        assert_eq!(bodies, ["{40}"]);
        assert_eq!(part[0].number, 2);
        assert_eq!(part[0].title, "day 10");
        let left = window
            .wait(move |tx| {
                let early = start + Duration::from_hours(24 * 5);
                expire(tx, early, Some(early))?;
                Ok((find(tx, 1)?.is_some(), find(tx, 2)?.is_some()))
            })
            .unwrap();
        assert_eq!(left, (false, true));
    }
    #[test]
    fn what_was_cut_off_is_what_the_file_says() {
        let home = tempfile::tempdir().unwrap();
        let window = WindowDb::make(home.path()).unwrap();
        let now = SystemTime::now();
        let row = ProposalRow {
            number: 0,
            state: ProposalState::Open,
            by: "kim".to_owned(),
            at: now,
            title: String::new(),
            diff: String::new(),
            problems: "[]".to_owned(),
            base: String::new(),
            body: String::new(),
        };
        let gone = std::process::Command::new("true").spawn().unwrap();
        let pid = gone.id();
        gone.wait_with_output().unwrap();
        let states = window
            .wait(move |tx| {
                for number in 1..=5 {
                    add(tx, &row)?;
                    assert!(begin(tx, number, &format!("after {number}"), now)?);
                }
                tx.execute(
                    "UPDATE writing SET pid = ?1 WHERE proposal IN (1, 2)",
                    [pid],
                )?;
                let long_ago = micros(now - WRITES - Duration::from_secs(1));
                tx.execute("UPDATE writing SET at = ?1 WHERE proposal = 3", [long_ago])?;
                settle(tx, "after 1", CutOff::Gone, now)?;
                // This process goes on with the others.
                assert!(!discard(tx, 4)? && !discard(tx, 5)?);
                assert!(discard(tx, 2)? && discard(tx, 3)?);
                settle(tx, "after 5", CutOff::All, now)?;
                assert!(discard(tx, 4)?);
                let all = list(tx, None, 10)?;
                Ok(all.iter().map(|row| row.state).collect::<Vec<_>>())
            })
            .unwrap();
        let (applied, dropped) = (ProposalState::Applied, ProposalState::Dropped);
        assert_eq!(states, [applied, dropped, dropped, dropped, applied]);
    }
}
