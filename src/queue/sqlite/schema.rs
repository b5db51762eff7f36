//! Opens the database: directories, permissions, schema, and the pragmas that make a commit durable, which are read back.

use std::{io, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig, params};

use super::{beside, op::store_error, rows};
use crate::{
    mail::message::MessageId,
    queue::{
        disk::{create, directory, sync_dir},
        store::StoreError,
        turns::Pair,
        writer_version::{VERSION, refusal, writer as named},
    },
};

/// The schema this program writes; in `user_version`.
pub(super) const SCHEMA: i64 = 7;
/// The oldest schema whose program may work on what this one writes; raised when a change to the tables would mislead it.
const READABLE_BY: i64 = 6;
/// The note with the version of the program that last had it open.
const WRITTEN_BY: &str = "written by";
/// The note with [`READABLE_BY`].
const READABLE: &str = "readable by schema";
/// The one before it, which has no place for what was asked of reports.
const WITHOUT_WISHES: i64 = 6;
/// The one before that, which has no place for what became of another store's jobs.
const WITHOUT_OUTCOMES: i64 = 5;
/// The one before that, whose jobs have no client and sender.
const WITHOUT_PAIRS: i64 = 4;
/// The one before that, whose lanes have no version.
const WITHOUT_VERSIONS: i64 = 3;
/// What became of jobs of another store that is away; written there when it is back. A job is claimed many times, and each claim ends once.
const OUTCOME: &str = "CREATE TABLE outcome (
    id         INTEGER PRIMARY KEY,
    message    BLOB NOT NULL,
    job        INTEGER NOT NULL,
    node       INTEGER NOT NULL,
    claim      INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    settlement TEXT NOT NULL,
    UNIQUE (message, job, node, claim)
) STRICT";
/// Octets of a page of the file; a file that is there keeps its own.
const PAGE: i64 = 8192;
/// Pages that the writer keeps in memory, as the negative of KiB: what it writes it soon changes and deletes again.
const CACHE: i64 = -6144;
/// Octets of the journal that stay when it is written from its beginning again; it is usually half as large.
const JOURNAL: i64 = 16 * 1024 * 1024;
/// What was asked of reports, and who is still to be told that it takes long.
const WISHES: &str = "ALTER TABLE message ADD COLUMN dsn TEXT;
    ALTER TABLE message ADD COLUMN tell_late INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX message_late ON message (accepted) WHERE tell_late = 1;";
/// How long a write waits for another process's.
const BUSY: Duration = Duration::from_secs(5);

/// Makes what is missing: `data_dir` 0700, the database 0600, `spool` 0700.
pub(super) fn prepare(data_dir: &Path, database: &Path, spool: &Path) -> io::Result<()> {
    directory(data_dir)?;
    directory(spool)?;
    if is_new(database) {
        set_bodies_aside(data_dir, spool)?;
    }
    if !database.exists() {
        // SQLite gives its journal the mode of the database.
        create(database, false)?.sync_all()?;
    }
    sync_dir(data_dir)
}

/// Whether nothing was ever written to it.
fn is_new(database: &Path) -> bool {
    let is_empty = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.len() == 0);
    let journal = database.with_extension("db-wal");
    !database.exists() || (is_empty(database) && (!journal.exists() || is_empty(&journal)))
}

/// Bodies beside a database that is new are of one that was lost: no row will ever name them, and what no row names is deleted at
/// a start. So they are put where nothing is deleted, for somebody to look at.
fn set_bodies_aside(data_dir: &Path, spool: &Path) -> io::Result<()> {
    let is_body = |file: &std::fs::DirEntry| {
        file.file_name()
            .to_str()
            .is_some_and(|name| name.parse::<MessageId>().is_ok())
    };
    let bodies = std::fs::read_dir(spool)?.flatten().filter(is_body).count();
    if bodies == 0 {
        return Ok(());
    }
    for n in 1_u32.. {
        let aside = data_dir.join(format!("spool-without-queue-{n}"));
        if aside.exists() {
            continue;
        }
        std::fs::rename(spool, &aside)?;
        directory(spool)?;
        sync_dir(data_dir)?;
        tracing::error!(event = "queue lost", bodies, directory = %aside.display(),
            "queue.db is missing or empty, and there are bodies of its messages: they were set aside. The queue begins empty. If there is a \
             copy of queue.db, stop the gateway, put the copy and these files back (as spool), and start again");
        break;
    }
    Ok(())
}

/// The connection that writes; makes the schema when the file is new.
pub(super) fn writer(database: &Path) -> Result<Connection, StoreError> {
    let conn = connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    setup(&conn)?;
    Ok(conn)
}

/// A connection that only reads.
pub(super) fn reader(database: &Path) -> Result<Connection, StoreError> {
    let conn = connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.pragma_update(None, "query_only", true)
        .map_err(unavailable)?;
    Ok(conn)
}

fn connect(database: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(database, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(unavailable)?;
    conn.busy_timeout(BUSY).map_err(unavailable)?;
    // Else a statement is compiled anew for every value it is given, where the value might change the plan: a sixth of all
    // the time of a message. No plan may depend on a value then, so a partial index is asked for by literals.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(unavailable)?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}

/// Why this program may not work on the file, because a newer one wrote it. Whatever else is wrong with it, opening says.
pub(in crate::queue) fn written_by_newer(database: &Path) -> Option<StoreError> {
    if is_new(database) {
        return None;
    }
    let conn = connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
    keep_journal(&conn, true).ok()?;
    may_work(&conn)
        .err()
        .filter(|error| matches!(error, StoreError::Newer(_)))
}

/// Whether the last connection that is closed leaves the journal to the one who wrote it.
fn keep_journal(conn: &Connection, keep: bool) -> Result<(), StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)
        .map(|_| ())
        .map_err(unavailable)
}

/// Whether this program knows what is in the file, or the newer one that wrote it says that it may work on it all the same.
fn may_work(conn: &Connection) -> Result<(), StoreError> {
    let found: i64 = conn
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(unavailable)?;
    if found == 0 || (WITHOUT_VERSIONS..=SCHEMA).contains(&found) {
        return Ok(());
    }
    if found < SCHEMA {
        return Err(StoreError::Unavailable(format!(
            "it was written by an older version of Postern (schema {found}; this one knows {SCHEMA})"
        )));
    }
    // A file that is busy or broken must not pass for one that cannot be read; one without the notes says nothing.
    let note = |key| beside::note(conn, key).ok().flatten();
    let readable = note(READABLE).and_then(|text| text.parse::<i64>().ok());
    if readable.is_some_and(|oldest| oldest <= SCHEMA) {
        return Ok(());
    }
    let by = named(note(WRITTEN_BY).as_deref(), found, SCHEMA);
    Err(StoreError::Newer(refusal(&by)))
}

fn setup(conn: &Connection) -> Result<(), StoreError> {
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    keep_journal(conn, true)?;
    may_work(conn)?;
    keep_journal(conn, false)?;
    // Before the first table, else it has no effect.
    // A usual mail and its row fit into two of these; with 4 KiB there would be twice as many to write for each.
    conn.pragma_update(None, "page_size", PAGE)
        .map_err(unavailable)?;
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")
        .map_err(unavailable)?;
    let mode: String = conn
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(unavailable)?;
    conn.pragma_update(None, "synchronous", "FULL")
        .map_err(unavailable)?;
    // 2 is FULL: every commit is synced. Without it a 250 would be a lie.
    if mode != "wal" || number("synchronous").map_err(unavailable)? != 2 {
        return Err(StoreError::Unavailable(
            "SQLite does not give journal_mode=WAL and synchronous=FULL here".to_owned(),
        ));
    }
    // After one large change the journal does not stay as large.
    conn.pragma_update_and_check(None, "journal_size_limit", JOURNAL, |_| Ok(()))
        .map_err(unavailable)?;
    conn.pragma_update(None, "cache_size", CACHE)
        .map_err(unavailable)?;
    conn.pragma_update(None, "temp_store", "MEMORY")
        .map_err(unavailable)?;
    conn.execute_batch("BEGIN IMMEDIATE").map_err(unavailable)?;
    // Asked again under the lock: another process may have been first.
    may_work(conn)?;
    schema(conn).map_err(unavailable)
}

fn schema(conn: &Connection) -> rusqlite::Result<()> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        conn.execute_batch(include_str!("../sqlite.sql"))?;
        conn.execute_batch(OUTCOME)?;
    }
    if found == WITHOUT_VERSIONS {
        conn.execute_batch("ALTER TABLE lane ADD COLUMN version INTEGER NOT NULL DEFAULT 1")?;
    }
    if [WITHOUT_VERSIONS, WITHOUT_PAIRS].contains(&found) {
        add_pairs(conn)?;
    }
    if [WITHOUT_VERSIONS, WITHOUT_PAIRS, WITHOUT_OUTCOMES].contains(&found) {
        conn.execute_batch(OUTCOME)?;
    }
    if (WITHOUT_VERSIONS..=WITHOUT_WISHES).contains(&found) {
        conn.execute_batch(WISHES)?;
    }
    if found < SCHEMA {
        conn.pragma_update(None, "user_version", SCHEMA)?;
    }
    // A newer one's word on who may read it stays.
    if found <= SCHEMA {
        let mut note = conn.prepare(
            "INSERT INTO note (key, value) VALUES (?1, ?2)
               ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value <> excluded.value",
        )?;
        note.execute([WRITTEN_BY, VERSION])?;
        note.execute([READABLE, &READABLE_BY.to_string()])?;
    }
    conn.execute_batch("COMMIT")?;
    conn.execute_batch(
        "CREATE TEMP TABLE picked (job INTEGER PRIMARY KEY, message INTEGER, route TEXT, state INTEGER)",
    )
}

/// Jobs get the client and the sender whose turns they wait for, as far as the rows of their messages can be read.
fn add_pairs(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "DROP INDEX job_due;
         ALTER TABLE job ADD COLUMN client INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE job ADD COLUMN sender INTEGER NOT NULL DEFAULT 0;",
    )?;
    let mut write = conn.prepare("UPDATE job SET client = ?2, sender = ?3 WHERE id = ?1")?;
    let mut jobs = conn.prepare(
        "SELECT j.id, m.origin, coalesce(m.sender, '') FROM job j CROSS JOIN message m ON m.key = j.message
         WHERE j.id > ?1 ORDER BY j.id LIMIT 1000",
    )?;
    let mut last = i64::MIN;
    loop {
        let some = jobs
            .query_map([last], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<Vec<(i64, String, String)>>>()?;
        for (job, origin, sender) in &some {
            if let Some(origin) = rows::origin_from_json(origin) {
                let pair = Pair::of(&origin, sender);
                write.execute(params![job, pair.client, pair.sender])?;
            }
        }
        match some.last() {
            Some((job, ..)) => last = *job,
            None => break,
        }
    }
    conn.execute_batch(
        "CREATE INDEX job_due ON job (route, pinned, lane, client, sender, due) WHERE state = 2",
    )
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: rusqlite::Error) -> StoreError {
    store_error(&error)
}
