//! When a closed lane is probed.
//!
//! Arithmetic over times that are given as arguments, as in `gate`.

use std::time::Duration;

/// The wait before the first probe of a closed lane, at most; before each further one it may be twice as long.
const FIRST_PROBE: Duration = Duration::from_secs(5);

/// How long a closed lane waits before its probes: it has a clock of its own, so that what the messages wait for holds up nobody once
/// the upstream is back.
#[derive(Debug, Clone, Default)]
pub struct ProbeTimes {
    /// What the routes allow before each of the first probes; the last one repeats.
    steps: Vec<Duration>,
    longest: Duration,
}

impl ProbeTimes {
    /// Of a connector with `probe = longest`. `retry`: the steps of each route that names it.
    pub fn new<'a>(retry: impl Iterator<Item = &'a [Duration]>, longest: Duration) -> Self {
        let retry: Vec<&[Duration]> = retry.collect();
        let count = retry.iter().map(|steps| steps.len()).max().unwrap_or(0);
        let step = |n| {
            let steps = retry.iter().filter_map(|s| s.get(n).or(s.last()));
            steps.min().copied()
        };
        Self {
            steps: (0..count).filter_map(step).collect(),
            longest,
        }
    }

    /// Before the probe that follows so many vain ones, up to a tenth shorter or longer. `jitter` is in 0..1.
    pub fn wait(&self, vain: usize, jitter: f64) -> Duration {
        let doublings = u32::try_from(vain).unwrap_or(u32::MAX);
        let growing = FIRST_PROBE.saturating_mul(2_u32.saturating_pow(doublings));
        let step = self.steps.get(vain).or(self.steps.last());
        let wait = step.map_or(growing, |step| growing.min(*step));
        wait.min(self.longest)
            .mul_f64(0.9 + 0.2 * jitter.clamp(0.0, 1.0))
    }

    /// No wait is longer.
    pub fn most(&self) -> Duration {
        self.longest.mul_f64(1.1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        connector::LaneLimits,
        delivery::lanes::gate::{Gate, Ready},
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// The steps of each route, `probe`, and the waits before the first probes, in seconds.
    #[test]
    fn probes_keep_to_a_clock_of_their_own() {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        type Case = (&'static [&'static [u64]], u64, &'static [u64]);
        let cases: &[Case] = &[
            // As it comes: the steps of the messages are longer.
            (
                &[&[MINUTE, 5 * MINUTE, HOUR]],
                MINUTE,
                &[5, 10, 20, 40, 60, 60],
            ),
            (&[&[HOUR]], MINUTE, &[5, 10, 20, 40, 60, 60]),
            (&[], MINUTE, &[5, 10, 20, 40, 60, 60]),
            (
                &[&[HOUR]],
                HOUR,
                &[5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600],
            ),
            (&[&[HOUR]], 1, &[1, 1, 1]),
            // The shortest of all routes, each with its last one repeated.
            (&[&[2, 7, 300]], MINUTE, &[2, 7, 20, 40, 60]),
            (&[&[2], &[1, 7, 300]], MINUTE, &[1, 2, 2, 2]),
            (&[&[3, 30], &[4, 4, 50]], MINUTE, &[3, 4, 20, 30, 30]),
        ];
        for (retry, longest, expected) in cases {
            let retry: Vec<Vec<Duration>> = retry
                .iter()
                .map(|steps| steps.iter().map(|s| Duration::from_secs(*s)).collect())
                .collect();
            let times = ProbeTimes::new(
                retry.iter().map(Vec::as_slice),
                Duration::from_secs(*longest),
            );
            for (vain, seconds) in expected.iter().enumerate() {
                let wait = Duration::from_secs(*seconds);
                assert_eq!(times.wait(vain, 0.5), wait, "{retry:?} {longest} {vain}");
                assert_eq!(times.wait(vain, 0.0), wait.mul_f64(0.9));
                assert_eq!(times.wait(vain, 1.0), wait.mul_f64(1.1));
                assert!(times.wait(vain, 1.0) <= times.most());
            }
        }
        let times = ProbeTimes::new(std::iter::empty(), Duration::from_hours(24));
        assert_eq!(times.wait(usize::MAX, 0.5), Duration::from_hours(24));
    }

    /// However long it was away: what waits longest for a probe waits for `probe` and a tenth of it.
    #[test]
    fn a_lane_opens_soon_after_the_upstream_is_back() {
        let hour = Duration::from_hours(1);
        let times = ProbeTimes::new(std::iter::once(&[hour][..]), SECOND * 60);
        let mut random = fastrand::Rng::with_seed(1);
        for away in [3, 25 * 60, 3 * 24 * 3600] {
            let begin = Instant::now();
            let back = begin + SECOND * away;
            let mut gate = Gate::new(LaneLimits {
                concurrent: 40,
                rate: None,
                upload: None,
            });
            gate.take(begin);
            gate.start(begin, 0);
            gate.close(begin, times.wait(gate.closings(), random.f64()), false);
            gate.give(Some(0), false, begin);
            let opened = loop {
                let at = gate.wakes_at().unwrap();
                assert_eq!(gate.take(at), Some(true));
                assert_eq!(gate.ready(at), Ready::Shut, "one probe at a time");
                gate.start(at, 0);
                if at >= back {
                    gate.open();
                    gate.give(Some(0), true, at);
                    break at;
                }
                gate.close(at, times.wait(gate.closings(), random.f64()), true);
                gate.give(Some(0), true, at);
            };
            assert!(opened - back <= SECOND * 66, "{away}: {:?}", opened - back);
            assert_eq!(gate.ready(opened), Ready::Now(40));
        }
    }
}
