//! The queue in one SQLite file, large bodies beside it in `spool/`.
//!
//! `schema` makes the file, `writer` makes changes (`op`) durable, many at a time; `insert`, `claim`, `settle`, `retention`,
//! `operate`, `shift` and `space` say what is changed; `search` finds what an operator looks for; `rows` what the columns mean; `recent` keeps a copy of what was accepted a
//! moment ago, `rota` whose turn it is. `readers` has connections of its own. No clock, but where a lease is lost
//! and where a copy grows old.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread::JoinHandle,
    time::{Instant, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use super::{
    body::BodyStore,
    store::{
        Ask, Beat, Commanded, Due, Entry, Event, Filter, FoundEntries, GiveBack, Health, Inserted,
        Job, JobId, KeepTimes, Kept, LaneRow, LateNotice, Lease, Maintained, NodeId, NodeRow,
        Retention, Search, Settings, Settlement, Shift, Standing, Start, Stats, Store, StoreError,
        Verb,
    },
    turns::RouteLane,
};
use crate::{
    mail::message::{Message, MessageId},
    route::Routed,
};

mod arriving;
mod ballast;
mod beside;
mod claim;
mod insert;
mod late;
mod moving;
mod op;
mod operate;
mod read;
mod readers;
mod recent;
mod retention;
mod rota;
mod rows;
mod schema;
pub(super) use schema::written_by_newer;
mod search;
mod settle;
mod shift;
mod space;
mod spilled;
mod upkeep;
mod writer;

use claim::{Abandoned, Leases};
use op::{Change, Op, Purpose, store_error};
use readers::Readers;
use recent::RecentMail;
use rota::Rota;
use rows::Unread;
use writer::{Writer, WriterStatus};

/// The file of the store inside `data_dir`.
pub(super) const DATABASE: &str = "queue.db";

/// No `data_version`.
const NOT_LOOKED: i64 = -1;

/// The store of `store = "sqlite"`.
#[derive(Debug)]
pub struct SqliteStore {
    bodies: BodyStore,
    readers: Readers,
    shared: Arc<WriterStatus>,
    recent: RecentMail,
    abandoned: Abandoned,
    rota: Arc<Rota>,
    /// What a beat saw: it changes with every write of another process.
    data_version: AtomicI64,
    /// Another process has written.
    changed: Notify,
    inbox: Option<mpsc::Sender<Op>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the store, for the gateway and for commands alike; makes `data_dir` (0700), the database (0600) and
    /// `spool/` (0700) when they are missing. Blocks for a moment.
    ///
    /// # Errors
    /// The directory cannot be made, the file is not a database, was written by a newer version, or cannot sync.
    pub fn open(settings: &Settings) -> Result<Arc<SqliteStore>, StoreError> {
        let dir = &settings.data_dir;
        let database = dir.join(DATABASE);
        let spool = dir.join("spool");
        schema::prepare(dir, &database, &spool)
            .map_err(|e| StoreError::Unavailable(format!("{}: {e}", dir.display())))?;
        let bodies = BodyStore::new(&spool);
        let mut ballast = ballast::Ballast::new(dir);
        let conn = match schema::writer(&database) {
            // What waits on a full disk still goes out.
            Err(StoreError::Full) if ballast.free() => schema::writer(&database)?,
            opened => opened?,
        };
        let shared = Arc::new(WriterStatus::default());
        let writer = Writer::new(
            conn,
            database.clone(),
            bodies.clone(),
            ballast,
            shared.clone(),
        );
        let (inbox, receiver) = mpsc::channel(writer::WAITING);
        let thread = std::thread::Builder::new()
            .name("queue".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|e| StoreError::Unavailable(format!("no thread to write: {e}")))?;
        Ok(Arc::new(SqliteStore {
            bodies,
            readers: Readers::new(database),
            shared,
            recent: RecentMail::default(),
            abandoned: Abandoned::default(),
            rota: Arc::default(),
            data_version: AtomicI64::new(NOT_LOOKED),
            changed: Notify::new(),
            inbox: Some(inbox),
            thread: Some(thread),
        }))
    }

    /// Transactions committed since it was opened; many calls share one.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Lets the file grow to no more than so many pages of 8 KiB (0: no limit): a full disk for tests.
    ///
    /// # Errors
    /// As any write.
    #[doc(hidden)]
    pub async fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        let pages = if pages == 0 { u32::MAX - 1 } else { pages };
        self.write(move |change| {
            change
                .conn
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        })
        .await
    }

    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Change<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.submit(Purpose::Records, work, |value| value).await
    }

    /// Has the writer do it, and waits for what `hand_over` makes of it once it is committed.
    async fn submit<T, U, F, H>(
        &self,
        purpose: Purpose,
        work: F,
        hand_over: H,
    ) -> Result<U, StoreError>
    where
        T: Send + 'static,
        U: Send + 'static,
        F: FnMut(&mut Change<'_>) -> rusqlite::Result<T> + Send + 'static,
        H: Fn(T) -> U + Send + 'static,
    {
        let closed = || StoreError::Unavailable("it is closed".to_owned());
        let (op, answer) = Op::new(purpose, work, hand_over);
        let can_wait = op.can_wait();
        let inbox = self.inbox.as_ref().ok_or_else(closed)?;
        inbox.send(op).await.map_err(|_| closed())?;
        if !can_wait && let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
        answer.await.map_err(|_| closed())?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // What waits is still written; then the thread ends and the file is closed.
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        let (written, starts) = (mail.clone(), starts.to_vec());
        let leased = matches!(starts.as_slice(), [Start::Now(..), ..]);
        let claims = starts.iter().take(mail.jobs.len());
        let claims = claims
            .filter(|start| matches!(start, Start::Now(..)))
            .count();
        let abandoned = self.abandoned.clone();
        let insert = move |change: &mut Change<'_>| insert::insert(change, &written, &starts, now);
        let hand_over = move |jobs: Option<Vec<JobId>>| {
            let jobs = jobs?;
            let ids = leased.then(|| jobs.iter().map(|job| job.0).collect());
            Some((jobs, abandoned.unless_heard(ids.unwrap_or_default())))
        };
        let done = self.submit(Purpose::TakesIn, insert, hand_over).await?;
        let (jobs, leases) = done.ok_or_else(|| {
            StoreError::Unavailable("a message with this id is already there".to_owned())
        })?;
        leases.handed_over();
        for copy in &mail.copies {
            self.rota.waits(&copy.message);
        }
        if !leased {
            self.rota.waits(&mail.message);
            self.recent.put(mail, &jobs, Instant::now());
        }
        let leases = vec![Lease::default(); claims];
        Ok(Inserted { jobs, leases })
    }

    async fn claim(
        &self,
        asks: &[Ask],
        _: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        let found = self.rota.accepted_by(&self.readers, asks, now).await?;
        let (asks, rota) = (self.rota.asks(asks), Arc::clone(&self.rota));
        let abandoned = self.abandoned.clone();
        let lease = move |change: &mut Change<'_>| {
            claim::lease(change, &asks, &found, &mut rota.cursors(), now)
        };
        let hand_over = move |leased: Vec<claim::Leased>| {
            let ids = leased.iter().map(|job| job.id).collect();
            (leased, abandoned.unless_heard(ids))
        };
        let (leased, leases) = self.submit(Purpose::Records, lease, hand_over).await?;
        let order: HashMap<JobId, usize> =
            leased.iter().map(|job| JobId(job.id)).zip(0..).collect();
        let (mut jobs, mut unread) = (Vec::with_capacity(leased.len()), Vec::new());
        for job in leased {
            match self.recent.job(&job) {
                Some(found) => jobs.push(found),
                None => unread.push(job),
            }
        }
        if unread.is_empty() {
            leases.handed_over();
            return Ok(jobs);
        }
        // The content is read after the commit, so that nobody's write waits for it; the leases keep it in place.
        let bodies = self.bodies.clone();
        let (mut read, broken) = self
            .readers
            .query(move |conn| read::jobs(conn, unread, &bodies))
            .await?;
        jobs.append(&mut read);
        jobs.sort_by_key(|job| order.get(&job.id));
        if !broken.is_empty() {
            self.write(move |change| {
                for (job, message, why) in &broken {
                    claim::quarantine(change, *job, *message, why, now)?;
                }
                Ok(())
            })
            .await?;
        }
        leases.handed_over();
        Ok(jobs)
    }

    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<Kept, StoreError> {
        let settle = move |change: &mut Change<'_>| settle::settle(change, &settlement, now);
        self.submit(Purpose::Settles, settle, |()| Kept::Written)
            .await
    }

    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        self.readers
            .query(move |conn| late::late(conn, by, limit))
            .await
    }

    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError> {
        self.write(move |change| late::tell(change, &notice, now))
            .await
    }

    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError> {
        self.rota.is_looked_at();
        self.readers.query(move |conn| read::due(conn, now)).await
    }

    async fn list(&self, filter: &Filter, _now: SystemTime) -> Result<Vec<Entry>, StoreError> {
        let filter = filter.clone();
        self.readers
            .query(move |conn| operate::list(conn, &filter))
            .await
    }

    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        let search = search.clone();
        self.readers
            .query(move |conn| search::search(conn, &search))
            .await
    }

    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        let bodies = self.bodies.clone();
        let found = self
            .readers
            .read(move |conn| match rows::key(conn, id)? {
                Some(key) => rows::load(conn, key, &bodies),
                None => Ok(None),
            })
            .await?;
        match found {
            Ok(found) => Ok(found.map(|(message, _)| message)),
            Err(Unread::Broken(why)) => Err(StoreError::Unavailable(format!("{id}: {why}"))),
            Err(Unread::Store(error)) => Err(store_error(&error)),
        }
    }

    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        self.readers.query(move |conn| read::events(conn, id)).await
    }

    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        let found = if filter.is_plain() {
            None
        } else {
            // Patterns take long on many rows: they are compared before the write lock is taken.
            let filter = filter.clone();
            Some(
                self.readers
                    .query(move |conn| operate::matching(conn, &filter))
                    .await?,
            )
        };
        let (filter, verb) = (filter.clone(), verb.clone());
        self.write(move |change| {
            operate::command(change, &filter, found.as_deref(), &verb, expect, now)
        })
        .await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.readers.query(read::stats).await
    }

    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError> {
        self.readers.query(read::waiting).await
    }

    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        self.readers.query(beside::lanes).await
    }

    async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError> {
        self.write(move |change| beside::set_lane(change, &lane))
            .await
    }

    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        self.readers
            .query(move |conn| beside::note(conn, &key))
            .await
    }

    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.write(move |change| beside::replace_note(change, &key, seen.as_deref(), &value))
            .await
    }

    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.write(move |change| beside::set_note(change, &key, &value))
            .await
    }

    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        let asked = shift.cloned();
        // Nothing is written where nothing is to be done: the disk may be full.
        if !self
            .readers
            .query(move |conn| shift::is_needed(conn, asked.as_ref()))
            .await?
        {
            return Ok(());
        }
        if let Some(shift) = shift.cloned() {
            self.write(move |change| shift::begin(change, &shift))
                .await?;
        }
        while self.write(shift::go_on).await? {}
        Ok(())
    }

    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError> {
        let mut done = Maintained::default();
        if let Some(KeepTimes { failed, history }) = retention.keep {
            let (failed, history) = (rows::before(now, failed), rows::before(now, history));
            done.deleted = self.prune_in_steps(failed, history, now).await?;
        }
        if let Some(how_much) = retention.give_back {
            done.is_more = self.shrink_in_steps(how_much == GiveBack::All).await?;
        }
        Ok(done)
    }

    fn health(&self) -> Health {
        if self.shared.broken.load(Ordering::Acquire) {
            if let Some(inbox) = &self.inbox {
                // Whoever asks would like it to work again: the writer tries, at most once a second.
                let _ = inbox.try_send(Op::nudge());
            }
            Health::Failing
        } else if self.shared.full.load(Ordering::Acquire) {
            Health::Full
        } else {
            Health::Fine
        }
    }

    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError> {
        if standing.node.is_none() {
            self.write(claim::recover).await?;
            let bodies = self.bodies.clone();
            self.readers
                .query(move |conn| {
                    read::delete_orphans(conn, &bodies);
                    Ok(())
                })
                .await?;
        }
        let abandoned = self.abandoned.clone();
        let look = move |change: &mut Change<'_>| claim::beat(change, &abandoned);
        let hand_over = |(version, leases): (i64, Leases)| {
            leases.handed_over();
            version
        };
        let version = self.submit(Purpose::Records, look, hand_over).await?;
        let seen = self.data_version.swap(version, Ordering::AcqRel);
        if seen != NOT_LOOKED && seen != version {
            self.changed.notify_one();
        }
        let node = NodeId::default();
        let nodes = vec![NodeRow::default()];
        Ok(Beat {
            node,
            nodes,
            changes: 0,
        })
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn bodies(&self) -> &BodyStore {
        &self.bodies
    }
}
