//! SOCKETS IN.
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::policy::AuthMode;

pub mod auth;
pub mod connection;
pub mod tls;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// An address of this machine; port 0 takes a free one and the log says which.
    Address(SocketAddr),
    /// A socket handed over by systemd under this name (`FileDescriptorName=`).
    Inherited(String),
}

/// TLS of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// None.
    #[default]
    Off,
    /// Offered.
    StartTls,
    /// From the first octet.
    Implicit,
}

/// One `[[listener]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Where.
    pub bind: Bind,
    /// TLS.
    pub tls: TlsMode,
    /// STARTTLS before anything else.
    pub require_tls: bool,
    /// PEM files of the chain and the key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// AUTH.
    pub auth: AuthMode,
    /// AUTH without TLS.
    pub plaintext_auth: bool,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

/// The part of `[limits]` that concerns connections; the rest is in `smtp::server::session::Rules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// From one address.
    pub connections_per_client: usize,
    /// From one address; 0 = no limit.
    pub messages_per_minute: u32,
    /// Without an octet, outside DATA.
    pub command_timeout: Duration,
    /// Without an octet, inside DATA.
    pub data_timeout: Duration,
    /// Below this many free octets no mail is taken.
    pub free_disk: u64,
}
