//! The queue in a PostgreSQL that several gateways share; large bodies are in it, too.
//!
//! `reach` finds the server, `link` is a connection, `crew` carries errands on some of them, `writer` writes mail and outcomes on others, many
//! at a time. `schema` makes the tables; the others say what is asked and changed, and decide nothing that `settling` and `turns` decide.
//! `clock` makes the database's time of the caller's and back. `examine` only looks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{sync::Notify, task::JoinSet};

use super::{
    body::BodyStore,
    store::{
        Ask, Beat, CLOCK, Commanded, Due, Entry, Event, Filter, FoundEntries, Health, Inserted,
        Job, KeepTimes, Kept, LaneRow, LateNotice, Maintained, NodeId, NodeRow, Retention, Search,
        Settlement, Shift, Standing, Start, Stats, Store, StoreError, Used, Verb,
    },
    turns::RouteLane,
};
use crate::{
    mail::message::{Message, MessageId},
    route::{ConnectorName, LaneId, Routed},
};

mod beside;
mod body;
mod claim;
mod clock;
mod crew;
mod directory;
mod durable;
mod entries;
mod event;
mod examine;
mod fault;
mod heard;
mod insert;
mod late;
mod leaving;
mod link;
mod look;
mod message;
mod moving;
mod node;
mod operate;
mod reach;
mod read;
mod retention;
mod schema;
mod settings;
mod settle;
mod shift;
mod spilling;
mod stored;
mod ticket;
mod tls;
mod tray;
mod unheard;
mod values;
mod verbs;
mod writer;
mod writing;

use beside::LaneToSet;
use body::RemoteBodies;
use claim::{Claimer, SharedCursors};
use clock::Moments;
use crew::{Access, Crew, errand};
pub use durable::DurabilityFacts;
pub use examine::{Examined, examine};
use fault::POOLER;
use insert::of;
pub use schema::{OpenError, script};
pub use settings::{Durability, Server, Settings};
pub use ticket::{Withdrawn, WriteTicket};
use unheard::{ClaimedJob, Unheard};
pub use writer::WriteFault;
use writer::{Scribe, WriteDesk};

/// The store of `store = "postgres"`.
#[derive(Debug)]
pub struct PostgresStore {
    access: Arc<Access>,
    crew: Crew,
    desk: WriteDesk,
    bodies: RemoteBodies,
    unheard: Unheard,
    cursors: SharedCursors,
    /// Of this start; 0: it is none (a command).
    node: AtomicI64,
    /// How often that had beaten, as it was heard last.
    beaten: AtomicI64,
    /// Of the directory.
    token: String,
    /// The node that was at work on it, for a command.
    seen_here: NodeId,
    /// Bodies that a start before left are deleted.
    is_swept: AtomicBool,
    /// How long mail in doubt waits, in microseconds.
    doubt: AtomicI64,
    /// The counter of changes that a beat saw.
    changes: AtomicU64,
    /// How often it was raised from here since.
    raised: AtomicU64,
    changed: Notify,
    /// The connections. They end with the store.
    _tasks: Mutex<JoinSet<()>>,
}

impl PostgresStore {
    /// Opens the store: finds the server that takes writes, makes the schema if it may and shall, and sees how commits are kept.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(settings: Settings) -> Result<Arc<Self>, OpenError> {
        let incoming = settings.data_dir.join("incoming");
        let token = directory::prepare(&settings, &incoming).map_err(|error| {
            OpenError::Refused(format!("{}: {error}", settings.data_dir.display()))
        })?;
        let access = Arc::new(Access::new(settings));
        let settings = &access.settings;
        let mut link = access.open().await.map_err(OpenError::from)?;
        if settings.migrates {
            let other = access.open().await.map_err(OpenError::from)?;
            if !link.keeps_statements(&other).await? {
                return Err(OpenError::Refused(POOLER.to_owned()));
            }
        }
        schema::prepare(&mut link, &settings.schema, settings.migrates).await?;
        let seen_here = node::of_directory(&mut link, &token).await?;
        drop(link);
        let (crew, inbox) = Crew::new();
        let (desk, tray) = WriteDesk::new();
        let unheard = Unheard::default();
        let mut tasks = JoinSet::new();
        let scribes = Settings::SCRIBES.min(settings.connections / 2).max(1);
        for _ in 0..scribes {
            let scribe = Scribe {
                access: Arc::clone(&access),
                unheard: unheard.clone(),
                tray: Arc::clone(&tray),
            };
            tasks.spawn(scribe.work());
        }
        for _ in scribes..settings.connections.max(scribes + 1) {
            tasks.spawn(crew::carry(Arc::clone(&access), Arc::clone(&inbox)));
        }
        let local = BodyStore::new(&incoming);
        Ok(Arc::new(Self {
            bodies: RemoteBodies {
                crew: crew.clone(),
                local,
            },
            access,
            crew,
            desk,
            unheard,
            cursors: SharedCursors::default(),
            node: AtomicI64::new(0),
            beaten: AtomicI64::new(0),
            token,
            seen_here,
            is_swept: AtomicBool::new(false),
            doubt: AtomicI64::new(Settings::DOUBT),
            changes: AtomicU64::new(Settings::NOT_LOOKED),
            raised: AtomicU64::new(0),
            changed: Notify::new(),
            _tasks: Mutex::new(tasks),
        }))
    }

    /// How the database keeps what it commits, as it said last.
    pub fn durability(&self) -> DurabilityFacts {
        self.access.facts().unwrap_or_default()
    }

    /// The server that takes its writes.
    pub fn server(&self) -> String {
        let server = self.access.server();
        server.map(ToString::to_string).unwrap_or_default()
    }

    fn own(&self) -> i64 {
        self.node.load(Ordering::Acquire)
    }

    fn at(&self, now: SystemTime) -> Moments {
        self.access.clock.at(now)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        Ok(self.insert_by(mail, starts, now, Arc::default()).await?)
    }

    async fn claim(
        &self,
        asks: &[Ask],
        node: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        let claimer = Claimer {
            cursors: self.cursors.clone(),
            unheard: self.unheard.clone(),
            node,
            moments: self.at(now),
            bodies: self.bodies.clone(),
        };
        let asks = asks.to_vec();
        let at = (claimer.moments.now(), of(node));
        // Until it is over they are given back when this is dropped: what a claim took of which nobody knows, the next one leaves.
        let claimed = errand!(self, true, [claimer, asks], link => claimer.claim(link, &asks))?;
        if !claimed.broken.is_empty() {
            let broken = claimed.broken.clone();
            errand!(self, true, [broken], link => claim::quarantine(link, &broken, at))?;
        }
        claimed.handover.heard();
        Ok(claimed.jobs)
    }

    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<Kept, StoreError> {
        Ok(self.settle_by(settlement, now, Arc::default()).await?)
    }

    async fn goes_by(&self, job: &Job, connector: &ConnectorName) -> Result<(), StoreError> {
        let claimed = ClaimedJob::of(job);
        let (node, connector) = (of(job.lease.node), connector.to_string());
        errand!(self, true, [connector], link => claim::goes_by(link, claimed, (node, &connector)))
    }

    async fn late(&self, by: SystemTime, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        self.find_late(by, limit).await
    }

    async fn tell_late(&self, notice: LateNotice, now: SystemTime) -> Result<bool, StoreError> {
        self.say_late(notice, now).await
    }

    async fn due(&self, now: SystemTime) -> Result<Vec<Due>, StoreError> {
        let moments = self.at(now);
        errand!(self, true, [], link => look::due(link, moments))
    }

    fn here(&self) -> NodeId {
        self.seen_as()
    }

    fn looks_every(&self) -> Duration {
        Duration::from_millis(200)
    }

    async fn list(&self, filter: &Filter, _: SystemTime) -> Result<Vec<Entry>, StoreError> {
        errand!(self, true, [filter], link => operate::list(link, &filter))
    }

    async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        errand!(self, true, [search], link => operate::search(link, &search))
    }

    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        let bodies = self.bodies.clone();
        let found = errand!(self, true, [bodies], link => read::content(link, id, &bodies))?;
        Ok(found.map(Arc::new))
    }

    async fn events(&self, id: MessageId) -> Result<Vec<Event>, StoreError> {
        errand!(self, true, [], link => read::events(link, id))
    }

    async fn command_if(
        &self,
        filter: &Filter,
        verb: &Verb,
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        let at = (self.at(now).now(), self.own());
        let commanded = errand!(self, false, [filter, verb], link =>
            operate::command(link, &filter, &verb, expect, at))?;
        if matches!(commanded, Commanded::Taken(1..)) {
            self.raised.fetch_add(1, Ordering::AcqRel);
        }
        Ok(commanded)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        errand!(self, true, [], link => read::stats(link))
    }

    async fn waiting(&self) -> Result<Vec<(RouteLane, u64)>, StoreError> {
        errand!(self, true, [], link => read::waiting(link))
    }

    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        errand!(self, true, [], link => beside::lanes(link))
    }

    async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError> {
        let moments = self.at(SystemTime::now());
        let lane = Arc::new(LaneToSet {
            since: moments.theirs(lane.since),
            probe: lane.probe.map(|probe| moments.theirs(probe)),
            row: lane,
        });
        let is_set = errand!(self, false, [lane], link => beside::set_lane(link, &lane))?;
        self.raised.fetch_add(u64::from(is_set), Ordering::AcqRel);
        Ok(is_set)
    }

    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        errand!(self, true, [key], link => beside::note(link, &key))
    }

    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        let (key, node) = (key.to_owned(), self.own());
        errand!(self, true, [key, value], link => beside::set_note(link, (&key, &value), node))
    }

    async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        let (key, node) = (key.to_owned(), self.own());
        errand!(self, true, [key, seen, value], link => beside::replace_note(link, &key, (seen.as_deref(), &value), node))
    }

    async fn shared_notes(&self, beginning: &str) -> Result<Vec<(String, String)>, StoreError> {
        let beginning = beginning.to_owned();
        errand!(self, true, [beginning], link => beside::notes(link, &beginning))
    }

    async fn take_note(&self, key: &str, time: Duration) -> Result<bool, StoreError> {
        let (key, node, now) = (key.to_owned(), self.own(), self.at(SystemTime::now()).now());
        let until = now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
        errand!(self, true, [key], link => beside::take_note(link, &key, (now, until), node))
    }

    async fn give_note_back(&self, key: &str) -> Result<(), StoreError> {
        let (key, node) = (key.to_owned(), self.own());
        errand!(self, true, [key], link => beside::give_note_back(link, &key, node))
    }

    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        // A gateway's own clock says nothing of the queue's times.
        if !self.access.clock.is_callers() {
            return match shift {
                Some(shift) => self.set_note(CLOCK, shift.note.clone()).await,
                None => Ok(()),
            };
        }
        self.shift_all(shift.cloned()).await
    }

    async fn maintain(
        &self,
        retention: &Retention,
        now: SystemTime,
    ) -> Result<Maintained, StoreError> {
        let mut done = Maintained::default();
        let at = (self.at(now).now(), self.own());
        let due = at.0.saturating_add(self.doubt.load(Ordering::Acquire));
        errand!(self, true, [], link => node::take_over_late(link, due, at))?;
        if let Some(KeepTimes { failed, history }) = retention.keep {
            let before = |kept: Duration| {
                let kept = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
                at.0.saturating_sub(kept)
            };
            let (failed, history) = (before(failed), before(history));
            loop {
                let (mut lines, is_more) =
                    errand!(self, true, [], link => retention::prune_failed(link, failed, at))?;
                done.deleted.append(&mut lines);
                if !is_more {
                    break;
                }
            }
            while errand!(self, true, [], link => retention::forget(link, history))? {}
        }
        Ok(done)
    }

    async fn beat(&self, standing: &Standing) -> Result<Beat, StoreError> {
        let (node, is_first) = match standing.node {
            Some(node) => (node, false),
            None => (self.begin(standing).await?, true),
        };
        let now = self.at(SystemTime::now()).now();
        self.waits_in_doubt(standing.in_doubt_wait);
        if !is_first {
            self.give_back(now).await?;
        }
        let (standing, token) = (standing.clone(), self.token.clone());
        let mut heard = errand!(self, true, [standing, token], link =>
            node::beat(link, (node, &token), &standing, now))?;
        self.knows_itself(node, &mut heard.nodes);
        let (time, asked) = heard.clock;
        self.access.clock.is(time, asked);
        self.access.keeps(heard.facts)?;
        if let Some(step) = self.access.clock.take_step() {
            tracing::warn!(
                event = "database clock set",
                by_seconds = step / 1_000_000,
                "the clock of the database was set"
            );
            shift::database_clock_set(&self.crew, self.own(), (step, time)).await?;
        }
        // Where its disk was full: whoever has mail may try again.
        self.access.wrote();
        self.heard_of(heard.changes);
        Ok(Beat {
            node: heard.node,
            nodes: heard.nodes,
            changes: heard.changes,
        })
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn hold(&self, lane: &LaneId, node: NodeId) -> Result<Option<Used>, StoreError> {
        let (lane, node) = (lane.to_string(), of(node));
        errand!(self, true, [lane], link => beside::hold(link, &lane, node))
    }

    async fn let_go(&self, lane: &LaneId, node: NodeId, used: &Used) -> Result<(), StoreError> {
        let (lane, node, used) = (lane.to_string(), of(node), used.clone());
        errand!(self, true, [lane, used], link => beside::let_go(link, &lane, node, &used))
    }

    async fn take_over(
        &self,
        silent: &NodeRow,
        due: SystemTime,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        let moments = self.at(now);
        self.waits_in_doubt(due.duration_since(now).unwrap_or_default());
        let (due, at) = (moments.theirs(due), (moments.now(), self.own()));
        let silent = silent.clone();
        errand!(self, true, [silent], link => node::take_over(link, &silent, due, at))
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let now = self.at(SystemTime::now()).now();
        errand!(self, true, [], link => node::nodes(link, now))
    }

    async fn forget(&self, over: &NodeRow, now: SystemTime) -> Result<(), StoreError> {
        let (node, now) = (of(over.id), self.at(now).now());
        errand!(self, true, [], link => node::forget(link, node, now))
    }

    fn health(&self) -> Health {
        self.access.health()
    }

    fn bodies(&self) -> &BodyStore {
        &self.bodies.local
    }
}

impl PostgresStore {
    async fn shift_all(&self, shift: Option<Shift>) -> Result<(), StoreError> {
        let node = self.own();
        // Nothing is written where nothing is to be done.
        if !errand!(self, true, [shift], link => shift::is_needed(link, shift.as_ref()))? {
            return Ok(());
        }
        if let Some(shift) = shift {
            errand!(self, false, [shift], link => shift::begin(link, &shift, node, CLOCK))?;
        }
        while errand!(self, true, [], link => shift::go_on(link, node))? {}
        Ok(())
    }
}
