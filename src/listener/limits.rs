//! What is remembered of each network: messages, refusals in the log, failed logins. Connections are counted in `permits`.
//!
//! Every map forgets, so that no number of addresses can fill the memory. What the counts mean to a client is said elsewhere.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines about refusals per network and minute; the rest is counted.
const REFUSALS_LOGGED: u32 = 60;
/// Networks that are remembered at most by one map.
const NETWORKS: usize = 50_000;
const MINUTE: Duration = Duration::from_mins(1);

/// What counts as one peer: an IPv4 address, or the /64 that a machine with IPv6 has to itself (RFC 7934 §3: it may take as many
/// addresses of it as it likes). `::ffff:a.b.c.d` is `a.b.c.d`. Whatever is counted by address is counted by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(IpAddr);

impl Network {
    pub(crate) fn of(peer: IpAddr) -> Self {
        Self(match peer.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        })
    }
}

/// A map with a largest size. It is two halves: when the younger is full it becomes the older, and what was in the older and was
/// not asked for since is forgotten. So whoever comes is always remembered, and only by half of `most` others is one pushed out;
/// no entry is ever searched for.
#[derive(Debug)]
pub(crate) struct Forgetful<K, V> {
    most: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Forgetful<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The entry of this key, which begins as `first`.
    pub(crate) fn entry(&mut self, key: K, first: V) -> &mut V {
        let known = self.old.remove(&key);
        if !self.young.contains_key(&key) && self.young.len() >= self.most / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(key).or_insert(known.unwrap_or(first))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Something of each network, of `most` networks at most.
#[derive(Debug)]
pub(crate) struct ByNetwork<V>(Mutex<Forgetful<Network, V>>);

impl<V> ByNetwork<V> {
    pub(crate) fn new(most: usize) -> Self {
        Self(Mutex::new(Forgetful::new(most)))
    }

    /// Whether it is so of what is remembered of this peer's network.
    pub(crate) fn is(&self, peer: IpAddr, look: impl FnOnce(&V) -> bool) -> bool {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(&Network::of(peer)).is_some_and(look)
    }

    /// Changes what is remembered of this peer's network, which begins as `first`.
    pub(crate) fn change<T>(&self, peer: IpAddr, first: V, change: impl FnOnce(&mut V) -> T) -> T {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(map.entry(Network::of(peer), first))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Messages of each network within a sliding minute.
#[derive(Debug)]
pub(crate) struct MessageRate(ByNetwork<VecDeque<Instant>>);

impl Default for MessageRate {
    fn default() -> Self {
        Self(ByNetwork::new(NETWORKS))
    }
}

impl MessageRate {
    /// One more message; a `limit` of 0 is none.
    pub(crate) fn count(&self, peer: IpAddr, limit: u32, now: Instant) {
        if limit == 0 {
            return;
        }
        self.0.change(peer, VecDeque::new(), |times| {
            times.push_back(now);
            while times.len() > limit as usize {
                times.pop_front();
            }
        });
    }

    /// Whether as many messages as allowed began within the last minute.
    pub(crate) fn is_reached(&self, peer: IpAddr, limit: u32, now: Instant) -> bool {
        limit > 0
            && self.0.is(peer, |times| {
                let first = times.len().checked_sub(limit as usize);
                let first = first.and_then(|first| times.get(first));
                first.is_some_and(|first| now.duration_since(*first) < MINUTE)
            })
    }
}

/// Which refusals of a network are logged.
#[derive(Debug)]
pub(crate) struct RefusalLog(ByNetwork<LoggedRefusals>);

#[derive(Debug)]
struct LoggedRefusals {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self(ByNetwork::new(NETWORKS))
    }
}

impl RefusalLog {
    /// Whether a refusal of this peer may be logged, and how many were not since the last one.
    pub(crate) fn may_log(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        let first = LoggedRefusals {
            since: now,
            lines: 0,
            suppressed: 0,
        };
        self.0.change(peer, first, |entry| {
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_one_peer() {
        fn check(peer: &str, expected: &str) {
            let expected = Network(expected.parse().unwrap());
            assert_eq!(Network::of(peer.parse().unwrap()), expected, "{peer}");
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
