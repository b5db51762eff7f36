//! What a `[[listener]]` is, and the limits that concern connections.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::acceptor::ClientTrustPaths;
use crate::{
    policy::{AuthMode, certificate::ClientCertificates},
    smtp::server::session::ListenerRules,
};

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// An address of this machine; port 0 takes a free one and the log says which.
    Address(SocketAddr),
    /// A socket handed over by systemd under this name (`FileDescriptorName=`).
    Inherited(String),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Address(address) => address.fmt(f),
            Bind::Inherited(name) => write!(f, "socket:{name}"),
        }
    }
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
    /// The same for old handshakes; `None`: as for all.
    pub old_certificate: Option<(PathBuf, PathBuf)>,
    /// AUTH.
    pub auth: AuthMode,
    /// AUTH without TLS.
    pub plaintext_auth: bool,
    /// BDAT (RFC 3030).
    pub chunking: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// What clients' certificates are held to; `None`: nobody is asked for one.
    pub clients: Option<ClientTrustPaths>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

impl Settings {
    /// Whether clients are asked for a certificate.
    pub fn client_certificates(&self) -> ClientCertificates {
        match &self.clients {
            None => ClientCertificates::Off,
            Some(paths) if paths.is_required => ClientCertificates::Required,
            Some(_) => ClientCertificates::Optional,
        }
    }

    /// What a session needs to know of the listener it came in by.
    pub(crate) fn rules(&self) -> ListenerRules {
        ListenerRules {
            name: self.name.clone(),
            starttls: self.tls == TlsMode::StartTls,
            require_tls: self.require_tls,
            certificate: self.certificate.is_some(),
            auth: self.auth,
            plaintext_auth: self.plaintext_auth,
            client_certificates: self.client_certificates(),
            chunking: self.chunking,
            smtputf8: self.smtputf8,
        }
    }
}

/// The part of `[limits]` that concerns connections; the rest is in `smtp::server::session::Rules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// From one address.
    pub connections_per_client: usize,
    /// From addresses in no `[[client]]`, until they have logged in.
    pub unlisted_connections: usize,
    /// From one address; 0 = no limit.
    pub messages_per_minute: u32,
    /// Without an octet, outside DATA.
    pub command_timeout: Duration,
    /// Without an octet, inside DATA.
    pub data_timeout: Duration,
    /// Below this many free octets no mail is taken.
    pub free_disk: u64,
}
