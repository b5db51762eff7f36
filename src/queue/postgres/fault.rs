//! Why the database did not do it, and what that means to whoever asked: whether it may have happened all the same, whether the
//! connection is still good, and whether to ask again.

use tokio_postgres::{Error, error::SqlState};

use crate::queue::store::StoreError;

/// See the module.
#[derive(Debug)]
pub(super) enum DbFault {
    /// There is no connection (any more), and nothing was done.
    Away(String),
    /// The connection was lost while a COMMIT was under way: it may be done.
    Unknown(String),
    /// The database said no. Nothing was done.
    Refused(Error),
    /// It is not to be done.
    Store(StoreError),
}

impl DbFault {
    /// Of a statement, or of a COMMIT.
    pub(super) fn of(error: Error, is_commit: bool) -> Self {
        let Some(code) = error.code() else {
            let why = words(&error);
            return if is_commit {
                Self::Unknown(why)
            } else {
                Self::Away(why)
            };
        };
        let is_conflict = is_to_be_repeated(code);
        if is_commit && !is_conflict {
            return Self::Unknown(words(&error));
        }
        if !is_conflict && breaks(code) {
            return Self::Away(words(&error));
        }
        Self::Refused(error)
    }

    /// Two transactions stood in each other's way, and this one is to be done again.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code().is_some_and(is_to_be_repeated))
    }

    /// What it means to the caller of the store.
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::Away(why) => StoreError::Away(why),
            Self::Unknown(why) => {
                StoreError::Away(format!("{why}; it may have been done all the same"))
            }
            Self::Refused(error) if error.code().is_some_and(is_full) => StoreError::Full,
            Self::Refused(error) if error.code().is_some_and(is_of_server) => {
                StoreError::Away(words(&error))
            }
            Self::Refused(error) => StoreError::Unavailable(words(&error)),
            Self::Store(error) => error,
        }
    }

    /// The database's disk is full.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Refused(error) => error.code().is_some_and(is_full),
            Self::Store(error) => matches!(error, StoreError::Full),
            _ => false,
        }
    }
}

impl From<StoreError> for DbFault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What somebody did wrong who set it up: to ask again changes nothing.
pub(super) fn is_misconfigured(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        code.code().starts_with("28")
            || [
                SqlState::INVALID_CATALOG_NAME,
                SqlState::INSUFFICIENT_PRIVILEGE,
            ]
            .contains(code)
    })
}

pub(super) fn lacks_rights(error: &Error) -> bool {
    let code = error.code();
    code.is_some_and(|code| *code == SqlState::INSUFFICIENT_PRIVILEGE)
}

/// What was prepared on this connection is not there, or somebody else's is: there is another behind it for each transaction.
pub(super) fn is_of_pooler(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::INVALID_SQL_STATEMENT_NAME || *code == SqlState::DUPLICATE_PSTATEMENT
    })
}

/// What to do about that.
pub(super) const POOLER: &str = "a pooler in between hands each transaction to another connection and loses what was prepared: \
     let PgBouncer have pool_mode = session, or from 1.21 on max_prepared_statements";

/// The error and its causes, as one line.
pub(super) fn words(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let text = format!("{} ({})", said.message(), said.code().code());
        return if is_of_pooler(error) {
            format!("{text}; {POOLER}")
        } else {
            text
        };
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A deadlock, or a row that somebody else changed.
fn is_to_be_repeated(code: &SqlState) -> bool {
    [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ]
    .contains(code)
}

/// It says nothing about what was asked: rights and tables are gone, or the server wants for something. Later it may work.
fn is_of_server(code: &SqlState) -> bool {
    let of_server = ["28", "53", "57", "58", "3D", "3F"];
    of_server.contains(&code.code().get(..2).unwrap_or_default())
        || [
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_SCHEMA,
        ]
        .contains(code)
}

fn is_full(code: &SqlState) -> bool {
    *code == SqlState::DISK_FULL
}

/// After it this connection is of no more use: the server ends, or takes no writes any more.
fn breaks(code: &SqlState) -> bool {
    let text = code.code();
    text.starts_with("08")
        || text.starts_with("57P")
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        // A standby, when it is to begin one that writes.
        || *code == SqlState::FEATURE_NOT_SUPPORTED
        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
        || *code == SqlState::INVALID_SQL_STATEMENT_NAME
        || *code == SqlState::DUPLICATE_PSTATEMENT
}
