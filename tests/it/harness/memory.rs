//! A store in memory, which can be told to fail, and a connector that follows a script: the doubles of the delivery tests.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use postern::{
    connector::{Connector, Lane},
    mail::{
        address::Address,
        message::{Message, MessageId},
        outcome::{Obstacle, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    queue::body::BodyStore,
    queue::store::{
        Ask, Beat, CLOCK, Due, Entry, EntryRecipient, Event, Filter, Health, Inserted, Job, JobId,
        Kept, LaneRow, Lease, NodeId, NodeRow, RecipientState, Settled, Settlement, Shift,
        Standing, Start, State, Stats, Store, StoreError, Verb,
    },
    route::{ConnectorName, Routed},
};

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) job: Job,
    pub(crate) due: SystemTime,
    pub(crate) leased: bool,
    /// `waiting`, `in doubt`, `failed`, `done`, with what was said last.
    pub(crate) states: Vec<(Address, String, Option<String>)>,
}

impl Row {
    fn waits(&self) -> bool {
        !self.leased && self.states.iter().any(|(_, state, _)| state == "waiting")
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memory {
    rows: Mutex<Vec<Row>>,
    lanes: Mutex<HashMap<String, LaneRow>>,
    pub(crate) events: Mutex<Vec<(MessageId, Event)>>,
    /// Every write fails as long as this is set.
    pub(crate) broken: AtomicBool,
    unhealthy: AtomicBool,
    version: AtomicU64,
    notes: Mutex<HashMap<String, String>>,
    bodies: BodyStore,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            rows: Mutex::default(),
            lanes: Mutex::default(),
            events: Mutex::default(),
            broken: AtomicBool::default(),
            unhealthy: AtomicBool::default(),
            version: AtomicU64::default(),
            notes: Mutex::default(),
            bodies: BodyStore::new("/nonexistent".as_ref()),
        }
    }
}

impl Memory {
    fn write(&self) -> Result<(), StoreError> {
        let broken = self.broken.load(Ordering::SeqCst);
        self.unhealthy.store(broken, Ordering::SeqCst);
        if broken {
            return Err(StoreError::Unavailable("told to".into()));
        }
        Ok(())
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.lock().unwrap().clone()
    }

    /// The state of a recipient, whichever row it is in.
    pub(crate) fn state(&self, recipient: &str) -> Option<String> {
        self.rows().iter().find_map(|row| {
            row.states
                .iter()
                .find(|(r, _, _)| r.to_string() == recipient)
                .map(|(_, state, _)| state.clone())
        })
    }

    pub(crate) fn lane(&self, lane: &str) -> Option<LaneRow> {
        self.lanes.lock().unwrap().get(lane).cloned()
    }

    /// What `queue retry` in another process does: a probe now.
    pub(crate) fn wish_probe(&self, lane: &str) {
        if let Some(row) = self.lanes.lock().unwrap().get_mut(lane) {
            row.probe = Some(SystemTime::now());
        }
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    fn add(&self, mail: &Routed, starts: &[Start], now: SystemTime) -> Vec<JobId> {
        let mut rows = self.rows.lock().unwrap();
        mail.jobs
            .iter()
            .enumerate()
            .map(|(at, (route, recipients))| {
                let id = JobId(rows.len() as i64 + 1);
                let start = starts.get(at).unwrap_or(&Start::Any);
                rows.push(Row {
                    job: Job {
                        id,
                        lease: Lease::default(),
                        message: Arc::clone(&mail.message),
                        route: route.clone(),
                        recipients: recipients.clone(),
                        pinned: None,
                        lane: match start {
                            Start::In(lane) => Some(lane.clone()),
                            _ => None,
                        },
                        attempts: 0,
                        accepted: now,
                    },
                    due: now,
                    leased: matches!(start, Start::Now(..)),
                    states: recipients
                        .iter()
                        .map(|r| (r.address.clone(), "waiting".to_owned(), None))
                        .collect(),
                });
                id
            })
            .collect()
    }
}

#[async_trait]
impl Store for Memory {
    async fn insert(
        &self,
        mail: &Routed,
        starts: &[Start],
        now: SystemTime,
    ) -> Result<Inserted, StoreError> {
        self.write()?;
        Ok(Inserted {
            jobs: self.add(mail, starts, now),
        })
    }

    async fn claim(
        &self,
        asks: &[Ask],
        _: NodeId,
        now: SystemTime,
    ) -> Result<Vec<Job>, StoreError> {
        self.write()?;
        let mut rows = self.rows.lock().unwrap();
        let mut jobs = Vec::new();
        for ask in asks {
            let mut due: Vec<&mut Row> = rows
                .iter_mut()
                .filter(|row| {
                    row.waits()
                        && row.due <= now
                        && row.job.route == ask.route
                        && row.job.pinned == ask.pinned
                        && row.job.lane == ask.lane
                })
                .collect();
            due.sort_by_key(|row| row.due);
            for row in due.into_iter().take(ask.limit) {
                row.leased = true;
                let mut job = row.job.clone();
                job.recipients = row
                    .states
                    .iter()
                    .filter(|(_, state, _)| state == "waiting")
                    .map(|(r, _, _)| r.clone().into())
                    .collect();
                jobs.push(job);
            }
        }
        Ok(jobs)
    }

    async fn settle(&self, settlement: Settlement, now: SystemTime) -> Result<Kept, StoreError> {
        self.write()?;
        let mut doubtful = Vec::new();
        let mut pinned = None;
        {
            let mut rows = self.rows.lock().unwrap();
            let row = rows
                .iter_mut()
                .find(|row| row.job.id == settlement.job)
                .expect("a settlement for a job that is there");
            assert!(row.leased, "settled without a lease");
            for (recipient, settled) in settlement.recipients {
                let (state, outcome) = match settled {
                    Settled::Done(outcome) => ("done", outcome),
                    Settled::Failed(outcome) => ("failed", outcome),
                    Settled::Waiting(outcome) => ("waiting", outcome),
                    Settled::InDoubt(outcome) => ("in doubt", outcome),
                };
                let said = Some(outcome.reply().to_string());
                if state == "in doubt" {
                    row.states.retain(|(r, _, _)| *r != recipient);
                    doubtful.push((recipient, "waiting".to_owned(), said));
                } else {
                    let entry = row
                        .states
                        .iter_mut()
                        .find(|(r, _, _)| *r == recipient)
                        .expect("a recipient of the job");
                    assert_eq!(entry.1, "waiting", "settled twice");
                    entry.1 = state.to_owned();
                    entry.2 = said;
                }
            }
            row.leased = false;
            row.due = settlement.next;
            row.job.lane = settlement.lane;
            row.job.attempts += u32::from(settlement.attempted);
            if let Some((connector, due)) = settlement.in_doubt {
                let mut new = row.clone();
                new.job.pinned = Some(connector);
                new.due = due;
                new.job.lane = None;
                pinned = Some(new);
            }
            let (stay, apart): (Vec<_>, Vec<_>) = std::mem::take(&mut row.states)
                .into_iter()
                .partition(|(recipient, _, _)| !settlement.apart.contains(recipient));
            row.states = stay;
            if !apart.is_empty() {
                let mut new = row.clone();
                new.states = apart;
                new.job.id = JobId(rows.len() as i64 + 1);
                rows.push(new);
            }
            if let Some(mut new) = pinned.take() {
                new.states = doubtful;
                new.job.id = JobId(rows.len() as i64 + 1);
                rows.push(new);
            }
        }
        for bounce in &settlement.bounces {
            self.add(bounce, &[], now);
        }
        self.events.lock().unwrap().extend(
            settlement
                .events
                .into_iter()
                .map(|e| (settlement.message, e)),
        );
        Ok(Kept::Written)
    }

    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        let mut due: HashMap<_, SystemTime> = HashMap::new();
        for row in self.rows().into_iter().filter(Row::waits) {
            let at = due
                .entry((row.job.route, row.job.pinned, row.job.lane))
                .or_insert(row.due);
            *at = row.due.min(*at);
        }
        let due = due.into_iter().map(|((route, pinned, lane), at)| Due {
            route,
            pinned,
            lane,
            at,
        });
        Ok(due.collect())
    }

    async fn list(&self, filter: &Filter, _: SystemTime) -> Result<Vec<Entry>, StoreError> {
        Ok(self
            .rows()
            .into_iter()
            .filter(|row| filter.route.as_ref().is_none_or(|r| row.job.route == *r))
            .map(|row| Entry {
                id: row.job.message.id,
                route: row.job.route.clone(),
                state: State::Waiting,
                sender: None,
                recipients: row
                    .states
                    .iter()
                    .map(|(r, state, said)| EntryRecipient {
                        address: r.to_string(),
                        state: match state.as_str() {
                            "done" => RecipientState::Done,
                            "failed" => RecipientState::Failed,
                            _ => RecipientState::Waiting,
                        },
                        last_reply: said.clone(),
                    })
                    .collect(),
                attempts: row.job.attempts,
                next_attempt: Some(row.due),
                pinned: row.job.pinned,
                lane: row.job.lane,
                size: 0,
                accepted: row.job.accepted,
            })
            .collect())
    }

    async fn content(&self, id: MessageId) -> Result<Option<Arc<Message>>, StoreError> {
        Ok(self
            .rows()
            .into_iter()
            .find(|row| row.job.message.id == id)
            .map(|row| row.job.message))
    }

    async fn events(&self, _: MessageId) -> Result<Vec<Event>, StoreError> {
        Ok(Vec::new())
    }

    async fn command(
        &self,
        filter: &Filter,
        verb: &Verb,
        _: SystemTime,
    ) -> Result<u64, StoreError> {
        self.write()?;
        let Verb::Reroute(to) = verb else {
            return Ok(0);
        };
        let mut count = 0;
        for row in self.rows.lock().unwrap().iter_mut() {
            if Some(row.job.message.id) == filter.id
                && Some(&row.job.route) == filter.route.as_ref()
            {
                row.job.route = to.clone();
                count += 1;
            }
        }
        Ok(count)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(Stats::default())
    }

    async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        Ok(self.lanes.lock().unwrap().values().cloned().collect())
    }

    async fn set_lane(&self, lane: LaneRow) -> Result<(), StoreError> {
        self.write()?;
        self.lanes.lock().unwrap().insert(lane.lane.clone(), lane);
        Ok(())
    }

    async fn shift(&self, shift: Option<&Shift>) -> Result<(), StoreError> {
        self.write()?;
        let Some(shift) = shift else { return Ok(()) };
        self.notes
            .lock()
            .unwrap()
            .insert(CLOCK.to_owned(), shift.note.clone());
        let moved = |at: SystemTime, latest: SystemTime| {
            let is_new = shift.since <= at && at <= shift.now + Duration::from_secs(10);
            let by = if is_new { 0 } else { shift.by };
            postern::delivery::clock::moved(at, by).min(latest)
        };
        let latest = shift.now + shift.longest;
        for row in self.rows.lock().unwrap().iter_mut() {
            let accepted = moved(row.job.accepted, shift.now);
            row.due = match row.due {
                due if due == row.job.accepted => accepted,
                due if shift.by > 0 && due >= shift.since => due.min(latest),
                due => moved(due, latest),
            };
            row.job.accepted = accepted;
        }
        for lane in self.lanes.lock().unwrap().values_mut() {
            lane.since = moved(lane.since, shift.now);
            lane.probe = lane.probe.map(|probe| moved(probe, latest));
        }
        Ok(())
    }

    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.notes.lock().unwrap().get(key).cloned())
    }

    async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        self.write()?;
        self.notes.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    async fn prune(
        &self,
        _: Duration,
        _: Duration,
        _: SystemTime,
    ) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn shrink(&self, _: bool) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn beat(&self, _: &Standing) -> Result<Beat, StoreError> {
        let node = NodeId::default();
        Ok(Beat {
            node,
            nodes: vec![NodeRow { id: node }],
            changes: self.version.load(Ordering::SeqCst),
        })
    }

    fn bodies(&self) -> &BodyStore {
        &self.bodies
    }

    fn health(&self) -> Health {
        if self.unhealthy.load(Ordering::SeqCst) {
            Health::Failing
        } else {
            Health::Fine
        }
    }
}

/// What the scripted connector does next.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Takes everything.
    Take,
    /// Takes nothing.
    Obstacle(Obstacle),
    /// An outcome for each recipient by its local part; the others are delivered.
    Mixed(Vec<(&'static str, Outcome)>),
    /// Panics.
    Panic,
    /// Waits that long, then takes everything.
    Slow(Duration),
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) message: Arc<Message>,
    pub(crate) recipients: Vec<String>,
}

/// Follows a script, then does `otherwise`.
#[derive(Debug)]
pub(crate) struct Scripted {
    name: ConnectorName,
    script: Mutex<VecDeque<Act>>,
    pub(crate) otherwise: Mutex<Act>,
    pub(crate) calls: Mutex<Vec<Call>>,
    /// What a login finds.
    pub(crate) login: Mutex<Result<(), Obstacle>>,
    pub(crate) logins: AtomicU64,
}

impl Scripted {
    pub(crate) fn new(name: &str, script: impl IntoIterator<Item = Act>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            script: Mutex::new(script.into_iter().collect()),
            otherwise: Mutex::new(Act::Take),
            calls: Mutex::default(),
            login: Mutex::new(Ok(())),
            logins: AtomicU64::new(0),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// The recipients of each call.
    pub(crate) fn seen(&self) -> Vec<Vec<String>> {
        let calls = self.calls.lock().unwrap();
        calls.iter().map(|c| c.recipients.clone()).collect()
    }
}

#[async_trait]
impl Connector for Scripted {
    fn lane(&self, _: &Message) -> Lane {
        Lane {
            connector: self.name.clone(),
            mailbox: None,
            from: None,
        }
    }

    async fn deliver(&self, message: &Message, recipients: &[Recipient], _: Instant) -> Report {
        self.calls.lock().unwrap().push(Call {
            at: Instant::now(),
            message: Arc::new(message.clone()),
            recipients: recipients.iter().map(ToString::to_string).collect(),
        });
        let act = self.script.lock().unwrap().pop_front();
        let act = act.unwrap_or_else(|| self.otherwise.lock().unwrap().clone());
        let ok = Outcome::Delivered(Reply::new(250, (2, 0, 0), "taken"));
        let mixed = match act {
            Act::Obstacle(obstacle) => return obstacle.into(),
            Act::Panic => panic!("as the script says"),
            Act::Take => Vec::new(),
            Act::Slow(time) => {
                tokio::time::sleep(time).await;
                Vec::new()
            }
            Act::Mixed(mixed) => mixed,
        };
        let outcomes = recipients.iter().map(|recipient| {
            let outcome = mixed
                .iter()
                .find(|(local, _)| *local == recipient.address.local());
            (
                recipient.address.clone(),
                outcome.map_or_else(|| ok.clone(), |(_, outcome)| outcome.clone()),
            )
        });
        Report::Tried {
            outcomes: outcomes.collect(),
            via: format!("{}.example[192.0.2.1]:25", self.name),
            pause: None,
        }
    }

    async fn probe(&self, _: Instant) -> Result<String, Obstacle> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        self.login.lock().unwrap().clone().map(|()| "in".to_owned())
    }
}
