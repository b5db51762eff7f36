//! How fast a client must be inside DATA, so that nobody keeps a session with a few octets an hour.

use std::time::Duration;

/// The least rate, octets a second.
const LEAST_RATE: u64 = 500;

/// How fast the client is inside DATA; only time spent waiting for it counts.
#[derive(Debug, Default)]
pub(super) struct InputRate {
    waited: Duration,
    octets: u64,
}

impl InputRate {
    /// Adds one wait; false when a whole `window` was slower than [`LEAST_RATE`].
    pub(super) fn keeps_up(&mut self, waited: Duration, octets: usize, window: Duration) -> bool {
        self.waited += waited;
        self.octets += octets as u64;
        if self.waited < window {
            return true;
        }
        let enough = self.octets as f64 >= LEAST_RATE as f64 * self.waited.as_secs_f64();
        *self = Self::default();
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_rate() {
        let window = Duration::from_secs(10);
        let second = Duration::from_secs(1);
        let mut rate = InputRate::default();
        for _ in 0..9 {
            assert!(rate.keeps_up(second, 1, window));
        }
        assert!(!rate.keeps_up(second, 1, window));
        for _ in 0..50 {
            assert!(rate.keeps_up(second, 500, window));
        }
    }
}
