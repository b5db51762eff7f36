//! What a beat is told of besides the nodes: jobs that were leased for somebody who had gone, and whether others have changed anything.
//!
//! The beat itself, and who the nodes are, is `node`'s.

use std::{sync::atomic::Ordering, time::Duration};

use super::{PostgresStore, Settings, claim};
use crate::queue::store::{NodeId, StoreError};

impl PostgresStore {
    /// Gives back what nobody heard of.
    pub(super) async fn give_back(&self, now: i64) -> Result<(), StoreError> {
        let leases = self.unheard.take();
        let jobs = leases.jobs().to_vec();
        if !jobs.is_empty() {
            let node = self.own();
            let given = self.crew.on(true, move |link| {
                let jobs = jobs.clone();
                Box::pin(async move { claim::give_back(link, &jobs, (now, node)).await })
            });
            given.await?;
        }
        leases.heard();
        Ok(())
    }

    /// The node that this store is; for a command the one that is at work on its directory.
    pub(super) fn seen_as(&self) -> NodeId {
        match self.own_node() {
            NodeId(0) => self.seen_here,
            own => own,
        }
    }

    /// What is in doubt is tried again after so long; where somebody has said.
    pub(super) fn waits_in_doubt(&self, wait: Duration) {
        if !wait.is_zero() {
            let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
            self.doubt.store(micros, Ordering::Release);
        }
    }

    /// Has anybody but this store raised the counter since?
    pub(super) fn heard_of(&self, changes: u64) {
        let own = self.raised.swap(0, Ordering::AcqRel);
        let seen = self.changes.swap(changes, Ordering::AcqRel);
        if seen != Settings::NOT_LOOKED && seen.saturating_add(own) != changes {
            self.changed.notify_one();
        }
    }
}
