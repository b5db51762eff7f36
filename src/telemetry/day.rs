//! What was counted of late, for people: mail and refusals of the last 24 hours, or since the start.
//!
//! Whoever looks every few seconds has the totals put aside now and then; the difference to those of a day ago is the answer. The
//! way of a message pays for one number more.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use super::series::Number;

const DAY: Duration = Duration::from_hours(24);
/// So often the totals are put aside.
const STEP: Duration = Duration::from_mins(10);

/// What is counted. Of a kind that has no name in the configuration nothing ends with a reload.
#[derive(Debug, Default)]
pub(super) struct DayTotals {
    pub(super) accepted: Number,
    pub(super) delivered: Number,
    pub(super) deferred: Number,
    pub(super) failed: Number,
    pub(super) refused: Number,
}

/// Numbers of some hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DayNumbers {
    /// Messages that were taken in.
    pub accepted: u64,
    /// Calls of a connector that delivered: one for each message and route, where nothing has to be tried again.
    pub delivered: u64,
    /// Calls after which a recipient waits for another one.
    pub deferred: u64,
    /// Recipients that were given up.
    pub failed: u64,
    /// Connections, commands and messages that were refused.
    pub refused: u64,
}

impl DayTotals {
    fn now(&self) -> DayNumbers {
        let read = |number: &Number| number.load(Ordering::Relaxed);
        DayNumbers {
            accepted: read(&self.accepted),
            delivered: read(&self.delivered),
            deferred: read(&self.deferred),
            failed: read(&self.failed),
            refused: read(&self.refused),
        }
    }
}

impl DayNumbers {
    fn less(self, before: Self) -> Self {
        Self {
            accepted: self.accepted - before.accepted,
            delivered: self.delivered - before.delivered,
            deferred: self.deferred - before.deferred,
            failed: self.failed - before.failed,
            refused: self.refused - before.refused,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Day {
    pub(super) totals: DayTotals,
    /// The oldest first, which is at most a day old.
    aside: Mutex<VecDeque<(Instant, DayNumbers)>>,
}

impl Default for Day {
    fn default() -> Self {
        Self {
            totals: DayTotals::default(),
            aside: Mutex::new([(Instant::now(), DayNumbers::default())].into()),
        }
    }
}

impl Day {
    fn aside(&self) -> MutexGuard<'_, VecDeque<(Instant, DayNumbers)>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the totals aside, if it is time. To be called every few seconds.
    pub fn put_aside(&self, now: Instant) {
        let mut aside = self.aside();
        let is_time = |(at, _): &(Instant, _)| now.saturating_duration_since(*at) >= STEP;
        if aside.back().is_none_or(is_time) {
            aside.push_back((now, self.totals.now()));
        }
        while aside.len() > 1
            && aside
                .front()
                .is_some_and(|(at, _)| now.saturating_duration_since(*at) > DAY)
        {
            aside.pop_front();
        }
    }

    /// What was counted, and since when.
    pub fn numbers(&self, now: Instant, wall: SystemTime) -> (SystemTime, DayNumbers) {
        let first = self.aside().front().copied();
        let (at, before) = first.unwrap_or((now, DayNumbers::default()));
        let since = wall.checked_sub(now.saturating_duration_since(at));
        (since.unwrap_or(wall), self.totals.now().less(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_a_day_at_most_and_since_the_start_before() {
        let day = Day::default();
        let start = day.aside()[0].0;
        let wall = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let hours = |n: u64| Duration::from_hours(n);
        day.totals.accepted.store(7, Ordering::Relaxed);
        let (since, numbers) = day.numbers(start + hours(3), wall);
        assert_eq!((since, numbers.accepted), (wall - hours(3), 7));
        // One an hour.
        for minute in 0..60 * 60 {
            let now = start + Duration::from_mins(minute);
            if minute % 60 == 0 {
                day.totals.accepted.fetch_add(1, Ordering::Relaxed);
                day.totals.refused.fetch_add(2, Ordering::Relaxed);
            }
            day.put_aside(now);
        }
        let now = start + hours(60);
        let (since, numbers) = day.numbers(now, wall);
        let covered = wall.duration_since(since).unwrap();
        assert!(covered <= DAY && covered > hours(23), "{covered:?}");
        let DayNumbers {
            accepted, refused, ..
        } = numbers;
        assert!((23..=24).contains(&accepted), "{accepted}");
        assert_eq!(refused, 2 * accepted);
        assert!(day.aside().len() < 150);
    }
}
