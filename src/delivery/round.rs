//! The loop: it claims what `look` finds, starts the jobs, and does what has to be done from time to time.
//!
//! It waits for no job. Its work for each is small: a claim takes as many at once as the lanes have permits for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::{
    among,
    attempt::{self, Task},
    clock::Moment,
    expiry::{self, Expiry},
    lanes::gate::PAUSE_PROBE,
    login,
    look::{Claim, Look, look},
    maintenance::{Maintenance, Rerouting},
    reports::late::LateLook,
    setup::Built,
    shared::DeliveryContext,
    sweep::Sweeps,
    timekeeper::Timekeeper,
    upstreams::Upstreams,
};
use crate::{
    queue::{
        Reserve,
        store::{Ask, Due, Standing, StoreError},
    },
    route::{ConnectorName, LaneId, RouteName},
};

/// The loop looks at least this often, since another process may have written.
const AT_LEAST: Duration = Duration::from_secs(1);
/// What is due is asked anew at least this often; until then, while each claim finds as much as it asks for, nothing has changed
/// that matters.
const KNOWN: Duration = Duration::from_millis(50);
/// A lane that another gateway has is asked for so often, and so many in one round.
const HOLD_AGAIN: Duration = Duration::from_secs(2);
const HOLDS: usize = 16;
/// Tries to write the rows of lanes in one round, while others write them too.
const WRITES: usize = 3;

/// The state of the loop.
pub(super) struct Round {
    shared: Arc<DeliveryContext>,
    reserve: Arc<Reserve>,
    logins: JoinSet<()>,
    /// Another process has written, and what the lanes are to do was not read since.
    is_changed: bool,
    /// When the last beat was.
    beaten: Option<Instant>,
    /// What was due, and when that was asked.
    due: Option<(Instant, Vec<Due>)>,
    /// When it was asked last.
    looked: Option<Instant>,
    maintenance: Maintenance,
    late: LateLook,
    rerouting: Rerouting,
    expiry: Expiry,
    clock: Timekeeper,
    /// Connectors that are gone, and that mail in doubt was pinned to.
    complained: HashSet<ConnectorName>,
    sweeps: Sweeps,
    /// Lanes that another gateway may have, and when it was asked last.
    unheld: HashMap<LaneId, Instant>,
    was_healthy: bool,
    upstreams: Upstreams,
}

impl Round {
    pub(super) fn new(shared: Arc<DeliveryContext>, reserve: Arc<Reserve>) -> Self {
        Self {
            reserve,
            logins: JoinSet::new(),
            is_changed: false,
            beaten: None,
            due: None,
            looked: None,
            maintenance: Maintenance::default(),
            late: LateLook::default(),
            rerouting: Rerouting::default(),
            expiry: Expiry::default(),
            clock: Timekeeper::new(Arc::clone(&shared.clock)),
            complained: HashSet::new(),
            sweeps: Sweeps::default(),
            unheld: HashMap::new(),
            was_healthy: true,
            upstreams: Upstreams::default(),
            shared,
        }
    }

    pub(super) async fn run(mut self) {
        self.recall().await;
        self.shared
            .queue
            .set_reserve(Some(Arc::clone(&self.reserve)));
        let store = Arc::clone(self.shared.queue.store());
        let mut changed = store.changed();
        while !self.shared.is_stopping() {
            self.is_changed |= self.shared.queue.take_operated();
            let wait = self.round().await;
            tokio::select! {
                () = &mut changed => {
                    self.is_changed = true;
                    changed = store.changed();
                }
                () = self.shared.queue.changed() => {}
                () = self.shared.lanes.wake.notified() => {}
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
        let shared = Arc::clone(&self.shared);
        let built = shared.built();
        let wall = shared.clock.wall();
        self.upstreams.recall(&shared.queue, &built, wall).await;
        loop {
            match self.clock.recall(&shared.queue, &built).await {
                Ok(rows) => {
                    return shared.lanes.read(&rows, true, shared.clock.wall());
                }
                Err(error) => {
                    tracing::error!(%error, "the store cannot be read");
                    tokio::select! {
                        () = tokio::time::sleep(AT_LEAST) => {}
                        () = shared.stopping() => return,
                    }
                }
            }
        }
    }

    /// One round; how long there is nothing to do unless somebody wakes it.
    async fn round(&mut self) -> Duration {
        let shared = Arc::clone(&self.shared);
        let built = shared.built();
        if !self.is_ready(&built).await {
            // It may be for want of space.
            if shared.queue.is_healthy() {
                let wall = shared.clock.wall();
                self.maintenance.run(&shared.queue, None, wall).await;
            }
            return AT_LEAST;
        }
        shared.lanes.pass_time();
        self.beat().await;
        self.write_lanes().await;
        let wall = self.clock.now().wall;
        self.upstreams.write(&shared.queue, &built, wall).await;
        login::log_in(&mut self.logins, &shared, &built);
        let keep = self.clock.is_settled().then_some(&*built);
        self.maintenance.run(&shared.queue, keep, wall).await;
        if keep.is_some() {
            self.late.run(&shared.queue, &built, wall).await;
            self.expiry.look(&shared.queue, &built, wall).await;
        }
        let looked = Instant::now();
        match self.claim(&built).await {
            Ok(wait) => {
                // A probe that was due already found no job, and waits for the next one without making the loop spin.
                let lanes = shared
                    .lanes
                    .wakes_after(looked.into_std())
                    .map_or(AT_LEAST, |at| {
                        Instant::from_std(at).saturating_duration_since(Instant::now())
                    });
                wait.min(lanes).min(AT_LEAST)
            }
            Err(error) => {
                tracing::error!(%error, "the queue cannot be read; nothing is delivered until it can");
                AT_LEAST
            }
        }
    }

    /// Whether the store works, and what it holds has moved with the clock: that comes before anything that looks at a time in it.
    async fn is_ready(&mut self, built: &Built) -> bool {
        if !self.is_healthy().await {
            return false;
        }
        match self.clock.look(&self.shared.queue, built).await {
            Ok(None) => true,
            Ok(Some(by)) => {
                self.shared.lanes.step(by, self.shared.clock.wall());
                self.due = None;
                true
            }
            Err(error) => {
                tracing::error!(%error, "what waits cannot be moved with the clock");
                false
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

    /// Writes the rows of lanes that changed. What another process has written since is read first: with `queue retry` an operator
    /// sets the probe of a shut lane to now, and that must not be lost.
    async fn write_lanes(&mut self) {
        for _ in 0..WRITES {
            if std::mem::take(&mut self.is_changed) {
                self.read_lanes().await;
            }
            let rows = self.shared.lanes.changed_rows(self.shared.clock.wall());
            for (at, row) in rows.iter().enumerate() {
                match self.shared.queue.store().set_lane(row.clone()).await {
                    Ok(true) => self.shared.lanes.written(row),
                    Ok(false) => {
                        self.is_changed = true;
                        self.shared.lanes.still_dirty(std::slice::from_ref(row));
                    }
                    Err(error) => {
                        tracing::error!(%error, "the state of a connector cannot be written");
                        let rest = rows.get(at..).unwrap_or_default();
                        return self.shared.lanes.still_dirty(rest);
                    }
                }
            }
            if !self.is_changed {
                return;
            }
        }
    }

    async fn read_lanes(&mut self) {
        match self.shared.queue.store().lanes().await {
            Ok(rows) => {
                let wall = self.shared.clock.wall();
                self.shared.lanes.read(&rows, false, wall);
            }
            Err(_) => self.is_changed = true,
        }
    }

    /// Says that this gateway is at work, and has the store look whether another process has written.
    async fn beat(&mut self) {
        // Among others a member does.
        let is_alone = self.shared.lanes.member().is_none();
        if !is_alone || self.beaten.is_some_and(|at| at.elapsed() < AT_LEAST) {
            return;
        }
        self.beaten = Some(Instant::now());
        let standing = Standing::of(self.shared.queue.node());
        // One that does not come is no news: the store says itself whether it works.
        let _ = self.shared.queue.store().beat(&standing).await;
    }

    /// Claims what is due and has a permit; the time until something else is due.
    async fn claim(&mut self, built: &Arc<Built>) -> Result<Duration, StoreError> {
        let shared = Arc::clone(&self.shared);
        // Set before the look: a permit that comes back during it wakes the loop.
        shared.lanes.set_wants_work(true);
        let (asked, due, most) = self.due().await?;
        let moment = self.clock.now();
        let now = (Instant::now().into_std(), moment.wall);
        let Look {
            mut claims,
            sweeps,
            reroutes,
            lost_pins,
            backlog,
            wait,
            mut wants_work,
            expired,
            unheld,
        } = look(&due, built, &shared.lanes, now);
        *shared.backlog() = backlog;
        for route in &reroutes {
            self.rerouting
                .reroute(&shared.queue, built, route, now.1)
                .await?;
        }
        for ask in expired {
            expiry::give_up(&shared, built, ask, moment).await?;
        }
        self.complain_of(lost_pins);
        for claim in &sweeps {
            self.sweeps.sweep(&shared, built, claim, moment).await?;
        }
        let has_taken = self.take_lanes(unheld).await;
        let mut is_as_asked = reroutes.is_empty() && !has_taken;
        if claims.is_empty() {
            is_as_asked &= wants_work;
        } else {
            self.start(built, &mut claims, moment).await?;
            // Permits are left where there was no more mail; where there are none, there may be more.
            for claim in &claims {
                let is_more = claim.permits.is_empty();
                wants_work |= is_more;
                is_as_asked &= is_more;
                if claim.ask.pinned.is_none() && !is_more {
                    let which = (claim.ask.route.clone(), claim.ask.lane.clone());
                    shared.backlog().remove(&which);
                }
            }
        }
        shared.lanes.set_wants_work(wants_work);
        drop(claims);
        self.due = is_as_asked.then_some((asked, due));
        if has_taken {
            return Ok(Duration::ZERO);
        }
        Ok(wait.map_or(most, |wait| wait.min(most)))
    }

    /// Takes the lanes with mail that nobody has, a few at a time; whether there were any.
    async fn take_lanes(&mut self, unheld: Vec<LaneId>) -> bool {
        self.unheld.retain(|_, at| at.elapsed() < HOLD_AGAIN);
        let mut has_taken = false;
        let mut asked = 0;
        for lane in unheld {
            if asked < HOLDS && !self.unheld.contains_key(&lane) {
                asked += 1;
                if among::hold(&self.shared, &lane).await {
                    has_taken = true;
                } else {
                    self.unheld.insert(lane, Instant::now());
                }
            }
        }
        has_taken
    }

    /// What waits, the oldest first; when that was asked, and how long the answer is good for.
    async fn due(&mut self) -> Result<(Instant, Vec<Due>, Duration), StoreError> {
        let every = self.shared.queue.store().looks_every();
        let good_for = KNOWN.max(every);
        let known = self
            .due
            .take()
            .filter(|(asked, _)| asked.elapsed() < good_for);
        if let Some((asked, due)) = known {
            return Ok((asked, due, good_for));
        }
        // A look costs a shared database something, and there are others who look.
        let left = self.looked.map(|at| every.saturating_sub(at.elapsed()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            return Ok((Instant::now(), Vec::new(), left));
        }
        self.looked = Some(Instant::now());
        let mut due = self.shared.queue.store().due(self.clock.now().wall).await?;
        due.sort_by_key(|due| due.at);
        Ok((Instant::now(), due, AT_LEAST))
    }

    /// Claims and starts as many jobs as there are permits; those that are not used up stay in the claims.
    async fn start(
        &self,
        built: &Arc<Built>,
        claims: &mut [Claim],
        now: Moment,
    ) -> Result<(), StoreError> {
        let asks = |is_early: bool| -> Vec<Ask> {
            let those = claims.iter().filter(|claim| claim.is_early == is_early);
            those.map(|claim| claim.ask.clone()).collect()
        };
        let (asks, early) = (asks(false), asks(true));
        let (store, node) = (self.shared.queue.store(), self.shared.queue.node());
        let mut jobs = store.claim(&asks, node, now.wall).await?;
        if !early.is_empty() {
            let then = now.wall + PAUSE_PROBE * 2;
            jobs.extend(store.claim(&early, node, then).await?);
        }
        for job in jobs {
            let Some(claim) = claims.iter_mut().find(|Claim { ask, .. }| {
                ask.route == job.route && ask.pinned == job.pinned && ask.lane == job.lane
            }) else {
                continue;
            };
            if let Some(permits) = claim.permits.pop() {
                self.shared.spawn(attempt::run(Task {
                    shared: Arc::clone(&self.shared),
                    built: Arc::clone(built),
                    route: Arc::clone(&claim.route),
                    candidates: claim.candidates.clone(),
                    start: claim.start,
                    permits,
                    job,
                    begun: now,
                }));
            }
        }
        Ok(())
    }

    fn complain_of(&mut self, lost_pins: Vec<(RouteName, ConnectorName)>) {
        for (route, pin) in lost_pins {
            if self.complained.insert(pin.clone()) {
                tracing::warn!(%route, connector = %pin, "mail in doubt waits for a connector that is gone; the others of its route take it");
            }
        }
    }
}
