//! Why a gateway does not start, with the exit status of each reason.

use std::fmt;

use crate::{
    listener::ListenerError,
    queue::{lock::LockError, store::StoreError},
};

/// Why the gateway does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct RunError {
    /// By sysexits: 71 a socket, 74 the store, 75 another instance or a full disk, 78 the configuration.
    pub code: u8,
    /// For people.
    pub text: String,
}

impl RunError {
    pub(super) fn new(code: u8, text: impl fmt::Display) -> Self {
        Self {
            code,
            text: text.to_string(),
        }
    }

    pub(super) fn system(text: impl fmt::Display) -> Self {
        Self::new(71, text)
    }
}

impl From<ListenerError> for RunError {
    fn from(error: ListenerError) -> Self {
        let code = match error {
            ListenerError::Bind { .. } => 71,
            ListenerError::Certificate { .. } => 78,
        };
        Self::new(code, error)
    }
}

impl From<LockError> for RunError {
    fn from(error: LockError) -> Self {
        let code = match error {
            LockError::Held(_) => 75,
            LockError::Io(_) => 74,
        };
        Self::new(code, error)
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Full | StoreError::Crowded => 75,
            StoreError::Newer(_) => 78,
            StoreError::Unavailable(_) => 74,
            StoreError::Away(_) => 69,
        };
        Self::new(code, error)
    }
}
