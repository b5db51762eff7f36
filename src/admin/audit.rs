//! Who did what is written down, and said in the log; what is refused again and again is counted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tracing::{info, warn};

use super::problem::ApiError;
use crate::{
    listener::limits::Network,
    mail::text::logged,
    window::{
        WindowDb,
        audit::{self as rows, AuditRow},
    },
};

/// Refusals of one address in a minute that have a row each; one more row counts the others.
const REFUSALS: u32 = 60;
const MINUTE: Duration = Duration::from_mins(1);
/// Addresses that are counted at once.
const COUNTED: usize = 1_000;

#[derive(Debug)]
struct RefusedCount {
    since: Instant,
    count: u32,
    last: AuditRow,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Auditor {
    window: Arc<WindowDb>,
    /// By network; `None`: those that there is no room for.
    refused: Mutex<HashMap<Option<String>, RefusedCount>>,
}

/// Where it comes from, as it is counted: of IPv6 the network that a machine has to itself.
fn counted(from: &str) -> String {
    let network = from.parse().map(Network::of);
    network.map_or_else(|_| from.to_owned(), |network| format!("{network:?}"))
}

impl Auditor {
    pub(super) fn new(window: Arc<WindowDb>) -> Self {
        Self {
            window,
            refused: Mutex::default(),
        }
    }

    /// Whether a row can be written: to be asked before something is done that must have one.
    pub(super) async fn ready(&self) -> Result<(), ApiError> {
        let probe = |tx: &rusqlite::Transaction<'_>| {
            tx.execute_batch("INSERT INTO audit (at, who, role, origin, action, object, result, request) VALUES (0, '', '', '', '', '', '', '');
                DELETE FROM audit WHERE at = 0")
        };
        self.window.run(probe).await.map_err(ApiError::from)
    }

    /// Something was done.
    pub(super) async fn write(&self, row: AuditRow) -> Result<(), ApiError> {
        debug_assert!(!row.action.is_empty(), "what was done has a word: {row:?}");
        say(&row);
        let written = self
            .window
            .run(move |tx| rows::add(tx, &row, SystemTime::now()))
            .await;
        written.map_err(|error| {
            warn!(event = "audit not written", error = %error, "what was done could not be written down");
            ApiError::from(error)
        })
    }

    /// Something was refused. Above so many a minute they are counted.
    pub(super) async fn refuse(&self, row: AuditRow) {
        let is_counted = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let network = Some(counted(&row.from));
            let is_room = refused.len() < COUNTED || refused.contains_key(&network);
            let entry = refused.entry(network.filter(|_| is_room));
            let entry = entry.or_insert_with(|| RefusedCount {
                since: Instant::now(),
                count: 0,
                last: row.clone(),
            });
            entry.count += 1;
            entry.last = row.clone();
            entry.count > REFUSALS
        };
        if !is_counted {
            // It was refused whether that can be written or not.
            let _ = self.write(row).await;
        }
    }

    /// Writes down how many were counted, once their minute is over.
    pub(super) async fn settle(&self) {
        let over: Vec<RefusedCount> = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let over = |entry: &RefusedCount| entry.since.elapsed() >= MINUTE;
            let from: Vec<Option<String>> = refused
                .iter()
                .filter(|(_, entry)| over(entry))
                .map(|(from, _)| from.clone())
                .collect();
            from.iter()
                .filter_map(|from| refused.remove(from))
                .collect()
        };
        for RefusedCount { count, last, .. } in over {
            let Some(more) = count.checked_sub(REFUSALS).filter(|more| *more > 0) else {
                continue;
            };
            let result = format!("{more} more within a minute");
            let _ = self.write(AuditRow { result, ..last }).await;
        }
    }
}

fn say(row: &AuditRow) {
    info!(
        event = "audit",
        who = %logged(&row.who),
        role = %row.role,
        from = %row.from,
        action = %row.action,
        object = %logged(&row.object),
        result = %logged(&row.result),
        request = %logged(&row.request),
        "audit"
    );
}
