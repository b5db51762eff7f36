//! TLS towards an upstream: what is trusted, and in whose words a failure is told.
//!
//! Apart from the conversation, which only needs an encrypted stream. One thing more than the usual: a certificate in
//! `ca_file` that is octet for octet the server's own is trusted, its name and dates still checked.

use std::{path::Path, sync::Arc, time::Duration};

use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};

use crate::connector::{
    SmtpSettings, Verify,
    certificate::{day, problem},
};

/// The TLS side of a connector, files read.
///
/// # Errors
/// A sentence: which file or key does not do.
pub(super) fn client_config(settings: &SmtpSettings) -> Result<Arc<ClientConfig>, String> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let mut pinned = Vec::new();
    if settings.verify != Verify::None {
        if let Some(file) = &settings.ca_file {
            pinned = certificates(file, "ca_file")?;
            // A server's own certificate may not parse as a root; it is trusted as itself.
            roots.add_parsable_certificates(pinned.iter().cloned());
        } else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(
                    "the system has no trusted root certificates (on Debian: package ca-certificates); install them or set ca_file"
                        .into(),
                );
            }
        }
    }
    let judge = Arc::new(Judge {
        roots: Arc::new(roots),
        pinned,
        verify: settings.verify,
        crypto: crypto.clone(),
    });
    let builder = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(judge);
    let config = match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain, "client_certificate")?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| format!("client_key {}: {e}", key.display()))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| format!("client_certificate and client_key: {e}"))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(file: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let fault = |e: &dyn std::fmt::Display| format!("{key} {}: {e}", file.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(|e| fault(&e))?
        .collect::<Result<_, _>>()
        .map_err(|e| fault(&e))?;
    if found.is_empty() {
        return Err(fault(&"no certificate (PEM) in it"));
    }
    Ok(found)
}

#[derive(Debug)]
struct Judge {
    roots: Arc<RootCertStore>,
    pinned: Vec<CertificateDer<'static>>,
    verify: Verify,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verify == Verify::None {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if self.pinned.iter().any(|p| p == end_entity) {
            check_dates(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                self.crypto.signature_verification_algorithms.all,
            )?;
        }
        if self.verify == Verify::Full {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.crypto.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.crypto.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The dates of a pinned certificate, which no chain check looks at.
fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let at = |seconds: i64| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    let not_before = at(parsed.validity().not_before.timestamp());
    let not_after = at(parsed.validity().not_after.timestamp());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        }
        .into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext {
            time: now,
            not_after,
        }
        .into());
    }
    Ok(())
}

/// Why a handshake failed, for people; `host` is the name that was asked for, `proxied` says whether a proxy is in between.
pub(super) fn explain(error: &std::io::Error, host: &str, implicit: bool, proxied: bool) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let why = match inner {
        Some(Error::InvalidCertificate(fault)) => problem(fault, host, proxied),
        Some(Error::InvalidMessage(_)) if implicit => {
            "the port answered in plain text; it is not a port for tls = \"implicit\" (try tls = \"starttls\")"
                .into()
        }
        Some(Error::AlertReceived(alert)) => {
            format!("the upstream refused the handshake ({alert:?}); does it ask for a client certificate?")
        }
        Some(other) => other.to_string(),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "the upstream closed the connection during the handshake".into()
        }
        None => error.to_string(),
    };
    format!("TLS: {why}")
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
        .map_or_else(String::new, |s| format!("{:?}", s.suite()));
    let mut line = format!("{version} {cipher}");
    let mut expires = None;
    let own = connection.peer_certificates().and_then(<[_]>::first);
    if let Some(Ok((_, parsed))) = own.map(|c| x509_parser::parse_x509_certificate(c)) {
        let until = day(u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0));
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
