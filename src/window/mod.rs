//! `data_dir/window.db`: what the window keeps (sessions, audit, proposals, incidents, devices), apart from the queue.
//!
//! It has a file and a thread of its own, so it costs the queue no commit, and mail does not notice when it is broken, full or slow.
//! Each kind of row has a file here, with its table and its questions.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, config::DbConfig};
use tokio::sync::oneshot;
use tracing::error;

pub mod asked;
pub mod audit;
pub mod devices;
pub mod incidents;
pub mod proposals;
pub mod sessions;

/// The file in `data_dir`.
pub const FILE: &str = "window.db";
/// A broken one is kept as this.
const BROKEN: &str = "window.db.bad";
/// What the tables are called by; another number is another Postern's file.
const SCHEMA: i64 = 1;
/// So long a command waits for the gateway, and the gateway for a command.
const BUSY: Duration = Duration::from_secs(5);

/// Every table.
const TABLES: &[&str] = &[
    sessions::TABLES,
    audit::TABLES,
    devices::TABLES,
    asked::TABLES,
    proposals::TABLES,
    incidents::TABLES,
];

/// Why the file took nothing, or told nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("window.db: {0}")]
pub struct WindowError(String);

impl WindowError {
    /// The machine gives none.
    pub fn no_randomness() -> Self {
        Self("this machine gives no random numbers".to_owned())
    }
}

impl From<rusqlite::Error> for WindowError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for WindowError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

type Work = Box<dyn FnOnce(&mut Connection) -> rusqlite::Result<()> + Send>;

/// The open file.
#[derive(Debug)]
pub struct WindowDb {
    work: mpsc::Sender<Work>,
    mended: Arc<AtomicBool>,
}

impl WindowDb {
    /// Opens it, and makes it where there is none. One that cannot be read is kept aside, and a new one is made.
    ///
    /// # Errors
    /// It can neither be read nor made.
    pub fn make(data_dir: &Path) -> Result<Self, WindowError> {
        let path = data_dir.join(FILE);
        create(&path, data_dir)?;
        let mut is_mended = false;
        let conn = match open(&path) {
            Ok(conn) => conn,
            Err(error) if is_broken(&error) => {
                set_aside(data_dir, &error)?;
                is_mended = true;
                create(&path, data_dir)?;
                open(&path)?
            }
            Err(error) => return Err(error.into()),
        };
        Self::start(conn, data_dir.to_owned(), is_mended)
    }

    /// Opens one that a gateway has made. `None`: none has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn existing(data_dir: &Path) -> Result<Option<Self>, WindowError> {
        let path = data_dir.join(FILE);
        if !path.try_exists()? {
            return Ok(None);
        }
        Self::start(open(&path)?, data_dir.to_owned(), false).map(Some)
    }

    fn start(conn: Connection, data_dir: PathBuf, is_mended: bool) -> Result<Self, WindowError> {
        let (work, inbox) = mpsc::channel::<Work>();
        let mended = Arc::new(AtomicBool::new(is_mended));
        let mut served = Served {
            conn,
            file: identity(&data_dir.join(FILE)),
            is_lost: false,
            data_dir,
            mended: Arc::clone(&mended),
        };
        thread::Builder::new()
            .name("window-db".to_owned())
            .spawn(move || served.serve(&inbox))?;
        Ok(Self { work, mended })
    }

    /// Whether a broken file was set aside since this was asked last.
    pub fn was_mended(&self) -> bool {
        self.mended.swap(false, Ordering::Relaxed)
    }

    /// Does this in one transaction, which nobody else's comes between: a command that writes meanwhile is waited for.
    ///
    /// # Errors
    /// Nothing of it was done.
    pub async fn run<T, F>(&self, work: F) -> Result<T, WindowError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.give(TransactionBehavior::Immediate, work)
            .await
            .unwrap_or_else(|_| Err(WindowError("its thread has ended".to_owned())))
    }

    /// Looks at something, and changes nothing: it waits for nobody who writes.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read<T, F>(&self, work: F) -> Result<T, WindowError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.give(TransactionBehavior::Deferred, work)
            .await
            .unwrap_or_else(|_| Err(WindowError("its thread has ended".to_owned())))
    }

    /// As [`WindowDb::read`], where nothing else waits.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_now<T, F>(&self, work: F) -> Result<T, WindowError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.give(TransactionBehavior::Deferred, work)
            .blocking_recv()
            .unwrap_or_else(|_| Err(WindowError("its thread has ended".to_owned())))
    }

    /// As [`WindowDb::run`], where nothing else waits.
    ///
    /// # Errors
    /// Nothing of it was done.
    pub fn wait<T, F>(&self, work: F) -> Result<T, WindowError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.give(TransactionBehavior::Immediate, work)
            .blocking_recv()
            .unwrap_or_else(|_| Err(WindowError("its thread has ended".to_owned())))
    }

    /// As [`WindowDb::run`], where nobody waits for it.
    pub fn later<F>(&self, work: F)
    where
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    {
        drop(self.give(TransactionBehavior::Immediate, work));
    }

    fn give<T, F>(
        &self,
        how: TransactionBehavior,
        work: F,
    ) -> oneshot::Receiver<Result<T, WindowError>>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work = move |conn: &mut Connection| {
            let result = within(conn, how, work);
            let broken = match &result {
                Err(error) if is_broken(error) => Err(rusqlite::Error::InvalidQuery),
                _ => Ok(()),
            };
            // Whoever asked may have gone.
            let _ = answer.send(result.map_err(WindowError::from));
            broken
        };
        // A thread that has ended drops what it is given, and so answers.
        let _ = self.work.send(Box::new(work));
        answered
    }

    /// A number that is another one when somebody else has written.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn version(&self) -> Result<i64, WindowError> {
        self.read(|tx| tx.pragma_query_value(None, "data_version", |row| row.get(0)))
            .await
    }
}

fn within<T>(
    conn: &mut Connection,
    how: TransactionBehavior,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    // One that reads first and then writes would be refused at once where somebody has written in between.
    let tx = conn.transaction_with_behavior(how)?;
    let done = work(&tx)?;
    tx.commit()?;
    Ok(done)
}

/// What the thread has.
struct Served {
    conn: Connection,
    /// Which file that is. `None`: nobody knows.
    file: Option<(u64, u64)>,
    /// It is not the one in its place, and that was said.
    is_lost: bool,
    data_dir: PathBuf,
    mended: Arc<AtomicBool>,
}

impl Served {
    fn serve(&mut self, inbox: &mpsc::Receiver<Work>) {
        while let Ok(work) = inbox.recv() {
            self.follow();
            // Whoever asked hears of a fault as of an end; the transaction is undone, and the others go on.
            match catch_unwind(AssertUnwindSafe(|| work(&mut self.conn))) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let again = set_aside(&self.data_dir, &error)
                        .map_err(WindowError::from)
                        .and_then(|()| self.reopen());
                    if let Err(error) = again {
                        error!(event = "window broken", error = %error, "window.db is broken and cannot be made anew");
                    }
                }
                Err(_) => {
                    error!(
                        event = "window failed",
                        "a fault in what was asked of window.db; it goes on"
                    );
                }
            }
        }
    }

    /// Somebody took the file away, or put another in its place: what would be written to the old one nobody would ever see.
    fn follow(&mut self) {
        let now = identity(&self.data_dir.join(FILE));
        if now == self.file {
            return;
        }
        match self.reopen() {
            Ok(()) if now.is_none() => {
                error!(
                    event = "window broken",
                    "window.db was taken away: it is gone, and a new one is made"
                );
            }
            Ok(()) => {
                error!(
                    event = "window broken",
                    "another window.db is in the place of the one that was open: it is used from now on"
                );
            }
            // At the next work.
            Err(error) if !std::mem::replace(&mut self.is_lost, true) => {
                error!(event = "window broken", error = %error, "window.db is not the one that was open, and cannot be opened");
            }
            Err(_) => {}
        }
    }

    fn reopen(&mut self) -> Result<(), WindowError> {
        let path = self.data_dir.join(FILE);
        create(&path, &self.data_dir)?;
        // Closed before, and without its last words: SQLite would delete the log of the new one, which has the same name.
        let _ = self
            .conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        self.conn = Connection::open_in_memory()?;
        self.conn = open(&path)?;
        self.file = identity(&path);
        self.is_lost = false;
        self.mended.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// The file, readable by its owner alone, who is that of the directory: commands run as root, the gateway does not.
fn create(path: &Path, data_dir: &Path) -> io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => {
            let dir = fs::metadata(data_dir)?;
            if rustix::process::geteuid().is_root() && dir.uid() != 0 {
                chown(path, Some(dir.uid()), Some(dir.gid()))?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(BUSY)?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > SCHEMA {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let why = format!(
            "it was written by a newer postern (schema {version}, where {} knows {SCHEMA}): nothing was touched",
            env!("CARGO_PKG_VERSION")
        );
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA);
        return Err(rusqlite::Error::SqliteFailure(code, Some(why)));
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    if is_current(&conn)? {
        return Ok(conn);
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Also those that came with a later version.
    for tables in TABLES {
        tx.execute_batch(tables)?;
    }
    tx.pragma_update(None, "user_version", SCHEMA)?;
    tx.commit()?;
    Ok(conn)
}

/// Whether it has all that this version knows: then it is opened without a write, which a command would have to wait for.
fn is_current(conn: &Connection) -> rusqlite::Result<bool> {
    let lines = TABLES.iter().flat_map(|tables| tables.lines());
    let wanted = lines.filter(|line| line.starts_with("CREATE ")).count();
    let question = "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'";
    let found: i64 = conn.query_row(question, [], |row| row.get(0))?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version == SCHEMA && usize::try_from(found).is_ok_and(|found| found >= wanted))
}

fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn set_aside(data_dir: &Path, why: &rusqlite::Error) -> io::Result<()> {
    error!(event = "window broken", error = %why, kept = BROKEN, "window.db is broken: it is kept as window.db.bad, and a new one is made");
    fs::rename(data_dir.join(FILE), data_dir.join(BROKEN))?;
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(data_dir.join(format!("{FILE}{beside}")));
    }
    Ok(())
}
