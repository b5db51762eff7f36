//! TLS towards an upstream: its settings, and in which words a failure is reported.
//!
//! The conversation only needs an encrypted stream. Whom it trusts, `connector::tls` says.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_rustls::rustls::{
    self, ClientConfig, Error, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    sign::CertifiedKey,
};

use super::resumption::Sessions;
use crate::{
    connector::{
        settings::SmtpSettings,
        tls::{client::tls_config, words::trouble},
    },
    mail::time::{at, day},
};

/// The TLS side of a connector.
#[derive(Debug)]
pub(super) struct TlsClient {
    pub(super) config: Arc<ClientConfig>,
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

/// Reads the files.
///
/// # Errors
/// A sentence: which file or key cannot be used.
pub(super) fn client(settings: &SmtpSettings) -> Result<TlsClient, String> {
    let pair = settings.client_certificate.as_ref();
    let pair = pair.map(|(chain, key)| (chain.as_path(), key.as_path()));
    let mut config = tls_config(settings.verify, settings.ca_file.as_deref(), pair)?;
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
    Ok(TlsClient {
        config: Arc::new(config),
        sessions,
        asked,
    })
}

impl TlsClient {
    /// A handshake begins: nobody has asked for our certificate yet.
    pub(super) fn begins(&self) {
        self.asked.was.store(false, Ordering::Relaxed);
    }

    /// What [`TlsClient::may_do_afresh`] wants to know of a handshake that is about to begin.
    pub(super) fn sessions_offered(&self) -> u64 {
        self.sessions.as_ref().map_or(0, |s| s.begins())
    }

    /// A handshake failed that may not fail without the session that was to be gone on with.
    pub(super) fn may_do_afresh(&self, offered: u64) -> bool {
        let sessions = self.sessions.as_ref();
        sessions.is_some_and(|s| s.are_to_blame(offered))
    }

    /// Why a handshake failed, for people; `host` is the name that was asked for, `proxied` says whether a proxy is in between.
    pub(super) fn explain(
        &self,
        error: &std::io::Error,
        host: &str,
        implicit: bool,
        proxied: bool,
    ) -> String {
        let why = match fault(error) {
            Some(Error::InvalidMessage(_)) if implicit => {
                "the port answered in plain text; it is not a port for tls = \"implicit\": try tls = \"starttls\", or port 465 [tls-mode]".into()
            }
            // Until TLS 1.2 there is no alert of its own for it; whoever wants none breaks off before the question.
            Some(Error::AlertReceived(_)) | None if self.is_wanting() => WANTED.into(),
            Some(other) => trouble(other, host, proxied),
            None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                "the upstream closed the connection during the handshake".into()
            }
            None => error.to_string(),
        };
        format!("TLS: {why}")
    }

    /// Why an encrypted line was lost, where TLS has to do with it. Under TLS 1.3 our certificate is judged after the handshake.
    pub(super) fn explain_loss(
        &self,
        error: Option<&std::io::Error>,
        host: &str,
    ) -> Option<String> {
        match error.and_then(fault) {
            Some(Error::AlertReceived(_)) if self.is_wanting() => Some(format!("TLS: {WANTED}")),
            Some(fault) => Some(format!("TLS: {}", trouble(fault, host, false))),
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

const WANTED: &str =
    "the upstream wants a client certificate: set client_certificate and client_key";

/// An error of a connection, without the library's names for what TLS has to say.
pub(super) fn words(error: &std::io::Error) -> String {
    match fault(error) {
        Some(fault) => format!("TLS: {}", trouble(fault, "that it was asked for", false)),
        None => error.to_string(),
    }
}

fn fault(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What is said of an encrypted line.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// `TLSv1.3`.
    pub(super) version: String,
    /// Version, cipher, subject, issuer, expiry, on one line.
    pub(super) line: String,
    /// The last day of the certificate, RFC 3339.
    pub(super) expires: Option<String>,
}

/// Reads the facts off a finished handshake.
pub(super) fn facts(connection: &rustls::ClientConnection) -> Facts {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    }
    .to_owned();
    let cipher = connection
        .negotiated_cipher_suite()
        .and_then(|s| s.suite().as_str())
        .unwrap_or_default();
    let mut line = format!("{version} {cipher}");
    let mut expires = None;
    let own = connection.peer_certificates().and_then(<[_]>::first);
    if let Some(Ok((_, parsed))) = own.map(|c| x509_parser::parse_x509_certificate(c)) {
        let until = day(at(parsed.validity().not_after.timestamp()));
        line = format!(
            "{line}, certificate of {}, issued by {}, valid until {until}",
            parsed.subject(),
            parsed.issuer(),
        );
        expires = Some(until);
    }
    Facts {
        version,
        line,
        expires,
    }
}
