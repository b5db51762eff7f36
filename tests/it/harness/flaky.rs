//! A store that fails every nth call; all else goes to the store inside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use postern::{
    mail::message::{Message, MessageId},
    queue::{
        body::BodyStore,
        store::{
            Ask, Beat, Commanded, Due, Entry, Event, Filter, FoundEntries, Health, Inserted, Job,
            Kept, LaneRow, LateNotice, Maintained, NodeId, NodeRow, Retention, Search, Settlement,
            Shift, Standing, Start, Stats, Store, StoreError, Used, Verb,
        },
        turns::RouteLane,
    },
    route::{LaneId, Routed},
};

/// Fails before the call reaches the store, so nothing was changed.
#[derive(Debug)]
pub struct Flaky {
    inside: Arc<dyn Store>,
    every: AtomicU64,
    calls: AtomicU64,
}

impl Flaky {
    /// Fails call number `every`, twice `every`, and so on; 0 never.
    pub fn new(inside: Arc<dyn Store>, every: u64) -> Arc<Self> {
        Arc::new(Self {
            inside,
            every: AtomicU64::new(every),
            calls: AtomicU64::new(0),
        })
    }

    /// From now on.
    pub fn set(&self, every: u64) {
        self.every.store(every, Ordering::Relaxed);
    }

    /// What a gateway keeps of itself is on its own disk.
    fn pass_for(&self, note: &str) -> Result<&dyn Store, StoreError> {
        if ["alone", "knew"].contains(&note) {
            return Ok(&*self.inside);
        }
        self.pass()
    }

    fn pass(&self) -> Result<&dyn Store, StoreError> {
        let every = self.every.load(Ordering::Relaxed);
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if every > 0 && call.is_multiple_of(every) {
            return Err(StoreError::Unavailable("on purpose".to_owned()));
        }
        Ok(&*self.inside)
    }
}

#[async_trait]
impl Store for Flaky {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        self.pass()?.insert(mail, starts, now).await
    }
    async fn claim(
        &self,
        asks: &[Ask],
        node: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        self.pass()?.claim(asks, node, now).await
    }
    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<Kept, StoreError> {
        self.pass()?.settle(settlement, now).await
    }
    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        self.pass()?.late(by, limit).await
    }
    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError> {
        self.pass()?.tell_late(notice, now).await
    }
    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError> {
        self.pass()?.due(now).await
    }
    async fn list(&self, filter: &Filter, now: SystemTime) -> Result<Vec<Entry>, StoreError> {
        self.pass()?.list(filter, now).await
    }
    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        self.pass()?.content(id).await
    }
    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        self.pass()?.events(id).await
    }
    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        self.pass()?.command_if(filter, verb, expect, now).await
    }
    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        self.pass()?.search(search).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.pass()?.stats().await
    }
    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError> {
        self.pass()?.waiting().await
    }
    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        self.pass()?.lanes().await
    }
    async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError> {
        self.pass()?.set_lane(lane).await
    }
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.pass_for(key)?.note(key).await
    }
    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        self.pass_for(key)?.replace_note(key, seen, value).await
    }
    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        self.pass_for(key)?.set_note(key, value).await
    }
    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        self.pass()?.shift(shift).await
    }
    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError> {
        self.pass()?.maintain(retention, now).await
    }
    async fn changed(&self) {
        self.inside.changed().await;
    }
    fn health(&self) -> Health {
        self.inside.health()
    }
    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError> {
        self.pass()?.beat(standing).await
    }
    async fn hold(&self, lane: &LaneId, node: NodeId) -> Result<Option<Used>, StoreError> {
        self.pass()?.hold(lane, node).await
    }
    async fn let_go(&self, lane: &LaneId, node: NodeId, used: &Used) -> Result<(), StoreError> {
        self.pass()?.let_go(lane, node, used).await
    }
    async fn take_over(
        &self,
        silent: &NodeRow,
        due: SystemTime,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        self.pass()?.take_over(silent, due, now).await
    }
    fn bodies(&self) -> &BodyStore {
        self.inside.bodies()
    }
}
