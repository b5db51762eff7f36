//! How often a connector may be asked for mailboxes that never took mail.
//!
//! The number of mailboxes is up to the senders: whoever invents ten thousand must not make as many requests and rows.
//! It is arithmetic over times given as arguments. It does not know which mailbox is refused, only which took mail.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{route::ConnectorName, route::LaneId};

/// Tries in [`WINDOW`] of mailboxes that never took mail, for each connector; then the others of them wait. One that takes mail is
/// none of them any more.
const TRIES: usize = 30;
const WINDOW: Duration = Duration::from_mins(1);
/// While tries are under way one may be over at any moment: so long is waited before another look.
const SOON: Duration = Duration::from_secs(1);
/// The longest wait of one that was turned away.
const LONGEST: Duration = Duration::from_mins(15);
/// Mailboxes that took mail and are remembered for it, of each connector.
const KNOWN: usize = 10_000;
/// Rows that say which mailboxes are refused, for each connector; the others are counted.
pub(super) const ROWS: usize = 100;

/// The tries of each connector.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    of: HashMap<ConnectorName, Tries>,
}

#[derive(Debug, Default)]
struct Tries {
    /// The oldest first, [`TRIES`] at most.
    recent: VecDeque<Try>,
    known: HashSet<LaneId>,
    /// Turned away since.
    turned: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Try {
    at: Instant,
    /// Whose it is, until it is known to have come to nothing.
    of: Option<LaneId>,
}

impl Strangers {
    /// Whether mail of that lane may ask; else how long it had better wait.
    ///
    /// # Errors
    /// Too many were tried, and this one never took mail.
    pub(super) fn may_ask(&mut self, lane: &LaneId, now: Instant) -> Result<(), Duration> {
        let Some(tries) = self.of.get_mut(&lane.connector) else {
            return Ok(());
        };
        let Some(free) = tries.full_until(now) else {
            return Ok(());
        };
        if tries.known.contains(lane) {
            return Ok(());
        }
        let (since, count) = tries.turned.get_or_insert((now, 0));
        if now.saturating_duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        // So many windows are used up by those before it.
        let windows = u32::try_from(*count / TRIES).unwrap_or(u32::MAX);
        let wait = free.saturating_duration_since(now) + WINDOW.saturating_mul(windows);
        Err(wait.min(LONGEST))
    }

    /// As [`Strangers::may_ask`], for whoever only looks: from when on.
    pub(super) fn not_before(&mut self, lane: &LaneId, now: Instant) -> Option<Instant> {
        let tries = self.of.get_mut(&lane.connector)?;
        let free = tries.full_until(now)?;
        (!tries.known.contains(lane)).then_some(free)
    }

    /// Its mail is on the way, which is a try unless it took mail before.
    pub(super) fn begins(&mut self, lane: &LaneId, now: Instant) {
        let tries = self.of.entry(lane.connector.clone()).or_default();
        if !tries.known.contains(lane) {
            tries.push(now, Some(lane.clone()));
        }
    }

    /// It took mail.
    pub(super) fn took(&mut self, lane: &LaneId) {
        let tries = self.of.entry(lane.connector.clone()).or_default();
        if tries.known.contains(lane) {
            return;
        }
        if tries.known.len() >= KNOWN {
            tries.known.clear();
        }
        // A mailbox that took mail with a From is known without it, too.
        tries.known.insert(lane.of_mailbox());
        tries.known.insert(lane.clone());
        tries.recent.retain(|one| one.of.as_ref() != Some(lane));
    }

    /// It was refused.
    pub(super) fn refused(&mut self, lane: &LaneId, now: Instant) {
        if !self.came_to_nothing(lane) {
            let tries = self.of.entry(lane.connector.clone()).or_default();
            tries.push(now, None);
        }
    }

    /// Its try is over without an answer to it; says whether there was one.
    pub(super) fn came_to_nothing(&mut self, lane: &LaneId) -> bool {
        let tries = self.of.get_mut(&lane.connector);
        let mut recent = tries.into_iter().flat_map(|tries| tries.recent.iter_mut());
        let found = recent.find(|one| one.of.as_ref() == Some(lane));
        found.is_some_and(|one| one.of.take().is_some())
    }

    /// The connector did not come to asking for it.
    pub(super) fn was_not_asked(&mut self, lane: &LaneId) {
        if let Some(tries) = self.of.get_mut(&lane.connector) {
            tries.recent.retain(|one| one.of.as_ref() != Some(lane));
        }
    }

    /// An administrator may have mended it: all may ask.
    pub(super) fn forgive(&mut self) {
        for tries in self.of.values_mut() {
            tries.recent.clear();
            tries.turned = None;
        }
    }
}

impl Tries {
    fn push(&mut self, at: Instant, of: Option<LaneId>) {
        self.recent.push_back(Try { at, of });
        while self.recent.len() > TRIES {
            self.recent.pop_front();
        }
    }

    /// Until when only those that took mail before may ask; `None`: everybody may.
    fn full_until(&mut self, now: Instant) -> Option<Instant> {
        let is_over = |one: &Try| now.saturating_duration_since(one.at) >= WINDOW;
        while self.recent.front().is_some_and(is_over) {
            self.recent.pop_front();
        }
        let oldest = self.recent.front().filter(|_| self.recent.len() >= TRIES)?;
        let free = oldest.at + WINDOW;
        let is_under_way = self.recent.iter().any(|one| one.of.is_some());
        Some(if is_under_way {
            free.min(now + SOON)
        } else {
            free
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(n: usize) -> LaneId {
        LaneId {
            connector: "up".into(),
            mailbox: Some(n.to_string().into()),
            from: None,
        }
    }

    #[test]
    fn ten_thousand_invented_mailboxes_ask_thirty_times_a_minute() {
        let mut strangers = Strangers::default();
        let start = Instant::now();
        strangers.took(&lane(0));
        // Each waits as long as it is told; once asked, it is refused.
        let mut due: Vec<(Duration, usize)> = (1..=10_000).map(|n| (Duration::ZERO, n)).collect();
        let mut asked: Vec<Duration> = Vec::new();
        let mut looks = 0_usize;
        for second in 0..3_600 {
            let at = SECOND * second;
            let now = start + at;
            assert_eq!(strangers.may_ask(&lane(0), now), Ok(()), "a real one");
            let mut later = Vec::new();
            for (when, n) in due {
                if when > at {
                    later.push((when, n));
                    continue;
                }
                looks += 1;
                match strangers.may_ask(&lane(n), now) {
                    Ok(()) => {
                        asked.push(at);
                        strangers.begins(&lane(n), now);
                        strangers.refused(&lane(n), now);
                    }
                    Err(wait) => {
                        assert!(wait > Duration::ZERO && wait <= LONGEST);
                        later.push((at + wait, n));
                    }
                }
            }
            due = later;
        }
        for at in &asked {
            let window = asked.iter().filter(|a| **a >= *at && **a < *at + WINDOW);
            assert!(window.count() <= TRIES);
        }
        assert!(asked.len() >= 900, "{} in an hour", asked.len());
        assert!(looks < 100_000, "{looks} looks");
        strangers.forgive();
        assert_eq!(strangers.may_ask(&lane(1), start + SECOND * 3_600), Ok(()));
    }

    /// What is under way counts, so that a burst is bounded too; what works makes room at once, so that after a restart many real
    /// mailboxes need not wait.
    #[test]
    fn a_try_under_way_counts_and_one_that_works_does_not() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        for n in 0..TRIES {
            assert_eq!(strangers.may_ask(&lane(n), now), Ok(()));
            strangers.begins(&lane(n), now);
        }
        assert_eq!(strangers.may_ask(&lane(99), now), Err(SOON));
        assert_eq!(strangers.not_before(&lane(99), now), Some(now + SOON));
        for n in 0..1_000 {
            strangers.took(&lane(n));
            assert_eq!(strangers.may_ask(&lane(n + TRIES), now), Ok(()));
            strangers.begins(&lane(n + TRIES), now);
        }
        assert!(strangers.may_ask(&lane(5_000), now).is_err());
        // The connector was down: nobody was asked for this one.
        strangers.was_not_asked(&lane(1_000));
        assert_eq!(strangers.may_ask(&lane(5_000), now), Ok(()));
        // One that is refused or throttled has had its try.
        strangers.begins(&lane(5_000), now);
        for n in 1_001..1_030 {
            assert!(strangers.came_to_nothing(&lane(n)));
        }
        strangers.refused(&lane(5_000), now);
        assert_eq!(strangers.not_before(&lane(1), now), None, "it took mail");
        let free = strangers.not_before(&lane(9_999), now);
        assert_eq!(free, Some(now + WINDOW));
    }

    #[test]
    fn a_mailbox_is_known_by_mail_with_another_from() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        let foreign = LaneId {
            from: Some("f".into()),
            ..lane(1)
        };
        strangers.took(&foreign);
        for n in 10..10 + TRIES {
            strangers.refused(&lane(n), now);
        }
        assert_eq!(strangers.may_ask(&foreign, now), Ok(()));
        assert_eq!(strangers.may_ask(&lane(1), now), Ok(()));
        assert!(strangers.may_ask(&lane(2), now).is_err());
    }
}
