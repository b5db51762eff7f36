//! The gates of all lanes, shared by the loop, the jobs and the fast path; and who waits at them.
//!
//! Apart so that the one lock around the gates is held here, never across an await. It decides nothing that `gate`
//! does not decide.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use super::{
    gate::{Gate, PAUSE_PROBE, Ready, State},
    plan::{self, Block, Change},
};
use crate::{
    connector::{Lane, Limits, Settings},
    mail::reply::Reply,
    route::ConnectorName,
    telemetry::maillog,
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) gate: Gate,
    /// The limits of each mailbox, where the connector has several.
    pub(super) each: Option<Limits>,
    /// The upstream's wish to wait was told of, and that it is over was not yet.
    pub(super) held: bool,
    pub(super) since: SystemTime,
    /// What shut it, with the remedy.
    pub(super) why: Option<Reply>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) lanes: HashMap<Lane, Entry>,
    /// How many of them are mailboxes.
    pub(super) mailboxes: usize,
    /// When those of them that are idle were last dropped.
    pub(super) tidied: Option<Instant>,
    /// Lanes whose row in the store is behind.
    pub(super) dirty: HashSet<Lane>,
    /// There is work that waits for a permit: whoever gives one back rings.
    hungry: bool,
}

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
    lane: Lane,
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

impl Lanes {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits as configured now. Lanes of the same name keep their state; what is paused is tried at once.
    pub(super) fn configure<'a>(&self, connectors: impl Iterator<Item = &'a Settings>) {
        let now = Instant::now();
        let mut table = self.table();
        let mut named = HashSet::new();
        for settings in connectors {
            let lane = connector_lane(&settings.name);
            named.insert(settings.name.clone());
            let (together, each) = settings.limits();
            let entry = table
                .lanes
                .entry(lane)
                .or_insert_with(|| Entry::new(together));
            entry.gate.set_limits(together);
            entry.each = each;
        }
        table.limit_mailboxes();
        let Table {
            lanes,
            dirty,
            mailboxes,
            ..
        } = &mut *table;
        for (lane, entry) in lanes.iter_mut() {
            if !named.contains(&lane.connector) && (entry.gate.open() || entry.held) {
                // Its row must not say `paused` for ever.
                entry.held = false;
                dirty.insert(lane.clone());
            }
            if lane.mailbox.is_some() || matches!(entry.gate.state(), State::Paused { .. }) {
                entry.gate.probe_now(now);
            }
        }
        lanes.retain(|lane, entry| {
            let keep = named.contains(&lane.connector) || entry.gate.taken() > 0;
            *mailboxes -= usize::from(!keep && lane.mailbox.is_some());
            keep
        });
        drop(table);
        self.moved.notify_waiters();
        self.bell.notify_one();
    }

    /// What may happen at a connector now.
    pub(super) fn ready(&self, connector: &ConnectorName) -> Ready {
        self.table()
            .lanes
            .get_mut(&connector_lane(connector))
            .map_or(Ready::Shut, |entry| entry.gate.ready(Instant::now()))
    }

    /// A permit of a connector, if there is one now.
    pub(super) fn take(self: &Arc<Self>, lane: &Lane) -> Option<Permit> {
        let probe = self
            .table()
            .lanes
            .get_mut(lane)?
            .gate
            .take(Instant::now())?;
        Some(Permit {
            lanes: Arc::clone(self),
            lane: lane.clone(),
            started: None,
            probe,
        })
    }

    /// Waits for a permit of a connector; its lane being shut ends the wait.
    ///
    /// # Errors
    /// Why it is passed over.
    pub(super) async fn enter(
        self: &Arc<Self>,
        connector: &ConnectorName,
    ) -> Result<Permit, Block> {
        let lane = connector_lane(connector);
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if let Some(permit) = self.take(&lane) {
                return Ok(permit);
            }
            match self.ready(connector) {
                Ready::Shut => return Err(self.block(&lane)),
                Ready::At(at) => {
                    let _ = tokio::time::timeout_at(at.into(), moved).await;
                }
                Ready::Now(_) | Ready::Probe => {}
                Ready::Full => moved.await,
            }
        }
    }

    /// A job with a permit starts, and will send so many octets.
    ///
    /// # Errors
    /// The lane was shut meanwhile, or wants nothing for now.
    pub(super) fn start(&self, permit: &mut Permit, octets: u64) -> Result<(), Block> {
        let mut table = self.table();
        let Some(entry) = table.lanes.get_mut(&permit.lane) else {
            return Err(Block::Down(None));
        };
        match entry.gate.state() {
            State::Open => {}
            State::Closed { .. } if permit.probe => {}
            State::Closed { .. } => return Err(entry.shut(&permit.lane)),
            State::Paused { .. } => return Err(Block::Paused(entry.reply())),
        }
        if !entry.gate.start(Instant::now(), octets) {
            return Err(Block::Throttled(None));
        }
        permit.started = Some(octets);
        Ok(())
    }

    fn block(&self, lane: &Lane) -> Block {
        let table = self.table();
        match table.lanes.get(lane) {
            Some(entry) if matches!(entry.gate.state(), State::Paused { .. }) => {
                Block::Paused(entry.reply())
            }
            Some(entry) => Block::Down(entry.reply()),
            None => Block::Down(None),
        }
    }

    /// Why a connector is passed over, when it was shut at the claim.
    pub(super) fn why(&self, connector: &ConnectorName) -> Block {
        self.block(&connector_lane(connector))
    }

    /// A report was heard from the lane of that permit. `retry` are the steps of the route, `mailbox` the sending one.
    pub(super) fn apply(
        &self,
        permit: &Permit,
        mailbox: &Lane,
        change: &Change,
        retry: &[Duration],
        jitter: f64,
    ) {
        let now = Instant::now();
        let mut table = self.table();
        let Table {
            lanes,
            dirty,
            mailboxes,
            ..
        } = &mut *table;
        let mut said = None;
        let mut resumed = Vec::new();
        if let Some(entry) = lanes.get_mut(&permit.lane) {
            match change {
                Change::Open(_) | Change::PauseMailbox(_) => {
                    if let Change::Open(Some(wait)) = change {
                        entry.gate.hold(now, *wait);
                    }
                    // A pause ends with a login of its own, not because an old connection still works.
                    if matches!(entry.gate.state(), State::Closed { .. }) && entry.gate.open() {
                        resumed.push(permit.lane.clone());
                    }
                }
                Change::Close(reply, wait) => {
                    let step = plan::step(retry, entry.gate.closings(), jitter);
                    let wait = step.max(wait.unwrap_or_default());
                    if entry.gate.close(now, wait, permit.probe) {
                        said = Some(entry.changed(&permit.lane, "closed", reply));
                    }
                }
                Change::Pause(reply) => {
                    if entry.gate.pause(now + PAUSE_PROBE) {
                        said = Some(entry.changed(&permit.lane, "paused", reply));
                    }
                }
            }
        }
        match change {
            Change::PauseMailbox(reply) => {
                if add_mailbox(&mut table, mailbox)
                    && let Some(entry) = table.lanes.get_mut(mailbox)
                {
                    let news = entry.gate.state() == State::Open;
                    entry.gate.open();
                    entry.gate.close(now, PAUSE_PROBE, true);
                    if news {
                        said = Some(entry.changed(mailbox, "paused", reply));
                    } else {
                        table.dirty.insert(mailbox.clone());
                    }
                }
            }
            Change::Open(_) => {
                if mailbox.mailbox.is_some() && lanes.remove(mailbox).is_some() {
                    *mailboxes -= 1;
                    dirty.insert(mailbox.clone());
                    resumed.push(mailbox.clone());
                }
            }
            Change::Close(..) | Change::Pause(_) => {}
        }
        if let Some((lane, _, _)) = &said {
            table.dirty.insert(lane.clone());
        }
        for lane in &resumed {
            table.dirty.insert(lane.clone());
        }
        drop(table);
        let news = said.is_some() || !resumed.is_empty();
        if let Some((lane, state, reply)) = said {
            maillog::connector_paused(&lane.to_string(), state, reply);
        }
        for lane in resumed {
            maillog::connector_resumed(&lane.to_string());
        }
        if news {
            self.moved.notify_waiters();
            self.bell.notify_one();
        }
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
        let lane = connector_lane(connector);
        let mut resumed = false;
        {
            let mut table = self.table();
            let Some(entry) = table.lanes.get_mut(&lane) else {
                return;
            };
            match worked {
                Ok(()) => resumed = entry.gate.open(),
                Err(reply) => {
                    entry.gate.pause(Instant::now() + PAUSE_PROBE);
                    entry.why = Some(reply);
                }
            }
            table.dirty.insert(lane.clone());
        }
        if resumed {
            maillog::connector_resumed(&lane.to_string());
            self.moved.notify_waiters();
        }
        self.bell.notify_one();
    }

    /// The next time after `looked` at which a lane changes by itself.
    pub(super) fn wakes_after(&self, looked: Instant) -> Option<Instant> {
        self.table()
            .lanes
            .values()
            .filter_map(|entry| entry.gate.wakes_at())
            .filter(|at| *at > looked)
            .min()
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

impl Entry {
    fn new(max: usize, rate: Option<Rate>) -> Self {
        Self {
            gate: Gate::new(max, rate),
            since: SystemTime::now(),
            why: None,
        }
    }

    /// The report that shut it.
    fn reply(&self) -> Option<Reply> {
        self.why.clone()
    }

    fn changed<'a>(
        &mut self,
        lane: &Lane,
        state: &'static str,
        reply: &'a Reply,
    ) -> (Lane, &'static str, &'a Reply) {
        self.since = SystemTime::now();
        self.why = Some(reply.clone());
        (lane.clone(), state, reply)
    }
}

fn limit(table: &mut Table, lane: Lane, max: usize, rate: Option<Rate>) {
    table
        .lanes
        .entry(lane)
        .or_insert_with(|| Entry::new(max, rate))
        .gate
        .set_limits(max, rate);
}

/// Says whether it is there now.
pub(super) fn add_mailbox(table: &mut Table, lane: &Lane) -> bool {
    if table.lanes.contains_key(lane) {
        return true;
    }
    if table.mailboxes >= MOST_MAILBOXES {
        return false;
    }
    table.mailboxes += 1;
    // It has no limits of its own: those of its connector hold.
    table
        .lanes
        .insert(lane.clone(), Entry::new(usize::MAX, None));
    true
}

/// The lane of a connector as a whole.
pub(super) fn connector_lane(connector: &ConnectorName) -> Lane {
    Lane {
        connector: connector.clone(),
        mailbox: None,
    }
}
