//! Leases whose claimer went away before it heard of them, and those that may have been written by a commit of which nobody knows:
//! a job leased to nobody would never be sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::values::int;
use crate::{
    mail::message::MessageId,
    queue::store::{Job, JobId},
};

/// So many are remembered; what is more waits until its node ends.
const MOST: usize = 100_000;

/// A claim of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClaimedJob {
    pub(super) message: MessageId,
    pub(super) nr: i32,
    pub(super) claim: i32,
}

impl ClaimedJob {
    /// As it was handed out.
    pub(super) fn of(job: &Job) -> Self {
        let JobId(nr) = job.id;
        Self {
            message: job.message.id,
            nr: int(nr),
            claim: int(job.lease.claim),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Unheard(Arc<Mutex<Vec<ClaimedJob>>>);

impl Unheard {
    /// All of them, to be given back; dropped before that is committed, they are here again.
    pub(super) fn take(&self) -> Handover {
        self.unless_heard(std::mem::take(&mut *self.lock()))
    }

    /// Claims that were just committed, or may be.
    pub(super) fn unless_heard(&self, jobs: Vec<ClaimedJob>) -> Handover {
        Handover {
            jobs,
            unheard: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ClaimedJob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims on their way to whoever asked for them: a caller may go away at any await.
pub(super) struct Handover {
    jobs: Vec<ClaimedJob>,
    unheard: Unheard,
}

impl Handover {
    pub(super) fn jobs(&self) -> &[ClaimedJob] {
        &self.jobs
    }

    /// Only these: the others are nobody's for certain.
    pub(super) fn keep(&mut self, is_claimed: impl Fn(&ClaimedJob) -> bool) {
        self.jobs.retain(is_claimed);
    }

    /// Goes the way of this one, too.
    pub(super) fn take_in(&mut self, mut other: Self) {
        self.jobs.append(&mut other.jobs);
    }

    pub(super) fn heard(mut self) {
        self.jobs.clear();
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if !self.jobs.is_empty() {
            let mut all = self.unheard.lock();
            all.append(&mut self.jobs);
            all.truncate(MOST);
        }
    }
}
