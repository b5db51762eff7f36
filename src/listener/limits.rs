//! What is counted of each network and of all together: connections, messages, refusals in the log.
//!
//! Every map forgets, so that no number of addresses can fill the memory. What the counts mean to a client is said elsewhere.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::settings::Limits;

/// Lines about refusals per network and minute; the rest is counted.
const REFUSALS_LOGGED: u32 = 60;
/// Networks that are remembered at most by one map.
const NETWORKS: usize = 50_000;
const MINUTE: Duration = Duration::from_mins(1);

/// What counts as one peer: an IPv4 address, or the /64 that a machine with IPv6 has to itself (RFC 7934 §3: it may take as many
/// addresses of it as it likes).
pub(super) fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

/// A map with a largest size. It is two halves: when the younger is full it becomes the older, and what was in the older and was
/// not asked for since is forgotten. So whoever comes is always remembered, and only by half of `most` others is one pushed out;
/// no entry is ever searched for.
#[derive(Debug)]
pub(super) struct Forgetful<K, V> {
    most: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Forgetful<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The entry of this key, which begins as `first`.
    pub(super) fn entry(&mut self, key: K, first: V) -> &mut V {
        let known = self.old.remove(&key);
        if !self.young.contains_key(&key) && self.young.len() >= self.most / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(key).or_insert(known.unwrap_or(first))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Messages of each network within a sliding minute.
#[derive(Debug)]
pub(super) struct MessageRate(Mutex<Forgetful<IpAddr, VecDeque<Instant>>>);

impl Default for MessageRate {
    fn default() -> Self {
        Self(Mutex::new(Forgetful::new(NETWORKS)))
    }
}

impl MessageRate {
    /// One more message; a `limit` of 0 is none.
    pub(super) fn count(&self, peer: IpAddr, limit: u32, now: Instant) {
        if limit == 0 {
            return;
        }
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = messages.entry(network_of(peer), VecDeque::new());
        times.push_back(now);
        while times.len() > limit as usize {
            times.pop_front();
        }
    }

    /// Whether as many messages as allowed began within the last minute.
    pub(super) fn is_reached(&self, peer: IpAddr, limit: u32, now: Instant) -> bool {
        if limit == 0 {
            return false;
        }
        let messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        messages.get(&network_of(peer)).is_some_and(|times| {
            let first = times.len().checked_sub(limit as usize);
            let first = first.and_then(|first| times.get(first));
            first.is_some_and(|first| now.duration_since(*first) < MINUTE)
        })
    }
}

/// Which refusals of a network are logged.
#[derive(Debug)]
pub(super) struct RefusalLog(Mutex<Forgetful<IpAddr, LoggedRefusals>>);

#[derive(Debug)]
struct LoggedRefusals {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self(Mutex::new(Forgetful::new(NETWORKS)))
    }
}

impl RefusalLog {
    /// Whether a refusal of this peer may be logged, and how many were not since the last one.
    pub(super) fn may_log(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        let first = LoggedRefusals {
            since: now,
            lines: 0,
            suppressed: 0,
        };
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = refusals.entry(network_of(peer), first);
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
}

/// Connections: all, those of strangers, those of each network. A stranger is in no `[[client]]` and has not logged in (yet).
#[derive(Debug, Default)]
pub(super) struct Permits {
    open: AtomicUsize,
    strangers: AtomicUsize,
    /// Bounded by the connections there are.
    by_network: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    all: usize,
    strangers: usize,
}

/// How many of `connections` strangers may have: a tenth.
fn share_of_strangers(connections: usize) -> usize {
    (connections / 10).max(1)
}

/// One more, if there are fewer than `most`.
fn take(count: &AtomicUsize, most: usize) -> Option<usize> {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            (n < most).then_some(n + 1)
        })
        .ok()
}

impl Permits {
    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// One among all connections, for a stranger among theirs.
    pub(super) fn among_all(
        self: &Arc<Self>,
        limits: Limits,
        is_stranger: bool,
    ) -> Option<ConnectionPermit> {
        take(&self.open, limits.connections)?;
        let mut permit = ConnectionPermit {
            permits: Arc::clone(self),
            is_strangers: false,
        };
        (!is_stranger || permit.make_strangers(limits)).then_some(permit)
    }

    /// One among those of one network.
    pub(super) fn among_network(
        self: &Arc<Self>,
        peer: IpAddr,
        limits: Limits,
        is_stranger: bool,
    ) -> Option<NetworkPermit> {
        let most = limits.connections_per_client;
        // One stranger must not take the permits of all.
        let most_strangers = most.min((share_of_strangers(limits.connections) / 4).max(1));
        let network = network_of(peer);
        let mut counts = self
            .by_network
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if count.all >= most || (is_stranger && count.strangers >= most_strangers) {
            if count.all == 0 {
                counts.remove(&network);
            }
            return None;
        }
        count.all += 1;
        count.strangers += usize::from(is_stranger);
        Some(NetworkPermit {
            permits: Arc::clone(self),
            network,
            is_strangers: is_stranger,
        })
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    permits: Arc<Permits>,
    is_strangers: bool,
}

impl ConnectionPermit {
    /// The client behind a PROXY header is a stranger after all: false when strangers have all of theirs.
    pub(super) fn make_strangers(&mut self, limits: Limits) -> bool {
        let most = share_of_strangers(limits.connections);
        self.is_strangers = self.is_strangers || take(&self.permits.strangers, most).is_some();
        self.is_strangers
    }

    /// The stranger has logged in.
    pub(super) fn make_friends(&mut self) {
        if std::mem::take(&mut self.is_strangers) {
            self.permits.strangers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.make_friends();
        self.permits.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct NetworkPermit {
    permits: Arc<Permits>,
    network: IpAddr,
    is_strangers: bool,
}

impl NetworkPermit {
    /// The stranger has logged in.
    pub(super) fn make_friends(&mut self) {
        if std::mem::take(&mut self.is_strangers) {
            self.change(|count| count.strangers = count.strangers.saturating_sub(1));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Count)) {
        let mut counts = self
            .permits
            .by_network
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.network) {
            change(entry.get_mut());
            if entry.get().all == 0 {
                entry.remove();
            }
        }
    }
}

impl Drop for NetworkPermit {
    fn drop(&mut self) {
        self.make_friends();
        self.change(|count| count.all = count.all.saturating_sub(1));
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

    #[test]
    fn a_full_map_forgets_who_was_not_asked_for() {
        let mut map = Forgetful::new(4);
        for key in 1..=4 {
            map.entry(key, 'a');
        }
        assert_eq!(map.len(), 4);
        // Known already, and so among the young from now on.
        assert_eq!(*map.entry(2, 'z'), 'a');
        *map.entry(5, 'b') = 'c';
        assert_eq!((map.get(&1), map.get(&2)), (None, Some(&'a')));
        assert_eq!(*map.entry(5, 'z'), 'c');
        for key in 6..1_000 {
            map.entry(key, 'd');
            assert_eq!(map.get(&key), Some(&'d'), "whoever comes is remembered");
            assert!(map.len() <= 4);
        }
    }

    #[test]
    fn a_sliding_minute_of_messages() {
        let (rate, start) = (MessageRate::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let peer = IpAddr::from([10, 0, 0, 1]);
        for seconds in [0, 30, 30] {
            assert!(!rate.is_reached(peer, 3, at(seconds)));
            rate.count(peer, 3, at(seconds));
        }
        assert!(rate.is_reached(peer, 3, at(59)));
        assert!(!rate.is_reached(peer, 0, at(59)));
        assert!(!rate.is_reached(IpAddr::from([10, 0, 0, 2]), 3, at(59)));
        assert!(!rate.is_reached(peer, 3, at(60)));
        rate.count(peer, 3, at(60));
        assert!(rate.is_reached(peer, 3, at(89)));
    }

    #[test]
    fn sixty_refusals_a_minute_are_logged_and_the_rest_is_counted() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        let peer = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..REFUSALS_LOGGED {
            assert_eq!(log.may_log(peer, start), Some(0));
        }
        assert_eq!(log.may_log(peer, start), None);
        assert_eq!(log.may_log(peer, start), None);
        assert_eq!(log.may_log(peer, start + MINUTE), Some(2));
    }
}
