//! `data_dir/window.db`: what the window keeps (sessions, audit, proposals, incidents, devices), apart from the queue.
//!
//! It has a file and a thread of its own, so it costs the queue no commit, and mail does not notice when it is broken, full or slow.
//! Each kind of row has a file here, with its table and its questions.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, Transaction};
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
        let mark = Arc::clone(&mended);
        thread::Builder::new()
            .name("window-db".to_owned())
            .spawn(move || serve(conn, &inbox, &data_dir, &mark))?;
        Ok(Self { work, mended })
    }

    /// Whether a broken file was set aside since this was asked last.
    pub fn was_mended(&self) -> bool {
        self.mended.swap(false, Ordering::Relaxed)
    }

    /// Does this in one transaction.
    ///
    /// # Errors
    /// Nothing of it was done.
    pub async fn run<T, F>(&self, work: F) -> Result<T, WindowError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.give(work)
            .await
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
        self.give(work)
            .blocking_recv()
            .unwrap_or_else(|_| Err(WindowError("its thread has ended".to_owned())))
    }

    /// As [`WindowDb::run`], where nobody waits for it.
    pub fn later<F>(&self, work: F)
    where
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    {
        drop(self.give(work));
    }

    fn give<T, F>(&self, work: F) -> oneshot::Receiver<Result<T, WindowError>>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work = move |conn: &mut Connection| {
            let result = within(conn, work);
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
        self.run(|tx| tx.pragma_query_value(None, "data_version", |row| row.get(0)))
            .await
    }
}

fn within<T>(
    conn: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let tx = conn.transaction()?;
    let done = work(&tx)?;
    tx.commit()?;
    Ok(done)
}

fn serve(mut conn: Connection, inbox: &mpsc::Receiver<Work>, data_dir: &Path, mended: &AtomicBool) {
    while let Ok(work) = inbox.recv() {
        if work(&mut conn).is_ok() {
            continue;
        }
        let path = data_dir.join(FILE);
        let again = set_aside(data_dir, &rusqlite::Error::InvalidQuery)
            .and_then(|()| create(&path, data_dir))
            .map_err(WindowError::from)
            .and_then(|()| open(&path).map_err(WindowError::from));
        match again {
            Ok(new) => {
                conn = new;
                mended.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                error!(event = "window broken", error = %error, "window.db is broken and cannot be made anew");
            }
        }
    }
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
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    let tx = conn.transaction()?;
    // Also those that came with a later version.
    for tables in TABLES {
        tx.execute_batch(tables)?;
    }
    tx.pragma_update(None, "user_version", SCHEMA)?;
    tx.commit()?;
    Ok(conn)
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
