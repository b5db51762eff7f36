//! NOTHING IS LOST: accept, claim, settle, operator verbs.
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::route::Routed;

pub mod sqlite;
pub mod store;

/// `[queue]`, but for retry and give_up, which are the routes'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `data_dir`: the database and `spool/` are in it.
    pub data_dir: PathBuf,
    /// How long a message with a failed recipient is kept.
    pub keep_failed: Duration,
    /// How long it is remembered who, when, what became of it.
    pub keep_history: Duration,
}

/// A place on the fast path, reserved before the insert and used after it: gets the jobs that are now leased in the store.
/// Dropped unused (the insert failed) it gives the permit back.
pub type Ticket = Box<dyn FnOnce(Vec<store::Job>) + Send>;

/// Asked before an insert whether the message can go out at once. Delivery provides it.
pub type Reserve = dyn Fn(&Routed) -> Option<Ticket> + Send + Sync;

/// The durable queue: the store, and the bell that wakes delivery.
pub struct Queue {
    store: Arc<dyn store::Store>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// A queue over an open store.
    pub fn new(store: Arc<dyn store::Store>) -> Self {
        Self { store }
    }

    /// The store itself, for commands and delivery.
    pub fn store(&self) -> &Arc<dyn store::Store> {
        &self.store
    }

    /// Sets who is asked for the fast path; `None` switches it off (drain).
    pub fn set_reserve(&self, reserve: Option<Arc<Reserve>>) {
        let _ = reserve;
    }

    /// Makes the message durable; then hands it to delivery, or rings the bell.
    ///
    /// # Errors
    /// [`store::StoreError`]; nothing was kept.
    pub async fn accept(
        &self,
        mail: Routed,
        now: std::time::SystemTime,
    ) -> Result<(), store::StoreError> {
        let _ = (mail, now);
        todo!()
    }

    /// Waits until something was accepted (or `wake` was called) since the last wait.
    pub async fn changed(&self) {}

    /// Rings the bell.
    pub fn wake(&self) {}
}
