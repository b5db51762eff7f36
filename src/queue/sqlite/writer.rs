//! The one thread that writes: everything that waits goes into one transaction and one sync.
//!
//! It knows batches, the full disk and the failing disk; it does not know messages: what is written each operation says (`op`).
//! While one batch commits, the next one gathers; mail is never made to wait for more. Outcomes
//! alone wait a moment for the next mail when mail is coming in: a client that sends one message after the other would
//! otherwise find the disk busy with the outcome of the one before.
//!
//! After an I/O error nothing that the connection holds is trusted (a sync that failed once may succeed the next time
//! without having written): the connection is closed, a new one is opened, and only when a write of its own went
//! through, at most once a second, is anything taken again.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;

use super::{
    ballast::Ballast,
    op::{Change, Op, Purpose, store_error},
    schema, space,
};
use crate::{
    mail::message::MessageId,
    queue::{body::BodyStore, disk, store::StoreError},
    telemetry::counted,
};

/// Operations that may wait for the writer; more wait in their callers.
pub(super) const WAITING: usize = 1024;
/// A broken store is tried again at most this often.
const TRIAL: Duration = Duration::from_secs(1);

/// Outcomes wait so long for mail to share its sync with, at most,
const PATIENCE: Duration = Duration::from_millis(3);
/// if the last mail was committed no longer ago than this.
const RECENT: Duration = Duration::from_millis(5);

/// What the writer and the store share.
#[derive(Debug, Default)]
pub(super) struct WriterStatus {
    /// A write failed or could not begin, and none has worked since.
    pub(super) broken: AtomicBool,
    /// Transactions that were committed.
    pub(super) commits: AtomicU64,
    /// The ballast is gone: no mail is taken in.
    pub(super) full: AtomicBool,
}

/// The thread's own state.
pub(super) struct Writer {
    conn: Option<Connection>,
    database: PathBuf,
    bodies: BodyStore,
    ballast: Ballast,
    shared: Arc<WriterStatus>,
    tried: Option<Instant>,
    damaged: bool,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        database: PathBuf,
        bodies: BodyStore,
        ballast: Ballast,
        shared: Arc<WriterStatus>,
    ) -> Self {
        Self {
            conn: Some(conn),
            database,
            bodies,
            ballast,
            shared,
            tried: None,
            damaged: false,
        }
    }

    /// Until every sender is gone and everything that waited is done.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Op>) {
        let mut mail: Option<Instant> = None;
        loop {
            let mut batch = Vec::new();
            gather(&mut batch, &mut inbox);
            if mail.is_some_and(|at| at.elapsed() < RECENT) {
                let until = Instant::now() + PATIENCE;
                while batch.iter().all(Op::can_wait) {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    // Whoever brings what cannot wait wakes this thread; an outcome wakes nobody.
                    std::thread::park_timeout(left);
                    gather(&mut batch, &mut inbox);
                }
            }
            if batch.is_empty() {
                let Some(first) = inbox.blocking_recv() else {
                    return;
                };
                batch.push(first);
                gather(&mut batch, &mut inbox);
            }
            let takes_in = batch.iter().any(|op| op.purpose == Purpose::TakesIn);
            self.batch(batch);
            if takes_in {
                mail = Some(Instant::now());
            }
        }
    }

    fn batch(&mut self, batch: Vec<Op>) {
        if let Err(why) = self.ready() {
            for op in batch {
                op.answer(Err(StoreError::Unavailable(why.clone())));
            }
            return;
        }
        let full = !self.ballast.is_there();
        self.shared.full.store(full, Ordering::Release);
        let (refused, mut batch): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|op| full && op.purpose == Purpose::TakesIn);
        for op in refused {
            op.answer(Err(StoreError::Full));
        }
        if batch.is_empty() {
            return;
        }
        match self.commit(&mut batch) {
            Ok(gone) => {
                // First those for whom a client waits.
                batch.sort_by_key(Op::can_wait);
                for op in batch {
                    op.answer(Ok(()));
                }
                self.remove(&gone);
            }
            // One of them failed and took the others along: each for itself. Not where all have waited for somebody's lock: they
            // would wait again, one after the other.
            Err(error) if batch.len() > 1 && !error.is_held() => {
                for op in batch {
                    self.alone(op);
                }
            }
            Err(error) => {
                for op in batch {
                    self.failed(op, &error);
                }
            }
        }
    }

    fn alone(&mut self, op: Op) {
        if let Err(why) = self.ready() {
            return op.answer(Err(StoreError::Unavailable(why)));
        }
        let mut one = [op];
        let result = self.commit(&mut one);
        let [op] = one;
        match result {
            Ok(gone) => {
                op.answer(Ok(()));
                self.remove(&gone);
            }
            Err(error) => self.failed(op, &error),
        }
    }

    /// On a full disk, what was sent must still be recorded as sent: the journal is written from its beginning again, and when
    /// that is not enough, the ballast makes room.
    fn failed(&mut self, op: Op, error: &TransactionFault) {
        let mut one = [op];
        let mut error = error.to_store_error();
        let must_be = one[0].must_be_written();
        let helps: [fn(&mut Self) -> bool; 3] =
            [Self::backfill, Self::drop_ballast, Self::backfill];
        for help in helps {
            if !(must_be && matches!(error, StoreError::Full)) {
                break;
            }
            if !help(self) {
                continue;
            }
            match self.commit(&mut one) {
                Ok(gone) => {
                    let [op] = one;
                    op.answer(Ok(()));
                    return self.remove(&gone);
                }
                Err(again) => error = again.to_store_error(),
            }
        }
        let [op] = one;
        op.answer(Err(error));
    }

    fn remove(&self, gone: &[MessageId]) {
        for id in gone {
            self.bodies.remove(*id);
        }
    }

    fn backfill(&mut self) -> bool {
        self.conn
            .as_ref()
            .is_some_and(|conn| space::backfill(conn).is_ok())
    }

    fn drop_ballast(&mut self) -> bool {
        let freed = self.ballast.free();
        self.shared.full.store(true, Ordering::Release);
        freed
    }

    /// One transaction; the files to delete now that it is committed.
    fn commit(&mut self, batch: &mut [Op]) -> Result<Vec<MessageId>, TransactionFault> {
        let Some(conn) = &self.conn else {
            return Err(TransactionFault::Io("the database is closed".to_owned()));
        };
        let began = Instant::now();
        let result = transaction(conn, &self.bodies, batch, self.damaged);
        match &result {
            Ok(_) => {
                counted::committed(began.elapsed());
                self.shared.commits.fetch_add(1, Ordering::Relaxed);
                if self.shared.broken.swap(false, Ordering::AcqRel) {
                    tracing::info!("the store works again");
                }
            }
            Err(fault) => {
                if fault.is_held() && !self.shared.broken.swap(true, Ordering::AcqRel) {
                    tracing::error!(
                        file = %self.database.display(),
                        "another process has the database locked (a backup or `sqlite3`?): nothing is taken in until it lets go"
                    );
                }
                let stuck = !conn.is_autocommit() && conn.execute_batch("ROLLBACK").is_err();
                if stuck || fault.is_breakage() {
                    self.break_off(fault);
                }
            }
        }
        result
    }

    fn break_off(&mut self, fault: &TransactionFault) {
        if fault.is_damage() && !self.damaged {
            self.damaged = true;
            tracing::error!(
                file = %self.database.display(),
                "the database is damaged: what can be read is sent, but stop the gateway soon, copy the file and repair it with `sqlite3 FILE .recover`"
            );
        }
        tracing::error!(error = %fault.to_store_error(), "the store failed and is opened anew");
        self.conn = None;
        self.tried = Some(Instant::now());
        self.shared.broken.store(true, Ordering::Release);
    }

    /// After an error: opens the database anew and writes to it before anything else may.
    fn ready(&mut self) -> Result<(), String> {
        if self.conn.is_some() {
            return Ok(());
        }
        if self.tried.is_some_and(|at| at.elapsed() < TRIAL) {
            return Err("it failed and is not tried again yet".to_owned());
        }
        self.tried = Some(Instant::now());
        let opened = match self.reopen() {
            // To open it takes room, too.
            Err(StoreError::Full) if self.ballast.free() => self.reopen(),
            opened => opened,
        };
        self.conn = Some(opened.map_err(|e| e.to_string())?);
        self.shared.broken.store(false, Ordering::Release);
        tracing::info!("the store works again");
        Ok(())
    }

    fn reopen(&self) -> Result<Connection, StoreError> {
        let conn = schema::writer(&self.database)?;
        // On a full disk there may be no room but in the journal.
        let _ = space::backfill(&conn);
        conn.execute_batch(
            "BEGIN IMMEDIATE;
             INSERT INTO note (key, value) VALUES ('store', 'opened anew')
               ON CONFLICT (key) DO UPDATE SET value = excluded.value;
             COMMIT",
        )
        .map_err(|e| store_error(&e))?;
        Ok(conn)
    }
}

/// What waits, up to the size of a batch.
fn gather(batch: &mut Vec<Op>, inbox: &mut mpsc::Receiver<Op>) {
    while batch.len() < WAITING
        && let Ok(next) = inbox.try_recv()
    {
        batch.push(next);
    }
}

/// Why a transaction did not happen.
enum TransactionFault {
    Sqlite(rusqlite::Error),
    Io(String),
    Full,
}

impl TransactionFault {
    /// Whether the connection can no longer be trusted; a busy, full or merely wrong statement leaves it sound.
    fn is_breakage(&self) -> bool {
        match self {
            TransactionFault::Io(_) => true,
            TransactionFault::Sqlite(rusqlite::Error::SqliteFailure(e, _)) => matches!(
                e.code,
                ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::PermissionDenied
                    | ErrorCode::OutOfMemory
            ),
            TransactionFault::Full | TransactionFault::Sqlite(_) => false,
        }
    }

    /// Whether somebody else has the database and does not let go. The connection is sound, but nothing can be written.
    fn is_held(&self) -> bool {
        matches!(self, TransactionFault::Sqlite(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)))
    }

    fn is_damage(&self) -> bool {
        matches!(self, TransactionFault::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt))
    }

    fn to_store_error(&self) -> StoreError {
        match self {
            TransactionFault::Full => StoreError::Full,
            TransactionFault::Sqlite(error) => store_error(error),
            TransactionFault::Io(text) => StoreError::Unavailable(text.clone()),
        }
    }
}

fn transaction(
    conn: &Connection,
    bodies: &BodyStore,
    batch: &mut [Op],
    damaged: bool,
) -> Result<Vec<MessageId>, TransactionFault> {
    // IMMEDIATE: a deferred one fails at once when another process has written since it read.
    let run = |statement: &str| {
        let mut statement = conn.prepare_cached(statement)?;
        statement.execute([]).map(|_| ())
    };
    run("BEGIN IMMEDIATE").map_err(TransactionFault::Sqlite)?;
    let mut change = Change {
        conn,
        keep: Vec::new(),
        remove: Vec::new(),
        damaged,
    };
    for op in batch {
        op.run(&mut change).map_err(TransactionFault::Sqlite)?;
    }
    if !change.keep.is_empty() {
        bodies.sync().map_err(|error| {
            if disk::is_full(&error) {
                TransactionFault::Full
            } else {
                TransactionFault::Io(format!("{}: {error}", bodies.display()))
            }
        })?;
    }
    run("COMMIT").map_err(TransactionFault::Sqlite)?;
    for file in change.keep {
        file.keep();
    }
    Ok(change.remove)
}
