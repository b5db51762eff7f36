//! The gates of all lanes, shared by the loop, the jobs and the fast path, and the permits that they give.
//!
//! The one lock around them is held here, never across an await. `gate` has the limits and the state of one lane, `table` all
//! of them, `strangers` how often unknown mailboxes are asked for, `rows` what the store is told.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use self::{
    gate::{PAUSE_PROBE, Ready, State},
    table::{News, Table},
};
use crate::{
    connector::Settings,
    delivery::plan::{self, Block},
    mail::{
        outcome::{Obstacle, ObstacleKind},
        reply::Reply,
    },
    route::{ConnectorName, LaneId},
    telemetry::maillog,
};

pub mod gate;
mod rows;
mod strangers;
mod table;

/// With more mailboxes than this the mail of one that is refused waits for a time and not in its lane, since every lane that mail
/// waits in is looked at by itself.
const WAITED_IN: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    table: Mutex<Table>,
    /// Rung when the loop should look again.
    pub(super) bell: Notify,
    /// Rung when a permit came back or a lane changed, for jobs that wait at a gate.
    moved: Notify,
}

/// The right to be one of the jobs of a lane; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Permit {
    lanes: Arc<Lanes>,
    lane: LaneId,
    /// The octets that it began to send.
    started: Option<u64>,
    probe: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let ring = {
            let mut table = self.lanes.table();
            if let Some(entry) = table.lanes.get_mut(&self.lane) {
                entry.gate.give(self.started, self.probe, Instant::now());
            }
            table.hungry
        };
        self.lanes.moved.notify_waiters();
        if ring || self.probe {
            self.lanes.bell.notify_one();
        }
    }
}

/// What a job needs: a permit of the connector, and those of its sender.
#[derive(Debug)]
pub(super) struct Pass {
    connector: Permit,
    own: Own,
}

/// A permit of the mailbox where that is limited or was refused, one of the From in it where that was refused.
#[derive(Debug, Default)]
pub(super) struct Own {
    mailbox: Option<Permit>,
    from: Option<Permit>,
}

impl Pass {
    /// What of it is good for a job of that lane: the mailbox has to be the same, and the From if there is one.
    pub(super) fn split(self, lane: &LaneId) -> (Permit, Own) {
        let mailbox = lane.of_mailbox();
        let own = Own {
            mailbox: self.own.mailbox.filter(|m| m.lane == mailbox),
            from: self.own.from.filter(|f| f.lane == *lane),
        };
        (self.connector, own)
    }

    pub(super) fn of(connector: Permit, own: Own) -> Self {
        Self { connector, own }
    }
}

impl Lanes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits as configured now. Lanes of the same name keep their state; what is paused is tried at once.
    pub(super) fn configure<'a>(&self, connectors: impl Iterator<Item = &'a Settings>) {
        let mut table = self.table();
        let mut named = HashSet::new();
        for settings in connectors {
            let (per_connector, per_mailbox) = settings.limits();
            table.limit(LaneId::of(&settings.name), per_connector, per_mailbox);
            named.insert(settings.name.clone());
        }
        table.limited(&named, Instant::now());
        drop(table);
        self.stir();
    }

    /// Whether each mailbox of a connector has limits of its own.
    pub(super) fn has_mailboxes(&self, connector: &ConnectorName) -> bool {
        self.table().each(connector).is_some()
    }

    /// The name of the lane that mail of this mailbox queues up in, where it is limited and remembered.
    pub(super) fn turn_in(&self, mailbox: &LaneId) -> Option<LaneId> {
        let table = self.table();
        table.each(&mailbox.connector)?;
        let mailbox = mailbox.of_mailbox();
        let is_known = table.lanes.contains_key(&mailbox);
        is_known.then_some(mailbox)
    }

    /// The name of the refused lane that mail of this one waits in, while few enough are refused to be looked at one by one.
    pub(super) fn refused(&self, lane: &LaneId) -> Option<LaneId> {
        let table = self.table();
        let mailbox = lane.of_mailbox();
        let refused = table.refused(lane, &mailbox)?;
        (table.mailboxes() <= WAITED_IN).then(|| refused.clone())
    }

    /// Whether what waits in that lane goes before its time: somebody wants to know at once whether it is still refused, or a From
    /// or the connector is not refused any more. (A mailbox that is open again first shows that to the mail that it was not refused to.)
    pub(super) fn is_wished(&self, lane: &LaneId) -> bool {
        let table = self.table();
        let entry = table.lanes.get(lane);
        let is_open = match (&lane.mailbox, &lane.from) {
            (_, Some(_)) => !table.is_shut(lane),
            (Some(_), None) => false,
            (None, None) => entry.is_none_or(|entry| entry.gate.state() == State::Open),
        };
        is_open || entry.is_some_and(|entry| entry.gate.is_wished())
    }

    /// What may happen at a connector now, for mail of any mailbox or of this one.
    pub(super) fn ready(&self, connector: &ConnectorName, mailbox: Option<&LaneId>) -> Ready {
        let now = Instant::now();
        let mut table = self.table();
        let Some(entry) = table.lanes.get_mut(&LaneId::of(connector)) else {
            return Ready::Shut;
        };
        let mut ready = entry.gate.ready(now);
        let Some(lane) = mailbox else {
            return ready;
        };
        if let Some(at) = table.strangers.not_before(lane, now) {
            ready = Self::both(ready, Ready::At(at));
        }
        let narrower = lane.from.as_ref().map(|_| lane.clone());
        for lane in [Some(lane.of_mailbox()), narrower].into_iter().flatten() {
            let own = match table.mailbox(&lane, now) {
                Ok(None) => continue,
                Ok(Some(entry)) => entry.gate.ready(now),
                Err(_) => Ready::Full,
            };
            ready = Self::both(ready, own);
        }
        ready
    }

    /// What may happen where two gates stand one behind the other.
    fn both(one: Ready, other: Ready) -> Ready {
        match (one, other) {
            (Ready::Shut, _) | (_, Ready::Shut) => Ready::Shut,
            (Ready::At(a), Ready::At(b)) => Ready::At(a.max(b)),
            (Ready::At(at), _) | (_, Ready::At(at)) => Ready::At(at),
            (Ready::Full, _) | (_, Ready::Full) => Ready::Full,
            (Ready::Probe, _) | (_, Ready::Probe) => Ready::Probe,
            (Ready::Now(a), Ready::Now(b)) => Ready::Now(a.min(b)),
        }
    }

    /// A pass for a connector and a mailbox of it, if there is one now.
    pub(super) fn take(
        self: &Arc<Self>,
        connector: &ConnectorName,
        mailbox: Option<&LaneId>,
    ) -> Option<Pass> {
        let own = mailbox.map(|lane| self.own(lane, Own::default()));
        let own = own.transpose().ok()?.unwrap_or_default();
        let connector = self.permit(&LaneId::of(connector))?;
        Some(Pass { connector, own })
    }

    fn permit(self: &Arc<Self>, lane: &LaneId) -> Option<Permit> {
        let probe = self
            .table()
            .lanes
            .get_mut(lane)?
            .gate
            .take(Instant::now())?;
        Some(self.permitted(lane, probe))
    }

    fn permitted(self: &Arc<Self>, lane: &LaneId, probe: bool) -> Permit {
        Permit {
            lanes: Arc::clone(self),
            lane: lane.clone(),
            started: None,
            probe,
        }
    }

    /// The permits of the mailbox and the From of a lane, as far as they are needed and not there yet.
    ///
    /// # Errors
    /// One of them is refused, or has to wait.
    pub(super) fn own(self: &Arc<Self>, lane: &LaneId, has: Own) -> Result<Own, Block> {
        if has.mailbox.is_none() && has.from.is_none() {
            self.table().stranger(lane, Instant::now())?;
        }
        let from = match has.from {
            None if lane.from.is_some() => self.mailbox(lane)?,
            from => from,
        };
        let mailbox = match has.mailbox {
            None => self.mailbox(&lane.of_mailbox())?,
            mailbox => mailbox,
        };
        Ok(Own { mailbox, from })
    }

    /// A permit of a mailbox, or of a From in it; `None`: it needs none. Of one that was refused, the permit is for the one job that finds out
    /// whether it still is.
    ///
    /// # Errors
    /// It is refused, or has to wait.
    fn mailbox(self: &Arc<Self>, lane: &LaneId) -> Result<Option<Permit>, Block> {
        let now = Instant::now();
        let mut table = self.table();
        let Some(entry) = table.mailbox(lane, now)? else {
            return Ok(None);
        };
        let Some(probe) = entry.gate.take(now) else {
            // It was not this job's fault, and nothing was said of it.
            return Err(entry.block(lane, now).unsaid());
        };
        drop(table);
        Ok(Some(self.permitted(lane, probe)))
    }

    /// Waits for a permit of a connector; its lane being shut, or asked by the upstream to wait, ends the wait.
    ///
    /// # Errors
    /// Why it takes nothing.
    pub(super) async fn enter(
        self: &Arc<Self>,
        connector: &ConnectorName,
    ) -> Result<Permit, Block> {
        let lane = LaneId::of(connector);
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if let Some(permit) = self.permit(&lane) {
                return Ok(permit);
            }
            match self.ready(connector, None) {
                Ready::Shut => return Err(self.why(connector, None)),
                Ready::At(at) => {
                    let why = self.why(connector, None);
                    if why.is(ObstacleKind::Throttled) {
                        return Err(why.unsaid());
                    }
                    let _ = tokio::time::timeout_at(at.into(), moved).await;
                }
                Ready::Now(_) | Ready::Probe => {}
                Ready::Full => moved.await,
            }
        }
    }

    /// A job with a pass starts, and will send so many octets.
    ///
    /// # Errors
    /// A lane was shut meanwhile, or wants nothing for now.
    pub(super) fn start(&self, pass: &mut Pass, octets: u64) -> Result<(), Block> {
        let now = Instant::now();
        let mut table = self.table();
        let Pass { connector, own } = pass;
        for permit in own
            .from
            .iter_mut()
            .chain(&mut own.mailbox)
            .chain([connector])
        {
            let Some(entry) = table.lanes.get_mut(&permit.lane) else {
                return Err(Block::Shut);
            };
            let open = match entry.gate.state() {
                State::Open => true,
                State::Closed { .. } => permit.probe,
                State::Paused { .. } => false,
            };
            if !open {
                return Err(entry.block(&permit.lane, now));
            }
            if !entry.gate.start(now, octets) {
                return Err(match entry.block(&permit.lane, now).unsaid() {
                    turn @ Block::Turn(_) => turn,
                    _ => Block::Turn(Duration::ZERO),
                });
            }
            permit.started = Some(octets);
        }
        Ok(())
    }

    /// Why a connector takes no mail of any mailbox, or of this one, at the moment.
    pub(super) fn why(&self, connector: &ConnectorName, mailbox: Option<&LaneId>) -> Block {
        let now = Instant::now();
        let lane = LaneId::of(connector);
        let mut table = self.table();
        let whole = table.lanes.get_mut(&lane).map(|e| e.block(&lane, now));
        let is_shut = |b: &Block| b.is(ObstacleKind::Down) || b.is(ObstacleKind::Misconfigured);
        if let Some(block) = whole.clone().filter(is_shut) {
            return block;
        }
        let own = mailbox.and_then(|lane| {
            let mailbox = lane.of_mailbox();
            let lane = table.refused(lane, &mailbox).unwrap_or(&mailbox).clone();
            Some(table.lanes.get_mut(&lane)?.block(&lane, now))
        });
        let said = |block: &Block| matches!(block, Block::Obstacle(_));
        own.filter(said)
            .or(whole.filter(said))
            .unwrap_or(Block::Shut)
    }

    /// What was heard of a job with that pass: how long nothing else is wanted, or what is in the way. `retry` are the steps of the route, `lane` that of the message.
    pub(super) fn apply(
        &self,
        pass: &Pass,
        lane: &LaneId,
        heard: &Result<Option<Duration>, Obstacle>,
        retry: &[Duration],
        jitter: f64,
    ) {
        let whole = &pass.connector.lane;
        let mut table = self.table();
        // Where mailboxes are limited, the upstream counts by mailbox.
        let counted = match &pass.own.mailbox {
            Some(permit) if table.each(&whole.connector).is_some() => &permit.lane,
            _ => whole,
        };
        let (kind, reply, wait) = match heard {
            Err(obstacle) => (obstacle.kind, &obstacle.reply, obstacle.retry_after),
            Ok(wait) => {
                table.open(whole);
                table.open(&lane.of_mailbox());
                table.strangers.took(lane);
                if lane.from.is_some() {
                    table.open(lane);
                }
                if let Some(wait) = wait {
                    let seconds = wait.as_secs();
                    let text =
                        format!("the upstream asked for a pause of {seconds} s (Retry-After)");
                    let reply = Reply::new(451, (4, 3, 2), text);
                    table.hold(counted, &reply, Some(*wait), false);
                }
                return self.tell(table);
            }
        };
        match kind {
            ObstacleKind::Throttled => table.hold(counted, reply, wait, true),
            ObstacleKind::Down | ObstacleKind::Intercepted => {
                let closings = table.lanes.get(whole).map_or(0, |e| e.gate.closings());
                let step = plan::step(retry, closings, jitter);
                let wait = step.max(wait.unwrap_or_default());
                table.close(whole, reply, wait, pass.connector.probe);
            }
            ObstacleKind::Misconfigured => table.pause(whole, reply),
            ObstacleKind::MailboxRefused => {
                table.open(whole);
                table.refuse_mailbox(lane, reply);
            }
            ObstacleKind::FromRefused => {
                table.open(whole);
                table.refuse(lane, reply);
            }
        }
        self.tell(table);
    }

    /// Logs what is new, and lets everybody look who waits.
    fn tell(&self, mut table: MutexGuard<'_, Table>) {
        let now = Instant::now();
        let mut news = std::mem::take(&mut table.news);
        let is_quiet = news.is_empty();
        // However many mailboxes there are, the log can be read.
        news.retain(|(lane, news)| match news {
            News::Shut(..) | News::Resumed if lane.mailbox.is_some() => {
                table.strangers.has_line(&lane.connector, now)
            }
            _ => true,
        });
        drop(table);
        for (lane, news) in &news {
            let lane = lane.to_string();
            match news {
                News::Shut(state, reply) => maillog::connector_paused(&lane, *state, reply),
                News::Throttled(wait, reply) => {
                    maillog::connector_throttled(&lane, SystemTime::now() + *wait, reply);
                }
                News::Resumed => maillog::connector_resumed(&lane),
                News::LeftOut(count) => maillog::mailboxes_left_out(&lane, *count),
            }
        }
        if !is_quiet {
            self.stir();
        }
    }

    /// What time alone changes: waits that are over, mailboxes that are idle.
    pub(super) fn pass_time(&self) {
        let mut table = self.table();
        table.pass_time(Instant::now());
        self.tell(table);
    }

    /// Connectors whose login is to be tried now.
    pub(super) fn logins(&self) -> Vec<ConnectorName> {
        let now = Instant::now();
        self.table()
            .lanes
            .iter_mut()
            .filter_map(|(lane, entry)| {
                (lane.mailbox.is_none() && entry.gate.take_login(now))
                    .then(|| lane.connector.clone())
            })
            .collect()
    }

    /// What the login of a paused lane came to.
    pub(super) fn logged_in(&self, connector: &ConnectorName, worked: Result<(), Reply>) {
        let lane = LaneId::of(connector);
        {
            let mut table = self.table();
            let Some(entry) = table.lanes.get_mut(&lane) else {
                return;
            };
            match worked {
                Ok(()) => {
                    if entry.gate.open() {
                        table.news.push((lane.clone(), News::Resumed));
                    }
                }
                Err(reply) => {
                    entry.gate.pause(Instant::now() + PAUSE_PROBE);
                    entry.why = Some(reply);
                }
            }
            table.dirty.insert(lane);
            self.tell(table);
        }
        self.bell.notify_one();
    }

    /// The next time after `looked` at which a lane changes by itself.
    pub(super) fn wakes_after(&self, looked: Instant) -> Option<Instant> {
        let table = self.table();
        let wakes = table.lanes.values().filter_map(|e| e.gate.wakes_at());
        wakes.filter(|at| *at > looked).min()
    }

    /// Whether a permit that comes back rings the bell.
    pub(super) fn set_hungry(&self, hungry: bool) {
        self.table().hungry = hungry;
    }

    /// Lets every job look again that waits at a gate (drain).
    pub(super) fn stir(&self) {
        self.moved.notify_waiters();
        self.bell.notify_one();
    }
}
