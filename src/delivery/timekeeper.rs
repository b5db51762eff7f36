//! The two clocks of the machine, and what is done when one of them was set: everything that the store holds moves with it.
//!
//! `clock` has the arithmetic.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::{
    clock::{Clock, ClockStep, Known, Moment, Watch, moved},
    setup::Built,
};
use crate::queue::{
    Queue,
    store::{CLOCK, LaneRow, Shift, StoreError},
};

/// Between two notes of the time.
const NOTED: Duration = Duration::from_mins(1);
/// Both clocks are read within this, or again.
const TOGETHER: Duration = Duration::from_millis(50);

/// The clocks of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineClock;

impl Clock for MachineClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn moment(&self) -> Moment {
        let mut before = boot();
        loop {
            let wall = self.wall();
            let after = boot();
            // The process may have been stopped between the two.
            if after.saturating_sub(before) < TOGETHER {
                return Moment { wall, boot: after };
            }
            before = after;
        }
    }
}

fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// What tells this start of the machine from the next one.
fn machine() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// The wall clock, and what is known of it.
#[derive(Debug)]
pub(super) struct Timekeeper {
    clock: Arc<dyn Clock>,
    watch: Watch,
    /// The last look.
    looked: (Moment, Instant),
    machine: String,
    known: Known,
    /// Seen, and not yet carried out: the store may have been out of order.
    pending: Option<ClockStep>,
    noted: Option<Instant>,
}

impl Timekeeper {
    /// At the start, before anything is accepted.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let at = clock.moment();
        let machine = machine();
        Self {
            clock,
            watch: Watch::new(at),
            looked: (at, Instant::now()),
            known: Known {
                at,
                machine: machine.clone(),
                settled: at.wall,
            },
            machine,
            pending: None,
            noted: None,
        }
    }

    /// What became of the clock since the last run, and what a crash left half done; then the lanes as the last run left them.
    pub(super) async fn recall(
        &mut self,
        queue: &Queue,
        built: &Built,
    ) -> Result<Vec<LaneRow>, StoreError> {
        let store = queue.store();
        store.shift(None).await?;
        let started = self.known.at;
        let mut by = 0;
        if let Some(known) = store.note(CLOCK).await?.as_deref().and_then(Known::read) {
            by = known.stepped(started, &self.machine);
            queue.follow(known.at.wall);
            self.known = known;
        }
        let since = started.wall;
        self.carry_out(queue, built, ClockStep { by, since })
            .await?;
        store.lanes().await
    }

    /// Whether the clock was set; then everything in the store moves with it. How far it was set, once that is done.
    pub(super) async fn look(
        &mut self,
        queue: &Queue,
        built: &Built,
    ) -> Result<Option<i64>, StoreError> {
        let moment = self.clock.moment();
        self.looked = (moment, Instant::now());
        if let Some(step) = self.watch.look(moment) {
            self.pending = Some(match self.pending {
                None => step,
                Some(before) => ClockStep {
                    by: before.by.saturating_add(step.by),
                    since: moved(before.since, step.by).min(step.since),
                },
            });
        }
        if let Some(step) = self.pending {
            self.carry_out(queue, built, step).await?;
            self.pending = None;
            return Ok(Some(step.by));
        }
        if self.noted.is_none_or(|at| at.elapsed() >= NOTED) {
            self.known = self.known.next(self.clock.moment(), &self.machine, 0);
            self.noted = Some(Instant::now());
            // Nothing of the mail hangs on it: again in a minute.
            let _ = queue.store().set_note(CLOCK, self.known.note()).await;
        }
        Ok(None)
    }

    async fn carry_out(
        &mut self,
        queue: &Queue,
        built: &Built,
        step: ClockStep,
    ) -> Result<(), StoreError> {
        let now = self.clock.moment();
        let known = self.known.next(now, &self.machine, step.by);
        if step.by != 0 {
            tracing::warn!(
                event = "clock",
                seconds = step.by.saturating_add(500_000).div_euclid(1_000_000),
                "the clock was set; what waits and how old it is stay as they were"
            );
        }
        let shift = Shift {
            by: step.by,
            since: step.since,
            now: now.wall,
            longest: built.longest_wait(),
            note: known.note(),
        };
        queue.store().shift(Some(&shift)).await?;
        self.known = known;
        self.noted = None;
        Ok(())
    }

    /// What the time is by the last look: what the store holds is compared with no clock that it has not followed yet.
    pub(super) fn now(&self) -> Moment {
        let (Moment { wall, boot }, at) = self.looked;
        let passed = at.elapsed();
        Moment {
            wall: wall + passed,
            boot: boot + passed,
        }
    }

    /// Whether what is kept for a time may be deleted by this clock.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_none() && self.known.settled <= self.clock.wall()
    }
}
