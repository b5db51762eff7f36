//! Mail that no connector takes: nothing of it is sent, but what is past its time is still given up.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{attempt, clock::Moment, look::Claim, setup::Built, shared::DeliveryContext};
use crate::{
    mail::outcome::ObstacleKind,
    queue::store::{Ask, StoreError, Whose},
    route::{ConnectorName, LaneId, RouteName},
};

/// Jobs that are looked at together.
const SWEEP: usize = 50;
/// Between two looks at the same mail: at least, at most.
const SWEEP_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// When the mail of a route and lane was last looked through.
#[derive(Debug, Default)]
pub(super) struct Sweeps(HashMap<(RouteName, Option<LaneId>), Instant>);

impl Sweeps {
    /// Looks through what is due, whosever it is, unless that was done a moment ago.
    pub(super) async fn sweep(
        &mut self,
        shared: &Arc<DeliveryContext>,
        built: &Arc<Built>,
        claim: &Claim,
        begun: Moment,
    ) -> Result<(), StoreError> {
        let every = claim.route.give_up.clamp(SWEEP_EVERY.0, SWEEP_EVERY.1);
        let which = (claim.ask.route.clone(), claim.ask.lane.clone());
        if self.0.get(&which).is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        let lanes = &shared.lanes;
        let why = |name: &ConnectorName| lanes.why(name, claim.mailbox(name).as_ref());
        let is_ours = |name| {
            let why = why(name);
            why.is(ObstacleKind::Misconfigured) || why.is(ObstacleKind::Stopped)
        };
        if claim.candidates.iter().any(is_ours) {
            return Ok(());
        }
        let now = begun.wall;
        let Some(by) = now.checked_sub(claim.route.give_up) else {
            return Ok(());
        };
        let ask = Ask {
            limit: SWEEP,
            whose: Whose::AcceptedBy(by),
            ..claim.ask.clone()
        };
        let node = shared.queue.node();
        let jobs = shared.queue.store().claim(&[ask], node, now).await?;
        if jobs.len() < SWEEP {
            let now = Instant::now();
            self.0.retain(|_, at| now < *at + SWEEP_EVERY.1);
            self.0.insert(which, now);
        }
        for job in jobs {
            let blocks = claim.candidates.iter().map(why).collect();
            shared.spawn(attempt::put_back(
                Arc::clone(shared),
                Arc::clone(built),
                Arc::clone(&claim.route),
                blocks,
                job,
                begun,
            ));
        }
        Ok(())
    }
}
