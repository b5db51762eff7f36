//! Who did what: rows are added, and deleted when they are old enough; none is ever changed.

use std::time::SystemTime;

use rusqlite::{Transaction, params};
use serde::Serialize;

use crate::mail::time::{from_micros, micros, rfc3339};

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,   -- microseconds since 1970 (UTC)
    who     TEXT NOT NULL,
    role    TEXT NOT NULL,
    origin  TEXT NOT NULL,
    action  TEXT NOT NULL,
    object  TEXT NOT NULL,
    before  TEXT,
    after   TEXT,
    result  TEXT NOT NULL,
    request TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS audit_at ON audit (at);
";

/// Something that somebody did, or was refused. Secrets are masked by whoever makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct AuditRow {
    /// When.
    pub at: String,
    /// The user, the token, the user of the operating system; empty: nobody that is known.
    pub who: String,
    /// What it may do.
    pub role: String,
    /// The address it came from, `unix`, or `command`.
    pub from: String,
    /// `login`, `hold`, `content`, `propose`, `apply`, `test`, …
    pub action: String,
    /// On what.
    pub object: String,
    /// As it was.
    pub before: Option<String>,
    /// As it is now.
    pub after: Option<String>,
    /// `ok`, or why not.
    pub result: String,
    /// The method and the path, or the command.
    pub request: String,
}

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// From then on.
    pub since: Option<SystemTime>,
    /// Of this one.
    pub who: Option<String>,
    /// This word.
    pub action: Option<String>,
    /// Older than the row of this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// One more.
///
/// # Errors
/// The file cannot be written.
pub fn add(tx: &Transaction<'_>, row: &AuditRow, at: SystemTime) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO audit (at, who, role, origin, action, object, before, after, result, request)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        micros(at),
        row.who,
        row.role,
        row.from,
        row.action,
        row.object,
        row.before,
        row.after,
        row.result,
        row.request
    ])?;
    Ok(())
}

/// Newest first, each with its number.
///
/// # Errors
/// The file cannot be read.
pub fn list(tx: &Transaction<'_>, filter: &AuditFilter) -> rusqlite::Result<Vec<(i64, AuditRow)>> {
    tx.prepare_cached(
        "SELECT id, at, who, role, origin, action, object, before, after, result, request FROM audit
         WHERE (?1 IS NULL OR at >= ?1) AND (?2 IS NULL OR who = ?2) AND (?3 IS NULL OR action = ?3) AND (?4 IS NULL OR id < ?4)
         ORDER BY id DESC LIMIT ?5",
    )?
    .query_map(
        params![
            filter.since.map(micros),
            filter.who,
            filter.action,
            filter.before,
            i64::try_from(filter.limit).unwrap_or(i64::MAX)
        ],
        |row| {
            let audit = AuditRow {
                at: rfc3339(from_micros(row.get(1)?)),
                who: row.get(2)?,
                role: row.get(3)?,
                from: row.get(4)?,
                action: row.get(5)?,
                object: row.get(6)?,
                before: row.get(7)?,
                after: row.get(8)?,
                result: row.get(9)?,
                request: row.get(10)?,
            };
            Ok((row.get(0)?, audit))
        },
    )?
    .collect()
}

/// Deletes what is older; a part at a time, so that nobody waits for long.
///
/// # Errors
/// The file cannot be written.
pub fn forget(tx: &Transaction<'_>, before: SystemTime) -> rusqlite::Result<usize> {
    tx.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 LIMIT 1000)",
        [micros(before)],
    )
}
