//! What is done from time to time: the store forgets what is no longer kept and gives space back to the disk, and mail whose route
//! is gone from the configuration finds another.
//!
//! The loop looks here once in each of its rounds.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::setup::Built;
use crate::{
    mail::address::Address,
    queue::{
        Queue,
        store::{Filter, GiveBack, JobState, KeepTimes, Maintained, Retention, StoreError, Verb},
    },
    route::{Asked, RouteName},
};

/// Between two prunings, at most. Where something is kept for a shorter time, that time, but a minute at least.
const PRUNE: Duration = Duration::from_hours(1);
/// Between two looks for space to give back to a disk that was too full for new mail.
const SHORT_OF_SPACE: Duration = Duration::from_secs(5);
/// How long that is done after mail was last refused: the queue that fills the disk may go out long after.
const REMEMBERED: Duration = Duration::from_hours(1);
/// Between two parts of what there is to give back.
const PART: Duration = Duration::from_secs(1);

/// Between two tries to find another route for what lost its own.
const REROUTE: Duration = Duration::from_mins(1);
/// Entries that are given another route together.
const REROUTED: usize = 100;

/// When what was done last.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    pruned: Option<Instant>,
    /// Not before.
    shrink_at: Option<Instant>,
    /// The store may have more to give back.
    shrinks: bool,
    failed: bool,
}

impl Maintenance {
    /// Lets the store delete what is no longer kept, when it is time; else gives space back to the disk: what is more than the store
    /// needs after a deletion, and all of it while mail is refused, or was a while ago. `built`: what says how long something is kept,
    /// if that can be told by the clock.
    pub(super) async fn run(&mut self, queue: &Queue, built: Option<&Built>, wall: SystemTime) {
        if let Some(built) = built
            && self.is_time_to_delete(built)
        {
            self.delete(queue, built, wall).await;
        }
        self.give_back(queue, wall).await;
    }

    fn is_time_to_delete(&self, built: &Built) -> bool {
        let shortest = built.keep_failed.min(built.keep_history);
        let every = shortest.clamp(Duration::from_mins(1), PRUNE);
        self.pruned.is_none_or(|at| at.elapsed() >= every)
    }

    async fn delete(&mut self, queue: &Queue, built: &Built, wall: SystemTime) {
        self.pruned = Some(Instant::now());
        self.shrinks = true;
        let retention = Retention {
            keep: Some(KeepTimes {
                failed: built.keep_failed,
                history: built.keep_history,
            }),
            give_back: None,
        };
        match queue.store().maintain(&retention, wall).await {
            Ok(Maintained { deleted, .. }) => {
                for line in deleted {
                    tracing::info!("{line}");
                }
            }
            Err(error) => tracing::error!(%error, "what is no longer kept cannot be deleted"),
        }
    }

    async fn give_back(&mut self, queue: &Queue, wall: SystemTime) {
        let is_short = queue.was_asked_for_space(REMEMBERED);
        let now = Instant::now();
        if !is_short && !self.shrinks || self.shrink_at.is_some_and(|at| now < at) {
            return;
        }
        let retention = Retention {
            keep: None,
            give_back: Some(if is_short {
                GiveBack::All
            } else {
                GiveBack::Spare
            }),
        };
        let wait = match queue.store().maintain(&retention, wall).await {
            Ok(Maintained { is_more, .. }) => {
                self.shrinks = is_more;
                self.failed = false;
                if is_more { PART } else { SHORT_OF_SPACE }
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
                    SHORT_OF_SPACE
                } else {
                    PRUNE
                }
            }
        };
        self.shrink_at = Some(now + wait);
    }
}

/// Finds another route for mail whose own is gone from the configuration.
#[derive(Debug, Default)]
pub(super) struct Rerouting {
    /// When another was last looked for, for each that is gone.
    tried: HashMap<RouteName, Instant>,
    /// Routes that nothing replaces, and that were complained about.
    complained: HashSet<RouteName>,
}

impl Rerouting {
    /// The route is found as for mail that has just come; what none matches waits.
    pub(super) async fn reroute(
        &mut self,
        queue: &Queue,
        built: &Built,
        old: &RouteName,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        if self.tried.get(old).is_some_and(|at| at.elapsed() < REROUTE) {
            return Ok(());
        }
        self.tried.insert(old.clone(), Instant::now());
        // Nobody chose the routes of other mail for copies.
        if let Some(archive) = old.archive() {
            if self.complained.insert(old.clone()) {
                tracing::error!(
                    archive,
                    "copies wait for an archive that is no longer configured"
                );
            }
            return Ok(());
        }
        let store = queue.store();
        let filter = Filter {
            states: vec![JobState::Waiting],
            route: Some(old.clone()),
            limit: Some(REROUTED),
            ..Filter::default()
        };
        let entries = store.list(&filter, now).await?;
        let full = entries.len() == REROUTED;
        let mut moved = false;
        for entry in entries {
            let Some(message) = store.content(entry.id).await? else {
                continue;
            };
            let found = entry
                .recipients
                .iter()
                .filter_map(|r| Address::parse(&r.address).ok())
                .find_map(|recipient| {
                    built.router.route(Asked {
                        sender: message.envelope.sender.as_ref(),
                        recipient: &recipient,
                        client: message.origin.client.as_deref(),
                        user: message.origin.user.as_deref(),
                        listener: &message.origin.listener,
                    })
                });
            let Some(route) = found else {
                if self.complained.insert(old.clone()) {
                    tracing::error!(route = %old, id = %entry.id, "mail waits for a route that is no longer configured, and no other matches it");
                }
                continue;
            };
            let one = Filter {
                route: Some(old.clone()),
                ..Filter::of(entry.id)
            };
            let verb = Verb::Reroute(route.name.clone());
            store.command(&one, &verb, now).await?;
            tracing::info!(id = %entry.id, from = %old, to = %route.name, "mail takes another route, since its own is no longer configured");
            moved = true;
        }
        if moved {
            if full {
                self.tried.remove(old);
            }
            queue.wake();
        }
        Ok(())
    }
}
