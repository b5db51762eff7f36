//! Looks after credentials while the gateway runs: what the store remembers of them is looked up, and certificates that are to be replaced by
//! themselves are taken a step further when one is due.
//!
//! It is no part of the way of a message, and mail never waits for it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::warn;

use super::{
    ends,
    instruments::Instruments,
    rotated::credentials,
    rotation::{Rotator, until},
    tokens::StoredTokens,
};
use crate::{config::Config, queue::store::Store};

/// Between two looks, unless something is due before.
const LOOK: Duration = Duration::from_hours(1);
/// After a start, or new settings, nothing is asked of anybody before this: what comes first is mail.
const FIRST: Duration = Duration::from_secs(5);
/// After what the store could not do.
const AGAIN: Duration = Duration::from_mins(1);

/// For as long as there are settings.
pub(super) async fn keep(
    mut settings: watch::Receiver<Arc<Config>>,
    store: Arc<dyn Store>,
    instruments: Arc<Instruments>,
) {
    loop {
        let config = settings.borrow_and_update().clone();
        look(&config, &store, &instruments, false).await;
        let mut next = Instant::now() + FIRST;
        let is_over = loop {
            tokio::select! {
                changed = settings.changed() => break changed.is_err(),
                () = instruments.ends.asked.notified() => next = Instant::now(),
                () = sleep_until(next) => {
                    let wait = look(&config, &store, &instruments, true).await;
                    next = Instant::now() + wait;
                }
            }
        };
        if is_over {
            return;
        }
    }
}

/// How long until the next one is due.
async fn look(
    config: &Config,
    store: &Arc<dyn Store>,
    instruments: &Instruments,
    may_act: bool,
) -> Duration {
    let mut found = ends::refresh_tokens(config, store).await;
    let rotator = Rotator::new(config, store);
    let mut wait = LOOK;
    for credential in credentials(config) {
        // After a change of the key that seals it the old one may be gone soon.
        let sealed = StoredTokens::seal_anew(store, config, &credential.key).await;
        let standing = if sealed.is_err() {
            sealed.and(rotator.standing(&credential).await)
        } else if may_act {
            rotator.advance(&credential, false).await
        } else {
            rotator.standing(&credential).await
        };
        match standing {
            Ok(standing) => {
                wait = wait.min(until(&standing));
                ends::keep(&mut found, &credential, &standing);
            }
            Err(why) => {
                wait = wait.min(AGAIN);
                warn!(event = "rotation not looked at", connector = %credential.connectors.join(", "), error = %why, "what is kept of a certificate cannot be read or written; it is tried again");
            }
        }
    }
    instruments.ends.found(found);
    wait
}
