//! Which certificate of an upstream is trusted, and the proof that it holds the key.
//!
//! The handshake is elsewhere. Two things more than the usual: with `verify = "none"` everything is taken, and a certificate in
//! `ca_file` that is octet for octet the server's own is trusted as it is, of whatever version, key and extensions; its
//! name and dates are checked by our own reading, since the library does not read all of them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::signature::{
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    UnparsedPublicKey,
};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

use super::words::{Said, closer, short_key};
use crate::connector::settings::Verify;

/// See the module.
#[derive(Debug)]
pub(in crate::connector) struct Judge {
    pub(in crate::connector) roots: Arc<RootCertStore>,
    pub(in crate::connector) pinned: Vec<CertificateDer<'static>>,
    pub(in crate::connector) verify: Verify,
    pub(in crate::connector) crypto: Arc<CryptoProvider>,
}

impl Judge {
    /// A server's own certificate that is pinned has an RSA key too short for the signatures of TLS 1.3.
    pub(in crate::connector) fn pins_short_key(&self) -> bool {
        self.pinned.iter().any(|der| {
            read(der).is_ok_and(|pinned| !pinned.is_ca() && short_key(&pinned).is_some())
        })
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.iter().any(|pinned| pinned == certificate)
    }

    /// The verdict of the library on a signature of the handshake, and what is left to do where it cannot tell.
    fn signed(
        &self,
        verdict: Result<HandshakeSignatureValid, Error>,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let error = match verdict {
            Ok(valid) => return Ok(valid),
            Err(error) => error,
        };
        if self.verify == Verify::None {
            // Any certificate would do, so the proof of this one proves nothing.
            return Ok(HandshakeSignatureValid::assertion());
        }
        let Ok(parsed) = read(certificate) else {
            return Err(error);
        };
        if self.is_pinned(certificate) && self.is_signed_by(&parsed, message, signed) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(match (error, short_key(&parsed)) {
            (Error::InvalidCertificate(_), Some(bits)) if self.is_pinned(certificate) => Said(format!(
                "the upstream's certificate has an RSA key of {bits} bits, which is good up to TLS 1.2 only, and the upstream signs in another way; it needs a longer key"
            )).into_error(),
            (Error::InvalidCertificate(fault), _) => closer(fault, certificate, &[], UnixTime::now()).into(),
            (error, _) => error,
        })
    }

    /// The signature is by the key of a certificate that the library does not read, or by one that is short.
    fn is_signed_by(
        &self,
        certificate: &X509Certificate<'_>,
        message: &[u8],
        signed: &DigitallySignedStruct,
    ) -> bool {
        let key = &certificate.public_key().subject_public_key.data;
        let known = self.crypto.signature_verification_algorithms.mapping.iter();
        let mut usual = known
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| *algorithms);
        if usual.any(|algorithm| {
            algorithm
                .verify_signature(key, message, signed.signature())
                .is_ok()
        }) {
            return true;
        }
        let short = match signed.scheme {
            SignatureScheme::RSA_PKCS1_SHA256 => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            SignatureScheme::RSA_PKCS1_SHA512 => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            _ => return false,
        };
        UnparsedPublicKey::new(short, key)
            .verify(message, signed.signature())
            .is_ok()
    }
}

impl Said {
    fn into_error(self) -> Error {
        Error::InvalidCertificate(self.into())
    }
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
        if self.is_pinned(end_entity) {
            let certificate = read(end_entity)?;
            check_dates(&certificate, now)?;
            if self.verify == Verify::Full {
                check_name(&certificate, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let closer = |error| match error {
            Error::InvalidCertificate(fault) => {
                closer(fault, end_entity, intermediates, now).into()
            }
            error => error,
        };
        let certificate = ParsedCertificate::try_from(end_entity).map_err(closer)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.crypto.signature_verification_algorithms.all,
        )
        .map_err(closer)?;
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
        let verdict = verify_tls12_signature(message, certificate, signed, known);
        self.signed(verdict, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.crypto.signature_verification_algorithms;
        let verdict = verify_tls13_signature(message, certificate, signed, known);
        if matches!(
            signed.scheme,
            SignatureScheme::RSA_PKCS1_SHA256
                | SignatureScheme::RSA_PKCS1_SHA384
                | SignatureScheme::RSA_PKCS1_SHA512
        ) {
            // RFC 8446 §4.2.3: not in the handshake of TLS 1.3.
            return verdict;
        }
        self.signed(verdict, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self
            .crypto
            .signature_verification_algorithms
            .supported_schemes();
        if self.pins_short_key() {
            // What a short key signs otherwise cannot be verified here: RSA-PSS, and PKCS #1 with SHA-384.
            schemes.retain(|scheme| {
                !matches!(
                    scheme,
                    SignatureScheme::RSA_PSS_SHA256
                        | SignatureScheme::RSA_PSS_SHA384
                        | SignatureScheme::RSA_PSS_SHA512
                        | SignatureScheme::RSA_PKCS1_SHA384
                )
            });
        }
        schemes
    }
}

/// Our own reading of a certificate.
fn read<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(certificate)
        .map(|(_, parsed)| parsed)
        .map_err(|_| CertificateError::BadEncoding.into())
}

/// The dates of a pinned certificate.
fn check_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let at = |seconds: i64| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    let not_before = at(certificate.validity().not_before.timestamp());
    let not_after = at(certificate.validity().not_after.timestamp());
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

/// Whether a certificate that is trusted, in DER, is for this name, as [`check_name`] says of a pinned one. Where an old server's was
/// issued, a common name was its only name.
///
/// # Errors
/// It is not.
#[cfg(feature = "old-tls")]
pub(in crate::connector) fn is_for(der: &[u8], wanted: &ServerName<'_>) -> Result<(), Error> {
    check_name(&read(&CertificateDer::from(der))?, wanted)
}

/// The name of a pinned certificate: one of its alternative names (RFC 9525 §6), and where it has none, as in version 1, the common
/// name: it is known octet for octet.
fn check_name(certificate: &X509Certificate<'_>, wanted: &ServerName<'_>) -> Result<(), Error> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    if let Some(alternatives) = alternatives {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => addresses.extend(address(octets)),
                _ => {}
            }
        }
    } else {
        let common = certificate.subject().iter_common_name();
        for name in common.filter_map(|name| name.as_str().ok()) {
            match name.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => names.push(name.to_owned()),
            }
        }
    }
    let is_for = match wanted {
        ServerName::DnsName(wanted) => names.iter().any(|name| is_name(name, wanted.as_ref())),
        ServerName::IpAddress(wanted) => addresses.contains(&IpAddr::from(*wanted)),
        _ => false,
    };
    if is_for {
        return Ok(());
    }
    names.extend(addresses.iter().map(ToString::to_string));
    Err(CertificateError::NotValidForNameContext {
        expected: wanted.to_owned(),
        presented: names,
    }
    .into())
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// Without case; a `*` stands for the whole first label alone (RFC 9525 §6.3).
fn is_name(name: &str, wanted: &str) -> bool {
    if let Some(rest) = name.strip_prefix("*.") {
        return wanted
            .split_once('.')
            .is_some_and(|(_, parent)| rest.contains('.') && rest.eq_ignore_ascii_case(parent));
    }
    name.trim_end_matches('.')
        .eq_ignore_ascii_case(wanted.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, wanted, is_it) in [
            ("mail.corp.example", "MAIL.corp.example", true),
            ("*.corp.example", "mail.corp.example", true),
            ("*.corp.example", "a.mail.corp.example", false),
            ("*.corp.example", "corp.example", false),
            ("*.example", "corp.example", false),
            ("*", "corp.example", false),
            ("other.example", "corp.example", false),
        ] {
            assert_eq!(is_name(name, wanted), is_it, "{name} {wanted}");
        }
    }
}
