//! Did the wall clock step, and by how much? A second clock tells, which nobody sets.
//!
//! It is arithmetic over times that are given as arguments: `timekeeper` reads the clocks, the store moves what it
//! holds. Every wait in the process is on the second clock; wall times are written for the store and for people only, and when
//! the wall clock is set, all of them that still matter move with it: ages and what is left of a wait stay what they were.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Less than this is nobody's setting of a clock, and does no harm.
const STEP: i64 = 5_000_000;
/// A clock that is put right slowly goes wrong or right by so much of the time that passes, at most (chrony's `maxslewrate`).
const SLEW: i64 = 10;
/// A machine that seems to have been off for longer has a wrong clock, rather than mail that old.
const OFF: i64 = 30 * DAY;
/// From such a step on, what is kept for a time is not deleted before the clock was right for a day.
const DOUBTFUL: i64 = DAY / 24;
const DAY: i64 = 86_400_000_000;

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// What the time is, as far as the machine knows.
    pub wall: SystemTime,
    /// For how long the machine has been running, asleep or awake.
    pub boot: Duration,
}

/// Where the time comes from: the clocks of the machine, or those of a test.
pub trait Clock: fmt::Debug + Send + Sync {
    /// What the time is.
    fn wall(&self) -> SystemTime;
    /// Both clocks, read together.
    fn moment(&self) -> Moment;
}

/// The wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// By so many microseconds.
    pub by: i64,
    /// Earlier than this nothing was written by the new clock; later than this, by its time, nothing by the old one.
    pub since: SystemTime,
}

/// Microseconds since 1970.
pub fn micros(at: SystemTime) -> i64 {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |n| -n),
    }
}

/// A time that moves with the clock, as far as there are such times.
pub fn moved(at: SystemTime, by: i64) -> SystemTime {
    let far = Duration::from_micros(by.unsigned_abs());
    let to = if by < 0 {
        at.checked_sub(far)
    } else {
        at.checked_add(far)
    };
    to.unwrap_or(at)
}

/// How far the wall clock was set between two moments of one process: 0 unless it was.
pub fn between(then: Moment, now: Moment) -> i64 {
    let by = offset(now).saturating_sub(offset(then));
    let passed = now.boot.saturating_sub(then.boot);
    if by.saturating_abs() > allowed(passed) {
        by
    } else {
        0
    }
}

fn offset(moment: Moment) -> i64 {
    micros(moment.wall).saturating_sub(whole(moment.boot))
}

fn whole(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn allowed(passed: Duration) -> i64 {
    STEP.saturating_add(whole(passed) / SLEW)
}

/// Sees every step, as long as it is asked often enough.
#[derive(Debug)]
pub struct Watch {
    last: Moment,
    /// How far wall and boot time are apart, followed as fast as a clock is put right slowly.
    offset: i64,
}

impl Watch {
    /// From now on.
    pub fn new(now: Moment) -> Self {
        Self {
            last: now,
            offset: offset(now),
        }
    }

    /// Whether the clock was set since it was asked last.
    pub fn look(&mut self, now: Moment) -> Option<ClockStep> {
        let passed = now.boot.saturating_sub(self.last.boot);
        self.last = now;
        let by = offset(now).saturating_sub(self.offset);
        let slow = whole(passed) / SLEW;
        // Measured from where it would be by going slowly: many small steps are a large one.
        if by.saturating_abs() <= STEP {
            self.offset = self.offset.saturating_add(by.clamp(-slow, slow));
            return None;
        }
        self.offset = offset(now);
        Some(ClockStep {
            by,
            since: now.wall.checked_sub(passed).unwrap_or(now.wall),
        })
    }
}

/// What is remembered of the clock over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// When it was written.
    pub at: Moment,
    /// Which start of the machine that was; empty when nobody says.
    pub machine: String,
    /// Not before this is what is kept for a time deleted.
    pub settled: SystemTime,
}

impl Known {
    /// As a note beside the queue.
    pub fn note(&self) -> String {
        format!(
            "{} {} {} {}",
            micros(self.at.wall),
            whole(self.at.boot),
            micros(self.settled),
            self.machine
        )
    }

    /// Back from a note; `None` when it is none.
    pub fn read(note: &str) -> Option<Self> {
        let mut words = note.splitn(4, ' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        let (wall, boot, settled) = (number()?, number()?, number()?);
        let time = |at| moved(SystemTime::UNIX_EPOCH, at);
        Some(Self {
            at: Moment {
                wall: time(wall),
                boot: Duration::from_micros(u64::try_from(boot).ok()?),
            },
            machine: words.next()?.to_owned(),
            settled: time(settled),
        })
    }

    /// How far the clock was set since then, while nobody looked; 0 if it was not. As long as the machine ran on, that is known
    /// exactly. Otherwise only that time does not go backwards, and that nobody comes back after a month.
    pub fn stepped(&self, now: Moment, machine: &str) -> i64 {
        if !machine.is_empty() && self.machine == machine && self.at.boot <= now.boot {
            return between(self.at, now);
        }
        let by = micros(now.wall).saturating_sub(micros(self.at.wall));
        if (-STEP..=OFF).contains(&by) { 0 } else { by }
    }

    /// What is known from now on, after a step (or 0) since then.
    #[must_use]
    pub fn next(&self, now: Moment, machine: &str, by: i64) -> Self {
        let tomorrow = moved(now.wall, DAY);
        let gap = micros(now.wall).saturating_sub(micros(self.at.wall));
        // A machine that was off may have got another clock; a day is nothing to what is kept for weeks.
        let is_unsure = by.saturating_abs() > DOUBTFUL || self.machine != machine && gap > DAY;
        Self {
            at: now,
            machine: machine.to_owned(),
            settled: if is_unsure {
                tomorrow
            } else {
                self.settled.min(tomorrow)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;
    const YEARS: i64 = 3_650 * DAY;

    /// So many seconds after some start, the clock being wrong by so many microseconds.
    fn moment(passed: f64, wrong: i64) -> Moment {
        let boot = Duration::from_secs_f64(1_000.0 + passed);
        let right = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + boot;
        Moment {
            wall: moved(right, wrong),
            boot,
        }
    }

    #[test]
    fn steps_are_seen_and_slow_corrections_are_none() {
        // Looks: seconds, and how wrong the clock is; what each of them says.
        type Looks<'a> = &'a [(f64, i64, i64)];
        let rows: &[(&str, Looks<'_>)] = &[
            ("right", &[(1.0, 0, 0), (2.0, 0, 0)]),
            ("back a day", &[(1.0, -DAY, -DAY), (2.0, -DAY, 0)]),
            ("on ten years", &[(1.0, YEARS, YEARS), (2.0, YEARS, 0)]),
            ("there and back", &[(1.0, YEARS, YEARS), (2.0, 0, -YEARS)]),
            ("a little", &[(1.0, 4 * S, 0), (2.0, 4 * S, 0)]),
            (
                "a little, twice",
                &[(1.0, 4 * S, 0), (2.0, 8 * S, 79 * S / 10)],
            ),
            ("a long sleep", &[(90_000.0, 0, 0), (90_001.0, 0, 0)]),
            ("stopped, and set meanwhile", &[(600.0, -DAY, -DAY)]),
        ];
        for (what, looks) in rows {
            let mut watch = Watch::new(moment(0.0, 0));
            for (passed, wrong, expected) in *looks {
                let by = watch
                    .look(moment(*passed, *wrong))
                    .map_or(0, |step| step.by);
                assert!((by - expected).abs() < S, "{what}: {by} for {expected}");
            }
        }
        // An hour put right at 500 parts in a million, and at a tenth.
        for (rate, hours) in [(0.0005, 24.0), (0.1, 1.0)] {
            let mut watch = Watch::new(moment(0.0, 0));
            for n in 0..(hours * 3600.0) as u32 {
                let wrong = (f64::from(n) * rate * S as f64) as i64;
                assert_eq!(watch.look(moment(f64::from(n), -wrong)), None, "{n}");
            }
        }
    }

    #[test]
    fn what_is_new_is_known_from_what_is_old() {
        let mut watch = Watch::new(moment(0.0, 0));
        let step = watch.look(moment(3.0, -DAY)).unwrap();
        assert_eq!(step.since, moment(0.0, -DAY).wall);
    }

    #[test]
    fn over_a_restart() {
        let known = |machine: &str| Known {
            at: moment(0.0, 0),
            machine: machine.to_owned(),
            settled: moment(0.0, 0).wall,
        };
        for (what, before, passed, wrong, now, expected) in [
            ("at once", "a", 10.0, 0, "a", 0),
            ("off for a week", "a", 7.0 * 86_400.0, 0, "a", 0),
            ("back a day", "a", 10.0, -DAY, "a", -DAY),
            ("on a day", "a", 10.0, DAY, "a", DAY),
            ("on ten years", "a", 10.0, YEARS, "a", YEARS),
            // Another start of the machine: its boot time says nothing.
            ("a reboot", "a", 100.0, 0, "b", 0),
            ("a weekend", "a", 60.0 * 3600.0, 0, "b", 0),
            (
                "a reboot in 1970",
                "a",
                100.0,
                -YEARS,
                "b",
                -YEARS + 100 * S,
            ),
            (
                "a reboot in the future",
                "a",
                100.0,
                YEARS,
                "b",
                YEARS + 100 * S,
            ),
            ("nobody says which", "", 100.0, DAY, "", 0),
            (
                "nobody says which, back",
                "",
                100.0,
                -DAY,
                "",
                -DAY + 100 * S,
            ),
        ] {
            let by = known(before).stepped(moment(passed, wrong), now);
            assert!((by - expected).abs() < S, "{what}: {by} for {expected}");
        }
    }

    #[test]
    fn what_is_kept_waits_for_a_clock_that_can_be_trusted() {
        let at = moment(0.0, 0);
        let known = Known {
            at,
            machine: "a".to_owned(),
            settled: at.wall,
        };
        for (what, passed, wrong, machine, by, doubtful) in [
            ("nothing happened", 60.0, 0, "a", 0, false),
            ("a minute", 60.0, 60 * S, "a", 60 * S, false),
            ("on a day", 60.0, DAY, "a", DAY, true),
            ("back a day", 60.0, -DAY, "a", -DAY, true),
            ("a reboot", 60.0, 0, "b", 0, false),
            ("off for a weekend", 200_000.0, 0, "b", 0, true),
        ] {
            let now = moment(passed, wrong);
            let next = known.next(now, machine, by);
            assert_eq!(next.settled > now.wall, doubtful, "{what}");
            assert!(
                next.settled <= now.wall + Duration::from_hours(24),
                "{what}"
            );
            let read = Known::read(&next.note()).unwrap();
            assert_eq!(read.note(), next.note(), "{what}");
        }
        // Set back while it was not settled: not for years.
        let ahead = known.next(moment(1.0, YEARS), "a", YEARS);
        let back = ahead.next(moment(2.0, 0), "a", -YEARS);
        assert!(back.settled <= moment(2.0, 0).wall + Duration::from_hours(24));
        for note in ["", "1 2 3", "x 2 3 a", "1 -2 3 a"] {
            assert_eq!(Known::read(note), None, "{note}");
        }
    }
}
