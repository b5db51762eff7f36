//! What the store must be asked for from time to time: to forget what is no longer kept, and to give room back to the disk.
//!
//! Apart from `round`, which looks here once in each of its rounds: nothing of it concerns what is due.

use std::time::{Duration, Instant, SystemTime};

use super::Built;
use crate::queue::Queue;

/// Between two prunings, at most; what is kept for a shorter time is looked at as often as that, but for a minute.
const PRUNE: Duration = Duration::from_hours(1);
/// Between two times that all room is given back for want of it, at least.
const ROOM: Duration = Duration::from_secs(5);

/// When what was done last.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    pruned: Option<Instant>,
    shrunk: Option<Instant>,
    /// The store has more to give back.
    shrinks: bool,
}

impl Upkeep {
    /// Does what is due.
    pub(super) async fn look(&mut self, queue: &Queue, built: &Built) {
        self.prune(queue, built).await;
        self.shrink(queue).await;
    }

    async fn prune(&mut self, queue: &Queue, built: &Built) {
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

    /// After a pruning what is more than the store needs, a part in each round; all of it when mail is refused for want of room.
    async fn shrink(&mut self, queue: &Queue) {
        let is_short =
            self.shrunk.is_none_or(|at| at.elapsed() >= ROOM) && queue.take_ask_for_room();
        if !is_short && !self.shrinks {
            return;
        }
        if is_short {
            self.shrunk = Some(Instant::now());
        }
        match queue.store().shrink(is_short).await {
            Ok(more) => self.shrinks = more,
            Err(error) => {
                self.shrinks = false;
                tracing::error!(%error, "unused room cannot be given back to the disk");
            }
        }
    }
}
