//! Changes of the configuration that wait, and those that were made or given up. What is in them no row says: no secret is.

use std::time::SystemTime;

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
";

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

/// An open one is open no more. False: there is none of that number that is.
///
/// # Errors
/// The file cannot be written.
pub fn close(tx: &Transaction<'_>, number: i64, state: ProposalState) -> rusqlite::Result<bool> {
    let changed = tx.execute(
        "UPDATE proposal SET state = ?2 WHERE number = ?1 AND state = 'open'",
        params![number, state.as_str()],
    )?;
    Ok(changed > 0)
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
        "UPDATE proposal SET state = 'dropped' WHERE state = 'open' AND at < ?1",
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
                assert!(close(tx, 2, ProposalState::Applied)?);
                // Nothing becomes of it twice.
                assert!(!close(tx, 2, ProposalState::Dropped)?);
                assert!(!close(tx, 9, ProposalState::Dropped)?);
                Ok(())
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
}
