//! What the quotas have counted is noted in the queue, so that a restart forgives little; and who has no room, for `status`.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::{
    listener::Shared,
    policy::ledger::QuotaStanding,
    queue::store::Store,
    view::{FullQuota, QUOTAS_ROW},
};

/// The note of the windows.
const WINDOWS: &str = "quota windows";
/// Between two notes.
const NOTED: Duration = Duration::from_secs(10);

/// What the start before has noted counts on.
pub(super) async fn recall(store: &dyn Store, shared: &Shared) {
    if let Ok(Some(note)) = store.note(WINDOWS).await {
        shared.quotas.recall(&note);
    }
}

/// Writes what has changed, every ten seconds.
pub(super) async fn keep(store: Arc<dyn Store>, shared: Arc<Shared>) {
    let mut tick = interval(NOTED);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tick.tick().await;
        write(store.as_ref(), &shared).await;
        let full = full(&shared.quotas.standing());
        // What a start before has left there is not true any more.
        if told.as_ref() != Some(&full) {
            let text = serde_json::to_string(&full).unwrap_or_default();
            if store.set_note(QUOTAS_ROW, text).await.is_ok() {
                told = Some(full);
            }
        }
    }
}

/// Writes what has changed.
pub(super) async fn write(store: &dyn Store, shared: &Shared) {
    let Some(note) = shared.quotas.note() else {
        return;
    };
    if let Err(error) = store.set_note(WINDOWS, note).await {
        warn!(event = "quotas not noted", error = %error, "what the quotas have counted cannot be noted");
    }
}

/// The quotas that somebody has overrun.
fn full(standing: &[QuotaStanding]) -> Vec<FullQuota> {
    let full = standing.iter().filter(|quota| quota.full > 0);
    full.map(|quota| FullQuota {
        quota: quota.name.to_string(),
        full: quota.full,
        named: quota.named.iter().map(|(key, _)| key.clone()).collect(),
    })
    .collect()
}
