//! Keys to sign with, as files and the store have them, and the hashes by which certificates are known. It asks nobody for anything.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::rotation::RotatedPair;
use crate::{
    connector::keypair::{self, Validity},
    mail::cause,
};

/// A certificate, and its key to sign with.
#[derive(Clone)]
pub struct ApplicationPair {
    /// As it is registered.
    pub(super) der: Vec<u8>,
    pub(super) key: EncodingKey,
}

impl ApplicationPair {
    /// Of files.
    ///
    /// # Errors
    /// They are no pair, or the key is not RSA: a sentence that names the file.
    pub fn of_files(certificate: &Path, key: &Path) -> Result<Self, String> {
        let rsa = rsa_key(&text(key)?, &key.display().to_string())?;
        keypair::belongs(certificate, key).map_err(|unfit| unfit.to_string())?;
        Ok(Self {
            der: keypair::first(certificate)?.to_vec(),
            key: rsa,
        })
    }

    /// One of ours.
    ///
    /// # Errors
    /// It is no pair.
    pub fn of(pair: &RotatedPair) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes())
            .map_err(|_| "the kept certificate cannot be read")?;
        Ok(Self {
            der: der.to_vec(),
            key: rsa_key(pair.key.reveal(), "what was kept of it")?,
        })
    }

    /// When it is good.
    pub fn validity(&self) -> Option<Validity> {
        keypair::of(&self.der)
    }
}

/// SHA-256 in base64url: of a certificate its `x5t#S256`, of a configured token what tells another one apart.
pub(super) fn sha256(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        octets,
    ))
}

pub(super) fn rsa_key(pem: &str, shown: &str) -> Result<EncodingKey, String> {
    EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| {
        cause::KEY_UNUSABLE.marked(&format!(
            "{shown} holds no RSA private key in PEM form without a passphrase; the certificate of an application has one"
        ))
    })
}

pub(super) fn sign(
    header: &Header,
    claims: &serde_json::Value,
    key: &EncodingKey,
) -> Result<String, String> {
    jsonwebtoken::encode(header, claims, key)
        .map_err(|e| format!("the assertion cannot be signed: {e}"))
}

pub(super) fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}
