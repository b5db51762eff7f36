//! The queue in a PostgreSQL that several gateways share, and in SQLite on this machine while that is away. Nobody above knows.
//!
//! `core` knows whether the database is there, `intake` writes mail and outcomes into the one or the other, `home` brings back what lies
//! here, `outcome` is what is kept of a settlement, `beside` lanes and notes, `both` what two stores say together. It sends nothing and
//! decides nothing about a message.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{
    body::BodyStore,
    postgres::{self, OpenError, PostgresStore},
    sqlite::SqliteStore,
    store::{
        self, Ask, Beat, Commanded, Due, Entry, Event, Filter, FoundEntries, Health, Inserted, Job,
        Kept, LaneRow, LateNotice, Maintained, NodeId, NodeRow, RemoteState, Retention, Search,
        Settlement, Shift, Standing, Start, Stats, Store, StoreError, Used, Verb,
    },
    turns::RouteLane,
};
use crate::{
    mail::message::{Message, MessageId},
    route::{ConnectorName, LaneId, Routed},
};

mod back;
mod beside;
mod both;
mod core;
mod home;
mod intake;
mod outcome;

use self::core::SpillCore;
pub use self::core::SpillSettings;
pub use back::{BackFault, BackMove, Copied};
use intake::HERE;

/// What the database says. `None`: it is away.
macro_rules! there {
    ($core:expr, $remote:ident => $work:expr) => {
        match $core.here() {
            Ok($remote) => unless_away($core.ask($work).await),
            Err(_) => Ok(None),
        }
    };
}

/// The store of `store = "postgres"` in a gateway.
#[derive(Debug)]
pub struct SpillStore {
    core: Arc<SpillCore>,
    /// Ends with the store.
    _watch: Mutex<JoinSet<()>>,
}

impl SpillStore {
    /// Opens both. One whose database was seen from here before begins while that is away.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        remote: postgres::Settings,
        local: store::Settings,
        spill: SpillSettings,
    ) -> Result<Arc<SpillStore>, OpenError> {
        let refused = |error: StoreError| OpenError::Refused(error.to_string());
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&local)).await;
        let local = opened
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
            .map_err(refused)?;
        let core = Arc::new(SpillCore::new(remote, spill, local));
        let opened = Box::pin(PostgresStore::open(core.settings.clone())).await;
        let mut watch = JoinSet::new();
        if core.is_gateway() {
            // What a start before was sending is due again.
            core.local
                .beat(&Standing::default())
                .await
                .map_err(refused)?;
            let incoming = core.incoming.clone();
            let swept = tokio::task::spawn_blocking(move || incoming.remove_orphans(|_| false));
            swept
                .await
                .map_err(|error| OpenError::Refused(error.to_string()))?;
        }
        core.recall_lanes().await.map_err(refused)?;
        match opened {
            Ok(remote) => {
                core.is_open(remote);
                if let Err(error) = core.come_back().await {
                    core.went(&home::words(error));
                }
            }
            Err(OpenError::Away(why)) if core.was_seen().await.map_err(refused)? => {
                core.went(&why);
                tracing::warn!(
                    event = "store away",
                    error = why,
                    "the database is away, and the gateway begins without it"
                );
            }
            Err(error) => return Err(error),
        }
        core.recount().await;
        if core.is_gateway() {
            watch.spawn(Arc::clone(&core).watch());
        }
        Ok(Arc::new(Self {
            core,
            _watch: Mutex::new(watch),
        }))
    }

    /// The store of this machine.
    pub fn local(&self) -> &Arc<SqliteStore> {
        &self.core.local
    }

    /// Ends after so many steps of a return, as a crash would (for tests).
    #[doc(hidden)]
    pub fn end_after(&self, steps: usize) {
        self.core.end_after(steps);
    }

    /// Whether it has ended so.
    #[doc(hidden)]
    pub fn has_ended(&self) -> bool {
        self.core.has_ended()
    }
}

fn unless_away<T>(done: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Away(_) | StoreError::Full) => Ok(None),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Store for SpillStore {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        self.core.insert(mail, starts, now).await
    }

    async fn claim(
        &self,
        asks: &[Ask],
        node: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        let core = &self.core;
        let mut jobs = Vec::new();
        if core.has_local() {
            jobs = core.local.claim(asks, HERE, now).await?;
        }
        let left = both::left_of(asks, &jobs);
        if left.is_empty() {
            return Ok(jobs);
        }
        let Ok(remote) = core.here() else {
            return Ok(jobs);
        };
        match unless_away(core.ask_soon(remote.claim(&left, node, now)).await) {
            Ok(more) => jobs.extend(more.into_iter().flatten()),
            // What was claimed here is sent.
            Err(error) if jobs.is_empty() => return Err(error),
            Err(error) => tracing::error!(%error, "the database cannot be asked for mail"),
        }
        Ok(jobs)
    }

    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<Kept, StoreError> {
        self.core.settle(settlement, now).await
    }

    async fn goes_by(&self, job: &Job, connector: &ConnectorName) -> Result<(), StoreError> {
        if job.lease.node == HERE {
            return Ok(());
        }
        let remote = self.core.here()?;
        self.core.ask_soon(remote.goes_by(job, connector)).await
    }

    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        let core = &self.core;
        let mut late = Vec::new();
        if core.has_local() {
            late = core.local.late(by, limit).await?;
        }
        if let Some(there) = there!(core, remote => remote.late(by, limit))? {
            late.extend(there);
        }
        Ok(late)
    }

    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError> {
        let core = &self.core;
        if core.has_local() && core.local.tell_late(notice.clone(), now).await? {
            return Ok(true);
        }
        let told = there!(core, remote => remote.tell_late(notice, now))?;
        Ok(told.unwrap_or_default())
    }

    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError> {
        let core = &self.core;
        let mut local = Vec::new();
        if core.has_local() {
            local = core.local.due(now).await?;
        }
        let Ok(remote) = core.here() else {
            return Ok(local);
        };
        let there = unless_away(core.ask_soon(remote.due(now)).await)?;
        Ok(both::due(there.unwrap_or_default(), local))
    }

    async fn list(&self, filter: &Filter, now: SystemTime) -> Result<Vec<Entry>, StoreError> {
        let there = there!(self.core, remote => remote.list(filter, now))?;
        let local = self.core.local.list(filter, now).await?;
        let there = there.unwrap_or_default();
        Ok(both::list(there, local, filter.limit))
    }

    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        self.core.search(search).await
    }

    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        if let Some(message) = self.core.local.content(id).await? {
            return Ok(Some(message));
        }
        Ok(there!(self.core, remote => remote.content(id))?.flatten())
    }

    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        let there = there!(self.core, remote => remote.events(id))?.unwrap_or_default();
        if !there.is_empty() {
            return Ok(there);
        }
        self.core.local.events(id).await
    }

    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        self.core.command_if((filter, verb), expect, now).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let there = there!(self.core, remote => remote.stats())?;
        if there.is_some() && !self.core.has_local() {
            return Ok(there.unwrap_or_default());
        }
        let local = self.core.local.stats().await?;
        Ok(both::stats(&there.unwrap_or_default(), &local))
    }

    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError> {
        let there = there!(self.core, remote => remote.waiting())?;
        let local = self.core.local.waiting().await?;
        Ok(both::waiting(there.unwrap_or_default(), local))
    }

    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        self.core.lanes().await
    }

    fn here(&self) -> NodeId {
        let remote = self.core.opened();
        remote.map_or(HERE, |remote| remote.here())
    }

    fn looks_every(&self) -> Duration {
        let remote = self.core.here();
        remote.map_or(Duration::ZERO, |remote| remote.looks_every())
    }

    async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError> {
        self.core.set_lane(lane).await
    }

    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.core.note(key).await
    }

    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        self.core.set_note(key, value).await
    }

    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        self.core.replace_note(key, seen, value).await
    }

    async fn shared_notes(&self, beginning: &str) -> Result<Vec<(String, String)>, StoreError> {
        let remote = self.core.here()?;
        self.core.ask_soon(remote.shared_notes(beginning)).await
    }

    async fn take_note(&self, key: &str, time: Duration) -> Result<bool, StoreError> {
        let remote = self.core.here()?;
        self.core.ask_soon(remote.take_note(key, time)).await
    }

    async fn give_note_back(&self, key: &str) -> Result<(), StoreError> {
        let remote = self.core.here()?;
        self.core.ask_soon(remote.give_note_back(key)).await
    }

    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        // The clock of the database is its own, and its nodes' to look after; but for tests, whose times no clock shows.
        if self.core.settings.callers_clock {
            there!(self.core, remote => remote.shift(shift))?;
        }
        self.core.local.shift(shift).await
    }

    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError> {
        let mut done = self.core.local.maintain(retention, now).await?;
        self.core.has_changed();
        if let Some(there) = there!(self.core, remote => remote.maintain(retention, now))? {
            done.deleted.extend(there.deleted);
        }
        Ok(done)
    }

    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError> {
        let core = &self.core;
        let remote = core.here()?;
        if standing.node.is_some() {
            return core.ask_soon(remote.beat(standing)).await;
        }
        // A first word frees what its predecessor was sending: what became of that is said before.
        if core.is_gateway() {
            core.ask(core.write_outcomes(remote)).await?;
        }
        core.ask(remote.beat(standing)).await
    }

    async fn changed(&self) {
        let core = &self.core;
        let there = async {
            match core.opened() {
                Some(remote) => remote.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = core.turned.notified() => {}
            () = core.local.changed() => {}
            () = there => {}
        }
    }

    async fn hold(&self, lane: &LaneId, node: NodeId) -> Result<Option<Used>, StoreError> {
        let remote = self.core.here()?;
        self.core.ask_soon(remote.hold(lane, node)).await
    }

    async fn let_go(&self, lane: &LaneId, node: NodeId, used: &Used) -> Result<(), StoreError> {
        let remote = self.core.here()?;
        self.core.ask_soon(remote.let_go(lane, node, used)).await
    }

    async fn take_over(
        &self,
        silent: &NodeRow,
        due: SystemTime,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let remote = self.core.here()?;
        self.core.ask(remote.take_over(silent, due, now)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let remote = self.core.here()?;
        self.core.ask_soon(remote.nodes()).await
    }

    async fn forget(&self, over: &NodeRow, now: SystemTime) -> Result<(), StoreError> {
        let remote = self.core.here()?;
        self.core.ask_soon(remote.forget(over, now)).await
    }

    fn remote(&self) -> Option<RemoteState> {
        Some(self.core.remote_state())
    }

    fn health(&self) -> Health {
        let core = &self.core;
        match core.local.health() {
            Health::Failing => Health::Failing,
            local if core.is_away() => match core.spill.spills {
                false => Health::Failing,
                true if core.count().octets >= core.spill.size => Health::Full,
                true => local,
            },
            _ => Health::Fine,
        }
    }

    fn bodies(&self) -> &BodyStore {
        &self.core.incoming
    }
}
