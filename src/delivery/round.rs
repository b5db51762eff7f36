//! The loop: what is due, who may take it, and what has to be done from time to time.
//!
//! Apart from the jobs, which it starts and does not wait for. Its work for a job is small: a claim takes as many at once as
//! the lanes have room for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::task::JoinSet;

use super::{
    attempt::{self, Task},
    lanes::{
        Pass,
        gate::{PAUSE_PROBE, Ready},
    },
    login,
    maintenance::{Maintenance, Rerouting},
    plan::Block,
    setup::Built,
    shared::{Backlog, Shared},
    timekeeper::Timekeeper,
};
use crate::{
    mail::outcome::ObstacleKind,
    queue::{
        Reserve,
        store::{Ask, Beat, Due, Job, Standing, StoreError},
    },
    route::{ConnectorName, LaneId, Route, RouteName},
};

/// The loop looks at least this often, since another process may have written.
const AT_LEAST: Duration = Duration::from_secs(1);
/// What is due is asked anew at least this often; until then, while each claim finds as much as it asks for, nothing has changed
/// that matters.
const KNOWN: Duration = Duration::from_millis(50);
/// Jobs that one claim takes at most.
const MOST_CLAIMED: usize = 500;
/// Jobs that are looked at together when a closed lane's oldest may be past their time.
const SWEEP: usize = 50;
/// Between two such looks, at most.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// The state of the loop.
pub(super) struct Round {
    shared: Arc<Shared>,
    reserve: Arc<Reserve>,
    logins: JoinSet<()>,
    changes: Option<u64>,
    /// What was due, and when that was asked.
    due: Option<(Instant, Vec<Due>)>,
    checked: Option<Instant>,
    maintenance: Maintenance,
    rerouting: Rerouting,
    clock: Timekeeper,
    /// Connectors that are gone, and that mail in doubt was pinned to.
    complained: HashSet<ConnectorName>,
    /// When the mail of a route and lane that is shut was last looked through.
    swept: HashMap<(RouteName, Option<LaneId>), Instant>,
    was_healthy: bool,
}

/// A claim to come: the passes for it, and where it starts.
struct Claim {
    ask: Ask,
    route: Arc<Route>,
    candidates: Vec<ConnectorName>,
    start: usize,
    passes: Vec<Pass>,
    /// Before it is due.
    early: bool,
}

impl Claim {
    /// The lane of that connector that this mail waits in.
    fn mailbox(&self, connector: &ConnectorName) -> Option<LaneId> {
        let lane = self.ask.lane.as_ref()?;
        (lane.connector == *connector && lane.mailbox.is_some()).then(|| lane.clone())
    }
}

impl Round {
    pub(super) fn new(shared: Arc<Shared>, reserve: Arc<Reserve>) -> Self {
        Self {
            shared,
            reserve,
            logins: JoinSet::new(),
            changes: None,
            due: None,
            checked: None,
            maintenance: Maintenance::default(),
            rerouting: Rerouting::default(),
            clock: Timekeeper::new(),
            complained: HashSet::new(),
            swept: HashMap::new(),
            was_healthy: true,
        }
    }

    pub(super) async fn run(mut self) {
        self.recall().await;
        self.shared
            .queue
            .set_reserve(Some(Arc::clone(&self.reserve)));
        while !self.shared.is_stopping() {
            let wait = self.look().await;
            tokio::select! {
                () = self.shared.queue.changed() => {}
                () = self.shared.lanes.bell.notified() => {}
                () = self.shared.stopping() => {}
                Some(_) = self.logins.join_next(), if !self.logins.is_empty() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.shared.queue.set_reserve(None);
        self.write_lanes().await;
    }

    /// The lanes as the last run left them.
    async fn recall(&mut self) {
        let built = self.shared.built();
        loop {
            match self.clock.recall(&self.shared.queue, &built).await {
                Ok(rows) => {
                    return self.shared.lanes.read(
                        &rows,
                        Some(built.longest_step()),
                        SystemTime::now(),
                    );
                }
                Err(error) => {
                    tracing::error!(%error, "the store cannot be read");
                    tokio::select! {
                        () = tokio::time::sleep(AT_LEAST) => {}
                        () = self.shared.stopping() => return,
                    }
                }
            }
        }
    }

    /// One round; how long there is nothing to do unless somebody rings.
    async fn look(&mut self) -> Duration {
        let shared = Arc::clone(&self.shared);
        let built = shared.built();
        let is_healthy = self.is_healthy().await;
        // Also while outcomes cannot be written, which may be for want of room.
        if shared.queue.is_healthy() {
            self.maintenance.shrink(&shared.queue).await;
        }
        if !is_healthy {
            return AT_LEAST;
        }
        // Before anything that looks at a time of the store.
        match self.clock.look(&shared.queue, &built).await {
            Ok(None) => {}
            Ok(Some(by)) => {
                shared.lanes.step(by, SystemTime::now());
                self.due = None;
            }
            Err(error) => {
                tracing::error!(%error, "what waits cannot be moved with the clock");
                return AT_LEAST;
            }
        }
        shared.lanes.pass_time();
        // An operator's wish stands in the row that is about to be written over.
        if shared.lanes.are_to_be_written() {
            self.checked = None;
        }
        self.foreign_writes().await;
        self.write_lanes().await;
        login::log_in(&mut self.logins, &shared, &built);
        self.maintenance
            .prune(&shared.queue, &built, &self.clock)
            .await;
        let looked = Instant::now();
        match self.claim(&built).await {
            Ok(wait) => {
                // A probe that was due already found no job, and waits for the next one without making the loop spin.
                let lanes = shared
                    .lanes
                    .wakes_after(looked)
                    .map_or(AT_LEAST, |at| at.saturating_duration_since(Instant::now()));
                wait.min(lanes).min(AT_LEAST)
            }
            Err(error) => {
                tracing::error!(%error, "the queue cannot be read; nothing is delivered until it can");
                AT_LEAST
            }
        }
    }

    /// Whether the store works; when it did not, a note is written to find out whether it does again.
    async fn is_healthy(&mut self) -> bool {
        let store = self.shared.queue.store();
        if !self.shared.queue.is_healthy() {
            if self.was_healthy {
                self.was_healthy = false;
                tracing::error!("the store does not work: nothing is delivered until it does");
            }
            // Its failing again is no news.
            let _ = store.set_note("store", "working".to_owned()).await;
        }
        let healthy = self.shared.is_healthy();
        if healthy && !self.was_healthy {
            self.was_healthy = true;
            tracing::info!("the store works again");
        }
        healthy
    }

    async fn write_lanes(&mut self) {
        let rows = self.shared.lanes.changed_rows(SystemTime::now());
        for (at, row) in rows.iter().enumerate() {
            if let Err(error) = self.shared.queue.store().set_lane(row.clone()).await {
                tracing::error!(%error, "the state of a connector cannot be written");
                self.shared
                    .lanes
                    .still_dirty(rows.get(at..).unwrap_or_default());
                return;
            }
        }
    }

    /// An operator's `queue retry` sets the probe of a shut lane to now.
    async fn foreign_writes(&mut self) {
        if self.checked.is_some_and(|at| at.elapsed() < AT_LEAST) {
            return;
        }
        self.checked = Some(Instant::now());
        let store = self.shared.queue.store();
        let node = Some(self.shared.queue.node());
        let Ok(Beat { changes, .. }) = store.beat(&Standing { node }).await else {
            return;
        };
        let first = self.changes.is_none();
        if self.changes.replace(changes) != Some(changes)
            && !first
            && let Ok(rows) = store.lanes().await
        {
            self.shared.lanes.read(&rows, None, SystemTime::now());
        }
    }

    /// Claims what is due and has room; the time until something else is due.
    #[expect(
        clippy::too_many_lines,
        reason = "one look at the queue: what it asks, takes and starts"
    )]
    async fn claim(&mut self, built: &Arc<Built>) -> Result<Duration, StoreError> {
        let shared = Arc::clone(&self.shared);
        // Set before the look: a permit that comes back during it rings.
        shared.lanes.set_hungry(true);
        let known = self.due.take().filter(|(asked, _)| asked.elapsed() < KNOWN);
        let mut wait = AT_LEAST;
        let (asked, due) = if let Some(known) = known {
            wait = KNOWN;
            known
        } else {
            let mut due = shared.queue.store().due().await?;
            due.sort_by_key(|due| due.at);
            (Instant::now(), due)
        };
        let now = SystemTime::now();
        let mut same = true;
        let mut hungry = false;
        let mut claims: Vec<Claim> = Vec::new();
        let mut busy = Backlog::new();
        for Due {
            route: name,
            pinned,
            lane,
            at,
        } in due.clone()
        {
            let later = at.duration_since(now).unwrap_or_default();
            // Whoever was refused is not due before the next probe; when one is wished for, it is.
            let early =
                !later.is_zero() && lane.as_ref().is_some_and(|l| shared.lanes.is_wished(l));
            if !later.is_zero() && !early {
                wait = wait.min(later);
                continue;
            }
            busy.insert((name.clone(), lane.clone()));
            let Some(route) = built.routes.get(&name).cloned() else {
                self.rerouting.reroute(&shared.queue, built, &name).await?;
                same = false;
                continue;
            };
            if let Some(pin) = &pinned
                && !built.connectors.contains_key(pin)
                && self.complained.insert(pin.clone())
            {
                tracing::warn!(route = %name, connector = %pin, "mail in doubt waits for a connector that is gone; the others of its route take it");
            }
            let candidates = built.candidates(&route, pinned.as_ref());
            let mut claim = Claim {
                ask: Ask {
                    route: name,
                    pinned,
                    lane,
                    limit: 0,
                },
                route,
                candidates,
                start: 0,
                passes: Vec::new(),
                early,
            };
            match self.room(&mut claim) {
                Room::Some => claims.push(claim),
                Room::Full => hungry = true,
                Room::At(at) => wait = wait.min(at.saturating_duration_since(Instant::now())),
                Room::Held(at) => {
                    wait = wait.min(at.saturating_duration_since(Instant::now()));
                    self.sweep(built, &claim).await?;
                }
                Room::Shut => self.sweep(built, &claim).await?,
            }
        }
        *shared.backlog() = busy;
        if claims.is_empty() {
            shared.lanes.set_hungry(hungry);
            self.due = (hungry && same).then_some((asked, due));
            return Ok(wait);
        }
        let asks = |early: bool| -> Vec<Ask> {
            let those = claims.iter().filter(|claim| claim.early == early);
            those.map(|claim| claim.ask.clone()).collect()
        };
        let (asks, early) = (asks(false), asks(true));
        let (store, node) = (shared.queue.store(), shared.queue.node());
        let mut jobs = store.claim(&asks, node, SystemTime::now()).await?;
        if !early.is_empty() {
            let then = SystemTime::now() + PAUSE_PROBE * 2;
            jobs.extend(store.claim(&early, node, then).await?);
        }
        for job in jobs {
            let Some(claim) = claims.iter_mut().find(|Claim { ask, .. }| {
                ask.route == job.route && ask.pinned == job.pinned && ask.lane == job.lane
            }) else {
                continue;
            };
            if let Some(pass) = claim.passes.pop() {
                shared.spawn(attempt::run(Task {
                    shared: Arc::clone(&shared),
                    built: Arc::clone(built),
                    route: Arc::clone(&claim.route),
                    candidates: claim.candidates.clone(),
                    start: claim.start,
                    pass,
                    job,
                }));
            }
        }
        // Passes are left where there was no more; where there are none, there may be more.
        for claim in &claims {
            let more = claim.passes.is_empty();
            hungry |= more;
            same &= more;
            if claim.ask.pinned.is_none() && !more {
                shared
                    .backlog()
                    .remove(&(claim.ask.route.clone(), claim.ask.lane.clone()));
            }
        }
        shared.lanes.set_hungry(hungry);
        drop(claims);
        self.due = same.then_some((asked, due));
        Ok(wait)
    }

    /// Takes the passes of the first connector that is not shut, as many as there are.
    fn room(&self, claim: &mut Claim) -> Room {
        let lanes = &self.shared.lanes;
        for (at, name) in claim.candidates.iter().enumerate() {
            let mailbox = claim.mailbox(name);
            let most = match lanes.ready(name, mailbox.as_ref()) {
                Ready::Shut => continue,
                Ready::Full => return Room::Full,
                Ready::At(at) => {
                    let why = lanes.why(name, mailbox.as_ref());
                    let held = why.is(ObstacleKind::Throttled);
                    return if held { Room::Held(at) } else { Room::At(at) };
                }
                Ready::Probe => 1,
                Ready::Now(most) => most.min(MOST_CLAIMED),
            };
            claim.start = at;
            claim.passes = std::iter::from_fn(|| lanes.take(name, mailbox.as_ref()))
                .take(most)
                .collect();
            claim.ask.limit = claim.passes.len();
            return if claim.passes.is_empty() {
                Room::Full
            } else {
                Room::Some
            };
        }
        Room::Shut
    }

    /// Where every connector is closed, or the upstream asked for a pause, nothing is claimed, but what is past its time is still given up.
    async fn sweep(&mut self, built: &Arc<Built>, claim: &Claim) -> Result<(), StoreError> {
        let every = claim.route.give_up.clamp(AT_LEAST, SWEEP_EVERY);
        let which = (claim.ask.route.clone(), claim.ask.lane.clone());
        if self
            .swept
            .get(&which)
            .is_some_and(|at| at.elapsed() < every)
        {
            return Ok(());
        }
        let lanes = &self.shared.lanes;
        let why = |name: &ConnectorName| lanes.why(name, claim.mailbox(name).as_ref());
        let is_paused = |name| why(name).is(ObstacleKind::Misconfigured);
        if claim.candidates.iter().any(is_paused) {
            return Ok(());
        }
        let ask = Ask {
            limit: SWEEP,
            ..claim.ask.clone()
        };
        let now = SystemTime::now();
        // Who waits in a lane is due from its acceptance on, and keeps its place there.
        let cut = claim.ask.lane.as_ref().map(|_| claim.route.give_up);
        let due = now.checked_sub(cut.unwrap_or_default()).unwrap_or(now);
        let node = self.shared.queue.node();
        let jobs = self.shared.queue.store().claim(&[ask], node, due).await?;
        let over = |job: &Job| now >= job.accepted + claim.route.give_up;
        if !jobs.iter().all(over) || jobs.len() < SWEEP {
            let now = Instant::now();
            self.swept.retain(|_, at| now < *at + SWEEP_EVERY);
            self.swept.insert(which, now);
        }
        for job in jobs {
            let blocks = if over(&job) {
                claim.candidates.iter().map(why).collect()
            } else {
                vec![Block::Shut]
            };
            self.shared.spawn(attempt::pass_over(
                Arc::clone(&self.shared),
                Arc::clone(built),
                Arc::clone(&claim.route),
                blocks,
                job,
            ));
        }
        Ok(())
    }
}

/// What [`Round::room`] found.
enum Room {
    Some,
    Full,
    At(Instant),
    /// The upstream asked for it.
    Held(Instant),
    Shut,
}
