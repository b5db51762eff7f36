//! Exit statuses by `sysexits.h`, and the one way in which a command says that it failed. Scripts rely on the numbers.

use std::{fmt, io};

use crate::queue::store::StoreError;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Done, and the answer is no: nothing matched, something needs attention.
    No,
    /// `EX_USAGE`: the command line.
    Usage,
    /// `EX_DATAERR`: the input.
    Data,
    /// `EX_NOINPUT`: a file that should be there.
    NoInput,
    /// `EX_NOUSER`: a recipient that is not accepted.
    NoUser,
    /// `EX_UNAVAILABLE`: the other side cannot or will not.
    Unavailable,
    /// `EX_SOFTWARE`: a fault of ours.
    Software,
    /// `EX_OSERR`: the operating system.
    System,
    /// `EX_CANTCREAT`: an output file.
    CannotCreate,
    /// `EX_IOERR`: reading or writing.
    Io,
    /// `EX_TEMPFAIL`: later, perhaps.
    Later,
    /// `EX_NOPERM`: a rule refuses.
    Refused,
    /// `EX_CONFIG`: the configuration.
    Config,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::No => 1,
            Exit::Usage => 64,
            Exit::Data => 65,
            Exit::NoInput => 66,
            Exit::NoUser => 67,
            Exit::Unavailable => 69,
            Exit::Software => 70,
            Exit::System => 71,
            Exit::CannotCreate => 73,
            Exit::Io => 74,
            Exit::Later => 75,
            Exit::Refused => 77,
            Exit::Config => 78,
        }
    }
}

/// Why a command did not work: the status, and what standard error says.
#[derive(Debug)]
pub struct CommandError {
    /// The status, a number because the gateway brings its own.
    pub code: u8,
    /// For people; empty when all has been said.
    pub text: String,
}

impl CommandError {
    /// A failure with its text.
    pub fn new(exit: Exit, text: impl fmt::Display) -> Self {
        Self {
            code: exit.code(),
            text: text.to_string(),
        }
    }
}

/// Writing to our own output: when the reader has gone (`postern queue list | head`) that is no failure.
impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                code: 0,
                text: String::new(),
            };
        }
        Self::new(Exit::Io, error)
    }
}

/// The store cannot.
impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::Unavailable, error)
    }
}

/// What every command returns.
pub type Ended = Result<Exit, CommandError>;
