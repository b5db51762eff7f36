//! What all connections share: the rules in force, the limits and their counters, the queue, the password check.
//!
//! Apart from `connection`, which drives one session, and from the sockets. Every map in it is bounded.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};

use super::{Limits, auth::Authenticator};
use crate::{
    queue::{Queue, store::Health},
    smtp::server::session::{Conditions, Rules, StoreState},
};

/// Lines about refusals per address and minute; the rest is counted.
const REFUSALS_LOGGED: u32 = 60;
/// Networks that are remembered at most by one map.
const ADDRESSES: usize = 50_000;
const MINUTE: Duration = Duration::from_mins(1);

/// One for the whole gateway.
#[derive(Debug)]
pub struct Shared {
    pub(crate) queue: Arc<Queue>,
    pub(crate) auth: Authenticator,
    rules: RwLock<Arc<Rules>>,
    limits: RwLock<Limits>,
    open: AtomicUsize,
    /// Of them, those of strangers.
    strangers: AtomicUsize,
    by_network: Mutex<HashMap<IpAddr, Count>>,
    messages: Mutex<HashMap<IpAddr, VecDeque<Instant>>>,
    refusals: Mutex<HashMap<IpAddr, Refusals>>,
    drain: watch::Sender<bool>,
    pub(crate) connections: Mutex<JoinSet<()>>,
}

/// Connections of one network.
#[derive(Debug, Default)]
struct Count {
    all: usize,
    strangers: usize,
}

/// What counts as one peer: an IPv4 address, or the /64 that a machine with IPv6 has to itself (RFC 7934 §3: it may take as many
/// addresses of it as it likes).
pub(crate) fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

/// How many of `connections` strangers may have: a tenth. A stranger is in no `[[client]]` and has not logged in (yet).
fn share_of_strangers(connections: usize) -> usize {
    (connections / 10).max(1)
}

#[derive(Debug)]
struct Refusals {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Shared {
    /// For mail that goes to `queue`.
    pub fn new(queue: Arc<Queue>, rules: Rules, limits: Limits) -> Arc<Self> {
        Self::with_auth(queue, rules, limits, Authenticator::default())
    }

    /// With a password check of its own (tests).
    pub fn with_auth(
        queue: Arc<Queue>,
        rules: Rules,
        limits: Limits,
        auth: Authenticator,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue,
            auth,
            rules: RwLock::new(Arc::new(rules)),
            limits: RwLock::new(limits),
            open: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            by_network: Mutex::default(),
            messages: Mutex::default(),
            refusals: Mutex::default(),
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

    /// Tells every connection to close at its next pause.
    pub(crate) fn start_drain(&self) {
        self.drain.send_replace(true);
    }

    pub(crate) fn drain(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }

    /// How things are, for this address.
    pub(crate) fn conditions(&self, peer: IpAddr) -> Conditions {
        let limits = self.limits();
        let store = match self.queue.health(limits.free_disk) {
            Health::Fine => StoreState::Fine,
            Health::Full => StoreState::Full,
            Health::Failing => StoreState::Failing,
        };
        Conditions {
            rules: self.rules(),
            store,
            throttled: self.is_throttled(peer, limits.messages_per_minute, Instant::now()),
        }
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
        let times = match messages.entry(network_of(peer)) {
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
        messages.get(&network_of(peer)).is_some_and(|times| {
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
        let entry = refusals.entry(network_of(peer)).or_insert(Refusals {
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

    /// Whether a `[[client]]` has the address: its places are kept for it.
    pub(crate) fn is_client(&self, peer: IpAddr) -> bool {
        self.rules().policy.client(peer).is_some()
    }

    /// A place among all connections, for a stranger among theirs.
    pub(crate) fn place(self: &Arc<Self>, stranger: bool) -> Option<Place> {
        let most = self.limits().connections;
        take(&self.open, most)?;
        let mut place = Place {
            shared: Arc::clone(self),
            stranger: false,
        };
        (!stranger || place.is_of_a_stranger()).then_some(place)
    }

    /// A place among those of one network.
    pub(crate) fn place_of(self: &Arc<Self>, peer: IpAddr, stranger: bool) -> Option<PlaceOf> {
        let limits = self.limits();
        let most = limits.connections_per_client;
        // One stranger shall not take the places of all.
        let strangers = most.min((share_of_strangers(limits.connections) / 4).max(1));
        let network = network_of(peer);
        let mut places = self
            .by_network
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = places.entry(network).or_default();
        if count.all >= most || (stranger && count.strangers >= strangers) {
            if count.all == 0 {
                places.remove(&network);
            }
            return None;
        }
        count.all += 1;
        count.strangers += usize::from(stranger);
        Some(PlaceOf {
            shared: Arc::clone(self),
            network,
            stranger,
        })
    }
}

/// One more, if there are fewer than `most`.
fn take(count: &AtomicUsize, most: usize) -> Option<usize> {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < most).then_some(n + 1)
        })
        .ok()
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    stranger: bool,
}

impl Place {
    /// What stands behind a PROXY header is a stranger after all: true when there is such a place.
    pub(crate) fn is_of_a_stranger(&mut self) -> bool {
        let most = share_of_strangers(self.shared.limits().connections);
        self.stranger = self.stranger || take(&self.shared.strangers, most).is_some();
        self.stranger
    }

    /// It has logged in.
    pub(crate) fn is_of_a_friend(&mut self) {
        if std::mem::take(&mut self.stranger) {
            self.shared.strangers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_of_a_friend();
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(crate) struct PlaceOf {
    shared: Arc<Shared>,
    network: IpAddr,
    stranger: bool,
}

impl PlaceOf {
    /// It has logged in.
    pub(crate) fn is_of_a_friend(&mut self) {
        if std::mem::take(&mut self.stranger) {
            self.count(|count| count.strangers = count.strangers.saturating_sub(1));
        }
    }

    fn count(&self, change: impl FnOnce(&mut Count)) {
        let mut places = self
            .shared
            .by_network
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = places.entry(self.network) {
            change(entry.get_mut());
            if entry.get().all == 0 {
                entry.remove();
            }
        }
    }
}

impl Drop for PlaceOf {
    fn drop(&mut self) {
        self.is_of_a_friend();
        self.count(|count| count.all = count.all.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_one_peer() {
        fn check(peer: &str, expected: &str) {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(network_of(peer.parse().unwrap()), expected, "{peer}");
        }
        check("10.0.0.7", "10.0.0.7");
        check("::ffff:10.0.0.7", "10.0.0.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("2001:db8:1:2:ffff::", "2001:db8:1:2::");
        check("2001:db8:1:3::1", "2001:db8:1:3::");
        check("::1", "::");
    }
}
