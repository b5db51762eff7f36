//! The database's clock: what is written is by it, so that all nodes mean the same moment.
//!
//! Callers have clocks of their own. A time that comes from one is a distance from its `now`, and the same distance from the
//! database's; what is read goes back the same way. The database is asked with each connection and each beat; between two of them
//! the clock that counts from the start of the machine tells, asleep or awake, which nobody sets. An answer that was long under way says
//! little, and moves nothing that it does not contradict; and no moment that is told lies before one that was.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::SystemTime,
};

use rustix::time::{ClockId, clock_gettime};

use crate::mail::time::{from_micros, micros};

/// See the module.
#[derive(Debug)]
pub(super) struct SharedClock {
    /// Microseconds from the start of this machine to the database's time; of no meaning where callers say the time.
    ahead: AtomicI64,
    /// The latest moment that was told.
    told: AtomicI64,
    /// By how much it was set, as far as nobody has asked yet.
    step: AtomicI64,
    is_callers: bool,
}

/// Less than this is nobody's setting of a clock, and does no harm.
const STEP: i64 = 5_000_000;

impl SharedClock {
    /// `is_callers`: for tests, whose times are not those of any clock.
    pub(super) fn new(is_callers: bool) -> Self {
        Self {
            ahead: AtomicI64::new(0),
            told: AtomicI64::new(0),
            step: AtomicI64::new(0),
            is_callers,
        }
    }

    pub(super) fn is_callers(&self) -> bool {
        self.is_callers
    }

    /// The database has said what time it is, between these two readings of [`since_boot`].
    pub(super) fn is(&self, database: i64, (asked, answered): (i64, i64)) {
        // When in between, nobody can say.
        let (least, most) = (
            database.saturating_sub(answered),
            database.saturating_sub(asked.min(answered)),
        );
        let from = |before: i64| match before {
            0 => least.saturating_add(most.saturating_sub(least) / 2),
            known => known.clamp(least, most),
        };
        let moved = self
            .ahead
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
                Some(from(before))
            });
        let before = moved.unwrap_or_default();
        let step = from(before).saturating_sub(before);
        if before != 0 && step.saturating_abs() > STEP {
            self.step.fetch_add(step, Ordering::AcqRel);
        }
    }

    /// By how much it was set since this was asked last. Where times are the callers' it never is.
    pub(super) fn take_step(&self) -> Option<i64> {
        let step = self.step.swap(0, Ordering::AcqRel);
        (step.saturating_abs() > STEP && !self.is_callers).then_some(step)
    }

    /// One moment, for all times of one call.
    pub(super) fn at(&self, now: SystemTime) -> Moments {
        let caller = micros(now);
        let database = if self.is_callers {
            caller
        } else {
            self.onwards(since_boot().saturating_add(self.ahead.load(Ordering::Acquire)))
        };
        Moments { caller, database }
    }

    /// This moment, or the one that was told last where that is a little later: else what comes behind something would be shown before it.
    fn onwards(&self, moment: i64) -> i64 {
        let told = self.told.fetch_max(moment, Ordering::AcqRel);
        if told.saturating_sub(moment) > STEP {
            // Set back.
            self.told.store(moment, Ordering::Release);
            return moment;
        }
        moment.max(told)
    }
}

/// A moment by the caller's clock and by the database's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    caller: i64,
    database: i64,
}

impl Moments {
    /// The moment itself, as the database has it.
    pub(super) fn now(self) -> i64 {
        self.database
    }

    /// A time of the caller's, as the database has it.
    pub(super) fn theirs(self, at: SystemTime) -> i64 {
        let distance = micros(at).saturating_sub(self.caller);
        self.database.saturating_add(distance).max(0)
    }

    /// A time of the database's, as the caller has it.
    pub(super) fn ours(self, at: i64) -> SystemTime {
        let distance = at.saturating_sub(self.database);
        from_micros(self.caller.saturating_add(distance))
    }
}

/// Microseconds since this machine was started, asleep or awake.
pub(super) fn since_boot() -> i64 {
    let at = clock_gettime(ClockId::Boottime);
    at.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(at.tv_nsec / 1000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn distances_stay_what_they_are() {
        let clock = SharedClock::new(false);
        let boot = since_boot();
        // An hour ahead of the caller's, and later two.
        let caller = SystemTime::now();
        let hour = 3_600_000_000;
        clock.is(micros(caller) + hour, (boot, boot));
        assert_eq!(clock.take_step(), None);
        let moments = clock.at(caller);
        let later = caller + Duration::from_mins(1);
        assert!((moments.theirs(later) - micros(later) - hour).abs() < 1_000_000);
        assert_eq!(
            moments.ours(moments.theirs(later)),
            from_micros(micros(later))
        );
        clock.is(micros(caller) + 2 * hour, (boot, boot));
        assert_eq!((clock.take_step(), clock.take_step()), (Some(hour), None));
        assert!((clock.at(caller).now() - micros(caller) - 2 * hour).abs() < 1_000_000);
        // And back.
        clock.is(micros(caller) + hour, (boot, boot));
        assert_eq!(clock.take_step(), Some(-hour));
        assert!((clock.at(caller).now() - micros(caller) - hour).abs() < 1_000_000);
        let callers = SharedClock::new(true).at(caller);
        assert_eq!(
            (callers.theirs(later), callers.now()),
            (micros(later), micros(caller))
        );
    }

    /// A connection is opened while the machine is busy: the answer was three seconds under way, and nobody knows in which direction.
    #[test]
    fn what_comes_later_is_not_shown_earlier() {
        let clock = SharedClock::new(false);
        let (second, now) = (1_000_000, SystemTime::now());
        let boot = since_boot();
        let database = 1_700_000_000 * second;
        clock.is(database, (boot - 3 * second, boot));
        let accepted = clock.at(now).now();
        // The database had said it at the end of that time: its clock is behind what was thought.
        clock.is(database, (boot, boot));
        let delivered = clock.at(now).now();
        assert!(delivered >= accepted, "{delivered} {accepted}");
        assert!(delivered - database <= 2 * second + (since_boot() - boot));
        // Nothing that comes late moves it.
        let ahead = clock.ahead.load(Ordering::Acquire);
        clock.is(database + second, (boot - 5 * second, boot + 3 * second));
        assert_eq!(clock.ahead.load(Ordering::Acquire), ahead);
        assert_eq!(clock.take_step(), None);
    }
}
