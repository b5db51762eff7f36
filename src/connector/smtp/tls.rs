//! TLS towards an upstream: its settings, and in which words a failure is reported.
//!
//! The conversation only needs an encrypted stream. Whom it trusts, `connector::tls` says; what is spoken where the connector is
//! allowed less than TLS 1.2, `old`.

use std::{
    io::{self, ErrorKind::UnexpectedEof},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, Error, SignatureScheme,
        client::{ResolvesClientCert, Resumption},
        sign::CertifiedKey,
    },
};

#[cfg(feature = "old-tls")]
use super::old;
use super::{
    encrypted::{CLOSED, EncryptedStream, Facts, NoTls, PLAIN, Towards},
    resumption::Sessions,
};
use crate::{
    connector::{
        settings::SmtpSettings,
        tls::{client::tls_config, words},
    },
    mail::tls::{TlsFloor, TlsVersion},
    old_tls::{self, OldPolicy},
};

/// The TLS side of a connector.
#[derive(Debug)]
pub(super) enum TlsClient {
    /// What is spoken with everybody.
    Modern(ModernTls),
    /// The connector allows less.
    #[cfg(feature = "old-tls")]
    Old(old::OldTls),
}

/// Reads the files.
///
/// # Errors
/// A sentence: which file or key cannot be used.
pub(super) fn client(settings: &SmtpSettings) -> Result<TlsClient, String> {
    match OldPolicy::of(settings.tls_floor) {
        None => ModernTls::new(settings).map(TlsClient::Modern),
        #[cfg(feature = "old-tls")]
        Some(policy) => old::OldTls::new(policy, settings).map(TlsClient::Old),
        #[cfg(not(feature = "old-tls"))]
        Some(_) => Err("this program was built without old TLS".to_owned()),
    }
}

impl TlsClient {
    /// A handshake. It has no end of its own.
    pub(super) async fn connect(
        &self,
        towards: &Towards<'_>,
        tcp: TcpStream,
    ) -> Result<(Box<dyn EncryptedStream>, Facts), NoTls> {
        match self {
            Self::Modern(modern) => modern.connect(towards, tcp).await,
            #[cfg(feature = "old-tls")]
            Self::Old(old) => Box::pin(old.connect(towards, tcp)).await,
        }
    }

    /// What [`TlsClient::may_do_afresh`] wants to know of a handshake that is about to begin.
    pub(super) fn sessions_offered(&self) -> u64 {
        self.sessions().map_or(0, Sessions::begins)
    }

    /// A handshake failed that may not fail without the session that was to be gone on with.
    pub(super) fn may_do_afresh(&self, offered: u64) -> bool {
        self.sessions().is_some_and(|s| s.are_to_blame(offered))
    }

    fn sessions(&self) -> Option<&Sessions> {
        match self {
            Self::Modern(modern) => modern.sessions.as_deref(),
            #[cfg(feature = "old-tls")]
            Self::Old(_) => None,
        }
    }

    /// Why an encrypted line was lost, where TLS has to do with it. Under TLS 1.3 our certificate is judged after the handshake.
    pub(super) fn explain_loss(&self, error: Option<&io::Error>, host: &str) -> Option<String> {
        match self {
            Self::Modern(modern) => modern.explain_loss(error, host),
            #[cfg(feature = "old-tls")]
            Self::Old(_) => error.and_then(old::loss),
        }
    }
}

/// TLS 1.2 and 1.3.
#[derive(Debug)]
pub(super) struct ModernTls {
    config: Arc<ClientConfig>,
    floor: TlsFloor,
    /// Where sessions are gone on with.
    sessions: Option<Arc<Sessions>>,
    asked: Arc<CertificateAsked>,
}

/// Our certificate, if there is one, and whether an upstream has asked for it: a refusal that follows is about that.
#[derive(Debug)]
struct CertificateAsked {
    ours: Arc<dyn ResolvesClientCert>,
    was: AtomicBool,
}

impl ResolvesClientCert for CertificateAsked {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was.store(true, Ordering::Relaxed);
        self.ours.resolve(issuers, schemes)
    }

    fn has_certs(&self) -> bool {
        self.ours.has_certs()
    }
}

impl ModernTls {
    fn new(settings: &SmtpSettings) -> Result<Self, String> {
        let pair = settings.client_certificate.as_ref();
        let pair = pair.map(|(chain, key)| (chain.as_path(), key.as_path()));
        let floor = settings.tls_floor;
        let ca_file = settings.ca_file.as_deref();
        let mut config = tls_config(settings.verify, ca_file, pair, floor.min)?;
        let asked = Arc::new(CertificateAsked {
            ours: config.client_auth_cert_resolver.clone(),
            was: AtomicBool::new(false),
        });
        config.client_auth_cert_resolver = asked.clone();
        let sessions = settings.tls_resumption.then(Sessions::new);
        config.resumption = match &sessions {
            Some(sessions) => Resumption::store(sessions.clone()),
            None => Resumption::disabled(),
        };
        Ok(Self {
            config: Arc::new(config),
            floor,
            sessions,
            asked,
        })
    }

    async fn connect(
        &self,
        towards: &Towards<'_>,
        tcp: TcpStream,
    ) -> Result<(Box<dyn EncryptedStream>, Facts), NoTls> {
        // A handshake begins: nobody has asked for our certificate yet.
        self.asked.was.store(false, Ordering::Relaxed);
        let connector = TlsConnector::from(self.config.clone());
        let connected = connector.connect(towards.name.clone(), tcp).await;
        let stream = connected.map_err(|error| {
            let is_of_certificate = matches!(fault(&error), Some(Error::InvalidCertificate(_)));
            let text = self.explain(&error, towards);
            NoTls::new(&text, is_of_certificate, Some(&error))
        })?;
        let facts = facts(stream.get_ref().1);
        Ok((Box::new(stream), facts))
    }

    /// Why a handshake failed, for people.
    fn explain(&self, error: &io::Error, towards: &Towards<'_>) -> String {
        match fault(error) {
            Some(Error::InvalidMessage(_)) if towards.implicit => PLAIN.into(),
            // Until TLS 1.2 there is no alert of its own for it; whoever wants none breaks off before the question.
            Some(Error::AlertReceived(_)) | None if self.is_wanting() => WANTED.into(),
            Some(other) => match words::lack(other).and_then(|lack| lacking(lack, self.floor)) {
                Some(said) => said,
                None => words::trouble(other, towards.host, towards.proxied),
            },
            None if error.kind() == UnexpectedEof => CLOSED.into(),
            None => error.to_string(),
        }
    }

    fn explain_loss(&self, error: Option<&io::Error>, host: &str) -> Option<String> {
        match error.and_then(fault) {
            Some(Error::AlertReceived(_)) if self.is_wanting() => Some(format!("TLS: {WANTED}")),
            Some(fault) => Some(format!("TLS: {}", words::trouble(fault, host, false))),
            None => self.is_wanting().then(|| {
                format!("TLS: the connection was lost right after the handshake, and {WANTED}")
            }),
        }
    }

    /// Our certificate was asked for, and there is none.
    fn is_wanting(&self) -> bool {
        self.asked.was.load(Ordering::Relaxed) && !self.asked.has_certs()
    }
}

impl EncryptedStream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

const WANTED: &str =
    "the upstream wants a client certificate: set client_certificate and client_key";

/// What the upstream offers is too little: which key of the connector takes it. `None`: there is none in this program.
fn lacking(lack: words::Lack, floor: TlsFloor) -> Option<String> {
    if floor.min == TlsVersion::V1_3 {
        return Some("the upstream speaks no TLS 1.3, or shares no cipher of it with us; min_tls = \"1.2\" takes less [tls-old]".into());
    }
    if !old_tls::IS_BUILT {
        return None;
    }
    Some(match lack {
        words::Lack::Version => "the upstream speaks no TLS 1.2: it is an old server, to be updated or put behind a newer one; min_tls = \"1.0\" if you must [tls-old]".into(),
        words::Lack::Cipher => "the upstream shares no cipher with us; old_ciphers = true if you must, and min_tls = \"1.0\" where that is not enough; better have it updated (TLS 1.2 with ECDHE and AES-GCM) [tls-old]".into(),
    })
}

/// An error of a connection, without the library's names for what TLS has to say.
pub(super) fn said(error: &io::Error) -> String {
    #[cfg(feature = "old-tls")]
    if let Some(said) = old::loss(error) {
        return said;
    }
    match fault(error) {
        Some(fault) => format!(
            "TLS: {}",
            words::trouble(fault, "that it was asked for", false)
        ),
        None => error.to_string(),
    }
}

fn fault(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Reads the facts off a finished handshake.
fn facts(connection: &rustls::ClientConnection) -> Facts {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let cipher = connection
        .negotiated_cipher_suite()
        .and_then(|s| s.suite().as_str())
        .unwrap_or_default();
    let own = connection.peer_certificates().and_then(<[_]>::first);
    Facts::new(version, cipher, own.map(AsRef::as_ref))
}
