//! May a lane start a job now? LanePermits, the windows of rate and upload, Retry-After, closed and paused.
//!
//! It is arithmetic over times that are given as arguments, and knows neither jobs nor connectors.

use std::time::{Duration, Instant};

use super::window::{UsedWindows, Window};
use crate::connector::LaneLimits;

/// How often the login of a paused lane is tried.
pub const PAUSE_PROBE: Duration = Duration::from_mins(5);

/// The longest wait that an upstream may ask for; more is cut, so that no reply can shut a lane for good.
pub const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// Whether a lane takes jobs at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateState {
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
    /// Somebody has stopped it: nothing, and no probe, until it is started again.
    Stopped,
}

/// What [`Gate::ready`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// So many jobs (at least one) may start.
    Now(usize),
    /// One job may go and see whether the upstream is back.
    Probe,
    /// Not before this (rate, upload or Retry-After). Not a reason to go elsewhere.
    At(Instant),
    /// Nothing until a job under way is done. Not a reason to go elsewhere.
    Full,
    /// Closed, paused or stopped: the next connector, please.
    Shut,
}

impl Ready {
    /// What may happen where two gates stand one behind the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Shut, _) | (_, Self::Shut) => Self::Shut,
            (Self::At(a), Self::At(b)) => Self::At(a.max(b)),
            (Self::At(at), _) | (_, Self::At(at)) => Self::At(at),
            (Self::Full, _) | (_, Self::Full) => Self::Full,
            (Self::Probe, _) | (_, Self::Probe) => Self::Probe,
            (Self::Now(a), Self::Now(b)) => Self::Now(a.min(b)),
        }
    }
}

/// The limits and the state of one lane.
#[derive(Debug)]
pub struct Gate {
    limits: LaneLimits,
    taken: usize,
    /// LanePermits that are taken and have not started: they will use up the rate.
    unstarted: usize,
    messages: Window,
    octets: Window,
    /// Octets of a message that the window has no space for yet. No other starts before it fits, so that small ones do not overtake it
    /// for ever.
    short: u64,
    not_before: Option<Instant>,
    /// How often in a row it was throttled.
    throttlings: usize,
    state: GateState,
    closings: usize,
    /// Somebody wants to know at once whether it is still shut.
    wished: bool,
    /// Nothing may start by this gateway: others share the limits, and it has no part of them now.
    is_barred: bool,
}

impl Gate {
    /// An open gate.
    pub fn new(limits: LaneLimits) -> Self {
        Self {
            limits,
            taken: 0,
            unstarted: 0,
            messages: Window::default(),
            octets: Window::default(),
            short: 0,
            not_before: None,
            throttlings: 0,
            state: GateState::Open,
            closings: 0,
            wished: false,
            is_barred: false,
        }
    }

    /// New limits; what is under way stays counted.
    pub fn set_limits(&mut self, limits: LaneLimits) {
        self.limits = limits;
    }

    /// What this gateway may use of the limits from now on; `None`: nothing may start. What is under way stays counted. Returns whether
    /// that is something else than before.
    pub fn share(&mut self, part: Option<LaneLimits>) -> bool {
        let before = (self.is_barred, self.limits);
        self.is_barred = part.is_none();
        self.limits = part.unwrap_or(self.limits);
        before != (self.is_barred, self.limits)
    }

    /// Whether nothing may start by this gateway, whatever the state.
    pub fn is_barred(&self) -> bool {
        self.is_barred
    }

    /// The state.
    pub fn state(&self) -> GateState {
        self.state
    }

    /// How often in a row it was closed.
    pub fn closings(&self) -> usize {
        self.closings
    }

    /// How often in a row it was throttled.
    pub fn throttlings(&self) -> usize {
        self.throttlings
    }

    /// Jobs that hold a permit.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Those of them that have started.
    pub fn under_way(&self) -> usize {
        self.taken.saturating_sub(self.unstarted)
    }

    /// Until when the upstream wants nothing.
    pub fn held(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| now < *at)
    }

    /// Whether a new gate would say the same.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.expire(now);
        self.taken == 0
            && self.state == GateState::Open
            && self.held(now).is_none()
            && self.messages.is_empty()
            && self.octets.is_empty()
    }

    /// What may happen now.
    pub fn ready(&mut self, now: Instant) -> Ready {
        match self.state {
            GateState::Stopped
            | GateState::Paused { .. }
            | GateState::Closed { probing: true, .. } => return Ready::Shut,
            GateState::Closed { until, .. } if now < until => return Ready::Shut,
            // Whose lane it is may ask.
            GateState::Closed { .. } if self.is_barred => return Ready::Shut,
            GateState::Closed { .. } => {
                return match self.pace(now) {
                    Err(at) => at.map_or(Ready::Full, Ready::At),
                    Ok(_) => Ready::Probe,
                };
            }
            GateState::Open if self.is_barred => return Ready::Full,
            GateState::Open => {}
        }
        let free = self.limits.concurrent.max(1).saturating_sub(self.taken);
        if free == 0 {
            return Ready::Full;
        }
        match self.pace(now) {
            Err(at) => at.map_or(Ready::Full, Ready::At),
            Ok(starts) => match starts.saturating_sub(self.unstarted) {
                // Those that hold a permit use up the window; they wake the loop when they are done.
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
                if let GateState::Closed { probing, .. } = &mut self.state {
                    *probing = true;
                }
                self.wished = false;
                true
            }
            Ready::At(_) | Ready::Full | Ready::Shut => return None,
        };
        self.taken += 1;
        self.unstarted += 1;
        Some(probe)
    }

    /// A job with a permit starts and will send so many octets, unless rate, upload or Retry-After want it to wait;
    /// says whether it does. [`Gate::ready`] knows from when on it would.
    pub fn start(&mut self, now: Instant, octets: u64) -> bool {
        // The limits may have shrunk since it took its permit.
        let started = self.taken.saturating_sub(self.unstarted);
        let is_full = started >= self.limits.concurrent.max(1);
        if self.is_barred || is_full || self.pace(now).is_err() {
            return false;
        }
        if let Some(upload) = self.limits.upload {
            // What is larger than the whole window goes when there is nothing else in it.
            let needed = octets.min(upload.octets);
            if self.octets.space(upload.octets) < needed {
                self.short = needed;
                return false;
            }
        }
        self.unstarted = self.unstarted.saturating_sub(1);
        self.messages.begin(1);
        self.octets.begin(octets);
        true
    }

    /// Gives a permit back. `started`: the octets with which [`Gate::start`] said yes. `probe`: as [`Gate::take`] said.
    pub fn give(&mut self, started: Option<u64>, probe: bool, now: Instant) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(octets) = started {
            // Counted from the start until a window after the end: nobody here knows when in between the upstream counts
            // it, and one that took long must not make space before it arrives.
            self.messages.end(1, self.limits.rate.map(|r| r.per), now);
            self.octets
                .end(octets, self.limits.upload.map(|u| u.per), now);
        } else {
            self.unstarted = self.unstarted.saturating_sub(1);
        }
        // A probe that came to nothing: the next job may be it.
        if probe && let GateState::Closed { until, probing } = &mut self.state {
            *probing = false;
            if started.is_none() {
                *until = (*until).min(now);
            }
        }
    }

    /// The upstream asked for a pause; nothing starts before `now + wait`. Says whether that is news.
    pub fn hold(&mut self, now: Instant, wait: Duration) -> bool {
        let news = self.held(now).is_none();
        let at = now + wait.min(LONGEST_WAIT);
        self.not_before = Some(self.not_before.map_or(at, |old| old.max(at)));
        news
    }

    /// The upstream refused a job because there were too many; as [`Gate::hold`]. What was under way together counts once.
    pub fn throttle(&mut self, now: Instant, wait: Duration) -> bool {
        let news = self.hold(now, wait);
        self.throttlings = self.throttlings.saturating_add(usize::from(news));
        news
    }

    /// As if the pause were over.
    #[cfg(test)]
    pub(super) fn release(&mut self) {
        self.not_before = None;
    }

    /// The upstream took a job.
    pub fn took_mail(&mut self) {
        self.throttlings = 0;
    }

    /// The upstream is down. Only what was started while the lane was open, or the probe, may close it (again);
    /// says whether it did.
    pub fn close(&mut self, now: Instant, wait: Duration, probe: bool) -> bool {
        match self.state {
            GateState::Paused { .. } | GateState::Stopped => return false,
            GateState::Closed { .. } if !probe => return false,
            GateState::Open | GateState::Closed { .. } => {}
        }
        self.closings = self.closings.saturating_add(1);
        self.state = GateState::Closed {
            until: now + wait.min(LONGEST_WAIT),
            probing: false,
        };
        true
    }

    /// Back from the store: closed until then.
    pub fn restore_closed(&mut self, until: Instant) {
        self.closings = 1;
        self.state = GateState::Closed {
            until,
            probing: false,
        };
    }

    /// Our fault. The next login is tried at `probe`. Says whether that is news.
    pub fn pause(&mut self, probe: Instant) -> bool {
        if self.state == GateState::Stopped {
            return false;
        }
        let news = !matches!(self.state, GateState::Paused { .. });
        self.state = GateState::Paused {
            probe,
            probing: false,
        };
        news
    }

    /// Somebody wants nothing to be sent. Says whether that is news.
    pub fn stop(&mut self) -> bool {
        let news = self.state != GateState::Stopped;
        (self.state, self.wished) = (GateState::Stopped, false);
        news
    }

    /// The end of [`Gate::stop`]. Says whether that is news.
    pub fn start_again(&mut self) -> bool {
        let news = self.state == GateState::Stopped;
        if news {
            self.state = GateState::Open;
            self.closings = 0;
        }
        news
    }

    /// It works (again). Says whether that is news.
    pub fn open(&mut self) -> bool {
        if self.state == GateState::Stopped {
            return false;
        }
        self.closings = 0;
        self.wished = false;
        let news = self.state != GateState::Open;
        self.state = GateState::Open;
        news
    }

    /// No probe is waited for any longer than until then.
    pub fn probe_by(&mut self, at: Instant) {
        if let GateState::Closed { until, .. } = &mut self.state {
            *until = (*until).min(at);
        }
    }

    /// The probe is due now, whenever it was to be.
    pub fn probe_now(&mut self, now: Instant) {
        match &mut self.state {
            GateState::Open | GateState::Stopped => {}
            GateState::Closed { until, .. } => {
                *until = (*until).min(now);
                self.wished = true;
            }
            GateState::Paused { probe, .. } => *probe = (*probe).min(now),
        }
    }

    /// Whether a probe is wanted that no time asked for: any job may be it, due or not.
    pub fn is_wished(&self) -> bool {
        self.wished
    }

    /// Whether a login is to be tried now; once it says yes, it is on its way until [`Gate::pause`] or [`Gate::open`].
    pub fn take_login(&mut self, now: Instant) -> bool {
        match &mut self.state {
            GateState::Paused { probe, probing } if *probe <= now && !*probing => {
                *probing = true;
                true
            }
            _ => false,
        }
    }

    /// When something changes by itself.
    pub fn wakes_at(&self) -> Option<Instant> {
        match self.state {
            GateState::Closed {
                until,
                probing: false,
            } => Some(until),
            GateState::Paused {
                probe,
                probing: false,
            } => Some(probe),
            GateState::Open => self.not_before,
            GateState::Closed { .. } | GateState::Paused { .. } | GateState::Stopped => None,
        }
    }

    /// How many may start now, or when the next one may; `Err(None)`: when one that is under way has ended.
    fn pace(&mut self, now: Instant) -> Result<usize, Option<Instant>> {
        if let Some(at) = self.not_before {
            if now < at {
                return Err(Some(at));
            }
            self.not_before = None;
        }
        self.expire(now);
        match self.limits.upload {
            Some(upload) if self.short > 0 => {
                let needed = self.short.min(upload.octets);
                if self.octets.space(upload.octets) < needed {
                    return Err(self.octets.frees(needed, upload.octets, upload.per));
                }
                self.short = 0;
            }
            _ => self.short = 0,
        }
        let Some(rate) = self.limits.rate else {
            return Ok(usize::MAX);
        };
        let count = u64::from(rate.count.max(1));
        match self.messages.space(count) {
            0 => Err(self.messages.frees(1, count, rate.per)),
            free => Ok(usize::try_from(free).unwrap_or(usize::MAX)),
        }
    }

    /// What was used of the limits of late, for whoever sends from the lane next. `None`: some is under way, and nobody can say yet.
    pub fn used(&mut self, now: Instant) -> Option<UsedWindows> {
        self.expire(now);
        (self.taken == 0).then(|| UsedWindows {
            messages: self.messages.used(now),
            octets: self.octets.used(now),
        })
    }

    /// Whoever has the lane next was told what was used: it counts there.
    pub fn forget_used(&mut self) {
        self.messages = Window::default();
        self.octets = Window::default();
    }

    /// What somebody else used of the limits before, as of now.
    pub fn inherit(&mut self, used: &UsedWindows, now: Instant) {
        self.messages.inherit(&used.messages, now);
        self.octets.inherit(&used.octets, now);
    }

    /// Forgets what is no longer in a window.
    fn expire(&mut self, now: Instant) {
        self.messages.expire(self.limits.rate.map(|r| r.per), now);
        self.octets.expire(self.limits.upload.map(|u| u.per), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_gate_is_opened_by_nothing_but_a_start() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut gate = Gate::new(LaneLimits {
            concurrent: 2,
            rate: None,
            upload: None,
        });
        assert_eq!(gate.take(now), Some(false));
        assert!(gate.stop());
        assert!(!gate.stop());
        gate.close(now, second, true);
        assert!(!gate.pause(now));
        gate.probe_now(now);
        assert!(!gate.open());
        gate.give(Some(1), false, now);
        let later = now + second * 1_000_000;
        assert_eq!((gate.ready(later), gate.take(later)), (Ready::Shut, None));
        assert!(!gate.take_login(later) && gate.wakes_at().is_none() && !gate.is_wished());
        assert!(!gate.is_idle(later), "it is not forgotten");
        assert!(gate.start_again() && !gate.start_again());
        assert_eq!(gate.ready(now), Ready::Now(2));
    }
    use crate::connector::{Rate, Upload};

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate {
            count,
            per: Duration::from_secs(seconds),
        }
    }

    fn gate(concurrent: usize, rate: Option<Rate>, upload: Option<Upload>) -> Gate {
        Gate::new(LaneLimits {
            concurrent,
            rate,
            upload,
        })
    }

    /// A job that was let through: from when to when it was under way, and how much it sent.
    struct Sent {
        from: Instant,
        until: Option<Instant>,
        octets: u64,
    }

    /// Whenever between its start and its end the upstream counts a message: never more than allowed in any window, and
    /// no message waits that could have gone.
    #[test]
    fn never_more_in_any_window_and_no_slower_than_that() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..60 {
            let count = random.u32(1..8);
            let per = Duration::from_millis(random.u64(50..500));
            let upload = Upload {
                octets: random.u64(50..400),
                per: Duration::from_millis(random.u64(50..900)),
            };
            let max = random.usize(1..20);
            let mut gate = gate(
                max,
                (round % 3 != 0).then_some(Rate { count, per }),
                (round % 3 != 1).then_some(upload),
            );
            let (rated, budgeted) = (round % 3 != 0, round % 3 != 1);
            let mut now = Instant::now();
            let mut sent: Vec<Sent> = Vec::new();
            let mut running: Vec<Option<usize>> = Vec::new();
            let mut asked: Option<u64> = None;
            for _ in 0..2000 {
                now += Duration::from_millis(random.u64(0..40));
                if random.bool() && !running.is_empty() {
                    let at = random.usize(..running.len());
                    let started = running.swap_remove(at);
                    if let Some(at) = started {
                        sent[at].until = Some(now);
                    }
                    gate.give(started.map(|at| sent[at].octets), false, now);
                }
                let within = |per: Duration, of: fn(&Sent) -> u64| -> u64 {
                    sent.iter()
                        .filter(|s| s.until.is_none_or(|until| now - until < per))
                        .map(of)
                        .sum()
                };
                let messages = within(per, |_| 1);
                let octets = within(upload.per, |s| s.octets);
                if let Some(probe) = gate.take(now) {
                    assert!(!probe);
                    running.push(None);
                } else if asked.is_none() && running.len() < max {
                    let unstarted = running.iter().filter(|s| s.is_none()).count() as u64;
                    assert!(rated && messages + unstarted >= u64::from(count));
                }
                if let Some(slot) = running.iter_mut().find(|started| started.is_none())
                    && random.bool()
                {
                    // The first in line stays the first.
                    let next = asked.unwrap_or_else(|| random.u64(1..upload.octets + 20));
                    let fits = octets + next.min(upload.octets) <= upload.octets;
                    if gate.start(now, next) {
                        assert!(!budgeted || fits);
                        asked = None;
                        *slot = Some(sent.len());
                        sent.push(Sent {
                            from: now,
                            until: None,
                            octets: next,
                        });
                    } else {
                        assert!((budgeted && !fits) || (rated && messages >= u64::from(count)));
                        asked = budgeted.then_some(next).filter(|_| !fits).or(asked);
                        if let Ready::At(at) = gate.ready(now) {
                            assert!(at > now && at <= now + per.max(upload.per));
                        }
                    }
                }
                assert!(running.len() <= max);
                assert_eq!(gate.taken(), running.len());
            }
            // Anywhere between start and end: the worst are those that arrive at the end against those that arrive at once.
            for (at, last) in sent.iter().enumerate() {
                let before = |per: Duration| {
                    sent[..=at].iter().filter(move |s| {
                        s.until.is_none_or(|until| until + per > last.from) || s.from == last.from
                    })
                };
                assert!(!rated || before(per).count() <= count as usize);
                let sum: u64 = before(upload.per).map(|s| s.octets).sum();
                assert!(
                    !budgeted || sum <= upload.octets || before(upload.per).count() == 1,
                    "{sum}"
                );
            }
        }
    }

    #[test]
    fn a_large_rate_takes_little_memory() {
        let mut now = Instant::now();
        let mut gate = gate(10, Some(rate(1_000_000, 60)), None);
        for _ in 0..crate::fixture::times(200_000) {
            now += Duration::from_micros(300);
            gate.take(now).unwrap();
            assert!(gate.start(now, 0));
            gate.give(Some(0), false, now);
        }
        assert!(gate.messages.is_short());
        assert!(!gate.is_idle(now + SECOND * 59));
        assert!(gate.is_idle(now + SECOND * 60));
    }

    #[test]
    fn permits() {
        let now = Instant::now();
        let mut gate = gate(2, None, None);
        assert_eq!(gate.ready(now), Ready::Now(2));
        assert_eq!(gate.take(now), Some(false));
        assert_eq!(gate.take(now), Some(false));
        assert_eq!(gate.ready(now), Ready::Full);
        assert_eq!(gate.take(now), None);
        gate.give(None, false, now);
        assert_eq!(gate.ready(now), Ready::Now(1));
        gate.set_limits(LaneLimits {
            concurrent: 1,
            rate: None,
            upload: None,
        });
        assert_eq!(gate.ready(now), Ready::Full);
        assert!(!gate.is_idle(now));
    }

    #[test]
    fn what_holds_a_permit_uses_up_the_window() {
        let now = Instant::now();
        let mut gate = gate(10, Some(rate(2, 60)), None);
        assert_eq!(gate.ready(now), Ready::Now(2));
        gate.take(now);
        assert_eq!(gate.ready(now), Ready::Now(1));
        gate.take(now);
        assert_eq!(gate.ready(now), Ready::Full);
        assert!(gate.start(now, 0) && gate.start(now, 0));
        assert_eq!(gate.ready(now), Ready::Full, "nobody knows until when");
        gate.give(Some(0), false, now + SECOND);
        assert_eq!(gate.ready(now + SECOND), Ready::At(now + SECOND * 61));
        // The other one takes longer than a window, and counts all the time.
        let later = now + SECOND * 61;
        assert_eq!(gate.ready(later), Ready::Now(1));
        gate.take(later);
        assert!(gate.start(later, 0));
        gate.give(Some(0), false, later);
        gate.give(Some(0), false, later + SECOND);
        assert_eq!(
            gate.ready(later + SECOND * 2),
            Ready::At(later + SECOND * 60)
        );
        assert_eq!(gate.ready(later + SECOND * 61), Ready::Now(2));
    }

    /// Jobs of so many octets, each over at once at second 0, 1, …; then when the next one of so many may go.
    #[test]
    fn upload() {
        fn check(sent: &[u64], next: u64, expected: Option<u64>) {
            let now = Instant::now();
            let upload = Upload {
                octets: 100,
                per: SECOND * 300,
            };
            let mut gate = gate(4, None, Some(upload));
            let mut at = now;
            for octets in sent {
                gate.take(at).unwrap();
                assert!(gate.start(at, *octets), "{sent:?}");
                gate.give(Some(*octets), false, at);
                at += SECOND;
            }
            gate.take(at).unwrap();
            let fits = gate.start(at, next);
            gate.give(fits.then_some(next), false, at);
            let found = match gate.ready(at) {
                Ready::Now(_) => None,
                Ready::At(at) => Some((at - now).as_secs()),
                other => panic!("{other:?}"),
            };
            assert_eq!((fits, found), (expected.is_none(), expected), "{sent:?}");
            if let Some(seconds) = expected {
                let free = now + SECOND * seconds as u32;
                assert_eq!(gate.take(free.checked_sub(SECOND).unwrap()), None);
                assert_eq!(gate.take(free), Some(false));
                assert!(gate.start(free, next));
            }
        }
        check(&[], 100, None);
        check(&[60, 40], 0, None);
        check(&[60, 30], 10, None);
        check(&[60, 30], 11, Some(300));
        check(&[60, 30], 71, Some(301));
        check(&[10, 10, 10], 90, Some(301));
        // Larger than the window: when it is empty.
        check(&[], 1000, None);
        check(&[1], 1000, Some(300));
        check(&[20, 30, 40], 1000, Some(302));
    }

    #[test]
    fn a_large_one_is_not_overtaken_until_it_fits() {
        let now = Instant::now();
        let upload = Upload {
            octets: 100,
            per: SECOND * 300,
        };
        let mut gate = gate(4, None, Some(upload));
        gate.take(now);
        assert!(gate.start(now, 80));
        gate.take(now);
        assert!(!gate.start(now, 50));
        gate.give(None, false, now);
        assert_eq!(gate.ready(now), Ready::Full, "80 are still under way");
        gate.give(Some(80), false, now + SECOND);
        let free = now + SECOND * 301;
        assert_eq!(gate.ready(now + SECOND), Ready::At(free));
        // More is allowed now: it fits at once.
        gate.set_limits(LaneLimits {
            concurrent: 4,
            rate: None,
            upload: Some(Upload {
                octets: 130,
                ..upload
            }),
        });
        assert_eq!(gate.ready(now + SECOND), Ready::Now(4));
    }

    #[test]
    fn retry_after_holds_and_does_not_shut() {
        let now = Instant::now();
        let mut gate = gate(1, None, None);
        assert!(gate.hold(now, SECOND * 10));
        assert!(!gate.hold(now, SECOND * 5), "no news");
        assert_eq!(gate.ready(now), Ready::At(now + SECOND * 10));
        assert_eq!(gate.wakes_at(), Some(now + SECOND * 10));
        assert!(!gate.is_idle(now + SECOND * 9));
        assert!(gate.is_idle(now + SECOND * 10));
        assert_eq!(gate.ready(now + SECOND * 10), Ready::Now(1));
        gate.hold(now, Duration::MAX);
        assert_eq!(gate.ready(now), Ready::At(now + LONGEST_WAIT));
    }

    #[test]
    fn throttled_together_counts_once() {
        let mut now = Instant::now();
        let mut gate = gate(4, None, None);
        for expected in 1..4 {
            assert!(gate.throttle(now, SECOND));
            assert!(!gate.throttle(now, SECOND));
            assert_eq!(gate.throttlings(), expected);
            now += SECOND;
        }
        gate.took_mail();
        assert_eq!(gate.throttlings(), 0);
    }

    #[test]
    fn closed_lets_one_probe_through() {
        let now = Instant::now();
        let mut gate = gate(4, None, None);
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
        gate.give(Some(0), true, later);
        assert_eq!(gate.closings(), 2);
        assert_eq!(gate.ready(later + SECOND * 299), Ready::Shut);
        let later = later + SECOND * 300;
        assert_eq!(gate.take(later), Some(true));
        gate.give(None, true, later);
        assert_eq!(
            gate.take(later),
            Some(true),
            "one that did not start is no answer"
        );
        assert!(gate.open());
        gate.give(Some(0), true, later);
        assert_eq!((gate.ready(later), gate.closings()), (Ready::Now(4), 0));
    }

    #[test]
    fn paused_waits_for_a_login() {
        let now = Instant::now();
        let mut gate = gate(4, None, None);
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
