//! How many connections an upstream is given at a time: it grows with the work, and learns from an upstream that takes fewer.
//!
//! Pure: events and times in, numbers out. It opens and closes nothing, and counts nothing but what it is told.

use std::time::Duration;

use tokio::time::Instant;

/// A connector begins with so many connections, and does so again after it was closed.
const FIRST: usize = 5;
/// What an upstream did so long ago still says something of now.
const RECENT: Duration = Duration::from_mins(1);
/// One connection more than was learned is tried after the first, and at most after the second; each vain try doubles it.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_mins(10), Duration::from_hours(24));
/// An upstream may count a connection for so long after it was closed.
const REPLACED: Duration = Duration::from_secs(2);
/// An upstream that refuses the only connection for being one too many is asked again after this.
const ALONE: Duration = Duration::from_secs(5);

/// The other connections of the connector at the moment one was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// Being opened.
    pub(super) opening: usize,
    /// Open: busy, idle, or taking leave.
    pub(super) open: usize,
    /// When the upstream last answered on one of those that are open.
    pub(super) answered: Option<Instant>,
    /// When one was last closed.
    pub(super) closed: Option<Instant>,
}

impl Others {
    fn count(self) -> usize {
        self.opening + self.open
    }
}

/// Whether another connection may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    /// Yes. `trial`: it is one more than the upstream was found to take.
    Open { trial: bool },
    /// Not before.
    Wait(Instant),
    /// Not until one is closed.
    Full,
}

/// What the upstream was found to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownLimit {
    pub(super) connections: usize,
    pub(super) since: Instant,
    /// One more is tried then.
    next: Instant,
    wait: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Width {
    /// `max_connections`.
    most: usize,
    /// This gateway's part of them, where others send to the same upstream.
    part: usize,
    now: usize,
    learned: Option<KnownLimit>,
    not_before: Option<Instant>,
}

impl Width {
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            most,
            part: usize::MAX,
            now: FIRST.min(most),
            learned: None,
            not_before: None,
        }
    }

    /// How many connections may be open now.
    pub(super) fn now(&self) -> usize {
        self.now.min(self.part)
    }

    /// As many as are this gateway's.
    pub(super) fn part(&self) -> usize {
        self.part
    }

    pub(super) fn set_part(&mut self, part: usize) {
        self.part = part;
    }

    /// There may be more than there may be now.
    pub(super) fn has_shrunk(&self) -> bool {
        self.part < self.most
    }

    /// How many may ever be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn learned(&self) -> Option<KnownLimit> {
        self.learned
    }

    /// What an earlier process learned, so long ago.
    pub(super) fn recall(&mut self, connections: usize, age: Duration, now: Instant) {
        if connections == 0 || connections >= self.most || age >= TRY_AGAIN.1 {
            return;
        }
        self.now = connections;
        self.learned = Some(KnownLimit {
            connections,
            since: now.checked_sub(age).unwrap_or(now),
            next: now + TRY_AGAIN.0.saturating_sub(age),
            wait: TRY_AGAIN.0,
        });
    }

    /// Work waits, and so many connections are open, being opened or leaving.
    pub(super) fn may_open(&self, count: usize, now: Instant) -> May {
        if let Some(at) = self.not_before
            && now < at
        {
            return May::Wait(at);
        }
        if count < self.now() {
            return May::Open { trial: false };
        }
        match self.learned {
            Some(learned)
                if count == self.now()
                    && count < self.most.min(self.part)
                    && learned.next <= now =>
            {
                May::Open { trial: true }
            }
            _ => May::Full,
        }
    }

    /// A message was delivered; `busy`: every connection was at work and another message waited. `trial`: on the connection that was
    /// one more than was learned.
    pub(super) fn delivered(&mut self, busy: bool, trial: bool) {
        if trial {
            self.learned = None;
        }
        if busy && self.learned.is_none() {
            self.now = (self.now + 1).min(self.most);
        }
    }

    /// A connection was refused or closed in a way that can mean "too many"; `said`: the reply says so. The number that is learned,
    /// or `None`: it means something else here.
    pub(super) fn crowded(
        &mut self,
        others: Others,
        said: bool,
        trial: bool,
        now: Instant,
    ) -> Option<usize> {
        let lately = |at: Option<Instant>| at.is_some_and(|at| now < at + RECENT);
        let counts = if said {
            // Another gateway may have the connections that are too many.
            others.count() > 0 || lately(others.closed) || self.has_shrunk()
        } else {
            others.opening > 0 || others.open > 0 && lately(others.answered)
        };
        if !counts {
            return None;
        }
        // The place of one that was just closed is not free over there yet.
        let is_replaced = others.closed.is_some_and(|at| now < at + REPLACED);
        if let Some(learned) = self.learned
            && is_replaced
            && !trial
            && others.count() < learned.connections
        {
            self.not_before = Some(now + REPLACED);
            return Some(learned.connections);
        }
        let connections = others.count().clamp(1, self.most);
        let wait = match self.learned {
            Some(learned) if trial => (learned.wait * 2).min(TRY_AGAIN.1),
            _ => TRY_AGAIN.0,
        };
        self.now = connections;
        self.learned = Some(KnownLimit {
            connections,
            since: now,
            next: now + wait,
            wait,
        });
        if others.count() == 0 {
            self.not_before = Some(now + ALONE);
        }
        Some(connections)
    }

    /// The upstream is down: what it seemed to say of numbers in the last minute was the outage.
    pub(super) fn down(&mut self, now: Instant) {
        if self.learned.is_some_and(|l| now < l.since + RECENT) {
            self.learned = None;
        }
        self.not_before = None;
        let most = self.learned.map_or(self.most, |l| l.connections);
        self.now = FIRST.min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(opening: usize, open: usize) -> Others {
        Others {
            opening,
            open,
            ..Others::default()
        }
    }

    #[test]
    fn the_width_doubles_each_round_trip_up_to_the_ceiling() {
        let mut width = Width::new(20);
        let mut widths = Vec::new();
        for _round_trip in 0..4 {
            widths.push(width.now());
            for _each in 0..width.now() {
                width.delivered(true, false);
            }
        }
        assert_eq!(widths, [5, 10, 20, 20]);
        width.delivered(false, false);
        assert_eq!(width.now(), 20, "what was there is kept");
        assert_eq!(Width::new(2).now(), 2);
        assert_eq!(Width::new(0).now(), 1);
    }

    #[test]
    fn five_at_once_of_which_three_are_refused_end_at_two() {
        for said in [true, false] {
            let now = Instant::now();
            let mut width = Width::new(20);
            assert_eq!(width.crowded(others(4, 0), said, false, now), Some(4));
            assert_eq!(width.crowded(others(3, 0), said, false, now), Some(3));
            assert_eq!(width.crowded(others(2, 0), said, false, now), Some(2));
            assert_eq!(width.now(), 2);
            assert_eq!(width.may_open(2, now), May::Full);
            assert_eq!(width.may_open(1, now), May::Open { trial: false });
        }
    }

    #[test]
    fn five_at_once_that_are_all_refused_are_an_outage() {
        let now = Instant::now();
        let mut width = Width::new(20);
        for left in (1..5).rev() {
            assert_eq!(
                width.crowded(others(left, 0), false, false, now),
                Some(left)
            );
        }
        assert_eq!(width.crowded(others(0, 0), false, false, now), None);
        width.down(now);
        assert_eq!((width.learned(), width.now()), (None, 5));
    }

    #[test]
    fn what_counts_as_crowded() {
        let now = Instant::now() + RECENT * 10;
        let (lately, long_ago) = (now - RECENT / 2, now - RECENT * 2);
        let some = |closed, answered, opening, open| Others {
            opening,
            open,
            answered,
            closed,
        };
        // others, what the reply says of numbers, what is learned
        for (others, said, learned) in [
            (some(None, None, 0, 0), true, None),
            (some(Some(lately), None, 0, 0), true, Some(1)),
            (some(Some(long_ago), None, 0, 0), true, None),
            (some(None, None, 0, 3), true, Some(3)),
            (some(None, None, 2, 0), true, Some(2)),
            (some(Some(lately), None, 0, 0), false, None),
            (some(None, None, 0, 3), false, None),
            (some(None, Some(long_ago), 0, 3), false, None),
            (some(None, Some(lately), 0, 3), false, Some(3)),
            (some(None, Some(lately), 0, 0), false, None),
            (some(None, None, 1, 0), false, Some(1)),
        ] {
            let mut width = Width::new(20);
            assert_eq!(
                width.crowded(others, said, false, now),
                learned,
                "{others:?} {said}"
            );
            assert_eq!(width.now(), learned.unwrap_or(FIRST));
        }
    }

    #[test]
    fn one_more_is_tried_after_ten_minutes_and_each_vain_try_doubles_the_wait() {
        let mut now = Instant::now();
        let mut width = Width::new(20);
        width.crowded(others(0, 2), true, false, now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let begun = now;
            while width.may_open(2, now) == May::Full {
                now += Duration::from_mins(10);
            }
            assert_eq!(width.may_open(2, now), May::Open { trial: true });
            assert_eq!(width.may_open(3, now), May::Full, "one more, not two");
            waits.push((now - begun).as_secs() / 60);
            width.crowded(others(0, 2), true, true, now);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 1440]);
        // A message that is delivered on it shows that there is room again.
        width.delivered(false, true);
        assert_eq!(width.learned(), None);
        width.delivered(true, false);
        assert_eq!(width.now(), 3);
    }

    #[test]
    fn with_none_left_the_next_is_opened_after_five_seconds() {
        let now = Instant::now();
        let mut width = Width::new(20);
        let closed = Others {
            closed: Some(now),
            ..Others::default()
        };
        assert_eq!(width.crowded(closed, true, false, now), Some(1));
        assert_eq!(width.may_open(0, now), May::Wait(now + ALONE));
        assert_eq!(width.may_open(0, now + ALONE), May::Open { trial: false });
    }

    #[test]
    fn an_outage_keeps_what_was_learned_long_before() {
        let now = Instant::now();
        let mut width = Width::new(20);
        width.crowded(others(0, 2), true, false, now);
        width.down(now + RECENT * 2);
        assert_eq!(width.learned().map(|l| l.connections), Some(2));
        assert_eq!(width.now(), 2);
    }

    #[test]
    fn a_restart_asks_for_nothing_in_vain_for_a_day() {
        let now = Instant::now() + TRY_AGAIN.1 * 2;
        let recalled = |connections, age| {
            let mut width = Width::new(4);
            width.recall(connections, age, now);
            width.now()
        };
        assert_eq!(recalled(2, Duration::from_secs(1)), 2);
        assert_eq!(recalled(2, TRY_AGAIN.1), 4, "forgotten after a day");
        assert_eq!(recalled(0, Duration::ZERO), 4);
        assert_eq!(recalled(9, Duration::ZERO), 4, "the ceiling was lowered");
        let mut width = Width::new(4);
        width.recall(2, Duration::from_mins(11), now);
        assert_eq!(width.may_open(2, now), May::Open { trial: true });
    }

    #[test]
    fn it_is_never_above_the_ceiling_and_never_nothing() {
        let mut random = fastrand::Rng::with_seed(13);
        for _ in 0..2_000 {
            let most = random.usize(1..8);
            let mut width = Width::new(most);
            let mut now = Instant::now();
            let mut count = 0;
            for _ in 0..60 {
                now += Duration::from_secs(random.u64(0..400));
                match random.u8(0..6) {
                    0 | 1 => match width.may_open(count, now) {
                        May::Open { .. } => count += 1,
                        May::Wait(at) => assert!(at > now),
                        May::Full => {}
                    },
                    2 => width.delivered(random.bool(), random.bool()),
                    3 if count > 0 => {
                        count -= 1;
                        let others = Others {
                            answered: random.bool().then_some(now),
                            ..others(0, count)
                        };
                        width.crowded(others, random.bool(), random.bool(), now);
                    }
                    4 => width.down(now),
                    _ => count = count.saturating_sub(1),
                }
                assert!(count <= most, "{count} of {most}");
                assert!((1..=most).contains(&width.now()));
            }
        }
    }
}
