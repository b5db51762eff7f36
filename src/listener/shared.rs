//! What all connections share: the rules in force, the limits and their counters, the queue, the password check.
//!
//! Apart from `connection`, which drives one session, and from the sockets. Every map in it is bounded.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use super::{Limits, auth::Authenticator};
use crate::{
    mail::message::MessageId,
    queue::Queue,
    smtp::server::session::{Rules, StoreWeather, Weather},
};

/// Free space is looked at so often at most.
const DISK_LOOK: Duration = Duration::from_secs(5);
/// Lines about refusals per address and minute; the rest is counted.
const REFUSALS_LOGGED: u32 = 60;
/// Addresses that are remembered at most by one map.
const ADDRESSES: usize = 50_000;
const MINUTE: Duration = Duration::from_mins(1);

/// One for the whole gateway.
#[derive(Debug)]
pub struct Shared {
    pub(crate) queue: Arc<Queue>,
    pub(crate) auth: Authenticator,
    spool: PathBuf,
    rules: RwLock<Arc<Rules>>,
    limits: RwLock<Limits>,
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    messages: Mutex<HashMap<IpAddr, VecDeque<Instant>>>,
    refusals: Mutex<HashMap<IpAddr, Refusals>>,
    disk: Disk,
    drain: watch::Sender<bool>,
    pub(crate) connections: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Refusals {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

#[derive(Debug)]
struct Disk {
    since: Instant,
    looked: AtomicU64,
    free: AtomicU64,
}

impl Shared {
    /// For mail that goes to `queue`, with large bodies in `data_dir/spool`.
    pub fn new(queue: Arc<Queue>, data_dir: &Path, rules: Rules, limits: Limits) -> Arc<Self> {
        Self::with_auth(queue, data_dir, rules, limits, Authenticator::default())
    }

    /// With a password check of its own (tests).
    pub fn with_auth(
        queue: Arc<Queue>,
        data_dir: &Path,
        rules: Rules,
        limits: Limits,
        auth: Authenticator,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue,
            auth,
            spool: data_dir.join("spool"),
            rules: RwLock::new(Arc::new(rules)),
            limits: RwLock::new(limits),
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            messages: Mutex::default(),
            refusals: Mutex::default(),
            disk: Disk {
                since: Instant::now(),
                looked: AtomicU64::new(u64::MAX),
                free: AtomicU64::new(u64::MAX),
            },
            drain: watch::Sender::new(false),
            connections: Mutex::default(),
        })
    }

    /// From the next MAIL on these rules judge; the limits hold from now on.
    pub fn swap(&self, rules: Rules, limits: Limits) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Where the body of this message is written.
    pub(crate) fn spool_path(&self, id: MessageId) -> PathBuf {
        self.spool.join(id.to_string())
    }

    /// Tells every connection to close at its next pause.
    pub(crate) fn start_drain(&self) {
        self.drain.send_replace(true);
    }

    pub(crate) fn drain(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }

    /// How things are, for this address.
    pub(crate) fn weather(&self, peer: IpAddr) -> Weather {
        let limits = self.limits();
        let store = if !self.queue.store().is_healthy() {
            StoreWeather::Failing
        } else if !self.queue.store().has_room() || self.free_disk() < limits.free_disk {
            self.queue.ask_for_room();
            StoreWeather::Full
        } else {
            StoreWeather::Fine
        };
        Weather {
            rules: self.rules(),
            store,
            throttled: self.is_throttled(peer, limits.messages_per_minute, Instant::now()),
        }
    }

    /// Looked at now and then; what cannot be looked at counts as enough.
    fn free_disk(&self) -> u64 {
        let now = self.disk.since.elapsed().as_millis() as u64;
        let looked = self.disk.looked.load(Ordering::Relaxed);
        let due = looked == u64::MAX || now.saturating_sub(looked) >= DISK_LOOK.as_millis() as u64;
        if due
            && self
                .disk
                .looked
                .compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let free = rustix::fs::statvfs(&self.spool)
                .map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
            self.disk.free.store(free, Ordering::Relaxed);
        }
        self.disk.free.load(Ordering::Relaxed)
    }

    /// One more message from this address.
    pub(crate) fn count_message(&self, peer: IpAddr) {
        let limit = self.limits().messages_per_minute as usize;
        if limit == 0 {
            return;
        }
        let now = Instant::now();
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() >= ADDRESSES {
            messages.retain(|_, times| {
                times
                    .back()
                    .is_some_and(|t| now.duration_since(*t) < MINUTE)
            });
        }
        let known = messages.len();
        let times = match messages.entry(peer.to_canonical()) {
            Entry::Vacant(_) if known >= ADDRESSES => return,
            entry => entry.or_default(),
        };
        times.push_back(now);
        while times.len() > limit {
            times.pop_front();
        }
    }

    /// A sliding minute: as many messages as allowed began within it.
    fn is_throttled(&self, peer: IpAddr, limit: u32, now: Instant) -> bool {
        if limit == 0 {
            return false;
        }
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.get(&peer.to_canonical()).is_some_and(|times| {
            times.len() >= limit as usize
                && times
                    .len()
                    .checked_sub(limit as usize)
                    .and_then(|i| times.get(i))
                    .is_some_and(|t| now.duration_since(*t) < MINUTE)
        })
    }

    /// Whether a refusal of this address may be logged, and how many were not since the last one.
    pub(crate) fn may_log_refusal(&self, peer: IpAddr) -> Option<u64> {
        let now = Instant::now();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= ADDRESSES {
            refusals.retain(|_, r| now.duration_since(r.since) < MINUTE);
            if refusals.len() >= ADDRESSES {
                return None;
            }
        }
        let entry = refusals.entry(peer.to_canonical()).or_insert(Refusals {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        if now.duration_since(entry.since) >= MINUTE {
            entry.since = now;
            entry.lines = 0;
        }
        if entry.lines >= REFUSALS_LOGGED {
            entry.suppressed += 1;
            return None;
        }
        entry.lines += 1;
        Some(std::mem::take(&mut entry.suppressed))
    }

    /// A place among all connections.
    pub(crate) fn place(self: &Arc<Self>) -> Option<Place> {
        let most = self.limits().connections;
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < most).then_some(n + 1)
            })
            .ok()
            .map(|_| Place(Arc::clone(self)))
    }

    /// A place among those of one address.
    pub(crate) fn place_of(self: &Arc<Self>, peer: IpAddr) -> Option<PlaceOf> {
        let most = self.limits().connections_per_client;
        let peer = peer.to_canonical();
        let mut places = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = places.get(&peer).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        places.insert(peer, count + 1);
        Some(PlaceOf(Arc::clone(self), peer))
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct PlaceOf(Arc<Shared>, IpAddr);

impl Drop for PlaceOf {
    fn drop(&mut self) {
        let mut places = self
            .0
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = places.entry(self.1) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
