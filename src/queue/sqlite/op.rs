//! One unit of work for the writer: a closure over an open transaction, and an answer to whoever waits for it.
//!
//! Apart from `writer`, which puts many of them into one transaction and knows nothing of what they do.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{mail::message::SpoolFile, queue::store::StoreError};

/// What an operation works on, and what is to be done around its commit.
pub(super) struct Change<'a> {
    pub(super) conn: &'a Connection,
    pub(super) spool: &'a Path,
    /// Files that a row names from now on: the directory is synced before the commit, the files kept after it.
    pub(super) keep: Vec<Arc<SpoolFile>>,
    /// Files that no row names any more: deleted after the commit.
    pub(super) unlink: Vec<PathBuf>,
    /// Set once it is committed.
    pub(super) committed: Vec<Arc<AtomicBool>>,
    /// A page of the file is known to be damaged: what is only tidying up must not fail because of it.
    pub(super) damaged: bool,
}

/// What a full disk means for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is refused until there is room.
    TakesIn,
    /// It must be written all the same: the ballast makes room.
    Records,
    /// It is tried with what room there is.
    TidiesUp,
}

/// One unit of work; run again alone when the batch it was in failed.
pub(super) trait Op: Send {
    fn purpose(&self) -> Purpose;
    /// Nobody is kept waiting by a moment more.
    fn can_wait(&self) -> bool {
        false
    }
    fn run(&mut self, change: &mut Change<'_>) -> rusqlite::Result<()>;
    /// Committed, or why not.
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

/// An operation from a closure, answered to whoever awaits.
pub(super) struct Work<T, F> {
    pub(super) purpose: Purpose,
    pub(super) can_wait: bool,
    pub(super) run: F,
    pub(super) value: Option<T>,
    pub(super) reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Op for Work<T, F>
where
    T: Send,
    F: FnMut(&mut Change<'_>) -> rusqlite::Result<T> + Send,
{
    fn purpose(&self) -> Purpose {
        self.purpose
    }
    fn can_wait(&self) -> bool {
        self.can_wait
    }
    fn run(&mut self, change: &mut Change<'_>) -> rusqlite::Result<()> {
        // An earlier run was rolled back, and what it promised goes first.
        self.value = None;
        self.value = Some((self.run)(change)?);
        Ok(())
    }
    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let this = *self;
        let value = match (result, this.value) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(StoreError::Unavailable("it was not run".to_owned())),
            (Err(error), _) => Err(error),
        };
        // Nobody waits any more: a value that holds a lease gives it back when dropped.
        let _ = this.reply.send(value);
    }
}

/// Asks for nothing; makes the writer look at what else there is to do.
pub(super) struct Nudge;

impl Op for Nudge {
    fn purpose(&self) -> Purpose {
        Purpose::Records
    }
    fn run(&mut self, _: &mut Change<'_>) -> rusqlite::Result<()> {
        Ok(())
    }
    fn answer(self: Box<Self>, _: Result<(), StoreError>) {}
}
