//! What is old in `window.db` goes, a part at a time, whether there is a page or not: incidents that are over, the audit, proposals, logins,
//! and the files of secrets that nobody names.

use std::time::{Duration, SystemTime};

use rusqlite::Transaction;

use crate::{
    config::Config,
    gateway::host::GatewayHost,
    window::{WindowDb, audit, incidents, proposals, sessions},
};

const DAY: Duration = Duration::from_hours(24);
/// What is over is kept so long.
const INCIDENTS: Duration = Duration::from_hours(24 * 90);
/// So long a proposal waits.
const WAITS: Duration = Duration::from_hours(24 * 30);
/// Without `[admin]` the audit is kept as long as it is by default.
const AUDIT: Duration = Duration::from_hours(24 * 365);

/// Once.
pub(super) async fn tidy(window: &WindowDb, host: &GatewayHost, config: &Config, now: SystemTime) {
    let settings = config.window.as_ref();
    let before = |age: Duration| now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let kept = before(settings.map_or(AUDIT, |settings| settings.keep_audit));
    let over = before(INCIDENTS);
    all(window, move |tx| incidents::forget(tx, over)).await;
    all(window, move |tx| audit::forget(tx, kept)).await;
    // Nobody is in for longer than a session, and a link is good for minutes.
    let made = before(settings.map_or(DAY, |settings| settings.session.max(DAY)));
    // What cannot be written now goes the next time.
    let _ = window.run(move |tx| sessions::forget(tx, made)).await;
    let waited = before(WAITS);
    let bodies = window.run(move |tx| {
        proposals::expire(tx, waited, Some(kept))?;
        proposals::open_bodies(tx)
    });
    // Of proposals that cannot be read nobody knows what they name.
    if let Ok(bodies) = bodies.await {
        host.forget_secrets(bodies).await;
    }
}

/// Part after part, until none is left or it cannot be written.
async fn all(
    window: &WindowDb,
    forget: impl Fn(&Transaction<'_>) -> rusqlite::Result<usize> + Clone + Send + 'static,
) {
    while window.run(forget.clone()).await.is_ok_and(|gone| gone > 0) {}
}
