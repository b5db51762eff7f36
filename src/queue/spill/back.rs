//! The whole queue goes back from the database of several gateways into the one of this machine, by a command and while none of them is at
//! work: copied, compared, and only then deleted there.
//!
//! Each step may be the last one, and all of it may be done again: what is copied counts as on its way, and is sent by nobody, until all of
//! it is here; what is deleted there is here. It does not open any sealed note.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    core::{SpillCore, SpillSettings},
    home::SEEN,
};
use crate::{
    mail::{
        message::{Body, Message, MessageId},
        outcome::LaneState,
    },
    queue::{
        body::BodyStore,
        disk,
        moving::{LeavingPage, MovingMessage, MovingTally},
        postgres::{self, OpenError, PostgresStore},
        sqlite::SqliteStore,
        store::{self, JobState, LaneRow, NodeRow, Retention, Standing, Store as _, StoreError},
    },
};

/// Messages that are copied or deleted together.
const BATCH: usize = 100;
/// Notes that all gateways have together begin so.
const TOKENS: [&str; 2] = ["refresh token of ", "rotation "];

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Messages with something that waits or is being sent.
    pub waiting: u64,
    /// Held ones.
    pub held: u64,
    /// Failed ones, which are kept.
    pub failed: u64,
    /// What is over.
    pub history: u64,
    /// What the database had of those that were copied now.
    pub there: MovingTally,
    /// What is here of them.
    pub here: MovingTally,
    /// Messages that cannot be read there, and why.
    pub broken: Vec<(MessageId, String)>,
    /// The place of the last one.
    last: i64,
}

impl Copied {
    /// All of them.
    pub fn messages(&self) -> u64 {
        self.waiting + self.held + self.failed + self.history
    }

    /// Whether all of it is here as it was there.
    pub fn is_whole(&self) -> bool {
        self.there == self.here && self.broken.is_empty()
    }

    fn add(&mut self, one: &MovingMessage) {
        let states = one.jobs.iter().map(|job| job.state);
        let of = |state| states.clone().any(|found| found == state);
        let count = if one.jobs.is_empty() {
            &mut self.history
        } else if of(JobState::Held) {
            &mut self.held
        } else if of(JobState::Waiting) {
            &mut self.waiting
        } else {
            &mut self.failed
        };
        *count += 1;
    }
}

/// Why it ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BackFault {
    /// One of the stores.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// Somebody began to work on the database.
    #[error("a gateway has begun to work on the database: end it, and run this again")]
    AtWork,
}

/// See the module.
#[derive(Debug)]
pub struct BackMove {
    remote: Arc<PostgresStore>,
    local: Arc<SqliteStore>,
    core: SpillCore,
}

impl BackMove {
    /// Opens both; `remote` as a command does. What this machine's gateway was sending from its own queue is due again, as at a start:
    /// nobody may be at work here.
    ///
    /// # Errors
    /// [`BackFault`].
    pub async fn open(
        remote: postgres::Settings,
        local: store::Settings,
    ) -> Result<Self, BackFault> {
        let incoming = remote.data_dir.join("incoming");
        let no_spill = SpillSettings {
            spills: false,
            size: 0,
        };
        let opened = PostgresStore::open(remote.clone()).await?;
        let opening = tokio::task::spawn_blocking(move || {
            let local = SqliteStore::open(&local)?;
            let unavailable = |error: std::io::Error| StoreError::Unavailable(error.to_string());
            disk::directory(&incoming).map_err(unavailable)?;
            BodyStore::new(&incoming).remove_orphans(|_| false);
            Ok::<_, StoreError>(local)
        });
        let local = opening
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))?;
        local.beat(&Standing::default()).await?;
        let core = SpillCore::new(remote, no_spill, Arc::clone(&local));
        core.is_open(Arc::clone(&opened));
        core.came();
        Ok(Self {
            remote: opened,
            local,
            core,
        })
    }

    /// The server that has the queue.
    pub fn host(&self) -> String {
        self.remote.server()
    }

    /// The starts of gateways that are not over, as far as the database knows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn at_work(&self) -> Result<Vec<NodeRow>, StoreError> {
        let mut rows = self.remote.nodes().await?;
        rows.retain(|row| !row.is_gone);
        Ok(rows)
    }

    /// Writes into the database what became of its jobs while it was away from here. Says how many outcomes it does not take.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write_outcomes(&self) -> Result<u64, StoreError> {
        self.core.write_outcomes(&self.remote).await?;
        Ok(self.local.left_behind().await?.outcomes)
    }

    /// What these held, which have fallen silent, may have arrived, and is due after `wait`. False: one of them is heard of.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_over(
        &self,
        silent: &[NodeRow],
        wait: Duration,
        now: SystemTime,
    ) -> Result<bool, StoreError> {
        for row in silent {
            if !self.remote.take_over(row, now + wait, now).await? {
                return Ok(false);
            }
        }
        // And what came late for those that were gone before.
        self.remote.maintain(&Retention::default(), now).await?;
        Ok(true)
    }

    /// Copies all of it, and counts it on both sides.
    ///
    /// # Errors
    /// [`BackFault`]: what was copied until then is sent by nobody here.
    pub async fn copy(&self, now: SystemTime) -> Result<Copied, BackFault> {
        let mut copied = Copied::default();
        loop {
            let page = self.remote.leaving(copied.last, BATCH, now).await?;
            let LeavingPage {
                messages,
                mut broken,
                last,
                is_at_work,
            } = page;
            if is_at_work {
                return Err(BackFault::AtWork);
            }
            let Some(last) = last else { return Ok(copied) };
            copied.last = last;
            copied.broken.append(&mut broken);
            self.copy_some(messages, &mut copied).await?;
        }
    }

    async fn copy_some(
        &self,
        messages: Vec<MovingMessage>,
        copied: &mut Copied,
    ) -> Result<(), StoreError> {
        let ids = messages.iter().map(|one| one.message.id).collect();
        let known = self.local.known(ids).await?;
        let (mut arriving, mut tallies) = (Vec::new(), HashMap::new());
        for (mut one, known) in messages.into_iter().zip(known) {
            copied.add(&one);
            if known == Some(false) {
                continue;
            }
            tallies.insert(one.message.id, MovingTally::of(&one));
            if known.is_none() && matches!(one.message.body, Body::Stored(_)) {
                match self.fetch(&one.message).await? {
                    Ok(body) => {
                        let mut message = Message::clone(&one.message);
                        message.body = body;
                        one.message = Arc::new(message);
                    }
                    Err(why) => {
                        copied.broken.push((one.message.id, why));
                        continue;
                    }
                }
            }
            arriving.push(one);
        }
        let taken = self.local.arrive(arriving).await?;
        for id in &taken {
            copied.there.add(tallies.remove(id).unwrap_or_default());
        }
        copied.here.add(self.local.tally(taken).await?);
        Ok(())
    }

    /// A large body, on the disk of this machine from now on; or why the database does not have it whole.
    async fn fetch(&self, message: &Message) -> Result<Result<Body, String>, StoreError> {
        let mut body = match message.body.open().await {
            Ok(body) => body,
            Err(error) => {
                // Where the database is away, that is what is wrong.
                self.remote.probe().await?;
                return Ok(Err(error.to_string()));
            }
        };
        let unwritten = |error: std::io::Error| {
            StoreError::Unavailable(format!("the body of {}: {error}", message.id))
        };
        let mut writer = self.local.bodies().writer(message.id);
        while let Some(piece) = body.next().await.map_err(unwritten)? {
            writer.append(&piece).await.map_err(unwritten)?;
        }
        writer.finish().await.map(Ok).map_err(unwritten)
    }

    /// What somebody has stopped there stays so here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bring_lanes(&self) -> Result<(), StoreError> {
        let here = self.local.lanes().await?;
        for row in self.remote.lanes().await? {
            let is_meant = matches!(row.state, LaneState::Stopped | LaneState::Paused);
            if !is_meant || row.node != store::NodeId::default() {
                continue;
            }
            let own = here.iter().find(|own| own.lane == row.lane);
            let version = own.map_or(0, |own| own.version);
            self.local.set_lane(LaneRow { version, ..row }).await?;
        }
        Ok(())
    }

    /// What gateways share beside the mail, as it lies there: sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tokens(&self) -> Result<Vec<(String, String)>, StoreError> {
        let mut all = Vec::new();
        for beginning in TOKENS {
            all.extend(self.remote.notes(beginning).await?);
        }
        Ok(all)
    }

    /// Keeps one of these here as it says, and forgets it there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bring_token(&self, key: &str, opened: String) -> Result<(), StoreError> {
        self.local.set_note(key, opened).await?;
        self.remote.forget_note(key).await
    }

    /// What is here is this gateway's to send from now on; then it is deleted there. How many were not, since they are not here.
    ///
    /// # Errors
    /// [`BackFault`]: what was not deleted is deleted the next time.
    pub async fn finish(&self, copied: &Copied) -> Result<u64, BackFault> {
        // A later move there begins anew.
        self.local.set_note(SEEN, String::new()).await?;
        self.local.stay().await?;
        let (mut after, mut missing) = (0, 0);
        loop {
            let some = self.remote.places((after, copied.last), BATCH).await?;
            let Some((_, last)) = some.last() else { break };
            after = *last;
            let ids: Vec<MessageId> = some.into_iter().map(|(id, _)| id).collect();
            let known = self.local.known(ids.clone()).await?;
            let here = ids.into_iter().zip(known);
            let (here, others): (Vec<_>, Vec<_>) = here.partition(|(_, known)| known.is_some());
            missing += others.len() as u64;
            let here = here.into_iter().map(|(id, _)| id).collect();
            if !self.remote.left(here).await? {
                return Err(BackFault::AtWork);
            }
        }
        if !self.remote.forget_lanes().await? {
            return Err(BackFault::AtWork);
        }
        self.forget_outcomes().await?;
        Ok(missing)
    }

    /// What the database did not take says nothing any more: its jobs are here.
    async fn forget_outcomes(&self) -> Result<(), StoreError> {
        loop {
            let some = self.local.kept_outcomes(0, BATCH).await?;
            if some.is_empty() {
                return Ok(());
            }
            let numbers = some.into_iter().map(|(number, _)| number).collect();
            self.local.forget_outcomes(numbers).await?;
        }
    }
}
