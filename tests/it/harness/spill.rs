//! The store over two as the suite knows it: its node is 0, whatever numbers there are, and its database comes and goes behind a proxy.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use postern::{
    mail::message::{Message, MessageId},
    queue::{
        Settings,
        body::BodyStore,
        postgres::{self, OpenError, Server},
        spill::{SpillSettings, SpillStore},
        store::{
            Ask, Beat, Commanded, Due, Entry, Event, Filter, FoundEntries, Health, Inserted, Job,
            JobId, Kept, LaneRow, LateNotice, Lease, Maintained, NodeId, RemoteState, Retention,
            Search, Settlement, Shift, Standing, Start, Stats, Store, StoreError, Verb,
        },
        turns::RouteLane,
    },
    route::Routed,
};
use tempfile::TempDir;

use super::postgres::{Cut, Cutter, Postgres};

/// As much as a test may need.
pub const SPILLS: SpillSettings = SpillSettings {
    spills: true,
    size: 1 << 30,
};

/// A database behind a proxy, and a directory.
pub struct Site {
    pub cutter: Cutter,
    pub dir: TempDir,
    pub settings: postgres::Settings,
}

impl Site {
    pub fn new() -> Self {
        let cutter = Cutter::start(Postgres::shared().port);
        let dir = tempfile::tempdir().unwrap();
        let settings = postgres::Settings {
            hosts: vec![Server::Host("127.0.0.1".to_owned(), cutter.port)],
            tls: None,
            ..Postgres::shared().settings(dir.path())
        };
        Self {
            cutter,
            dir,
            settings,
        }
    }

    pub async fn open(&self, spill: SpillSettings) -> Result<Arc<SpillStore>, OpenError> {
        open(&self.settings, self.dir.path(), spill).await
    }

    /// Whoever asks it from now on finds out.
    pub async fn goes(&self, store: &SpillStore) {
        self.cutter.shut(true);
        let begun = Instant::now();
        while store.remote().unwrap().away.is_none() {
            let _ = store.due(SystemTime::UNIX_EPOCH).await;
            soon(begun, "the end of the database").await;
        }
    }

    /// And everything that is not being sent has moved.
    pub async fn comes(&self, store: &SpillStore) {
        self.cutter.shut(false);
        is_home(store).await;
    }
}

pub async fn is_home(store: &SpillStore) {
    let begun = Instant::now();
    loop {
        let state = store.remote().unwrap();
        let lies_here = store.local().spilled().await.unwrap();
        let sent = store.local().stats().await.unwrap().sending;
        let is_moved = lies_here.messages <= sent;
        if state.away.is_none() && lies_here.outcomes == 0 && is_moved {
            return;
        }
        soon(begun, "the return").await;
    }
}

async fn soon(begun: Instant, what: &str) {
    assert!(
        begun.elapsed() < Duration::from_mins(2),
        "waited for {what}"
    );
    tokio::time::sleep(Duration::from_millis(5)).await;
}

pub async fn open(
    settings: &postgres::Settings,
    dir: &Path,
    spill: SpillSettings,
) -> Result<Arc<SpillStore>, OpenError> {
    let settings = postgres::Settings {
        data_dir: dir.join("data"),
        ..settings.clone()
    };
    let local = Settings {
        data_dir: dir.join("data"),
        keep_failed: Duration::from_hours(24),
        keep_history: Duration::from_hours(24),
    };
    SpillStore::open(settings, local, spill).await
}

/// See the module.
pub struct SpillNought {
    inside: Arc<SpillStore>,
    site: Site,
    node: AtomicU64,
    leases: Mutex<HashMap<(MessageId, JobId), Lease>>,
    inserted: Mutex<HashSet<MessageId>>,
    /// When it comes and goes.
    restless: Option<Mutex<(fastrand::Rng, bool)>>,
}

impl std::fmt::Debug for SpillNought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inside.fmt(f)
    }
}

impl SpillNought {
    async fn of(site: Site, restless: Option<u64>) -> Arc<Self> {
        let this = Self {
            inside: site.open(SPILLS).await.unwrap(),
            site,
            node: AtomicU64::new(0),
            leases: Mutex::default(),
            inserted: Mutex::default(),
            restless: restless.map(|seed| Mutex::new((fastrand::Rng::with_seed(seed), true))),
        };
        this.beat(&Standing::default()).await.unwrap();
        Arc::new(this)
    }

    /// The database is there.
    pub async fn open() -> Arc<Self> {
        Self::of(Site::new(), None).await
    }

    /// It was there once, and is away.
    pub async fn away() -> Arc<Self> {
        let site = Site::new();
        drop(site.open(SPILLS).await.unwrap());
        site.cutter.shut(true);
        Self::of(site, None).await
    }

    /// It comes and goes, by a seed.
    pub async fn restless(seed: &str) -> Arc<Self> {
        let seed = seed.bytes().fold(7, |sum: u64, octet| {
            sum.wrapping_mul(31).wrapping_add(octet.into())
        });
        Self::of(Site::new(), Some(seed)).await
    }

    /// Before a call; `true`: it must be there.
    async fn turn(&self, must: bool) {
        let Some(restless) = &self.restless else {
            return;
        };
        let (was, is) = {
            let mut restless = restless.lock().unwrap();
            let was = restless.1;
            let turns = restless.0.u8(..) < 8;
            restless.1 = must || (was != turns);
            (was, restless.1)
        };
        match (was, is) {
            (true, false) => self.site.goes(&self.inside).await,
            (false, true) => self.site.comes(&self.inside).await,
            _ => {}
        }
        // What is moved, or waits to be, is claimed by nobody: this is no case of the suite.
        if is {
            is_home(&self.inside).await;
        }
    }

    /// The next commit may be cut, whether or not the server has it.
    fn cuts(&self) {
        let Some(restless) = &self.restless else {
            return;
        };
        let dice = restless.lock().unwrap().0.u8(..);
        match dice {
            0..8 => self.site.cutter.cut(Cut::Before, 1),
            8..16 => self.site.cutter.cut(Cut::After, 1),
            _ => {}
        }
    }

    fn node(&self, node: NodeId) -> NodeId {
        assert_eq!(node, NodeId(0));
        NodeId(self.node.load(Ordering::SeqCst))
    }

    fn has(&self, message: MessageId, job: JobId, lease: Lease) {
        let mut leases = self.leases.lock().unwrap();
        leases.insert((message, job), lease);
    }
}

#[async_trait]
impl Store for SpillNought {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        // While the database is away nobody knows what it has.
        let is_new = self.inserted.lock().unwrap().insert(mail.message.id);
        self.turn(!is_new).await;
        if !is_new
            && self.restless.is_some()
            && !self
                .list(&Filter::of(mail.message.id), now)
                .await?
                .is_empty()
        {
            return Err(StoreError::Unavailable("it is there".to_owned()));
        }
        let starts = starts.iter().cloned().map(|start| match start {
            Start::Now(node, connector) => Start::Now(self.node(node), connector),
            other => other,
        });
        let starts: Vec<Start> = starts.collect();
        self.cuts();
        let inserted = self.inside.insert(mail, &starts, now).await;
        self.site.cutter.cut(Cut::Nothing, 0);
        let inserted = inserted?;
        for (job, lease) in inserted.jobs.iter().zip(&inserted.leases) {
            self.has(mail.message.id, *job, *lease);
        }
        Ok(inserted)
    }
    async fn claim(
        &self,
        asks: &[Ask],
        node: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        // What is in the database is claimed where that is there.
        self.turn(true).await;
        let mut jobs = self.inside.claim(asks, self.node(node), now).await?;
        for job in &mut jobs {
            self.has(job.message.id, job.id, job.lease);
            job.lease.node = NodeId(0);
        }
        Ok(jobs)
    }
    async fn settle(
        &self,
        mut settlement: Settlement,
        now: SystemTime,
    ) -> Result<Kept, StoreError> {
        self.turn(false).await;
        let key = (settlement.message, settlement.job);
        let known = self.leases.lock().unwrap().get(&key).copied();
        settlement.lease = known.unwrap_or(Lease {
            node: self.node(settlement.lease.node),
            ..settlement.lease
        });
        self.cuts();
        let settled = self.inside.settle(settlement, now).await;
        self.site.cutter.cut(Cut::Nothing, 0);
        settled
    }
    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        self.turn(true).await;
        self.inside.late(by, limit).await
    }
    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError> {
        self.turn(true).await;
        self.inside.tell_late(notice, now).await
    }
    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError> {
        self.turn(true).await;
        self.inside.due(now).await
    }
    async fn list(&self, filter: &Filter, now: SystemTime) -> Result<Vec<Entry>, StoreError> {
        self.turn(true).await;
        self.inside.list(filter, now).await
    }
    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        self.turn(true).await;
        self.inside.content(id).await
    }
    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        self.turn(true).await;
        self.inside.events(id).await
    }
    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        self.turn(true).await;
        let done = self.inside.command_if(filter, verb, expect, now).await;
        // Without the database it cannot be said that there is nothing.
        match done {
            Err(StoreError::Away(_)) if self.restless.is_none() => Ok(match expect {
                Some(1..) => Commanded::Unexpected(0),
                _ => Commanded::Taken(0),
            }),
            done => done,
        }
    }
    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        self.turn(true).await;
        self.inside.search(search).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.turn(true).await;
        self.inside.stats().await
    }
    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError> {
        self.turn(true).await;
        self.inside.waiting().await
    }
    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        self.turn(true).await;
        if self.remote().unwrap().away.is_some() {
            return self.inside.local().lanes().await;
        }
        self.inside.lanes().await
    }
    async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError> {
        self.turn(true).await;
        match self.inside.set_lane(lane.clone()).await {
            // Where there is no database the lanes are for another test.
            Err(StoreError::Away(_)) => self.inside.local().set_lane(lane).await,
            done => done,
        }
    }
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.inside.note(key).await
    }
    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        self.inside.replace_note(key, seen, value).await
    }
    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        self.inside.set_note(key, value).await
    }
    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        self.turn(true).await;
        self.inside.shift(shift).await
    }
    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError> {
        self.turn(true).await;
        self.inside.maintain(retention, now).await
    }
    async fn changed(&self) {
        self.inside.changed().await;
    }
    fn health(&self) -> Health {
        self.inside.health()
    }
    fn remote(&self) -> Option<RemoteState> {
        self.inside.remote()
    }
    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError> {
        self.turn(true).await;
        let sent = Standing {
            node: standing.node.map(|node| self.node(node)),
            ..standing.clone()
        };
        match self.inside.beat(&sent).await {
            Ok(heard) => {
                self.node.store(heard.node.0, Ordering::SeqCst);
                // A first word is of the whole gateway.
                if standing.node.is_none() {
                    self.inside.local().beat(standing).await?;
                }
                let node = NodeId(0);
                Ok(Beat { node, ..heard })
            }
            Err(StoreError::Away(_)) => self.inside.local().beat(standing).await,
            Err(error) => Err(error),
        }
    }
    fn bodies(&self) -> &BodyStore {
        self.inside.bodies()
    }
}
