//! One unit of work for the writer: a closure over an open transaction, and an answer to whoever waits for it.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use crate::{
    mail::message::{BodyHandle, MessageId},
    queue::store::StoreError,
};

/// What an operation works on, and what is to be done around its commit.
pub(super) struct Change<'a> {
    pub(super) conn: &'a Connection,
    /// Bodies that a row names from now on: their names are synced before the commit, they are kept after it.
    pub(super) keep: Vec<Arc<dyn BodyHandle>>,
    /// Messages whose body no row names any more: deleted after the commit.
    pub(super) remove: Vec<MessageId>,
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
    /// As `Records`, and nobody is kept waiting by a moment more.
    Settles,
    /// It is tried with what room there is.
    TidiesUp,
}

/// What is wanted of an operation.
pub(super) enum Call<'a, 'c> {
    /// Do it; again, alone, when the batch it was in failed.
    Run(&'a mut Change<'c>),
    /// Say that it is committed, or why not.
    Answer(Result<(), StoreError>),
}

/// One unit of work.
pub(super) struct Op {
    pub(super) purpose: Purpose,
    call: Box<dyn FnMut(Call<'_, '_>) -> rusqlite::Result<()> + Send>,
}

impl Op {
    /// An operation whose value goes to whoever awaits it. `hand_over` makes it of the value once that is committed.
    pub(super) fn new<T, U, F, H>(
        purpose: Purpose,
        mut work: F,
        hand_over: H,
    ) -> (Self, oneshot::Receiver<Result<U, StoreError>>)
    where
        T: Send + 'static,
        U: Send + 'static,
        F: FnMut(&mut Change<'_>) -> rusqlite::Result<T> + Send + 'static,
        H: Fn(T) -> U + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let (mut value, mut reply) = (None, Some(reply));
        let call = move |call: Call<'_, '_>| {
            match call {
                Call::Run(change) => {
                    // An earlier run was rolled back, and what it promised goes first.
                    value = None;
                    value = Some(work(change)?);
                }
                Call::Answer(result) => {
                    if let Some(reply) = reply.take() {
                        let not_run = || StoreError::Unavailable("it was not run".to_owned());
                        let result =
                            result.and_then(|()| value.take().map(&hand_over).ok_or_else(not_run));
                        // Nobody may wait any more: what holds a lease gives it back when dropped.
                        let _ = reply.send(result);
                    }
                }
            }
            Ok(())
        };
        let call = Box::new(call);
        (Self { purpose, call }, answer)
    }

    /// Changes nothing; makes the writer look whether the store works.
    pub(super) fn nudge() -> Self {
        Self {
            purpose: Purpose::Records,
            call: Box::new(|_| Ok(())),
        }
    }

    pub(super) fn run(&mut self, change: &mut Change<'_>) -> rusqlite::Result<()> {
        (self.call)(Call::Run(change))
    }

    pub(super) fn answer(mut self, result: Result<(), StoreError>) {
        let _ = (self.call)(Call::Answer(result));
    }

    pub(super) fn can_wait(&self) -> bool {
        self.purpose == Purpose::Settles
    }

    pub(super) fn must_be_written(&self) -> bool {
        matches!(self.purpose, Purpose::Records | Purpose::Settles)
    }
}

/// What an error of the database means to a caller.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    // The index of the journal is a file of its own, and has another word for it.
    let no_room = error
        .sqlite_error()
        .is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
    if no_room || error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        StoreError::Full
    } else {
        StoreError::Unavailable(error.to_string())
    }
}
