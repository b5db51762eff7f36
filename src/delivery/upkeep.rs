//! What the store must be asked for from time to time: to forget what is no longer kept, and to give room back to the disk.
//!
//! Apart from `round`, which looks here once in each of its rounds: nothing of it concerns what is due.

use std::time::{Duration, Instant, SystemTime};

use super::Built;
use crate::queue::{Queue, store::StoreError};

/// Between two prunings, at most; what is kept for a shorter time is looked at as often as that, but for a minute.
const PRUNE: Duration = Duration::from_hours(1);
/// Between two looks for room to give back after mail was refused for want of it, and how long that is done: the queue that
/// fills the disk may go out long after.
const ROOM: Duration = Duration::from_secs(5);
const FOR: Duration = Duration::from_hours(1);
/// Between two parts of what there is to give back.
const PART: Duration = Duration::from_secs(1);

/// When what was done last.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pruned: Option<Instant>,
    /// Not before.
    shrink_at: Option<Instant>,
    /// The store may have more to give back.
    shrinks: bool,
    failed: bool,
}

impl Upkeep {
    /// Lets the store forget what is no longer kept, when it is time.
    pub(super) async fn prune(&mut self, queue: &Queue, built: &Built) {
        let shortest = built.keep_failed.min(built.keep_history);
        let every = shortest.clamp(Duration::from_mins(1), PRUNE);
        if self.pruned.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.pruned = Some(Instant::now());
        self.shrinks = true;
        match queue
            .store()
            .prune(built.keep_failed, built.keep_history, SystemTime::now())
            .await
        {
            Ok(lines) => {
                for line in lines {
                    tracing::info!("{line}");
                }
            }
            Err(error) => tracing::error!(%error, "what is no longer kept cannot be deleted"),
        }
    }

    /// Gives room back to the disk: what is more than the store needs after a pruning, and all of it while mail is refused, or was
    /// a while ago. A part at a time.
    pub(super) async fn shrink(&mut self, queue: &Queue) {
        let is_short = queue.was_asked_for_room(FOR);
        let now = Instant::now();
        if !is_short && !self.shrinks || self.shrink_at.is_some_and(|at| now < at) {
            return;
        }
        let wait = match queue.store().shrink(is_short).await {
            Ok(more) => {
                self.shrinks = more;
                self.failed = false;
                if more { PART } else { ROOM }
            }
            Err(error) => {
                self.shrinks = false;
                // Once: the log may be on the same disk.
                if !self.failed {
                    tracing::error!(%error, "unused room cannot be given back to the disk");
                }
                self.failed = true;
                // A file that fails is left alone.
                if matches!(error, StoreError::Full) {
                    ROOM
                } else {
                    PRUNE
                }
            }
        };
        self.shrink_at = Some(now + wait);
    }
}
