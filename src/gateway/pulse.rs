//! Whether the runtimes that carry mail do their work: each ticks by a task of its own, which waits its turn like any other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, time::sleep};

/// A runtime says so often that it works,
const TICK: Duration = Duration::from_secs(2);
/// and one that has said nothing for so long does not.
const SILENT: Duration = Duration::from_secs(10);

/// The ticks of the runtimes that carry mail.
#[derive(Debug)]
pub struct Pulse {
    started: Instant,
    /// When each last ticked, in milliseconds from the start.
    ticks: Vec<AtomicU64>,
}

impl Pulse {
    /// Of these runtimes, which tick from now on.
    pub fn of(runtimes: &[Handle]) -> Arc<Self> {
        let pulse = Arc::new(Self {
            started: Instant::now(),
            ticks: runtimes.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        for (at, runtime) in runtimes.iter().enumerate() {
            let pulse = Arc::clone(&pulse);
            runtime.spawn(async move {
                while let Some(tick) = pulse.ticks.get(at) {
                    tick.store(pulse.since_start(), Ordering::Relaxed);
                    sleep(TICK).await;
                }
            });
        }
        pulse
    }

    fn since_start(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether each of them has ticked within ten seconds.
    pub fn is_felt(&self) -> bool {
        let now = self.since_start();
        let mut ticks = self.ticks.iter().map(|tick| tick.load(Ordering::Relaxed));
        ticks.all(|tick| u128::from(now.saturating_sub(tick)) < SILENT.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pulse_is_felt_while_every_runtime_ticks() {
        let other = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        // The other never runs.
        let pulse = Pulse::of(&[Handle::current(), other.handle().clone()]);
        assert!(pulse.is_felt(), "it has only begun");
        let old = Pulse {
            started: Instant::now().checked_sub(SILENT * 2).unwrap(),
            ticks: vec![AtomicU64::new(20_000), AtomicU64::new(9_000)],
        };
        assert!(!old.is_felt());
        old.ticks[1].store(15_000, Ordering::Relaxed);
        assert!(old.is_felt());
        drop(pulse);
        other.shutdown_background();
    }
}
