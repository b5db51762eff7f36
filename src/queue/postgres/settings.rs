//! Where the database is and who asks: what a store in PostgreSQL needs to know.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::secret::Secret;

/// `[postgres]`, and what of `[queue]` a store needs.
#[derive(Clone)]
pub struct Settings {
    /// In the order they are tried; the one that takes writes is used.
    pub hosts: Vec<Server>,
    /// Its name.
    pub database: String,
    /// The role.
    pub username: String,
    /// `None`: a client certificate in `tls`, or the user of this process (peer authentication).
    pub password: Option<Secret>,
    /// Whom it is to trust, and with what certificate it comes; `None`: no TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Why there is no TLS to a host, in words; the library's own are not for people.
    pub tls_words: fn(&rustls::Error, &str) -> String,
    /// The schema that the tables are in.
    pub schema: String,
    /// Of this gateway, 4 to 64. Four of them write mail where there are eight, else half of them.
    pub connections: usize,
    /// What a 250 waits for.
    pub durability: Durability,
    /// `data_dir`: large bodies are written there as they arrive.
    pub data_dir: PathBuf,
    /// A gateway makes what is missing, the schema and its directory; a command does not.
    pub migrates: bool,
    /// After such a silence of the database a connection counts as lost.
    pub patience: Duration,
    /// Times are those that callers name: for tests, whose times no clock shows.
    #[doc(hidden)]
    pub callers_clock: bool,
}

impl Settings {
    /// After five seconds without an answer a connection is lost.
    pub const PATIENCE: Duration = Duration::from_secs(5);
    /// Connections that write mail and outcomes, where there are twice as many.
    pub(super) const SCRIBES: usize = 4;
    /// Until somebody says how long mail in doubt waits, in microseconds: ten minutes.
    pub(super) const DOUBT: i64 = 600_000_000;
    /// Nobody has looked at the counter of changes yet.
    pub(super) const NOT_LOOKED: u64 = u64::MAX;
}

/// The password is not shown, nor what may hold a key.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("hosts", &self.hosts)
            .field("database", &self.database)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// One of several, of which one takes writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// A name or an address, and a port.
    Host(String, u16),
    /// The directory of its Unix socket, and the port that names the file in it.
    Socket(PathBuf, u16),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Socket(directory, _) => write!(f, "{}", directory.display()),
        }
    }
}

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk of the primary, and of the synchronous standbys where there are any.
    Primary,
    /// Synchronous standbys are demanded.
    Quorum,
}
