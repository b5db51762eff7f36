//! Leases between the writer and whoever asked for them.
//!
//! Apart because a caller may go away at any await, and a job leased to nobody would never be sent. It only notes what
//! is to be given back; `writer` does it.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::mpsc;

use super::{
    op::{Change, Nudge, Op},
    writer::Shared,
};

/// Makes [`Leases`].
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Option<mpsc::WeakSender<Box<dyn Op>>>,
}

impl Keeper {
    pub(super) fn leases(&self, change: &mut Change<'_>, jobs: Vec<i64>) -> Leases {
        let committed = Arc::new(AtomicBool::new(false));
        change.committed.push(committed.clone());
        Leases {
            jobs,
            committed,
            shared: self.shared.clone(),
            inbox: self.inbox.clone(),
        }
    }
}

/// Leases on their way to whoever asked for them: given back when that one has gone away meanwhile. A transaction
/// that was rolled back has none to give.
pub(super) struct Leases {
    jobs: Vec<i64>,
    committed: Arc<AtomicBool>,
    shared: Arc<Shared>,
    inbox: Option<mpsc::WeakSender<Box<dyn Op>>>,
}

impl Leases {
    pub(super) fn handed_over(mut self) {
        self.jobs.clear();
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if self.jobs.is_empty() || !self.committed.load(Ordering::Acquire) {
            return;
        }
        self.shared
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&mut self.jobs);
        if let Some(inbox) = self.inbox.as_ref().and_then(mpsc::WeakSender::upgrade) {
            let _ = inbox.try_send(Box::new(Nudge));
        }
    }
}
