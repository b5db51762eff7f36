//! NOTHING IS LOST: accept, claim, settle, operator verbs.
//!
//! `store` keeps the rows; delivery is woken, and known only by the reservations that it gives. It makes no
//! decision about a message.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use body::BodyWriter;
pub use disk::network_disk;
use spill::SpillSettings;
use sqlite::SqliteStore;
pub use store::Settings;
use store::{Health, Inserted, Job, NodeId, Standing, Start, Store, StoreError};

use crate::{
    mail::message::{Body, Ids, MessageId},
    route::{ConnectorName, LaneId, RouteName, Routed},
};

pub mod body;
mod coded;
mod disk;
pub mod eml;
pub mod event;
pub mod filter;
mod lane;
pub mod lock;
pub mod moving;
mod node;
pub mod operator;
pub mod postgres;
pub mod settling;
pub mod spill;
pub mod sqlite;
pub mod store;
pub mod turns;
mod wishes;
mod writer_version;

/// Free space is looked at so often at most.
const DISK_LOOK: Duration = Duration::from_secs(5);

/// Where a queue is.
#[derive(Debug, Clone)]
pub enum StorePlace {
    /// In a directory of one gateway.
    Local(Settings),
    /// In a database that several gateways share, with a local one for what that cannot take at the moment.
    Shared {
        /// The database.
        remote: postgres::Settings,
        /// The local one.
        local: Settings,
        /// Mail goes into the local one while the database is away.
        spills: bool,
        /// Octets that the local one may have.
        spill_size: u64,
    },
}

/// Why a queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The directory cannot be made, the file is no store of this version, or its disk cannot sync.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database.
    #[error(transparent)]
    Database(#[from] postgres::OpenError),
}

/// Opens the store, for the gateway and for commands alike; makes what is missing. Within a runtime that lives as long as the store.
///
/// # Errors
/// [`StoreFault`].
pub async fn open(place: StorePlace) -> Result<Arc<dyn Store>, StoreFault> {
    match place {
        StorePlace::Local(settings) => Ok(open_local(&settings)?),
        // A command makes nothing where no gateway has run.
        StorePlace::Shared { remote, local, .. }
            if !remote.migrates && !exists(&local.data_dir).unwrap_or(true) =>
        {
            Ok(postgres::PostgresStore::open(remote).await?)
        }
        StorePlace::Shared {
            remote,
            local,
            spills,
            spill_size: size,
        } => Ok(spill::SpillStore::open(remote, local, SpillSettings { spills, size }).await?),
    }
}

/// Opens that of one gateway. Blocks for a moment.
///
/// # Errors
/// As for [`open`].
pub fn open_local(settings: &Settings) -> Result<Arc<dyn Store>, StoreError> {
    Ok(SqliteStore::open(settings)?)
}

/// Why this program may not work on the queue of this directory, because a newer one wrote it. Whatever else is wrong with it, opening says.
/// Changes nothing.
pub fn written_by_newer(data_dir: &Path) -> Option<StoreError> {
    sqlite::written_by_newer(&data_dir.join(sqlite::DATABASE))
}

/// Whether there is a queue in this directory.
///
/// # Errors
/// It cannot be looked at.
pub fn exists(data_dir: &Path) -> io::Result<bool> {
    match std::fs::metadata(data_dir.join(sqlite::DATABASE)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The permits for the fast path, taken before the insert and used after it. Dropped unused (the insert failed) it gives them back.
pub struct Reservation {
    /// Whose permit it is.
    pub connector: ConnectorName,
    /// Gets the job, which is leased in the store by now.
    pub hand_over: Box<dyn FnOnce(Job) + Send>,
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

/// How a message that is accepted begins.
#[derive(Debug)]
pub enum Placement {
    /// It goes out at once.
    Now(Reservation),
    /// It waits for its turn in this lane, which another gateway may have.
    In(LaneId),
    /// It waits for whoever has a permit.
    Anywhere,
}

/// Asked before an insert whether the message can go out at once. Delivery provides it.
pub type Reserve = dyn Fn(&Routed) -> Placement + Send + Sync;

/// The durable queue: the store, and what wakes delivery.
pub struct Queue {
    store: Arc<dyn Store>,
    /// 0: it is none yet, or alone.
    node: AtomicU64,
    reserve: RwLock<Option<Arc<Reserve>>>,
    wake: Notify,
    /// An operator's verb came from within this process.
    operated: AtomicBool,
    ids: Mutex<Ids>,
    /// When space was last asked for.
    asked: Mutex<Option<Instant>>,
    /// When the disk was last looked at, and the octets that were free.
    disk: Mutex<(Option<Instant>, u64)>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// The queue of a gateway that starts: what its predecessor held is free.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn start(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let node = store.beat(&Standing::default()).await?.node;
        let queue = Self::new(store);
        queue.becomes(node);
        Ok(queue)
    }

    /// A queue over an open store that knows one node.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            node: AtomicU64::new(0),
            reserve: RwLock::new(None),
            wake: Notify::new(),
            operated: AtomicBool::new(false),
            ids: Mutex::default(),
            asked: Mutex::new(None),
            disk: Mutex::new((None, u64::MAX)),
        }
    }

    /// The store itself, for commands and delivery.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The node that this gateway is.
    pub fn node(&self) -> NodeId {
        NodeId(self.node.load(Ordering::Acquire))
    }

    /// From now on it is another one; whether that is news.
    pub fn becomes(&self, node: NodeId) -> bool {
        self.node.swap(node.0, Ordering::AcqRel) != node.0
    }

    /// An id for a message that begins now.
    pub fn next_id(&self, now: SystemTime) -> MessageId {
        self.ids().next(now, fastrand::u128(..))
    }

    /// Ids from now on sort behind those that were made until then, though the clock was set back since.
    pub fn follow(&self, at: SystemTime) {
        self.ids().follow(at);
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the large body of a message that arrives; to be finished before [`Queue::accept`].
    pub fn body_writer(&self, id: MessageId) -> BodyWriter {
        self.store.bodies().writer(id)
    }

    /// The body of a message that arrives as that of a copy of it, which has it for itself from then on.
    ///
    /// # Errors
    /// As any write of a file.
    pub async fn second_body(&self, of: MessageId, body: &Body, id: MessageId) -> io::Result<Body> {
        let Body::Stored(stored) = body else {
            return Ok(body.clone());
        };
        let (bodies, len) = (self.store.bodies().clone(), stored.len());
        let made = tokio::task::spawn_blocking(move || bodies.second(of, id, len));
        made.await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// Whether what is sent can be recorded.
    pub fn is_healthy(&self) -> bool {
        self.store.health() != Health::Failing
    }

    /// How the store is, where so many octets must be free on its disk.
    pub fn health(&self, free: u64) -> Health {
        let health = match self.store.health() {
            Health::Fine if self.free_disk() < free => Health::Full,
            health => health,
        };
        if health == Health::Full {
            self.ask_for_space();
        }
        health
    }

    /// Octets that are free on the disk, as it was a few seconds ago. `None`: it cannot be seen.
    pub fn free_octets(&self) -> Option<u64> {
        let free = self.free_disk();
        (free != u64::MAX).then_some(free)
    }

    /// Looked at now and then; what cannot be looked at counts as enough.
    fn free_disk(&self) -> u64 {
        let disk = || self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let (looked, free) = *disk();
        if looked.is_some_and(|at| at.elapsed() < DISK_LOOK) {
            return free;
        }
        // Nobody else waits for a disk that hangs.
        disk().0 = Some(Instant::now());
        let free = self.store.bodies().free_space().unwrap_or(u64::MAX);
        disk().1 = free;
        free
    }

    /// Sets who is asked for the fast path; `None` switches it off (drain).
    pub fn set_reserve(&self, reserve: Option<Arc<Reserve>>) {
        *self.reserve.write().unwrap_or_else(PoisonError::into_inner) = reserve;
    }

    /// Makes the message durable; then hands it to delivery, or wakes it. What goes by the routes of `held` waits for its release, each
    /// where it is held by whom ([`LaneId::held_by`]).
    ///
    /// # Errors
    /// [`StoreError`]; nothing was kept.
    pub async fn accept(
        &self,
        mail: Routed,
        held: &[(RouteName, String)],
        now: SystemTime,
    ) -> Result<(), StoreError> {
        // Nothing that is held goes out at once.
        let placed = match held {
            [] => self.reserve(&mail),
            _ => Placement::Anywhere,
        };
        let node = self.node();
        let start = match &placed {
            Placement::Now(reserved) => Start::Now(node, reserved.connector.clone()),
            Placement::In(lane) => Start::In(lane.clone()),
            Placement::Anywhere => Start::Any,
        };
        let mut starts = vec![start; mail.jobs.len()];
        for (start, (route, _)) in starts.iter_mut().zip(&mail.jobs) {
            if let Some((_, holder)) = held.iter().find(|(held, _)| held == route) {
                *start = Start::Held(LaneId::held_by(holder));
            }
        }
        let has_copies = !mail.copies.is_empty();
        let inserted = self.store.insert(&mail, &starts, now).await;
        if matches!(inserted, Err(StoreError::Full)) {
            self.ask_for_space();
        }
        let Inserted { jobs, leases } = inserted?;
        // From here on nothing waits: what is leased in the store is handed over.
        let leased = jobs.first().copied().zip(leases.first().copied());
        let leased = leased.zip(mail.jobs.into_iter().next());
        match (placed, leased) {
            (Placement::Now(reserved), Some(((id, lease), (route, recipients)))) => {
                (reserved.hand_over)(Job {
                    id,
                    lease,
                    message: mail.message,
                    route,
                    recipients,
                    pinned: None,
                    lane: None,
                    attempts: 0,
                    accepted: now,
                });
                if has_copies {
                    self.wake();
                }
            }
            _ => self.wake(),
        }
        Ok(())
    }

    /// Waits until something was accepted (or `wake` was called) since the last wait.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// An operator has acted from within this process, which the store tells nobody: lanes are to be read again.
    pub fn was_operated(&self) {
        self.operated.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether one has since this was asked last.
    pub fn take_operated(&self) -> bool {
        self.operated.swap(false, Ordering::AcqRel)
    }

    /// Wakes delivery.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Mail was refused since the disk has too little space: what the store does not use is to be given back soon.
    pub fn ask_for_space(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether that was asked for within such a time.
    pub fn was_asked_for_space(&self, within: Duration) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_some_and(|at| at.elapsed() < within)
    }

    fn reserve(&self, mail: &Routed) -> Placement {
        let reserve = self.reserve.read().unwrap_or_else(PoisonError::into_inner);
        let reserve = reserve.clone();
        match reserve {
            // The permits are for one job.
            Some(reserve) if mail.jobs.len() == 1 => reserve(mail),
            _ => Placement::Anywhere,
        }
    }
}
