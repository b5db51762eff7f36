//! Who is logged in, and the links that `postern admin login` makes: hashes, never what they are of.

use std::time::SystemTime;

use rusqlite::{OptionalExtension as _, Transaction, params};

use crate::mail::time::{from_micros, micros};

/// SHA-256 over what the browser or the link has.
pub type SecretHash = [u8; 32];

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS session (
    hash  BLOB PRIMARY KEY,
    name  TEXT NOT NULL,
    role  TEXT,                 -- of a link; NULL: what the settings say of the user
    proof BLOB NOT NULL,        -- SHA-256 over the user's password hash: another one ends it; of a link empty
    made  INTEGER NOT NULL,     -- microseconds since 1970 (UTC)
    seen  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS code (
    hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    made INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// At most so many sessions; the one that was not seen for longest goes.
const MOST: i64 = 1_000;

/// A login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Of the cookie.
    pub hash: SecretHash,
    /// The user, or whom a link was made for.
    pub name: String,
    /// The role of a link.
    pub role: Option<String>,
    /// SHA-256 over the password's hash; empty: of a link.
    pub proof: Vec<u8>,
    /// When it began.
    pub made: SystemTime,
    /// When it was last used by a person.
    pub seen: SystemTime,
}

/// A link that was not used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeRow {
    /// Of what the link says.
    pub hash: SecretHash,
    /// The user of the operating system that made it.
    pub name: String,
    /// What it is good for.
    pub role: String,
    /// When.
    pub made: SystemTime,
}

/// Every session.
///
/// # Errors
/// The file cannot be read.
pub fn all(tx: &Transaction<'_>) -> rusqlite::Result<Vec<SessionRow>> {
    tx.prepare_cached("SELECT hash, name, role, proof, made, seen FROM session")?
        .query_map([], |row| {
            Ok(SessionRow {
                hash: row.get(0)?,
                name: row.get(1)?,
                role: row.get(2)?,
                proof: row.get(3)?,
                made: from_micros(row.get(4)?),
                seen: from_micros(row.get(5)?),
            })
        })?
        .collect()
}

/// One more.
///
/// # Errors
/// The file cannot be written.
pub fn add(tx: &Transaction<'_>, session: &SessionRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO session (hash, name, role, proof, made, seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        session.hash,
        session.name,
        session.role,
        session.proof,
        micros(session.made),
        micros(session.seen)
    ])?;
    tx.execute(
        "DELETE FROM session WHERE hash IN (SELECT hash FROM session ORDER BY seen DESC LIMIT -1 OFFSET ?1)",
        [MOST],
    )?;
    Ok(())
}

/// It was used.
///
/// # Errors
/// The file cannot be written.
pub fn seen(tx: &Transaction<'_>, hash: &SecretHash, at: SystemTime) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE session SET seen = ?2 WHERE hash = ?1")?
        .execute(params![hash, micros(at)])?;
    Ok(())
}

/// It ends.
///
/// # Errors
/// The file cannot be written.
pub fn end(tx: &Transaction<'_>, hash: &SecretHash) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM session WHERE hash = ?1")?
        .execute([hash])?;
    Ok(())
}

/// All end, the links with them; how many sessions there were.
///
/// # Errors
/// The file cannot be written.
pub fn end_all(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
    tx.execute("DELETE FROM code", [])?;
    tx.execute("DELETE FROM session", [])
}

/// Sessions and links that are older go.
///
/// # Errors
/// The file cannot be written.
pub fn forget(tx: &Transaction<'_>, before: SystemTime) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM code WHERE made < ?1", [micros(before)])?;
    tx.execute("DELETE FROM session WHERE made < ?1", [micros(before)])?;
    Ok(())
}

/// A link was made.
///
/// # Errors
/// The file cannot be written.
pub fn add_code(tx: &Transaction<'_>, code: &CodeRow) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT OR REPLACE INTO code (hash, name, role, made) VALUES (?1, ?2, ?3, ?4)",
        params![code.hash, code.name, code.role, micros(code.made)],
    )?;
    Ok(())
}

/// Every link that was not used.
///
/// # Errors
/// The file cannot be read.
pub fn codes(tx: &Transaction<'_>) -> rusqlite::Result<Vec<CodeRow>> {
    tx.prepare_cached("SELECT hash, name, role, made FROM code")?
        .query_map([], code)?
        .collect()
}

/// The link of that hash, which is good no more.
///
/// # Errors
/// The file cannot be written.
pub fn take_code(tx: &Transaction<'_>, hash: &SecretHash) -> rusqlite::Result<Option<CodeRow>> {
    let found = tx
        .query_row(
            "SELECT hash, name, role, made FROM code WHERE hash = ?1",
            [hash],
            code,
        )
        .optional()?;
    tx.execute("DELETE FROM code WHERE hash = ?1", [hash])?;
    Ok(found)
}

fn code(row: &rusqlite::Row<'_>) -> rusqlite::Result<CodeRow> {
    Ok(CodeRow {
        hash: row.get(0)?,
        name: row.get(1)?,
        role: row.get(2)?,
        made: from_micros(row.get(3)?),
    })
}
