//! Opens the database: directories, permissions, pragmas, schema.
//!
//! Apart so that what makes a commit durable can be read in one place, and is asserted rather than hoped for.

use std::{
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::{mail::message::MessageId, queue::store::StoreError};

/// The schema this program writes; in `user_version`.
pub(super) const SCHEMA: i64 = 3;
/// What schema 1 lacks.
const FROM_1: &str = "ALTER TABLE job ADD COLUMN lane TEXT NOT NULL DEFAULT '';
     DROP INDEX job_due;
     CREATE INDEX job_due ON job (route, pinned, lane, due) WHERE state = 2;";
/// What schema 2 has otherwise: jobs under numbers of their own, found by an index, and kept when they are done; messages found by
/// an index of every id, and those that ended by another; a row for every delivery.
const FROM_2: &str = "ALTER TABLE recipient ADD COLUMN at INTEGER;
     ALTER TABLE recipient ADD COLUMN said TEXT;
     ALTER TABLE recipient ADD COLUMN route TEXT;
     ALTER TABLE recipient ADD COLUMN attempts INTEGER;
     CREATE TABLE message_3 (
       key INTEGER PRIMARY KEY, id BLOB NOT NULL, accepted INTEGER NOT NULL, sender TEXT, eight_bit INTEGER NOT NULL,
       origin TEXT NOT NULL, size INTEGER NOT NULL, body_len INTEGER NOT NULL, kept INTEGER NOT NULL, ended INTEGER
     ) STRICT;
     INSERT INTO message_3 SELECT key, id, accepted, sender, eight_bit, origin, size, body_len, kept, ended FROM message;
     DROP TABLE message;
     ALTER TABLE message_3 RENAME TO message;
     CREATE INDEX message_failed ON message (ended) WHERE ended IS NOT NULL AND kept > 0;
     CREATE TABLE message_id (id BLOB PRIMARY KEY, message INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     INSERT INTO message_id SELECT id, key FROM message;
     CREATE TABLE job_3 (
       id INTEGER PRIMARY KEY, message INTEGER NOT NULL, route TEXT NOT NULL, pinned TEXT NOT NULL,
       lane TEXT NOT NULL DEFAULT '', state INTEGER NOT NULL, due INTEGER NOT NULL, attempts INTEGER NOT NULL,
       wishes TEXT, was INTEGER NOT NULL, CHECK (id >> 20 = message)
     ) STRICT;
     INSERT INTO job_3
       SELECT message * 1048576 + row_number() OVER (PARTITION BY message ORDER BY id) - 1,
              message, route, pinned, lane, state, due, attempts, wishes, id FROM job;
     CREATE UNIQUE INDEX job_was ON job_3 (was);
     UPDATE recipient SET job = coalesce((SELECT id FROM job_3 WHERE was = recipient.job), message * 1048576);
     UPDATE recipient SET route = j.route, attempts = j.attempts FROM job_3 j WHERE j.id = recipient.job AND j.state = 4;
     DELETE FROM job_3 WHERE state = 4;
     DROP TABLE job;
     DROP INDEX job_was;
     ALTER TABLE job_3 DROP COLUMN was;
     ALTER TABLE job_3 RENAME TO job;
     CREATE INDEX job_due ON job (route, pinned, lane, due) WHERE state = 2;";
/// Octets of a page of the file; a file that is there keeps its own.
const PAGE: i64 = 8192;
/// Pages that the writer keeps in memory, as the negative of KiB: what it writes it soon changes and deletes again.
const CACHE: i64 = -6144;
/// Octets of the journal that stay when it is written from its beginning again; it is usually half as large.
const JOURNAL: i64 = 16 * 1024 * 1024;
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

fn directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// A file that only its owner may read, whatever the umask.
pub(super) fn create(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The connection that writes; makes the schema when the file is new.
pub(super) fn writer(database: &Path) -> Result<Connection, StoreError> {
    let conn = connect(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    setup(&conn, database)?;
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

fn setup(conn: &Connection, database: &Path) -> Result<(), StoreError> {
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let found = number("user_version").map_err(unavailable)?;
    if found > SCHEMA {
        return Err(StoreError::Unavailable(format!(
            "it was written by a newer version of Postern (schema {found}; this one knows {SCHEMA})"
        )));
    }
    if (1..SCHEMA).contains(&found) && is_another_gateways(database) {
        return Err(StoreError::Unavailable(
            "the gateway that runs is of an older version of Postern: restart it first".to_owned(),
        ));
    }
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
    schema(conn).map_err(unavailable)
}

/// Whether a gateway other than this process holds the lock of the directory (as `gateway` takes it, its pid inside). Its
/// statements are those of its own schema: nobody else may change that meanwhile.
fn is_another_gateways(database: &Path) -> bool {
    let path = database.with_file_name("lock");
    let Ok(file) = File::open(&path) else {
        return false;
    };
    let is_free = file.try_lock_shared().is_ok();
    let own = std::process::id().to_string();
    !is_free && std::fs::read_to_string(&path).is_ok_and(|pid| pid.trim() != own)
}

fn schema(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    // Asked again under the lock: another process may have been first.
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        conn.execute_batch(include_str!("../sqlite.sql"))?;
    }
    for (schema, change) in [(1, FROM_1), (2, FROM_2)] {
        if (1..=schema).contains(&found) {
            conn.execute_batch(change)?;
        }
    }
    if found < SCHEMA {
        conn.pragma_update(None, "user_version", SCHEMA)?;
    }
    conn.execute_batch("COMMIT")?;
    conn.execute_batch(
        "CREATE TEMP TABLE picked (job INTEGER PRIMARY KEY, message INTEGER, route TEXT, state INTEGER)",
    )
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: rusqlite::Error) -> StoreError {
    super::writer::store_error(&error)
}
