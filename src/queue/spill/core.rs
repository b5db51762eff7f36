//! The two stores, and whether the one that several gateways share is there. Whoever finds it away says so for all, and nobody asks it
//! until it has answered again.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    mail::{message::MessageId, text::logged},
    queue::{
        body::BodyStore,
        moving::SpilledCount,
        postgres::{self, PostgresStore},
        sqlite::SqliteStore,
        store::{LaneRow, RemoteState, StoreError},
    },
};

/// What is done while the database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpillSettings {
    /// Mail is taken all the same, into the store of this machine.
    pub spills: bool,
    /// Until so many octets of it are there.
    pub size: u64,
}

/// Since when it is away, and why.
type Away = Option<(SystemTime, String)>;

/// See the module.
#[derive(Debug)]
pub(super) struct SpillCore {
    pub(super) settings: postgres::Settings,
    pub(super) spill: SpillSettings,
    pub(super) local: Arc<SqliteStore>,
    /// Where bodies are written as they arrive.
    pub(super) incoming: BodyStore,
    /// Set when it was opened first.
    remote: OnceLock<Arc<PostgresStore>>,
    away: watch::Sender<Away>,
    /// Its disk is full: a look before this shows nothing.
    not_before: Mutex<Option<Instant>>,
    /// The database is back, or something else was found that others should look at.
    pub(super) turned: Notify,
    count: Mutex<LocalCount>,
    /// Raised before anything is put into the local store.
    puts: AtomicU64,
    /// There may be messages to move.
    pub(super) is_to_move: AtomicBool,
    /// Messages that the database does not take: they stay, and are sent from here.
    pub(super) refused: Mutex<HashSet<MessageId>>,
    /// One at a time writes what was kept.
    pub(super) returning: tokio::sync::Mutex<()>,
    /// The lanes as they were last seen.
    pub(super) lanes: Mutex<Option<Vec<LaneRow>>>,
    /// So many steps are still made (for tests).
    steps: AtomicUsize,
}

/// What lies here, as it was counted last.
#[derive(Debug, Default)]
struct LocalCount {
    count: SpilledCount,
    /// How often something had been put here when there was nothing.
    empty_at: Option<u64>,
    /// It changed since.
    is_stale: bool,
    /// Not before this is it counted again.
    next: Option<Instant>,
}

impl SpillCore {
    pub(super) fn new(
        settings: postgres::Settings,
        spill: SpillSettings,
        local: Arc<SqliteStore>,
    ) -> Self {
        let begins = (SystemTime::now(), "it was not asked yet".to_owned());
        Self {
            incoming: BodyStore::new(&settings.data_dir.join("incoming")),
            settings,
            spill,
            local,
            remote: OnceLock::new(),
            away: watch::Sender::new(Some(begins)),
            not_before: Mutex::new(None),
            turned: Notify::new(),
            count: Mutex::new(LocalCount {
                is_stale: true,
                ..LocalCount::default()
            }),
            puts: AtomicU64::new(0),
            is_to_move: AtomicBool::new(true),
            refused: Mutex::default(),
            returning: tokio::sync::Mutex::new(()),
            lanes: Mutex::new(None),
            steps: AtomicUsize::new(usize::MAX),
        }
    }

    /// A gateway, not a command: it alone moves and writes what lies here.
    pub(super) fn is_gateway(&self) -> bool {
        self.settings.migrates
    }

    /// It was opened.
    pub(super) fn is_open(&self, remote: Arc<PostgresStore>) {
        // The bodies that arrive are those of this start.
        remote.bodies_are_swept();
        let _ = self.remote.set(remote);
    }

    /// Opened, wherever it is now.
    pub(super) fn opened(&self) -> Option<&Arc<PostgresStore>> {
        self.remote.get()
    }

    /// The database, where it is there.
    pub(super) fn here(&self) -> Result<&Arc<PostgresStore>, StoreError> {
        if let Some((_, why)) = &*self.away.borrow() {
            return Err(StoreError::Away(why.clone()));
        }
        self.opened()
            .ok_or_else(|| StoreError::Away("it was not opened yet".to_owned()))
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.borrow().is_some()
    }

    /// Somebody found it away.
    pub(super) fn went(&self, why: &str) {
        if why == FULL {
            *self.not_before() = Some(Instant::now() + ROOM);
        }
        let why = logged(why);
        let was_here = self.away.send_if_modified(|away| {
            let was_here = away.is_none();
            match away {
                Some((_, last)) => last.clone_from(&why),
                None => *away = Some((SystemTime::now(), why.clone())),
            }
            was_here
        });
        if was_here {
            tracing::warn!(event = "store away", error = why, "the database is away");
        }
    }

    /// Whether it is worth a look. One whose disk is full answers all the same.
    pub(super) fn is_worth_a_look(&self) -> bool {
        self.not_before().is_none_or(|at| Instant::now() >= at)
    }

    fn not_before(&self) -> MutexGuard<'_, Option<Instant>> {
        self.not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// It takes everything again.
    pub(super) fn came(&self) {
        let since = self.away.send_replace(None);
        self.is_to_move.store(true, Ordering::Release);
        if let Some((since, _)) = since {
            let seconds = since.elapsed().unwrap_or_default().as_secs();
            tracing::info!(event = "store back", seconds, "the database is there");
            self.turned.notify_one();
        }
    }

    /// It is found away from now on.
    pub(super) async fn goes(&self) {
        let mut away = self.away.subscribe();
        let _ = away.wait_for(Option::is_some).await;
    }

    /// Asks it, unless it is found away meanwhile; and says so where it is.
    pub(super) async fn ask<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = tokio::select! {
            biased;
            done = work => done,
            () = self.goes() => Err(self.here().err().unwrap_or_else(|| silence(self.settings.patience))),
        };
        self.heed(done)
    }

    /// The same, of what is answered at once.
    pub(super) async fn ask_soon<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.ask(in_time(self.settings.patience, work)).await
    }

    fn heed<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        match &done {
            Err(StoreError::Away(why)) => self.went(why),
            Err(StoreError::Full) => self.went(FULL),
            _ => {}
        }
        done
    }

    /// Something is about to be put into the local store.
    pub(super) fn puts(&self) {
        self.puts.fetch_add(1, Ordering::AcqRel);
        self.counted().is_stale = true;
    }

    /// It was: so many octets, or an outcome.
    pub(super) fn was_put(&self, octets: Option<u64>, at: SystemTime) {
        self.is_to_move.store(true, Ordering::Release);
        let mut counted = self.counted();
        let LocalCount {
            count, is_stale, ..
        } = &mut *counted;
        *is_stale = true;
        match octets {
            Some(octets) => {
                count.messages += 1;
                count.octets = count.octets.saturating_add(octets);
                count.oldest = Some(count.oldest.map_or(at, |oldest| oldest.min(at)));
            }
            None => count.outcomes += 1,
        }
    }

    /// Something of it was sent, or has moved.
    pub(super) fn has_changed(&self) {
        self.counted().is_stale = true;
    }

    /// What lies here, as far as it was counted.
    pub(super) fn count(&self) -> SpilledCount {
        self.counted().count
    }

    /// Whether there may be mail in the local store.
    pub(super) fn has_local(&self) -> bool {
        self.counted().empty_at != Some(self.puts.load(Ordering::Acquire))
    }

    /// Counts again what has changed; seldom, where that takes long.
    pub(super) async fn recount(&self) {
        let begun = Instant::now();
        {
            let counted = self.counted();
            if !counted.is_stale || counted.next.is_some_and(|next| begun < next) {
                return;
            }
        }
        self.counted().is_stale = false;
        let puts = self.puts.load(Ordering::Acquire);
        let found = self.local.spilled().await;
        let mut counted = self.counted();
        counted.next = Some(Instant::now() + begun.elapsed() * 20);
        match found {
            Ok(count) => {
                counted.count = count;
                counted.empty_at = (count.messages == 0).then_some(puts);
            }
            Err(_) => counted.is_stale = true,
        }
    }

    fn counted(&self) -> MutexGuard<'_, LocalCount> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As others are told.
    pub(super) fn remote_state(&self) -> RemoteState {
        let count = self.count();
        let (host, durability) = if let Some(remote) = self.opened() {
            (remote.server(), remote.durability().promise().to_owned())
        } else {
            let hosts = self.settings.hosts.iter().map(ToString::to_string);
            (hosts.collect::<Vec<_>>().join(", "), String::new())
        };
        RemoteState {
            host,
            away: self.away.borrow().clone(),
            durability,
            spilled: count.messages,
            oldest: count.oldest,
            unwritten: count.outcomes,
        }
    }

    /// Ends after so many steps of what is done on return, as a crash would (for tests).
    pub(super) fn end_after(&self, steps: usize) {
        self.steps.store(steps, Ordering::Release);
    }

    /// Between two steps.
    pub(super) async fn step(&self) {
        let left = self.steps.load(Ordering::Acquire);
        if left == 0 {
            std::future::pending::<()>().await;
        }
        if left != usize::MAX {
            self.steps.store(left - 1, Ordering::Release);
        }
    }

    /// Whether it has ended so.
    pub(super) fn has_ended(&self) -> bool {
        self.steps.load(Ordering::Acquire) == 0
    }
}

/// So long a disk that is full is left alone.
const ROOM: Duration = Duration::from_secs(10);
pub(super) const FULL: &str = "its disk is full";

/// It does not answer.
fn silence(patience: Duration) -> StoreError {
    StoreError::Away(format!("no answer within {} s", patience.as_secs()))
}

/// No longer than this.
pub(super) async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let done = tokio::time::timeout(patience, work).await;
    done.unwrap_or_else(|_| Err(silence(patience)))
}
