//! Mail that a quota holds: after `hold_for` it is given up, and its sender is told. It is never sent from here.
//!
//! First it goes where nothing but this looks for it, in one step of the store; then it is claimed there and settled as any other job, so
//! that its failure and the report are one transaction, whenever a crash comes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{clock::Moment, settlement::Attempted, setup::Built, shared::DeliveryContext};
use crate::{
    mail::{reply::Reply, time::span},
    policy::quota::{Beyond, Quota, holder},
    queue::{
        Queue,
        store::{Ask, Filter, Job, JobState, StoreError, Verb},
    },
    route::{ConnectorName, Route},
};

/// Between two looks for what was held for too long.
const LOOK: Duration = Duration::from_mins(1);

/// When it was looked last.
#[derive(Debug, Default)]
pub(super) struct Expiry(Option<Instant>);

impl Expiry {
    /// Looks through what quotas hold, now and then.
    pub(super) async fn look(&mut self, queue: &Queue, built: &Built, now: SystemTime) {
        let holds = |quota: &&Quota| quota.over == Beyond::Hold;
        let mut holding = built.policy.quotas.iter().filter(holds).peekable();
        // Where somebody holds for a short time, oftener.
        let shortest = built
            .policy
            .quotas
            .iter()
            .filter(holds)
            .map(|quota| quota.hold_for);
        let every = shortest
            .min()
            .unwrap_or(LOOK)
            .min(LOOK)
            .max(Duration::from_secs(1));
        if holding.peek().is_none() || self.0.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.0 = Some(Instant::now());
        for quota in holding {
            let filter = Filter {
                states: vec![JobState::Held],
                held_by: Some(holder(&quota.name)),
                older: now.checked_sub(quota.hold_for),
                ..Filter::default()
            };
            if filter.older.is_none() {
                continue;
            }
            match queue.store().command(&filter, &Verb::Expire, now).await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::warn!(event = "held too long", quota = %quota.name, count, "held too long: given up");
                    queue.wake();
                }
                Err(error) => {
                    tracing::error!(%error, quota = %quota.name, "what a quota holds cannot be looked through");
                }
            }
        }
    }
}

/// Gives up what was found.
pub(super) async fn give_up(
    shared: &Arc<DeliveryContext>,
    built: &Arc<Built>,
    ask: Ask,
    begun: Moment,
) -> Result<(), StoreError> {
    let (node, now) = (shared.queue.node(), begun.wall);
    let Some(lane) = ask.lane.clone() else {
        return Ok(());
    };
    for job in shared.queue.store().claim(&[ask], node, now).await? {
        let (shared, built) = (Arc::clone(shared), Arc::clone(built));
        let by = lane.connector.clone();
        shared.spawn(settle(Arc::clone(&shared), built, by, job, begun));
    }
    Ok(())
}

async fn settle(
    shared: Arc<DeliveryContext>,
    built: Arc<Built>,
    by: ConnectorName,
    job: Job,
    begun: Moment,
) {
    let of_quota = |quota: &&Quota| holder(&quota.name) == by.as_str();
    let quota = built.policy.quotas.iter().find(of_quota);
    // One that is gone since says nothing of its time.
    let held_for = quota.map_or_else(|| "its time".to_owned(), |quota| span(quota.hold_for));
    let reply = Reply::not_released(by.as_str(), &held_for);
    // The route may be gone: nothing is sent by it.
    let route = built.routes.get(&job.route).cloned();
    let route = route.unwrap_or_else(|| Arc::new(Route::nowhere(job.route.clone())));
    let mut done = Attempted::new(&shared, &built, &route, &job, begun);
    done.attempt.fail(&by, &reply);
    done.settle().await;
}
