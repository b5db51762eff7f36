//! WAYS OUT: the trait, its settings, and `build`, one match over the kinds.
//!
//! Apart from `delivery`, which decides when and whether to try again; a connector makes one attempt and says what came
//! of it. It knows neither queue nor routes.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ipnet::IpNet;

use crate::{
    mail::{address::Address, message::Message, outcome::Report},
    route::ConnectorName,
    secret::Secret,
};

pub mod capture;
pub mod discard;
pub mod graph;
pub mod http;
pub mod oauth;
pub mod services;
pub mod smtp;

pub use crate::smtp::client::class::{Class, Override};

/// What a connector is given besides its settings.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Gets the conversation.
    pub recorder: Option<Recorder>,
    /// Keeps rotated refresh tokens.
    pub keep: Option<Arc<dyn oauth::Keep>>,
}

/// Makes the connector that the settings describe. It connects to nothing yet.
///
/// # Errors
/// A sentence for people: which file or key cannot be used.
pub fn build(settings: &Settings, around: Surroundings) -> Result<Arc<dyn Connector>, String> {
    Ok(match &settings.kind {
        Kind::Smtp(_) => Arc::new(smtp::Smtp::new(
            settings,
            smtp::Timeouts::default(),
            around,
        )?),
        Kind::Graph(_) => Arc::new(graph::Graph::new(settings, around)?),
        Kind::Capture { directory } => {
            Arc::new(capture::Capture::new(settings.name.clone(), directory)?)
        }
        Kind::Discard => Arc::new(discard::Discard::new(settings.name.clone())),
    })
}

/// A lane: the connector, for graph with its mailbox. What is limited, closed and paused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The connector.
    pub connector: ConnectorName,
    /// The mailbox, where the connector has several.
    pub mailbox: Option<String>,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mailbox {
            Some(mailbox) => write!(f, "{}/{mailbox}", self.connector),
            None => write!(f, "{}", self.connector),
        }
    }
}

/// A way out. It never retries, never sleeps to pace itself and never touches the queue.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// The lane this message takes.
    fn lane(&self, message: &Message) -> Lane;
    /// One attempt; returns before `deadline`, since only the connector knows whether the last octet was sent.
    async fn deliver(&self, message: &Message, recipients: &[Address], deadline: Instant)
    -> Report;
    /// Logs in and sends nothing: `check --connect`, and a paused lane's probe. The text says what was found.
    async fn probe(&self, deadline: Instant) -> Result<String, Report>;
}

/// One `[[connector]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: ConnectorName,
    /// Jobs at once.
    pub max_concurrent: usize,
    /// Messages started in any window of that length, at most.
    pub rate: Option<Rate>,
    /// One delivery, all in all.
    pub timeout: Duration,
    /// Recipients of one job.
    pub max_recipients: usize,
    /// How to get there.
    pub proxy: Proxy,
    /// The kind and its own keys.
    pub kind: Kind,
}

/// `"30/min"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Starts.
    pub count: u32,
    /// In any window of this length.
    pub per: Duration,
}

/// What kind of connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An SMTP smarthost.
    Smtp(Box<SmtpSettings>),
    /// Microsoft Graph.
    Graph(Box<graph::Settings>),
    /// `.eml` files in a directory.
    Capture {
        /// The directory.
        directory: PathBuf,
    },
    /// Accepts and drops.
    Discard,
}

/// A proxy, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxy {
    /// `None`: straight.
    pub via: Option<ProxyServer>,
    /// Hosts (exact, `*.domain`) that are reached directly.
    pub bypass_hosts: Vec<String>,
    /// Networks that are reached directly; loopback always is.
    pub bypass_networks: Vec<IpNet>,
}

/// The proxy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyServer {
    /// `http` (CONNECT) or `socks5`.
    pub socks: bool,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User and password.
    pub login: Option<(String, Secret)>,
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
    /// PLAIN.
    Plain,
    /// LOGIN.
    Login,
    /// XOAUTH2 with a token of `SmtpSettings::oauth`.
    Xoauth2,
    /// OAUTHBEARER (RFC 7628) with a token of `SmtpSettings::oauth`.
    OauthBearer,
    /// Not at all.
    None,
}

/// The keys of `type = "smtp"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS.
    pub tls: Tls,
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
    /// Connections at once; also the default of `max_concurrent`.
    pub max_connections: usize,
    /// Then a new one.
    pub messages_per_connection: u32,
    /// An unused connection is closed after this.
    pub idle_timeout: Duration,
    /// The name said in EHLO; config fills in `hostname`.
    pub helo: String,
    /// Corrections, the configured ones before the service's built-in ones.
    pub overrides: Vec<Override>,
    /// Addresses that would be ourselves (our own listeners): connecting there is a loop.
    pub own_addresses: Vec<SocketAddr>,
}

/// Where a connector puts its conversation when someone wants to read it (`postern test`); secrets already masked.
pub type Recorder = Arc<dyn Fn(&str) + Send + Sync>;
