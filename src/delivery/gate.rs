//! May a lane start a job now? Permits, the rate window, Retry-After, closed and paused.
//!
//! Apart because it is arithmetic over times that are given as arguments: whoever holds the gates holds the clock too.
//! It knows neither jobs nor connectors, and it never waits.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::connector::Rate;

/// How often the login of a paused lane is tried.
pub const PAUSE_PROBE: Duration = Duration::from_secs(5 * 60);

/// The longest wait that an upstream may ask for; more is cut, so that no reply can shut a lane for good.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a lane takes jobs at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Open,
    /// The upstream is down: nothing until then, afterwards one job as a probe.
    Closed {
        /// When the probe may go.
        until: Instant,
        /// It is on its way.
        probing: bool,
    },
    /// Our configuration or credentials are wrong: nothing but a login from time to time.
    Paused {
        /// When the next login is due.
        probe: Instant,
        /// It is on its way.
        probing: bool,
    },
}

/// What [`Gate::ready`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// So many jobs (at least one) may start.
    Now(usize),
    /// One job may go and see whether the upstream is back.
    Probe,
    /// Not before this (rate or Retry-After). Not a reason to go elsewhere.
    At(Instant),
    /// Every permit is taken. Not a reason to go elsewhere.
    Full,
    /// Closed or paused: the next connector, please.
    Shut,
}

/// The limits and the state of one lane.
#[derive(Debug)]
pub struct Gate {
    max: usize,
    rate: Option<Rate>,
    taken: usize,
    /// Permits that are taken and have not started: they will use up the rate.
    unstarted: usize,
    /// The last starts, oldest first, at most `rate.count` of them.
    starts: VecDeque<Instant>,
    not_before: Option<Instant>,
    state: State,
    closings: usize,
}

impl Gate {
    /// An open gate. `max` is the number of jobs at once (at least one).
    pub fn new(max: usize, rate: Option<Rate>) -> Self {
        Self {
            max: max.max(1),
            rate,
            taken: 0,
            unstarted: 0,
            starts: VecDeque::new(),
            not_before: None,
            state: State::Open,
            closings: 0,
        }
    }

    /// New limits; what is under way stays counted.
    pub fn set_limits(&mut self, max: usize, rate: Option<Rate>) {
        self.max = max.max(1);
        if self.rate.is_none() {
            self.starts.clear();
        }
        self.rate = rate;
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often in a row it was closed.
    pub fn closings(&self) -> usize {
        self.closings
    }

    /// Jobs that hold a permit.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// What may happen now.
    pub fn ready(&mut self, now: Instant) -> Ready {
        match self.state {
            State::Paused { .. } | State::Closed { probing: true, .. } => return Ready::Shut,
            State::Closed { until, .. } if now < until => return Ready::Shut,
            State::Closed { .. } => {
                return match self.pace(now) {
                    Err(at) => Ready::At(at),
                    Ok(_) => Ready::Probe,
                };
            }
            State::Open => {}
        }
        let free = self.max.saturating_sub(self.taken);
        if free == 0 {
            return Ready::Full;
        }
        match self.pace(now) {
            Err(at) => Ready::At(at),
            Ok(starts) => match starts.saturating_sub(self.unstarted) {
                // Those that hold a permit use up the window; they ring when they are done.
                0 => Ready::Full,
                starts => Ready::Now(free.min(starts)),
            },
        }
    }

    /// Takes a permit if [`Gate::ready`] says so; `Some(true)` is the probe of a closed lane.
    pub fn take(&mut self, now: Instant) -> Option<bool> {
        let probe = match self.ready(now) {
            Ready::Now(_) => false,
            Ready::Probe => {
                if let State::Closed { probing, .. } = &mut self.state {
                    *probing = true;
                }
                true
            }
            Ready::At(_) | Ready::Full | Ready::Shut => return None,
        };
        self.taken += 1;
        self.unstarted += 1;
        Some(probe)
    }

    /// A job with a permit starts, unless rate or Retry-After want it to wait until then.
    ///
    /// # Errors
    /// The time to ask again.
    pub fn start(&mut self, now: Instant) -> Result<(), Instant> {
        self.pace(now)?;
        self.unstarted = self.unstarted.saturating_sub(1);
        if let Some(rate) = self.rate {
            while self.starts.len() >= (rate.count as usize).max(1) {
                self.starts.pop_front();
            }
            self.starts.push_back(now);
        }
        Ok(())
    }

    /// Gives a permit back. `started`: [`Gate::start`] was granted. `probe`: as [`Gate::take`] said.
    pub fn give(&mut self, started: bool, probe: bool, now: Instant) {
        self.taken = self.taken.saturating_sub(1);
        if !started {
            self.unstarted = self.unstarted.saturating_sub(1);
        }
        // A probe that came to nothing: the next job may be it.
        if probe && let State::Closed { until, probing } = &mut self.state {
            *probing = false;
            if !started {
                *until = (*until).min(now);
            }
        }
    }

    /// The upstream asked for a pause; nothing starts before `now + wait`.
    pub fn hold(&mut self, now: Instant, wait: Duration) {
        let at = now + wait.min(LONGEST_WAIT);
        self.not_before = Some(self.not_before.map_or(at, |old| old.max(at)));
    }

    /// The upstream is down. Only what was started while the lane was open, or the probe, may close it (again);
    /// says whether it did.
    pub fn close(&mut self, now: Instant, wait: Duration, probe: bool) -> bool {
        match self.state {
            State::Paused { .. } => return false,
            State::Closed { .. } if !probe => return false,
            State::Open | State::Closed { .. } => {}
        }
        self.closings = self.closings.saturating_add(1);
        self.state = State::Closed {
            until: now + wait.min(LONGEST_WAIT),
            probing: false,
        };
        true
    }

    /// Back from the store: closed until then.
    pub fn restore_closed(&mut self, until: Instant) {
        self.closings = 1;
        self.state = State::Closed {
            until,
            probing: false,
        };
    }

    /// Our fault. The next login is tried at `probe`. Says whether that is news.
    pub fn pause(&mut self, probe: Instant) -> bool {
        let news = !matches!(self.state, State::Paused { .. });
        self.state = State::Paused {
            probe,
            probing: false,
        };
        news
    }

    /// It works (again). Says whether that is news.
    pub fn open(&mut self) -> bool {
        self.closings = 0;
        let news = self.state != State::Open;
        self.state = State::Open;
        news
    }

    /// Whoever waits for the time of the probe need not any longer.
    pub fn probe_now(&mut self, now: Instant) {
        match &mut self.state {
            State::Open => {}
            State::Closed { until, .. } => *until = (*until).min(now),
            State::Paused { probe, .. } => *probe = (*probe).min(now),
        }
    }

    /// Whether a login is to be tried now; once it says yes, it is on its way until [`Gate::pause`] or [`Gate::open`].
    pub fn take_login(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Paused { probe, probing } if *probe <= now && !*probing => {
                *probing = true;
                true
            }
            _ => false,
        }
    }

    /// When something changes by itself.
    pub fn wakes_at(&self) -> Option<Instant> {
        match self.state {
            State::Open => None,
            State::Closed {
                until,
                probing: false,
            } => Some(until),
            State::Paused {
                probe,
                probing: false,
            } => Some(probe),
            State::Closed { .. } | State::Paused { .. } => None,
        }
    }

    /// How many may start now by rate and Retry-After, or when the next one may.
    fn pace(&mut self, now: Instant) -> Result<usize, Instant> {
        if let Some(at) = self.not_before {
            if now < at {
                return Err(at);
            }
            self.not_before = None;
        }
        let Some(rate) = self.rate else {
            return Ok(usize::MAX);
        };
        while self
            .starts
            .front()
            .is_some_and(|start| now.saturating_duration_since(*start) >= rate.per)
        {
            self.starts.pop_front();
        }
        let count = (rate.count as usize).max(1);
        match (count.saturating_sub(self.starts.len()), self.starts.front()) {
            (0, Some(oldest)) => Err(*oldest + rate.per),
            (left, _) => Ok(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(count: u32, seconds: u64) -> Option<Rate> {
        Some(Rate {
            count,
            per: SECOND * seconds as u32,
        })
    }

    #[test]
    fn never_more_starts_in_any_window_and_no_slower_than_that() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50 {
            let count = random.u32(1..8);
            let per = Duration::from_millis(random.u64(50..500));
            let max = random.usize(1..20);
            let mut gate = Gate::new(max, Some(Rate { count, per }));
            let mut now = Instant::now();
            let mut starts: Vec<Instant> = Vec::new();
            let mut running: Vec<bool> = Vec::new();
            for _ in 0..2000 {
                now += Duration::from_millis(random.u64(0..40));
                if random.bool()
                    && let Some(started) = running.pop()
                {
                    gate.give(started, false, now);
                }
                if let Some(probe) = gate.take(now) {
                    assert!(!probe);
                    running.push(false);
                }
                if let Some(slot) = running.iter_mut().find(|started| !**started)
                    && random.bool()
                {
                    match gate.start(now) {
                        Ok(()) => {
                            *slot = true;
                            starts.push(now);
                        }
                        Err(at) => {
                            // As fast as possible: it only says no when the window is full.
                            let within = starts.iter().filter(|s| now - **s < per).count();
                            assert_eq!(within, count as usize);
                            assert!(at > now && at <= now + per);
                        }
                    }
                }
                assert!(running.len() <= max);
                assert_eq!(gate.taken(), running.len());
            }
            for window in starts.windows(count as usize + 1) {
                assert!(window[count as usize] - window[0] >= per);
            }
        }
    }

    #[test]
    fn permits() {
        let now = Instant::now();
        let mut gate = Gate::new(2, None);
        assert_eq!(gate.ready(now), Ready::Now(2));
        assert_eq!(gate.take(now), Some(false));
        assert_eq!(gate.take(now), Some(false));
        assert_eq!(gate.ready(now), Ready::Full);
        assert_eq!(gate.take(now), None);
        gate.give(false, false, now);
        assert_eq!(gate.ready(now), Ready::Now(1));
        gate.set_limits(1, None);
        assert_eq!(gate.ready(now), Ready::Full);
    }

    #[test]
    fn what_holds_a_permit_uses_up_the_window() {
        let now = Instant::now();
        let mut gate = Gate::new(10, rate(2, 60));
        assert_eq!(gate.ready(now), Ready::Now(2));
        gate.take(now);
        assert_eq!(gate.ready(now), Ready::Now(1));
        gate.take(now);
        assert_eq!(gate.ready(now), Ready::Full);
        assert_eq!(gate.start(now), Ok(()));
        assert_eq!(gate.start(now), Ok(()));
        assert_eq!(gate.ready(now), Ready::At(now + SECOND * 60));
        assert_eq!(gate.ready(now + SECOND * 60), Ready::Now(2));
    }

    #[test]
    fn retry_after_holds_and_does_not_shut() {
        let now = Instant::now();
        let mut gate = Gate::new(1, None);
        gate.hold(now, SECOND * 10);
        gate.hold(now, SECOND * 5);
        assert_eq!(gate.ready(now), Ready::At(now + SECOND * 10));
        assert_eq!(gate.ready(now + SECOND * 10), Ready::Now(1));
        gate.hold(now, Duration::MAX);
        assert_eq!(gate.ready(now), Ready::At(now + LONGEST_WAIT));
    }

    #[test]
    fn closed_lets_one_probe_through() {
        let now = Instant::now();
        let mut gate = Gate::new(4, None);
        assert!(gate.close(now, SECOND * 60, false));
        assert!(
            !gate.close(now, SECOND * 600, false),
            "others that were under way change nothing"
        );
        assert_eq!(gate.closings(), 1);
        assert_eq!(gate.ready(now), Ready::Shut);
        let later = now + SECOND * 60;
        assert_eq!(gate.wakes_at(), Some(later));
        assert_eq!(gate.take(later), Some(true));
        assert_eq!(gate.take(later), None, "exactly one");
        assert!(gate.close(later, SECOND * 300, true));
        gate.give(true, true, later);
        assert_eq!(gate.closings(), 2);
        assert_eq!(gate.ready(later + SECOND * 299), Ready::Shut);
        let later = later + SECOND * 300;
        assert_eq!(gate.take(later), Some(true));
        gate.give(false, true, later);
        assert_eq!(
            gate.take(later),
            Some(true),
            "one that did not start is no answer"
        );
        assert!(gate.open());
        gate.give(true, true, later);
        assert_eq!((gate.ready(later), gate.closings()), (Ready::Now(4), 0));
    }

    #[test]
    fn paused_waits_for_a_login() {
        let now = Instant::now();
        let mut gate = Gate::new(4, None);
        assert!(gate.pause(now + PAUSE_PROBE));
        assert!(!gate.close(now, SECOND, false), "paused stays paused");
        assert_eq!(gate.take(now + PAUSE_PROBE * 2), None);
        assert!(!gate.take_login(now));
        gate.probe_now(now);
        assert!(gate.take_login(now));
        assert!(!gate.take_login(now), "one at a time");
        assert!(!gate.pause(now + PAUSE_PROBE), "no news");
        assert!(gate.take_login(now + PAUSE_PROBE));
        assert!(gate.open());
        assert_eq!(gate.ready(now), Ready::Now(4));
    }
}
