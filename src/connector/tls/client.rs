//! The TLS of a client, from keys of the configuration: whom it trusts, and with which certificate it comes.
//!
//! SMTP and the database have the same keys for it, so they read the same files and complain of them alike. It connects to nothing.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig, Error, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{trust::Judge, words::trouble};
use crate::{connector::settings::Verify, mail::tls::TlsVersion};

/// Reads `ca_file`, and `client_certificate` with `client_key`. Below TLS 1.2 there is nothing, whatever `min` is.
///
/// # Errors
/// A sentence: which file or key cannot be used.
pub fn tls_config(
    verify: Verify,
    ca_file: Option<&Path>,
    client_certificate: Option<(&Path, &Path)>,
    min: TlsVersion,
) -> Result<ClientConfig, String> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (roots, pinned) = match verify {
        Verify::None => (RootCertStore::empty(), Vec::new()),
        Verify::Full | Verify::Certificate => roots(ca_file)?,
    };
    let judge = Judge {
        roots: Arc::new(roots),
        pinned,
        verify,
        crypto: crypto.clone(),
    };
    // TLS 1.3 wants signatures that a short RSA key can make and nobody here can verify.
    let versions: &[_] = match min {
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
        _ if judge.pins_short_key() => &[&rustls::version::TLS12],
        _ => rustls::DEFAULT_VERSIONS,
    };
    let builder = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(versions)
        .map_err(|e| format!("TLS: {}", trouble(&e, "", false)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let Some((chain, key)) = client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(chain, "client_certificate")?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| format!("client_key {}: {e}", key.display()))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|e| format!("client_certificate and client_key: {}", own_key(&e)))
}

/// The roots that are trusted: those of `ca_file`, or the system's; and what stands in `ca_file`, each of which may be a server's own.
///
/// # Errors
/// A sentence: there are none.
pub(in crate::connector) fn roots(
    ca_file: Option<&Path>,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca_file else {
        roots.add_parsable_certificates(system_roots()?);
        if roots.is_empty() {
            return Err(NO_ROOTS.into());
        }
        return Ok((roots, Vec::new()));
    };
    let pinned = certificates(file, "ca_file")?;
    // A server's own certificate may not parse as a root; it is trusted as itself.
    roots.add_parsable_certificates(pinned.iter().cloned());
    Ok((roots, pinned))
}

const NO_ROOTS: &str = "the system has no trusted root certificates (on Debian: package ca-certificates); install them or set ca_file";

/// The system's roots, as they are.
///
/// # Errors
/// A sentence: there are none.
pub(in crate::connector) fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return Err(NO_ROOTS.into());
    }
    Ok(found)
}

/// Why there is no TLS to `host`, in words.
pub fn tls_trouble(error: &Error, host: &str) -> String {
    trouble(error, host, false)
}

/// What is wrong with a key of ours.
fn own_key(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => trouble(error, "", false),
        _ => "this key cannot be used: it must be RSA, ECDSA or Ed25519, in PEM and without a password".into(),
    }
}

/// The certificates of a PEM file; `key` names it.
pub(in crate::connector) fn certificates(
    file: &Path,
    key: &str,
) -> Result<Vec<CertificateDer<'static>>, String> {
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
