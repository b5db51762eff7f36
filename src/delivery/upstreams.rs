//! What connectors found out about their upstreams: kept beside the queue for the next start, and for `status`.
//!
//! It decides nothing by it; a connector that leads somewhere else than the one that found it out is told nothing.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::setup::Built;
use crate::{
    connector::{Connections, Learned, Memory},
    mail::time::{parsed, rfc3339},
    queue::Queue,
};

/// The key of the row.
pub const UPSTREAMS_ROW: &str = "upstreams";
/// It is written at most so often.
const EVERY: Duration = Duration::from_secs(1);

/// The row: the upstream of each connector that keeps connections.
pub type UpstreamsRow = BTreeMap<String, UpstreamRow>;

/// The connections of one connector, and what its upstream was found to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRow {
    /// Where it leads, as whom: what was found out holds for nowhere else.
    pub upstream: String,
    /// Connections that are open.
    pub open: usize,
    /// As many as may be open now.
    pub width: usize,
    /// As many as may ever be.
    pub most: usize,
    /// What the upstream was found to take, if it refused more.
    pub learned: Option<usize>,
    /// Since when that is known.
    pub learned_at: Option<String>,
    /// No commands are written behind the content of another message before this.
    pub not_early: Option<String>,
}

impl UpstreamRow {
    fn memory(&self) -> Memory {
        let since = self.learned_at.as_deref().and_then(parsed);
        Memory {
            learned: self
                .learned
                .zip(since)
                .map(|(connections, since)| Learned { connections, since }),
            not_early: self.not_early.as_deref().and_then(parsed),
            // Those of a process that is gone are closed.
            is_connected: false,
        }
    }
}

/// From the store; what cannot be read says nothing.
pub fn read(text: Option<&str>) -> UpstreamsRow {
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The row as it was last written.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    written: UpstreamsRow,
    at: Option<Instant>,
}

impl Upstreams {
    /// What the last run found out.
    pub(super) async fn recall(&mut self, queue: &Queue, built: &Built, now: SystemTime) {
        let Ok(text) = queue.store().note(UPSTREAMS_ROW).await else {
            return;
        };
        for (name, row) in read(text.as_deref()) {
            let connector = built.connectors.get(&name.as_str().into());
            if let Some((settings, connector)) = connector
                && settings.kind.upstream().as_ref() == Some(&row.upstream)
            {
                connector.recall(&row.memory(), now);
            }
        }
    }

    /// Writes what has changed.
    pub(super) async fn write(&mut self, queue: &Queue, built: &Built, now: SystemTime) {
        if self.at.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.at = Some(Instant::now());
        let row: UpstreamsRow = built
            .connectors
            .iter()
            .filter_map(|(name, (settings, connector))| {
                let upstream = settings.kind.upstream()?;
                let connections = connector.connections()?;
                let memory = connector.memory(now);
                Some((name.to_string(), one(upstream, connections, &memory)))
            })
            .collect();
        if row == self.written {
            return;
        }
        let text = serde_json::to_string(&row).unwrap_or_default();
        // Next time, if not now: nothing waits for it.
        if queue.store().set_note(UPSTREAMS_ROW, text).await.is_ok() {
            self.written = row;
        }
    }
}

fn one(upstream: String, connections: Connections, memory: &Memory) -> UpstreamRow {
    UpstreamRow {
        upstream,
        open: connections.open,
        width: connections.width,
        most: connections.most,
        learned: connections.learned,
        learned_at: memory.learned.map(|learned| rfc3339(learned.since)),
        not_early: memory.not_early.map(rfc3339),
    }
}

/// A reload: whoever leads to the same upstream as before goes on with what was found out.
pub(super) fn hand_over(before: &Built, after: &Built, now: SystemTime) {
    for (name, (settings, connector)) in &after.connectors {
        if let Some((old, known)) = before.connectors.get(name)
            && settings.kind.upstream().is_some()
            && settings.kind.upstream() == old.kind.upstream()
            && !std::sync::Arc::ptr_eq(connector, known)
        {
            connector.recall(&known.memory(now), now);
        }
    }
}
