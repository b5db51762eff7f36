//! `[postgres]` and `[cluster]` as settings: where the database is that several gateways share, and which of them this is.
//!
//! The store takes what it needs of it; trust and certificates become a TLS configuration where connectors are built.

use std::{fmt, path::PathBuf, time::Duration};

use crate::{connector::Verify, secret::Secret};

/// Where mail is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In `data_dir`.
    Sqlite,
    /// In a database that several gateways share.
    Postgres(Box<PostgresSettings>, ClusterSettings),
}

impl StoreSettings {
    /// What is sealed there is sealed with the first of these; none where nobody shares anything.
    pub fn keys(&self) -> &[SealingKey] {
        match self {
            Self::Sqlite => &[],
            Self::Postgres(_, cluster) => &cluster.keys,
        }
    }

    /// The same place with the keys of another, which need no restart.
    #[must_use]
    pub fn with_keys_of(&self, other: &Self) -> Self {
        let mut same = self.clone();
        if let Self::Postgres(_, cluster) = &mut same {
            cluster.keys = other.keys().to_vec();
        }
        same
    }
}

/// The database that a gateway alone shared with others before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerStore {
    /// Where it is.
    pub postgres: Box<PostgresSettings>,
    /// Who this gateway was, and the keys.
    pub cluster: ClusterSettings,
}

/// `[postgres]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// In the order they are tried; the one that takes writes is used.
    pub hosts: Vec<DatabaseHost>,
    /// Its name.
    pub database: String,
    /// The role.
    pub username: String,
    /// `None`: a client certificate, or the user of this process.
    pub password: Option<Secret>,
    /// `None`: no TLS.
    pub tls: Option<DatabaseTls>,
    /// The schema that the tables are in.
    pub schema: String,
    /// Of this gateway, 4 to 64.
    pub connections: usize,
    /// What a 250 waits for.
    pub durability: DatabaseDurability,
    /// What becomes of mail while the database is away.
    pub on_outage: OnOutage,
}

/// One of `hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseHost {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The directory of a Unix socket.
    Socket(PathBuf),
}

/// TLS towards the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseTls {
    /// What is checked of its certificate.
    pub verify: Verify,
    /// Own roots (PEM) in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key (PEM).
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseDurability {
    /// It is on the disk of the primary, and of the synchronous standbys where there are any.
    Primary,
    /// Synchronous standbys are demanded.
    Quorum,
}

/// What becomes of mail while the database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// It is kept in `data_dir`, and moves when the database is back.
    Spill,
    /// 451.
    Refuse,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Of this member.
    pub name: String,
    /// The first seals, all open.
    pub keys: Vec<SealingKey>,
    /// Silence after which the others take over.
    pub dead_after: Duration,
    /// For so long a missing member has its part of the limits.
    pub share_for: Duration,
    /// Octets that the local queue may have while the database is away.
    pub spill_size: u64,
}

/// Seals tokens and keys that are shared. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey(pub [u8; SealingKey::OCTETS]);

impl SealingKey {
    /// For AES-256.
    pub const OCTETS: usize = 32;
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
