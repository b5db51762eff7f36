//! The keys of `type = "smtp"`, and the limits that every kind has.
//!
//! Configuration, gateway and delivery read them as the connectors do. Nothing here does anything.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{dkim::DkimKey, oauth, outbound::Proxy};
use crate::{
    mail::tls::TlsFloor,
    secret::Secret,
    smtp::{client::class::Override, sasl::Mechanism},
};

/// What a lane takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLimits {
    /// Jobs at once (at least one).
    pub concurrent: usize,
    /// Messages.
    pub rate: Option<Rate>,
    /// Octets.
    pub upload: Option<Upload>,
}

/// `"30/min"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Messages.
    pub count: u32,
    /// In any window of this length.
    pub per: Duration,
}

impl Rate {
    /// More messages in the same time.
    pub fn exceeds(self, other: Self) -> bool {
        u64::from(self.count) * other.per.as_secs() > self.per.as_secs() * u64::from(other.count)
    }
}

/// `"150MB/5min"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Octets as they go over the wire (base64 and all).
    pub octets: u64,
    /// In any window of this length.
    pub per: Duration,
}

impl Upload {
    /// What Exchange Online takes of one mailbox (learn.microsoft.com/graph/throttling-limits).
    pub const OF_MAILBOX: Self = Self {
        octets: 150_000_000,
        per: Duration::from_mins(5),
    };

    /// Whether it is more than another.
    pub fn exceeds(self, other: Self) -> bool {
        let over =
            |one: Self, other: Self| u128::from(one.octets) * u128::from(other.per.as_secs());
        over(self, other) > over(other, self)
    }
}

/// TLS towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// From the first octet.
    Implicit,
    /// Required upgrade.
    StartTls,
    /// Upgrade when offered.
    Opportunistic,
    /// None.
    Off,
}

impl Tls {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Tls::Implicit => "implicit",
            Tls::StartTls => "starttls",
            Tls::Opportunistic => "opportunistic",
            Tls::Off => "off",
        }
    }
}

/// What is checked of the upstream's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Chain, dates, name.
    Full,
    /// Chain and dates, not the name.
    Certificate,
    /// Nothing.
    None,
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// The best the upstream offers.
    Auto,
    /// With this one; XOAUTH2 and OAUTHBEARER take a token of `SmtpSettings::oauth`.
    With(Mechanism),
    /// Not at all.
    None,
}

impl Auth {
    /// Whether it takes an access token.
    pub fn bears_token(self) -> bool {
        matches!(self, Auth::With(mechanism) if mechanism.bears_token())
    }
}

/// How many commands are written at once (RFC 2920), where the upstream offers that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipelining {
    /// Those of a message, also behind the content of the one before.
    Full,
    /// Those of a message.
    Commands,
    /// One.
    Off,
}

/// The keys of `type = "smtp"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How to get there.
    pub proxy: Proxy,
    /// TLS.
    pub tls: Tls,
    /// The least of it.
    pub tls_floor: TlsFloor,
    /// What is checked.
    pub verify: Verify,
    /// Own roots (PEM) in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key (PEM).
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How to log in.
    pub auth: Auth,
    /// With whom; `None` = no login.
    pub login: Option<(String, Secret)>,
    /// Where XOAUTH2 and OAUTHBEARER tokens come from, and the mailbox that `user=` names.
    pub oauth: Option<(oauth::Settings, String)>,
    /// The password may go over a line without TLS; over loopback it always may.
    pub plaintext_credentials: bool,
    /// Connections at once, those that take leave included.
    pub max_connections: usize,
    /// Commands at once.
    pub pipelining: Pipelining,
    /// DSN is used where it is offered.
    pub dsn: bool,
    /// A connection may go on with the TLS session of one before.
    pub tls_resumption: bool,
    /// Then a new one.
    pub messages_per_connection: u32,
    /// An unused connection is closed after this.
    pub idle_timeout: Duration,
    /// EHLO says the address that the connection comes from, since there is no full name to say (RFC 5321 §4.1.4).
    pub says_address: bool,
    /// The name said in EHLO; config fills in `hostname`.
    pub helo: String,
    /// Corrections, the configured ones before the service's built-in ones.
    pub overrides: Vec<Override>,
    /// The keys that sign the mail as it leaves. `None`: it is not to be signed.
    pub dkim: Option<Vec<DkimKey>>,
    /// Addresses that would be ourselves (our own listeners): connecting there is a loop.
    pub own_addresses: Vec<SocketAddr>,
}
