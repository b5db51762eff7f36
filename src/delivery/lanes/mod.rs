//! The gates of all lanes, shared by the loop, the jobs and the fast path, and the permits that they give.
//!
//! The one lock around them is held here, never across an await. `gate` has the limits and the state of one lane, `probes` when it is probed, `table` all
//! of them (`entry` is one), `strangers` how often unknown mailboxes are asked for, `alarms` how much is logged, `others` who has no row; `heard` says what a report changes, `rows` what the store is told.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use self::{
    gate::{GateState, Ready},
    table::{LaneTable, Stamp},
};
use crate::{
    delivery::{
        clock::Clock, member::Member, members::parts::LaneFacts, plan::Block, setup::Built,
    },
    mail::outcome::ObstacleKind,
    route::{ConnectorName, LaneId},
};

pub(super) mod alarms;
mod entry;
pub mod gate;
mod heard;
pub mod others;
pub mod probes;
mod rows;
mod sharing;
mod strangers;
mod table;
pub mod window;

/// With more mailboxes than this the mail of one that is refused waits for a time and not in its lane, since every lane that mail
/// waits in is looked at by itself.
const WAITED_IN: usize = 1_000;
/// Jobs that one claim takes at most.
const MOST_CLAIMED: usize = 500;

/// The gates behind one lock, and what wakes those who wait at them.
#[derive(Debug)]
pub(super) struct Lanes {
    clock: Arc<dyn Clock>,
    /// This gateway among those that send from the same queue; `None`: there are no others.
    member: Option<Arc<Member>>,
    table: Mutex<LaneTable>,
    /// Wakes the loop.
    pub(super) wake: Notify,
    /// Wakes the jobs that wait at a gate: a permit came back, or a lane changed.
    wake_jobs: Notify,
}

/// The right to be one of the jobs of a lane; dropped, it is given back.
#[derive(Debug)]
pub(super) struct Permit {
    lanes: Arc<Lanes>,
    lane: LaneId,
    /// The octets that it began to send.
    started: Option<u64>,
    probe: bool,
    /// It began without the queue's database.
    is_alone: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let wants_work = {
            let mut table = self.lanes.table();
            if let Some(entry) = table.lanes.get_mut(&self.lane) {
                entry.gate.give(self.started, self.probe, now());
                if self.started.is_some() {
                    self.lanes.ends(entry, self.is_alone, now());
                }
            }
            table.wants_work
        };
        self.lanes.wake_jobs.notify_waiters();
        if wants_work || self.probe {
            self.lanes.wake.notify_one();
        }
    }
}

/// What a job needs: a permit of the connector, and those of its sender.
#[derive(Debug)]
pub(super) struct LanePermits {
    connector: Permit,
    sender: SenderPermits,
    /// Told when the delivery is to be cut off.
    cut: Option<Arc<Notify>>,
}

/// A permit of the mailbox where that is limited or was refused, one of the From in it where that was refused.
#[derive(Debug, Default)]
pub(super) struct SenderPermits {
    mailbox: Option<Permit>,
    from: Option<Permit>,
}

impl LanePermits {
    /// Those that are good for a job of that lane: the mailbox has to be the same, and the From if there is one.
    pub(super) fn split(self, lane: &LaneId) -> (Permit, SenderPermits) {
        let mailbox = lane.of_mailbox();
        let sender = SenderPermits {
            mailbox: self.sender.mailbox.filter(|m| m.lane == mailbox),
            from: self.sender.from.filter(|f| f.lane == *lane),
        };
        (self.connector, sender)
    }

    pub(super) fn of(connector: Permit, sender: SenderPermits) -> Self {
        Self {
            connector,
            sender,
            cut: None,
        }
    }

    /// The narrowest first.
    fn each(&mut self) -> impl Iterator<Item = &mut Permit> {
        let SenderPermits { mailbox, from } = &mut self.sender;
        from.iter_mut().chain(mailbox).chain([&mut self.connector])
    }

    /// Returns when the delivery is to be cut off, if ever.
    pub(super) async fn cut(&self) {
        match &self.cut {
            Some(cut) => cut.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// What [`Lanes::take_all`] found.
pub(super) enum Capacity {
    /// At least one job may start.
    Free(Vec<LanePermits>),
    /// Nothing until a job under way is done.
    Full,
    /// Not before this, by our own limits.
    At(Instant),
    /// Not before this: the upstream asked for it.
    Held(Instant),
    /// Closed, paused or stopped.
    Shut,
}

/// The clock of every wait in here; a test's may be paused.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Lanes {
    pub(super) fn new(clock: Arc<dyn Clock>, member: Option<Arc<Member>>) -> Self {
        Self {
            clock,
            member,
            table: Mutex::default(),
            wake: Notify::new(),
            wake_jobs: Notify::new(),
        }
    }

    /// For what the store or the log is told.
    fn at(&self, instant: Instant) -> Stamp {
        let wall = self.clock.wall();
        Stamp { instant, wall }
    }

    fn table(&self) -> MutexGuard<'_, LaneTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits as configured now. Lanes of the same name keep their state; what is paused is tried at once.
    pub(super) fn configure(&self, built: &Built) {
        let mut table = self.table();
        let mut named = HashSet::new();
        for (settings, _) in built.connectors.values() {
            let (per_connector, per_mailbox) = settings.limits();
            let probe_times = built.probe_times(settings);
            let lane = LaneId::of(&settings.name);
            table.limit(lane.clone(), per_connector, per_mailbox, probe_times, now());
            if let Some(entry) = table.lanes.get_mut(&lane) {
                entry.facts = LaneFacts::of(settings, entry.facts.learned);
            }
            named.insert(settings.name.clone());
        }
        table.limited(&named, now());
        if let Some(member) = &self.member {
            for (lane, entry) in &mut table.lanes {
                entry.share(lane, member);
            }
        }
        drop(table);
        self.wake_all();
    }

    /// Whether each mailbox of a connector has limits of its own.
    pub(super) fn has_mailboxes(&self, connector: &ConnectorName) -> bool {
        self.table().per_mailbox(connector).is_some()
    }

    /// The name of the lane that mail of this mailbox queues up in, where it is limited and remembered.
    pub(super) fn queue_of(&self, mailbox: &LaneId) -> Option<LaneId> {
        let table = self.table();
        table.per_mailbox(&mailbox.connector)?;
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
            (None, None) => entry.is_none_or(|entry| entry.gate.state() == GateState::Open),
        };
        is_open || entry.is_some_and(|entry| entry.gate.is_wished())
    }

    /// What may happen at a connector now, for mail of any mailbox or of this one.
    pub(super) fn ready(&self, connector: &ConnectorName, mailbox: Option<&LaneId>) -> Ready {
        let now = now();
        let mut table = self.table();
        let Some(entry) = table.lanes.get_mut(&LaneId::of(connector)) else {
            return Ready::Shut;
        };
        let mut ready = entry.gate.ready(now);
        let Some(lane) = mailbox else {
            return ready;
        };
        if let Some(at) = table.strangers.not_before(lane, now) {
            ready = ready.and(Ready::At(at));
        }
        let narrower = lane.from.as_ref().map(|_| lane.clone());
        for lane in [Some(lane.of_mailbox()), narrower].into_iter().flatten() {
            let of_mailbox = match table.mailbox(&lane, now) {
                Ok(None) => continue,
                Ok(Some(entry)) => entry.gate.ready(now),
                Err(_) => Ready::Full,
            };
            ready = ready.and(of_mailbox);
        }
        ready
    }

    /// The permits of a job of a connector and a mailbox of it, if there are any now.
    pub(super) fn take(
        self: &Arc<Self>,
        connector: &ConnectorName,
        mailbox: Option<&LaneId>,
    ) -> Option<LanePermits> {
        let sender = mailbox.map(|lane| self.sender_permits(lane, SenderPermits::default()));
        let sender = sender.transpose().ok()?.unwrap_or_default();
        let connector = self.permit(&LaneId::of(connector))?;
        Some(LanePermits::of(connector, sender))
    }

    /// The permits of as many jobs as may start now and one claim takes.
    pub(super) fn take_all(
        self: &Arc<Self>,
        connector: &ConnectorName,
        mailbox: Option<&LaneId>,
    ) -> Capacity {
        let most = match self.ready(connector, mailbox) {
            Ready::Shut => return Capacity::Shut,
            Ready::Full => return Capacity::Full,
            Ready::At(at) => {
                let is_held = self.why(connector, mailbox).is(ObstacleKind::Throttled);
                return if is_held {
                    Capacity::Held(at)
                } else {
                    Capacity::At(at)
                };
            }
            Ready::Probe => 1,
            Ready::Now(most) => most.min(MOST_CLAIMED),
        };
        let permits: Vec<LanePermits> = std::iter::from_fn(|| self.take(connector, mailbox))
            .take(most)
            .collect();
        if permits.is_empty() {
            Capacity::Full
        } else {
            Capacity::Free(permits)
        }
    }

    fn permit(self: &Arc<Self>, lane: &LaneId) -> Option<Permit> {
        let probe = self.table().lanes.get_mut(lane)?.gate.take(now())?;
        Some(self.permitted(lane, probe))
    }

    fn permitted(self: &Arc<Self>, lane: &LaneId, probe: bool) -> Permit {
        Permit {
            lanes: Arc::clone(self),
            lane: lane.clone(),
            started: None,
            probe,
            is_alone: false,
        }
    }

    /// The permits of the mailbox and the From of a lane, as far as they are needed and not there yet.
    ///
    /// # Errors
    /// One of them is refused, or has to wait.
    pub(super) fn sender_permits(
        self: &Arc<Self>,
        lane: &LaneId,
        has: SenderPermits,
    ) -> Result<SenderPermits, Block> {
        if has.mailbox.is_none() && has.from.is_none() {
            self.table().stranger(lane, now())?;
        }
        let from = match has.from {
            None if lane.from.is_some() => self.mailbox(lane)?,
            from => from,
        };
        let mailbox = match has.mailbox {
            None => self.mailbox(&lane.of_mailbox())?,
            mailbox => mailbox,
        };
        Ok(SenderPermits { mailbox, from })
    }

    /// A permit of a mailbox, or of a From in it; `None`: it needs none. While it is refused there is one permit, for the job that finds
    /// out whether it still is.
    ///
    /// # Errors
    /// It is refused, or has to wait.
    fn mailbox(self: &Arc<Self>, lane: &LaneId) -> Result<Option<Permit>, Block> {
        let now = now();
        let mut table = self.table();
        let Some(entry) = table.mailbox(lane, now)? else {
            return Ok(None);
        };
        if let Some(member) = &self.member {
            entry.share(lane, member);
        }
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
            let woken = self.wake_jobs.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
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
                    let _ = tokio::time::timeout_at(at.into(), woken).await;
                }
                Ready::Now(_) | Ready::Probe => {}
                // Another gateway has it, or may have.
                Ready::Full if self.is_barred(&lane) => return Err(Block::Turn(Duration::ZERO)),
                Ready::Full => woken.await,
            }
        }
    }

    fn is_barred(&self, lane: &LaneId) -> bool {
        let table = self.table();
        let entry = table.lanes.get(lane);
        entry.is_some_and(|entry| entry.gate.is_barred())
    }

    /// A job with its permits starts, and will send so many octets.
    ///
    /// # Errors
    /// A lane was shut meanwhile, or wants nothing for now.
    pub(super) fn start(
        &self,
        permits: &mut LanePermits,
        lane: &LaneId,
        octets: u64,
    ) -> Result<(), Block> {
        let now = now();
        let mut table = self.table();
        // Any sender that an SMTP server does not refuse is as good as another: only those that it refused are counted there.
        let counts_tries = table.per_mailbox(&lane.connector).is_some();
        if counts_tries {
            table.stranger(lane, now)?;
        }
        for permit in permits.each() {
            let Some(entry) = table.lanes.get_mut(&permit.lane) else {
                return Err(Block::Shut);
            };
            if let Some(member) = &self.member {
                entry.share(&permit.lane, member);
            }
            let open = match entry.gate.state() {
                GateState::Open => true,
                GateState::Closed { .. } => permit.probe,
                GateState::Paused { .. } | GateState::Stopped => false,
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
        if counts_tries {
            table.strangers.begins(lane, now);
        }
        self.begins(&mut table, permits);
        Ok(())
    }

    /// Why a connector takes no mail of any mailbox, or of this one, at the moment.
    pub(super) fn why(&self, connector: &ConnectorName, mailbox: Option<&LaneId>) -> Block {
        let now = now();
        let lane = LaneId::of(connector);
        let mut table = self.table();
        let by_connector = table.lanes.get_mut(&lane).map(|e| e.block(&lane, now));
        let is_shut = |b: &Block| {
            use ObstacleKind::{Down, Misconfigured, Stopped};
            [Down, Misconfigured, Stopped]
                .iter()
                .any(|kind| b.is(*kind))
        };
        if let Some(block) = by_connector.clone().filter(is_shut) {
            return block;
        }
        let by_sender = mailbox.and_then(|lane| {
            let mailbox = lane.of_mailbox();
            let lane = table.refused(lane, &mailbox).unwrap_or(&mailbox).clone();
            Some(table.lanes.get_mut(&lane)?.block(&lane, now))
        });
        let said = |block: &Block| matches!(block, Block::Obstacle(_));
        by_sender
            .filter(said)
            .or(by_connector.filter(said))
            .unwrap_or(Block::Shut)
    }

    /// The next time after `looked` at which a lane changes by itself.
    pub(super) fn wakes_after(&self, looked: Instant) -> Option<Instant> {
        let table = self.table();
        let wakes = table.lanes.values().filter_map(|e| e.gate.wakes_at());
        wakes.filter(|at| *at > looked).min()
    }

    /// Whether a permit that comes back wakes the loop.
    pub(super) fn set_wants_work(&self, wants_work: bool) {
        self.table().wants_work = wants_work;
    }

    /// Wakes the loop, and every job that waits at a gate.
    pub(super) fn wake_all(&self) {
        self.wake_jobs.notify_waiters();
        self.wake.notify_one();
    }
}
