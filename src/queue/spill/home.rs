//! The database is away, and comes back: then what became of its jobs is written there, and messages move. Each step may be the last
//! one: the next start goes on, and the ids decide.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use super::{
    core::{SpillCore, in_time},
    outcome,
};
use crate::{
    mail::{message::MessageId, outcome::LaneState},
    queue::{
        moving::{KeptOutcome, MovingMessage},
        postgres::PostgresStore,
        store::{Kept, LaneRow, NodeId, Settled, Standing, Store as _, StoreError},
    },
    telemetry::noticed,
};

/// Between two looks.
const TURN: Duration = Duration::from_secs(1);
/// Messages that move together.
const BATCH: usize = 100;
/// Outcomes that are forgotten together.
const OUTCOMES: usize = 64;
/// The note that says which database was seen from here.
pub(super) const SEEN: &str = "database";

impl SpillCore {
    /// Looks once a second, until it is dropped.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TURN.min(self.settings.patience / 5)).await;
            self.turn().await;
        }
    }

    async fn turn(&self) {
        // Leases of callers that went away are given back; one that fails says so where mail is.
        let _ = self.local.beat(&Standing::of(NodeId(0))).await;
        if self.is_away()
            && self.is_worth_a_look()
            && let Err(error) = self.come_back().await
        {
            self.went(&words(error));
        }
        if !self.is_away() {
            self.go_home().await;
        }
        self.recount().await;
    }

    /// Whether this database was seen from here before.
    pub(super) async fn was_seen(&self) -> Result<bool, StoreError> {
        Ok(self.local.note(SEEN).await?.as_deref() == Some(&self.seen()))
    }

    fn seen(&self) -> String {
        serde_json::json!([self.settings.database, self.settings.schema]).to_string()
    }

    /// Opens it, if it never was; else asks whether it answers. What was kept for it is written before anybody else uses it: a first
    /// word of this node would free jobs that are over.
    pub(super) async fn come_back(&self) -> Result<(), StoreError> {
        if let Some(remote) = self.opened() {
            in_time(self.settings.patience, remote.probe()).await?;
        } else {
            let opened = Box::pin(PostgresStore::open(self.settings.clone())).await;
            self.is_open(opened.map_err(|error| StoreError::Away(error.to_string()))?);
        }
        let Some(remote) = self.opened() else {
            return Ok(());
        };
        if self.is_gateway() {
            if !self.was_seen().await? {
                self.bring_lanes(remote).await?;
                self.local.set_note(SEEN, self.seen()).await?;
            }
            self.write_outcomes(remote).await?;
        }
        self.came();
        Ok(())
    }

    /// The first time: what somebody has stopped on this machine stays so, where the database says nothing of it.
    async fn bring_lanes(&self, remote: &PostgresStore) -> Result<(), StoreError> {
        for row in self.local.lanes().await? {
            if matches!(row.state, LaneState::Stopped | LaneState::Paused) {
                let version = 0;
                let row = LaneRow { version, ..row };
                in_time(self.settings.patience, remote.set_lane(row)).await?;
            }
        }
        Ok(())
    }

    /// Writes what became of jobs while it was away, in the order in which it was kept.
    pub(super) async fn write_outcomes(&self, remote: &PostgresStore) -> Result<(), StoreError> {
        let _one = self.returning.lock().await;
        let mut after = 0;
        loop {
            let some = self.local.kept_outcomes(after, OUTCOMES).await?;
            let Some((last, _)) = some.last() else {
                return Ok(());
            };
            after = *last;
            let mut done = Vec::new();
            let mut failed = None;
            for (number, kept) in some {
                self.step().await;
                match self.write_outcome(remote, &kept).await {
                    Ok(true) => done.push(number),
                    Ok(false) => {}
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            self.step().await;
            self.local.forget_outcomes(done).await?;
            self.has_changed();
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    /// Whether it is written. One that the database does not take for what it says stays here.
    async fn write_outcome(
        &self,
        remote: &PostgresStore,
        kept: &KeptOutcome,
    ) -> Result<bool, StoreError> {
        let (id, job) = (kept.message, kept.job);
        let now = if self.settings.callers_clock {
            kept.at
        } else {
            SystemTime::now()
        };
        let Some(settlement) = outcome::read(kept, now) else {
            tracing::error!(%id, job, "what became of a job cannot be read, and stays in queue.db");
            return Ok(false);
        };
        let mut recipients = settlement.recipients.iter();
        let is_delivered = recipients.any(|(_, settled)| matches!(settled, Settled::Done(_)));
        match in_time(self.settings.patience, remote.settle(settlement, now)).await {
            Ok(Kept::Late) => tracing::warn!(
                event = "late outcome",
                %id,
                "another gateway had taken this over meanwhile: what was delivered counts"
            ),
            Ok(Kept::Lost) if is_delivered => {
                noticed::sent_twice();
                tracing::warn!(
                    event = "sent twice",
                    %id,
                    "another gateway has sent this as well while the database was away from here"
                );
            }
            // Of what was not delivered here, what the other gateway made of it is all there is.
            Ok(Kept::Written | Kept::Lost) => {}
            Err(StoreError::Unavailable(error)) => {
                tracing::error!(%id, job, error, "what became of a job cannot be written, and stays in queue.db");
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Moves what lies here into the database, but for what is being sent.
    async fn go_home(&self) {
        let Ok(remote) = self.here() else { return };
        if !self.is_to_move.swap(false, Ordering::AcqRel) {
            return;
        }
        let moved = async {
            if self.count().outcomes > 0 {
                self.write_outcomes(remote).await?;
            }
            self.move_messages(remote).await
        };
        match moved.await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(
                    event = "spill moved",
                    count,
                    "messages went from this machine into the database"
                );
                self.has_changed();
                self.turned.notify_one();
            }
            Err(error) => {
                self.is_to_move.store(true, Ordering::Release);
                match error {
                    error @ (StoreError::Away(_) | StoreError::Full) => self.went(&words(error)),
                    error => tracing::error!(%error, "messages cannot leave queue.db"),
                }
            }
        }
    }

    /// How many did.
    async fn move_messages(&self, remote: &PostgresStore) -> Result<usize, StoreError> {
        let (mut after, mut count) = (0, 0);
        loop {
            self.step().await;
            let (batch, last) = self.local.leave(after, BATCH).await?;
            let Some(last) = last else { return Ok(count) };
            after = last;
            self.step().await;
            let (refused, batch): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|one| self.is_refused(one));
            for one in refused {
                self.local.stays(one.message.id).await?;
            }
            count += self.move_batch(remote, batch).await?;
        }
    }

    fn is_refused(&self, one: &MovingMessage) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.contains(&one.message.id)
    }

    /// All of them together; each alone where the database does not take them so.
    async fn move_batch(
        &self,
        remote: &PostgresStore,
        batch: Vec<MovingMessage>,
    ) -> Result<usize, StoreError> {
        if batch.is_empty() {
            return Ok(0);
        }
        let now = SystemTime::now();
        let mut here: Vec<MessageId> = batch.iter().map(|one| one.message.id).collect();
        match self.ask(remote.arrive(batch.clone(), now)).await {
            Ok(()) => {}
            Err(StoreError::Unavailable(_)) => {
                here.clear();
                for one in batch {
                    let id = one.message.id;
                    match self.ask(remote.arrive(vec![one], now)).await {
                        Ok(()) => here.push(id),
                        Err(StoreError::Unavailable(error)) => self.refuse(id, &error).await?,
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        self.step().await;
        let count = here.len();
        self.local.left(here).await?;
        self.has_changed();
        Ok(count)
    }

    /// It stays, and is sent from here.
    async fn refuse(&self, id: MessageId, error: &str) -> Result<(), StoreError> {
        tracing::error!(%id, error, "the database does not take a message, which stays in queue.db and is sent from here");
        self.local.stays(id).await?;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert(id);
        Ok(())
    }
}

/// Without saying twice that it is away.
pub(super) fn words(error: StoreError) -> String {
    match error {
        StoreError::Away(why) => why,
        StoreError::Full => super::core::FULL.to_owned(),
        other @ (StoreError::Unavailable(_) | StoreError::Newer(_) | StoreError::Crowded) => {
            other.to_string()
        }
    }
}
