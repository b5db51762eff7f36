//! What an operator asks and wishes of both stores; and the rows beside the mail: lanes are the database's, and so are notes that
//! several gateways share. What was last seen of those is remembered here, for as long as it is away.

use std::{sync::PoisonError, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{both, core::SpillCore};
use crate::{
    mail::{
        outcome::LaneState,
        time::{from_micros, micros},
    },
    queue::{
        filter::{Filter, FoundEntries, Search},
        operator::{Commanded, JobState, Verb},
        store::{LEARNED, LaneRow, NodeId, Store as _, StoreError},
    },
    route::LaneId,
};

/// Notes that begin so are of all gateways together. All others are what one of them says of itself, or its own affair.
const SHARED: &[&str] = &["refresh token of ", ROTATION, LEARNED];
/// Those of certificates that a gateway has replaced by itself.
const ROTATION: &str = "rotation ";
/// The note of the lanes as they were last seen.
const LANES: &str = "database lanes";

fn is_shared(key: &str) -> bool {
    SHARED.iter().any(|beginning| key.starts_with(beginning))
}

/// Where a shared note is remembered.
fn seen(key: &str) -> String {
    format!("database {key}")
}

/// A lane as it is remembered.
#[derive(Serialize, Deserialize)]
struct SeenLane {
    lane: String,
    state: String,
    since: i64,
    why: String,
    probe: Option<i64>,
    version: u64,
    #[serde(default)]
    node: u64,
}

impl SeenLane {
    fn of(row: &LaneRow) -> Self {
        Self {
            lane: row.lane.to_string(),
            state: row.state.as_str().to_owned(),
            since: micros(row.since),
            why: row.why.clone(),
            probe: row.probe.map(micros),
            version: row.version,
            node: row.node.0,
        }
    }

    fn row(self) -> LaneRow {
        LaneRow {
            lane: LaneId::parse(&self.lane),
            state: LaneState::parse(&self.state),
            since: from_micros(self.since),
            why: self.why,
            probe: self.probe.map(from_micros),
            version: self.version,
            node: NodeId(self.node),
        }
    }
}

impl SpillCore {
    /// What lies here first, then what is in the database: newest first each.
    pub(super) async fn search(&self, search: &Search) -> Result<FoundEntries, StoreError> {
        let from = search.from.as_ref().map(both::local_mark).transpose();
        let here = self.here();
        let mut found = FoundEntries::default();
        if let (Ok(from), true) = (&from, here.is_err() || self.has_local()) {
            let mut local = Search {
                from: from.clone(),
                ..search.clone()
            };
            // What was sent from here is told by those who ask for it by name; a page of the queue is of the database.
            let is_any = here.is_err() || but_done(&mut local.filter.states);
            if is_any {
                found = self.local.search(&local).await?;
                found.next = found.next.map(both::mark_of_local);
            }
            let is_whole = found.next.is_none() && found.searched_to.is_none();
            if here.is_err() || !is_whole || found.entries.len() >= search.limit {
                return Ok(found);
            }
        }
        let Ok(remote) = here else { return Ok(found) };
        let there = Search {
            from: from.err(),
            limit: search.limit - found.entries.len(),
            ..search.clone()
        };
        let there = match self.ask(remote.search(&there)).await {
            Ok(there) => there,
            Err(StoreError::Away(_)) => return Ok(found),
            Err(error) => return Err(error),
        };
        found
            .entries
            .retain(|entry| !there.entries.iter().any(|other| other.id == entry.id));
        found.entries.extend(there.entries);
        (found.next, found.searched_to) = (there.next, there.searched_to);
        Ok(found)
    }

    /// On both. While the database is away on what lies here; where there is nothing of it, it says why.
    pub(super) async fn command_if(
        &self,
        (filter, verb): (&Filter, &Verb),
        expect: Option<u64>,
        now: SystemTime,
    ) -> Result<Commanded, StoreError> {
        let remote = match self.here() {
            Ok(remote) => remote,
            Err(away) => {
                let done = self.local.command_if(filter, verb, expect, now).await?;
                self.has_changed();
                return if done.count() == 0 {
                    Err(away)
                } else {
                    Ok(done)
                };
            }
        };
        if !self.has_local() {
            return self.ask(remote.command_if(filter, verb, expect, now)).await;
        }
        // How many it would take here; nothing is done yet.
        let would = self.local.command_if(filter, verb, Some(u64::MAX), now);
        let here = would.await?.count();
        let taken = usize::try_from(here).unwrap_or(usize::MAX);
        let there = Filter {
            limit: filter.limit.map(|limit| limit.saturating_sub(taken)),
            ..filter.clone()
        };
        let expected = match expect {
            // Fewer than lie here: it says how many there are.
            Some(expect) if expect < here => Some(u64::MAX),
            other => other.map(|expect| expect - here),
        };
        let done = remote.command_if(&there, verb, expected, now);
        match self.ask(done).await? {
            Commanded::Unexpected(count) => Ok(Commanded::Unexpected(count + here)),
            Commanded::Taken(count) => {
                let done = self.local.command_if(filter, verb, None, now).await?;
                self.has_changed();
                Ok(Commanded::Taken(count + done.count()))
            }
        }
    }

    /// As the last start saw them.
    pub(super) async fn recall_lanes(&self) -> Result<(), StoreError> {
        let Some(text) = self.local.note(LANES).await? else {
            return Ok(());
        };
        let rows: Vec<SeenLane> = serde_json::from_str(&text).unwrap_or_default();
        let rows = rows.into_iter().map(SeenLane::row).collect();
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
        Ok(())
    }

    pub(super) async fn lanes(&self) -> Result<Vec<LaneRow>, StoreError> {
        let there = match self.here() {
            Ok(remote) => self.ask_soon(remote.lanes()).await,
            Err(away) => Err(away),
        };
        match there {
            Ok(rows) => {
                self.remember_lanes(rows.clone()).await;
                Ok(rows)
            }
            Err(StoreError::Away(_)) => {
                let seen = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(seen.clone().unwrap_or_default())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn set_lane(&self, lane: LaneRow) -> Result<bool, StoreError> {
        let remote = self.here()?;
        let is_set = self.ask_soon(remote.set_lane(lane.clone())).await?;
        if is_set {
            let mut rows = {
                let seen = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                seen.clone().unwrap_or_default()
            };
            rows.retain(|row| (&row.lane, row.node) != (&lane.lane, lane.node));
            if lane.state != LaneState::Open || lane.lane.mailbox.is_none() {
                let version = lane.version + 1;
                rows.push(LaneRow { version, ..lane });
            }
            self.remember_lanes(rows).await;
        }
        Ok(is_set)
    }

    /// One that an operator has stopped stays so for a start that finds the database away.
    async fn remember_lanes(&self, rows: Vec<LaneRow>) {
        if !self.is_gateway() {
            return;
        }
        {
            let mut seen = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.as_ref() == Some(&rows) {
                return;
            }
            *seen = Some(rows.clone());
        }
        let rows: Vec<SeenLane> = rows.iter().map(SeenLane::of).collect();
        let text = serde_json::to_string(&rows).unwrap_or_default();
        if let Err(error) = self.local.set_note(LANES, text).await {
            tracing::error!(%error, "the state of the connectors cannot be remembered here");
        }
    }

    pub(super) async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        if !is_shared(key) {
            return self.local.note(key).await;
        }
        let there = match self.here() {
            Ok(remote) => self.ask_soon(remote.note(key)).await,
            Err(away) => Err(away),
        };
        let away = match there {
            Ok(value) => {
                // What a gateway replaced while it was alone is in use: whoever reads it seals it, and gives it to all.
                if value.is_none()
                    && key.starts_with(ROTATION)
                    && let Some(own) = self.local.note(key).await?
                {
                    return Ok(Some(own));
                }
                self.remember(key, value.as_ref()).await?;
                return Ok(value);
            }
            Err(StoreError::Away(why)) => why,
            Err(error) => return Err(error),
        };
        match self.local.note(&seen(key)).await? {
            Some(text) => Ok(serde_json::from_str(&text).unwrap_or_default()),
            // Nobody can say that there is none.
            None => Err(StoreError::Away(away)),
        }
    }

    pub(super) async fn set_note(&self, key: &str, value: String) -> Result<(), StoreError> {
        if !is_shared(key) {
            return self.local.set_note(key, value).await;
        }
        let remote = self.here()?;
        self.ask_soon(remote.set_note(key, value.clone())).await?;
        self.remember(key, Some(&value)).await
    }

    pub(super) async fn replace_note(
        &self,
        key: &str,
        seen: Option<String>,
        value: String,
    ) -> Result<bool, StoreError> {
        if !is_shared(key) {
            return self.local.replace_note(key, seen, value).await;
        }
        let remote = self.here()?;
        // What a gateway brings from the time when it was alone was never there.
        let own = self.local.note(key).await?;
        let is_own = seen.is_some() && seen == own;
        let replaced = remote.replace_note(key, seen, value.clone());
        let mut is_replaced = self.ask_soon(replaced).await?;
        if !is_replaced && is_own {
            let brought = remote.replace_note(key, None, value.clone());
            is_replaced = self.ask_soon(brought).await?;
        }
        if is_replaced {
            self.remember(key, Some(&value)).await?;
        }
        Ok(is_replaced)
    }

    async fn remember(&self, key: &str, value: Option<&String>) -> Result<(), StoreError> {
        let (key, text) = (seen(key), serde_json::to_string(&value).unwrap_or_default());
        if self.local.note(&key).await?.as_ref() == Some(&text) {
            return Ok(());
        }
        self.local.set_note(&key, text).await
    }
}

/// Leaves out what is done. Whether there is anything left to look for.
fn but_done(states: &mut Vec<JobState>) -> bool {
    if states.is_empty() {
        *states = JobState::NOT_DONE.to_vec();
    }
    states.retain(|state| *state != JobState::Done);
    !states.is_empty()
}
