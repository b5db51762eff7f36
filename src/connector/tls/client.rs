//! The TLS of a client, from keys of the configuration: whom it trusts, and with which certificate it comes.
//!
//! SMTP and the database have the same keys for it, so they read the same files and complain of them alike. It connects to nothing.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig, Error, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::{trust::Judge, words::trouble};
use crate::connector::settings::Verify;

/// Reads `ca_file`, and `client_certificate` with `client_key`.
///
/// # Errors
/// A sentence: which file or key cannot be used.
pub fn tls_config(
    verify: Verify,
    ca_file: Option<&Path>,
    client_certificate: Option<(&Path, &Path)>,
) -> Result<ClientConfig, String> {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let mut pinned = Vec::new();
    if verify != Verify::None {
        if let Some(file) = ca_file {
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
    let judge = Judge {
        roots: Arc::new(roots),
        pinned,
        verify,
        crypto: crypto.clone(),
    };
    // TLS 1.3 wants signatures that a short RSA key can make and nobody here can verify.
    let versions: &[_] = if judge.pins_short_key() {
        &[&rustls::version::TLS12]
    } else {
        rustls::DEFAULT_VERSIONS
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
