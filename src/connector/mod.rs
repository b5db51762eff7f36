//! WAYS OUT: the trait, its settings, and `build`, one match over the kinds.
//!
//! Apart from `delivery`, which decides when and whether to try again; a connector makes one attempt and says what came
//! of it. It knows neither queue nor routes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
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
mod certificate;
mod connect;
pub mod discard;
pub mod graph;
pub mod http;
pub mod keypair;
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

/// A lane: the connector, the mailbox that sends, and a From other than it. What is limited, closed and paused. It prints and
/// parses itself as `connector`, `connector/mailbox` or `connector/mailbox/from`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The connector.
    pub connector: ConnectorName,
    /// The mailbox, where the connector has several.
    pub mailbox: Option<String>,
    /// The From, where it is not the mailbox.
    pub from: Option<String>,
}

impl Lane {
    /// Of a connector as a whole.
    pub fn of(connector: &ConnectorName) -> Self {
        Self {
            connector: connector.clone(),
            mailbox: None,
            from: None,
        }
    }

    /// Of the mailbox, whatever the From.
    #[must_use]
    pub fn of_mailbox(&self) -> Self {
        Self {
            from: None,
            ..self.clone()
        }
    }

    /// From the way it displays.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/');
        let connector = parts.next().unwrap_or_default().into();
        let mut part = || {
            let part = parts.next()?;
            Some(part.replace("%2F", "/").replace("%25", "%"))
        };
        Self {
            connector,
            mailbox: part(),
            from: part(),
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.connector)?;
        for part in self.mailbox.iter().chain(&self.from) {
            // A local part may hold a slash.
            write!(f, "/{}", part.replace('%', "%25").replace('/', "%2F"))?;
        }
        Ok(())
    }
}

/// A way out. It never retries, never sleeps to pace itself and never touches the queue.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// The lane this message takes.
    fn lane(&self, message: &Message) -> Lane;
    /// Octets that delivering it will send, as far as [`Limits::upload`] counts them.
    fn upload(&self, _message: &Message, _recipients: &[Address]) -> u64 {
        0
    }
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
    /// Jobs at once; of a graph connector for each mailbox.
    pub max_concurrent: usize,
    /// Messages in any window of that length, at most; of a graph connector for each mailbox.
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

impl Settings {
    /// The one mailbox that all mail leaves from, where the connector has one.
    pub fn mailbox(&self) -> Option<Address> {
        let mailbox = match &self.kind {
            Kind::Graph(graph) => graph.mailbox.as_deref(),
            Kind::Smtp(smtp) => smtp.oauth.as_ref().map(|(_, mailbox)| mailbox.as_str()),
            Kind::Capture { .. } | Kind::Discard => None,
        };
        mailbox.and_then(|mailbox| Address::parse(mailbox).ok())
    }

    /// The certificates of ours that it shows, each with its key: the application's, and the client's of smtp.
    pub fn certificates(&self) -> Vec<(&Path, &Path)> {
        let (own, oauth) = match &self.kind {
            Kind::Smtp(smtp) => (
                smtp.client_certificate.as_ref(),
                smtp.oauth.as_ref().map(|(oauth, _)| oauth),
            ),
            Kind::Graph(graph) => (None, Some(&graph.oauth)),
            Kind::Capture { .. } | Kind::Discard => (None, None),
        };
        let own = own.map(|(chain, key)| (chain.as_path(), key.as_path()));
        let application = oauth.and_then(|oauth| match &oauth.grant {
            oauth::Grant::Certificate {
                certificate, key, ..
            } => Some((certificate.as_path(), key.as_path())),
            _ => None,
        });
        own.into_iter().chain(application).collect()
    }

    /// What holds for all jobs of the connector together, and what for those of each mailbox. A graph connector with a
    /// `mailbox` is that mailbox.
    pub fn limits(&self) -> (Limits, Option<Limits>) {
        let mut all = Limits {
            concurrent: self.max_concurrent,
            rate: self.rate,
            upload: None,
        };
        let Kind::Graph(graph) = &self.kind else {
            return (all, None);
        };
        all.upload = graph.upload_rate;
        if graph.mailbox.is_some() {
            all.concurrent = all.concurrent.min(graph.max_connections);
            return (all, None);
        }
        let together = Limits {
            concurrent: graph.max_connections,
            rate: None,
            upload: None,
        };
        (together, Some(all))
    }
}

/// What a lane takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
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

/// `"150MB/5min"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    /// Octets as they go over the wire (base64 and all).
    pub octets: u64,
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

/// The metadata service of Azure's machines, which no proxy can reach for us.
pub(crate) const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

impl Proxy {
    /// The proxy on the way to this host; `None`: there is none, the host is this machine or the metadata service, or the
    /// bypass lists name it. The one rule for smtp, graph and token endpoints. A name is not looked up: a network among the
    /// lists is for hosts that are written as addresses.
    pub fn on_the_way_to(&self, host: &str) -> Option<&ProxyServer> {
        let server = self.via.as_ref()?;
        let host = bare(host);
        // RFC 6761 §6.3.
        if is_loopback(&host) || host.ends_with(".localhost") {
            return None;
        }
        let is_direct = match host.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip == METADATA
                    || self.bypass_networks.iter().any(|n| n.contains(&ip))
                    || self
                        .bypass_hosts
                        .iter()
                        .any(|pattern| names(pattern, &host))
            }
            Err(_) => self
                .bypass_hosts
                .iter()
                .any(|pattern| names(pattern, &host)),
        };
        (!is_direct).then_some(server)
    }
}

/// Whether an entry of a host list (`*`, `*.domain`, a name, an address) names this host; without case.
pub fn names(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (bare(pattern), bare(host));
    match pattern.strip_prefix("*.") {
        _ if pattern == "*" => true,
        Some(parent) => host
            .strip_suffix(parent)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

/// This machine, by address or by its usual name.
pub fn is_loopback(host: &str) -> bool {
    let host = bare(host);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// In small letters, without the brackets of an address and the dot of the root.
fn bare(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_ascii_lowercase()
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

impl ProxyServer {
    /// The fault and the remedy when it does not let us in: `said` is its answer (407, what SOCKS has for it).
    pub(crate) fn refuses_login(&self, said: &str) -> String {
        if self.login.is_some() {
            format!("{self} refuses the login ({said}); correct user and password in `proxy`")
        } else {
            format!(
                "{self} asks for a login ({said}); write it into `proxy`, as in \"http://user:password@host:port\""
            )
        }
    }
}

impl fmt::Display for ProxyServer {
    /// Without the login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.socks { "SOCKS proxy" } else { "proxy" };
        if self.host.contains(':') {
            write!(f, "{kind} [{}]:{}", self.host, self.port)
        } else {
            write!(f, "{kind} {}:{}", self.host, self.port)
        }
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
    /// EHLO says the address that the connection comes from, since there is no full name to say (RFC 5321 §4.1.4).
    pub says_address: bool,
    /// The name said in EHLO; config fills in `hostname`.
    pub helo: String,
    /// Corrections, the configured ones before the service's built-in ones.
    pub overrides: Vec<Override>,
    /// Addresses that would be ourselves (our own listeners): connecting there is a loop.
    pub own_addresses: Vec<SocketAddr>,
}

/// Where a connector puts its conversation when someone wants to read it (`postern test`); secrets already masked.
pub type Recorder = Arc<dyn Fn(&str) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_proxy() {
        let proxy = Proxy {
            via: Some(ProxyServer {
                socks: false,
                host: "proxy.corp.example".into(),
                port: 3128,
                login: None,
            }),
            bypass_hosts: vec![
                "*.corp.example".into(),
                "mx.example".into(),
                "192.0.2.9".into(),
            ],
            bypass_networks: vec!["10.0.0.0/8".parse().unwrap()],
        };
        for (host, is_direct) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("a.localhost", true),
            ("localhost.evil.tld", false),
            ("127.0.0.2", true),
            ("::1", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("169.254.169.254", true),
            ("[::ffff:169.254.169.254]", true),
            ("169.254.169.253", false),
            ("a.Corp.example", true),
            ("a.corp.example.", true),
            ("corp.example", false),
            ("evilcorp.example", false),
            ("mx.example.", true),
            ("x.mx.example", false),
            ("10.1.1.1", true),
            ("::ffff:10.1.1.1", true),
            ("11.1.1.1", false),
            ("192.0.2.9", true),
            ("login.microsoftonline.com", false),
        ] {
            assert_eq!(proxy.on_the_way_to(host).is_none(), is_direct, "{host}");
        }
        assert!(Proxy::default().on_the_way_to("mx.example").is_none());
    }

    #[test]
    fn lanes_print_and_parse() {
        for (mailbox, from, expected) in [
            (None, None, "up"),
            (Some("a@b.c"), None, "up/a@b.c"),
            (Some("a@b.c"), Some("d@e.f"), "up/a@b.c/d@e.f"),
            (
                Some("a/b%2F@c"),
                Some("%/%25"),
                "up/a%2Fb%252F@c/%25%2F%2525",
            ),
        ] {
            let lane = Lane {
                connector: "up".into(),
                mailbox: mailbox.map(str::to_owned),
                from: from.map(str::to_owned),
            };
            assert_eq!(lane.to_string(), expected);
            assert_eq!(Lane::parse(expected), lane);
        }
    }

    #[test]
    fn host_lists() {
        for (pattern, host, expected) in [
            ("*", "a.b", true),
            ("a.b", "a.b", true),
            ("A.b", "a.B", true),
            ("a.b", "a.b.", true),
            ("*.b", "a.b", true),
            ("*.b", "b", false),
            ("*.b", "ab", false),
            ("*.b", ".b", false),
            ("a.b", "a.b.evil.tld", false),
            ("::1", "[::1]", true),
            ("", "a.b", false),
        ] {
            assert_eq!(names(pattern, host), expected, "{pattern} {host}");
        }
    }
}
