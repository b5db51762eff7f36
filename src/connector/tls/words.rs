//! Why a certificate is not trusted, or TLS not made, in words, for smtp, graph and token endpoints.
//!
//! HTTP and SMTP make their connections in different ways, and must report the same fault alike. It trusts nothing. The
//! library's own words are names out of its code (`BadSignature`, `DnsName("…")`): none of them is passed on.

use std::fmt;

use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error, OtherError, PeerIncompatible,
    pki_types::{CertificateDer, UnixTime},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::mail::{
    cause, text,
    time::{at, day},
};

/// A fault found by our own reading of a certificate, as a sentence.
#[derive(Debug)]
pub(in crate::connector) struct Said(pub(super) String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

impl From<Said> for CertificateError {
    fn from(said: Said) -> Self {
        CertificateError::Other(OtherError(std::sync::Arc::new(said)))
    }
}

/// An RSA key is verified from so many bits on.
const LEAST_BITS: usize = 2048;
/// How to trust one certificate in spite of what is wrong with it.
const PIN: &str = "have it renewed, or put this very certificate into ca_file to trust it as it is";

/// What of a chain is at fault, where the library does not say: `own` is the server's certificate, `others` came with it.
pub(in crate::connector) fn closer(
    fault: CertificateError,
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) -> CertificateError {
    let chain = std::iter::once(own).chain(others);
    let mut read = chain.filter_map(|der| X509Certificate::from_der(der).ok().map(|(_, c)| c));
    match fault {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let is_valid = |c: &X509Certificate<'_>| {
                let validity = c.validity();
                (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
            };
            if read.next().is_some_and(|own| !is_valid(&own)) {
                return fault;
            }
            read.find(|c| !is_valid(c)).map_or_else(
                || Said("the certificate of one of the upstream's issuers has expired, or is not valid yet, while the upstream's own is valid: its operator has to send the current chain [tls-expired]".into()).into(),
                |issuer| {
                    let (from, to) = dates(&issuer);
                    Said(format!(
                        "the intermediate certificate {} that came with the upstream's own is valid from {from} to {to} only; the upstream's own is still valid: its operator has to send the current chain [tls-expired]",
                        name(issuer.subject())
                    ))
                    .into()
                },
            )
        }
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            let weak = read.find_map(|c| Some((weakness(&c)?, name(c.subject()))));
            weak.map_or(fault, |(weakness, name)| {
                Said(format!("the certificate {name} {weakness}; {PIN}")).into()
            })
        }
        fault => fault,
    }
}

/// What makes a certificate one that nobody should sign with any more.
fn weakness(certificate: &X509Certificate<'_>) -> Option<String> {
    if let Some(bits) = short_key(certificate) {
        return Some(format!(
            "has an RSA key of {bits} bits, which is too short ({LEAST_BITS} is the least)"
        ));
    }
    // RFC 3279 §2.2: with MD5 and SHA-1.
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    match algorithm.as_str() {
        "1.2.840.113549.1.1.4" => {
            Some("is signed with MD5, which no longer proves anything".into())
        }
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => {
            Some("is signed with SHA-1, which is no longer accepted".into())
        }
        _ => None,
    }
}

/// The bits of an RSA key that is too short.
pub(in crate::connector) fn short_key(certificate: &X509Certificate<'_>) -> Option<usize> {
    use x509_parser::public_key::PublicKey;
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < LEAST_BITS => Some(key.key_size()),
        _ => None,
    }
}

/// First and last day.
fn dates(certificate: &X509Certificate<'_>) -> (String, String) {
    let validity = certificate.validity();
    (
        day(at(validity.not_before.timestamp())),
        day(at(validity.not_after.timestamp())),
    )
}

/// Whose certificate it is.
fn name(subject: &x509_parser::x509::X509Name<'_>) -> String {
    let name = subject.to_string();
    if name.is_empty() {
        "without a name".into()
    } else {
        format!("of {}", ascii(&name))
    }
}

/// The fault and the remedy; `host` is the name that was asked for, `proxied` says whether a proxy is in between.
pub(in crate::connector) fn problem(fault: &CertificateError, host: &str, proxied: bool) -> String {
    match fault {
        CertificateError::Expired => {
            cause::TLS_EXPIRED.at("the upstream's certificate has expired")
        }
        CertificateError::ExpiredContext { not_after, .. } => cause::TLS_EXPIRED.at(format_args!(
            "the upstream's certificate expired on {}, by the clock of this machine",
            day(at(not_after.as_secs() as i64))
        )),
        CertificateError::NotValidYet => "the upstream's certificate is not valid yet".into(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the upstream's certificate is not valid before {}; is the clock of this machine right (NTP)? [clock]",
            day(at(not_before.as_secs() as i64))
        ),
        // It is the end of the handshake: nothing of ours was said.
        CertificateError::UnknownIssuer if proxied => format!(
            "the certificate that came for {host} is from an unknown issuer: the proxy seems to open TLS; nothing secret was sent. If it may, set ca_file to the certificate of its CA, else have it pass these hosts through [tls-inspected]"
        ),
        CertificateError::UnknownIssuer if is_of_a_cloud(host) => format!(
            "the certificate that came for {host} is from an unknown issuer: something on the way opens TLS; nothing secret was sent. Set ca_file to the certificate of its CA, or have these hosts passed through [tls-inspected]"
        ),
        CertificateError::UnknownIssuer => format!(
            "the upstream's certificate is from an unknown issuer, nothing secret was sent; set ca_file to its issuer's certificate or to that of {host} itself, or, where a firewall opens TLS, to the certificate of its CA [tls-issuer]"
        ),
        CertificateError::NotValidForName => {
            cause::TLS_NAME.at(format_args!("the upstream's certificate is not for {host}"))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<String> = presented.iter().map(|name| bare(name)).collect();
            let mut names = names.join(", ");
            if names.is_empty() {
                names = "no name at all (a common name does not count)".into();
            }
            cause::TLS_NAME.at(format_args!(
                "the upstream's certificate is not for {host} but for {}",
                text::bounded(&names)
            ))
        }
        CertificateError::BadEncoding => {
            format!("the upstream's certificate cannot be read; {PIN}")
        }
        CertificateError::Revoked => {
            "the upstream's certificate has been revoked by its issuer".into()
        }
        CertificateError::UnhandledCriticalExtension => format!(
            "the upstream's certificate has a critical extension that is not known here; {PIN}"
        ),
        CertificateError::BadSignature => format!(
            "a signature of the upstream's certificate, or by it, is wrong, or its key is too short (RSA under {LEAST_BITS} bits); {PIN}"
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => format!(
            "the upstream's certificate is signed in a way that is no longer accepted (SHA-1, MD5, DSA, an unusual curve); {PIN}"
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!(
                "the upstream's certificate is not made for servers (extended key usage); {PIN}"
            )
        }
        CertificateError::Other(OtherError(cause)) if cause.is::<Said>() => cause.to_string(),
        other => {
            // The library has no type for these; its words decide, and are not shown.
            let text = format!("{other:?}");
            if text.contains("CaUsedAsEndEntity") {
                return "the upstream's certificate is self-signed or an issuer's own; put this very certificate into ca_file to trust it [tls-issuer]".into();
            }
            if text.contains("UnsupportedCriticalExtension") {
                return problem(&CertificateError::UnhandledCriticalExtension, host, proxied);
            }
            if text.contains("UnsupportedCertVersion") {
                return format!(
                    "the upstream's certificate, or its issuer's, is of version 1, which has no place for names and purpose; {PIN}"
                );
            }
            format!("the upstream's certificate, or one of its issuers', is malformed; {PIN}")
        }
    }
}

/// Why there is no TLS, in words; `host` and `proxied` as for [`problem`].
pub(in crate::connector) fn trouble(error: &Error, host: &str, proxied: bool) -> String {
    match lack(error) {
        Some(Lack::Version) => return OLD.into(),
        Some(Lack::Cipher) => return NO_CIPHER.into(),
        None => {}
    }
    match error {
        Error::InvalidCertificate(fault) => problem(fault, host, proxied),
        Error::AlertReceived(alert) => alarm(*alert, host),
        Error::NoCertificatesPresented => "the upstream shows no certificate".into(),
        Error::InvalidMessage(_) => cause::TLS_MODE.at("what the upstream sends is not TLS"),
        Error::InconsistentKeys(_) => "the key is not the certificate's".into(),
        _ => {
            "the upstream breaks the rules of TLS; is it, or a firewall in between, faulty?".into()
        }
    }
}

/// Hosts of these have certificates that every machine trusts.
const CLOUDS: &[&str] = &[
    "microsoft.com",
    "microsoft.us",
    "microsoftonline.com",
    "microsoftonline.us",
    "microsoftonline.cn",
    "chinacloudapi.cn",
    "outlook.cn",
    "office.com",
    "office365.com",
    "office365.us",
    "windows.net",
    "google.com",
    "googleapis.com",
    "gmail.com",
];

/// Whether it is one of Microsoft's or Google's hosts.
fn is_of_a_cloud(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    CLOUDS.iter().any(|cloud| {
        host.strip_suffix(cloud)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// What an upstream is short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connector) enum Lack {
    /// A version that is spoken here.
    Version,
    /// A cipher, a group or a signature.
    Cipher,
}

/// Whether there is nothing in common with the upstream.
pub(in crate::connector) fn lack(error: &Error) -> Option<Lack> {
    match error {
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        )
        | Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::InappropriateFallback,
        ) => Some(Lack::Version),
        Error::PeerIncompatible(_)
        | Error::AlertReceived(
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
        ) => Some(Lack::Cipher),
        _ => None,
    }
}

const OLD: &str = "the upstream speaks neither TLS 1.2 nor 1.3, and nothing below 1.2 is safe: it is an old server, to be updated or put behind a newer one; tls = \"off\" sends in the clear [tls-old]";
const NO_CIPHER: &str = "the upstream has no cipher in common with this gateway, which wants a key exchange by ECDHE: an old server that knows only RSA or small Diffie-Hellman groups, to be updated (TLS 1.2 with ECDHE) or put behind a newer one [tls-old]";

/// What the upstream complains of (RFC 8446 §6.2, RFC 5246 §7.2.2).
fn alarm(alert: AlertDescription, host: &str) -> String {
    let why = match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            return "the upstream wants a client certificate: set client_certificate and client_key".into();
        }
        AlertDescription::UnrecognisedName => {
            return format!("the upstream does not know the name {host}");
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            "it does not accept the certificate of this gateway; see client_certificate"
        }
        AlertDescription::CertificateExpired => {
            "the certificate of this gateway has expired; see client_certificate"
        }
        AlertDescription::CertificateRevoked => {
            "the certificate of this gateway has been revoked; see client_certificate"
        }
        AlertDescription::InternalError => "it has an internal error",
        AlertDescription::DecryptError
        | AlertDescription::BadRecordMac
        | AlertDescription::DecryptionFailed => {
            "what this gateway sent was changed on the way, or the key is not client_certificate's"
        }
        AlertDescription::UserCanceled | AlertDescription::CloseNotify => "it does not want to",
        _ => "it does not understand what this gateway said",
    };
    format!("the upstream broke off: {why} (alert {})", u8::from(alert))
}

/// `DnsName("x")` and `IpAddress(x)` are names of the library's code around a name.
fn bare(name: &str) -> String {
    let inside = name
        .split_once('"')
        .and_then(|(_, rest)| rest.rsplit_once('"'))
        .or_else(|| {
            name.split_once('(')
                .and_then(|(_, rest)| rest.rsplit_once(')'))
        })
        .map_or(name, |(inside, _)| inside);
    ascii(inside)
}

fn ascii(text: &str) -> String {
    text.chars().map(text::ascii).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the library reports, people read sentences: no name of a variant, no brace, no quote of its code.
    #[test]
    fn no_word_of_the_library_gets_out() {
        use tokio_rustls::rustls::{InvalidMessage, PeerMisbehaved, pki_types::ServerName};
        let name = ServerName::try_from("mail.corp.example").unwrap();
        let mut faults: Vec<Error> = vec![
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon),
            Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
            Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
            Error::InvalidMessage(InvalidMessage::InvalidContentType),
            Error::DecryptError,
            Error::General("x".into()),
            Error::NoCertificatesPresented,
        ];
        faults.extend((0..=255_u8).map(|n| Error::AlertReceived(n.into())));
        faults.extend(
            [
                CertificateError::BadEncoding,
                CertificateError::Expired,
                CertificateError::UnhandledCriticalExtension,
                CertificateError::UnknownIssuer,
                CertificateError::BadSignature,
                CertificateError::InvalidPurpose,
                CertificateError::ApplicationVerificationFailure,
                CertificateError::NotValidForNameContext {
                    expected: name.to_owned(),
                    presented: vec![
                        "DnsName(\"other.example\")".into(),
                        "IpAddress(192.0.2.1)".into(),
                    ],
                },
                CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: vec![1, 2],
                    supported_algorithms: Vec::new(),
                },
                Said("a sentence of our own".into()).into(),
            ]
            .map(Error::InvalidCertificate),
        );
        for fault in faults {
            let said = trouble(&fault, "mail.corp.example", false);
            let code = format!("{fault:?}");
            for word in code.split(|c: char| !c.is_ascii_alphanumeric()) {
                let is_name = word.chars().filter(char::is_ascii_uppercase).count() > 1
                    && word.chars().any(|c| c.is_ascii_lowercase());
                assert!(!is_name || !said.contains(word), "{code}: {said}");
            }
            assert!(
                !said.contains(['{', '}']) && said.len() > 15,
                "{code}: {said}"
            );
        }
    }

    #[test]
    fn what_is_old_is_called_old_and_only_a_wish_for_a_certificate_is_one() {
        use AlertDescription::{CertificateRequired, HandshakeFailure, ProtocolVersion, UnknownCA};
        for (alert, words, is_certificate) in [
            (ProtocolVersion, "TLS 1.2", false),
            (HandshakeFailure, "cipher", false),
            (CertificateRequired, "client_certificate", true),
            (UnknownCA, "client_certificate", true),
        ] {
            let said = trouble(&Error::AlertReceived(alert), "x", false);
            assert!(said.contains(words), "{said}");
            assert_eq!(said.contains("certificate"), is_certificate, "{said}");
        }
    }
}
