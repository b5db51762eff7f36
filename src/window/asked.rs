//! What commands ask of the gateway that runs, and what it answers: a row is written, the gateway sees it within a second.

use rusqlite::{OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS asked (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    what   TEXT NOT NULL,           -- JSON
    answer TEXT,                    -- JSON; NULL: not yet
    ended  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS captured (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    asked INTEGER NOT NULL,
    line  TEXT NOT NULL
) STRICT;
";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum OperatorWish {
    /// See `listener::learning`.
    Learn {
        /// Private ones.
        networks: Vec<String>,
        /// For so long.
        seconds: u64,
        /// To any recipient that the lists admit.
        external: bool,
    },
    /// No more of it.
    Unlearn,
    /// See `listener::captures`; its lines go to the one who asked.
    Capture {
        /// Of this one.
        address: String,
        /// For so long.
        seconds: u64,
    },
    /// A command has replaced a credential: they are looked at again.
    Credentials,
    /// No more of it.
    Release {
        /// The row that asked.
        capture: i64,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WishAnswer {
    /// It is done.
    Done(String),
    /// It is not: why.
    Refused(String),
}

/// Asks; the number of the row.
///
/// # Errors
/// The file cannot be written.
pub fn ask(tx: &Transaction<'_>, wish: &OperatorWish) -> rusqlite::Result<i64> {
    let what = serde_json::to_string(wish).unwrap_or_default();
    tx.execute("INSERT INTO asked (what) VALUES (?1)", [what])?;
    Ok(tx.last_insert_rowid())
}

/// What is not answered yet, in order.
///
/// # Errors
/// The file cannot be read.
pub fn open(tx: &Transaction<'_>) -> rusqlite::Result<Vec<(i64, Option<OperatorWish>)>> {
    tx.prepare_cached("SELECT id, what FROM asked WHERE answer IS NULL ORDER BY id")?
        .query_map([], |row| {
            let what: String = row.get(1)?;
            Ok((row.get(0)?, serde_json::from_str(&what).ok()))
        })?
        .collect()
}

/// Answers.
///
/// # Errors
/// The file cannot be written.
pub fn answer(tx: &Transaction<'_>, id: i64, answer: &WishAnswer) -> rusqlite::Result<()> {
    let answer = serde_json::to_string(answer).unwrap_or_default();
    tx.execute(
        "UPDATE asked SET answer = ?2 WHERE id = ?1",
        params![id, answer],
    )?;
    Ok(())
}

/// The answer, and whether nothing more comes. `None`: none yet.
///
/// # Errors
/// The file cannot be read.
pub fn answered(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Option<(WishAnswer, bool)>> {
    let found: Option<(Option<String>, bool)> = tx
        .prepare_cached("SELECT answer, ended FROM asked WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match found {
        // The gateway was started again.
        None => Some((
            WishAnswer::Refused("the gateway has forgotten it".into()),
            true,
        )),
        Some((answer, ended)) => answer
            .and_then(|answer| serde_json::from_str(&answer).ok())
            .map(|answer| (answer, ended)),
    })
}

/// Lines of a capture for the one who asked for it, and whether it is over.
///
/// # Errors
/// The file cannot be written.
pub fn tell(tx: &Transaction<'_>, id: i64, lines: &[String], ended: bool) -> rusqlite::Result<()> {
    for line in lines {
        tx.prepare_cached("INSERT INTO captured (asked, line) VALUES (?1, ?2)")?
            .execute(params![id, line])?;
    }
    if ended {
        tx.execute("UPDATE asked SET ended = 1 WHERE id = ?1", [id])?;
    }
    Ok(())
}

/// The lines that have come; they are there once.
///
/// # Errors
/// The file cannot be written.
pub fn take_told(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<Vec<String>> {
    let lines = tx
        .prepare_cached("SELECT line FROM captured WHERE asked = ?1 ORDER BY id")?
        .query_map([id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    tx.execute("DELETE FROM captured WHERE asked = ?1", [id])?;
    Ok(lines)
}

/// Whoever asked has gone.
///
/// # Errors
/// The file cannot be written.
pub fn forget(tx: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM asked WHERE id = ?1", [id])?;
    tx.execute("DELETE FROM captured WHERE asked = ?1", [id])?;
    Ok(())
}

/// What was asked of a gateway that is gone.
///
/// # Errors
/// The file cannot be written.
pub fn forget_all(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch("DELETE FROM asked; DELETE FROM captured")
}
