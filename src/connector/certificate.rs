//! Why a certificate is not trusted, in words, for smtp, graph and token endpoints.
//!
//! Apart because HTTP and SMTP make their connections in different ways and must tell the same fault alike. It trusts nothing.

use tokio_rustls::rustls::CertificateError;

/// The fault and the remedy; `host` is the name that was asked for, `proxied` says whether a proxy is in between.
pub(super) fn problem(problem: &CertificateError, host: &str, proxied: bool) -> String {
    match problem {
        CertificateError::Expired => "the upstream's certificate has expired".into(),
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the upstream's certificate expired on {}, by the clock of this machine",
            day(not_after.as_secs())
        ),
        CertificateError::NotValidYet => "the upstream's certificate is not valid yet".into(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the upstream's certificate is not valid before {}; is the clock right?",
            day(not_before.as_secs())
        ),
        // It is the end of the handshake: nothing of ours was said.
        CertificateError::UnknownIssuer if proxied => format!(
            "the certificate that came for {host} is from an unknown issuer: the proxy opens TLS, it seems; nothing secret was sent. If it may, set ca_file to the certificate of its CA"
        ),
        CertificateError::UnknownIssuer => format!(
            "the upstream's certificate is from an unknown issuer, nothing secret was sent; set ca_file to its issuer's certificate or to that of {host} itself, or, where a firewall opens TLS, to the certificate of its CA"
        ),
        CertificateError::NotValidForName => {
            format!("the upstream's certificate is not for {host}")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let mut names = presented.join(", ");
            if names.is_empty() {
                names = "no name at all (a common name does not count)".into();
            }
            format!(
                "the upstream's certificate is not for {host} but for {}",
                crate::smtp::client::class::bounded(&names)
            )
        }
        other => {
            let text = format!("{other:?}");
            if text.contains("CaUsedAsEndEntity") {
                return "the upstream's certificate is self-signed or an issuer's own; put that very certificate into ca_file to trust it".into();
            }
            format!("the upstream's certificate is not valid: {other}")
        }
    }
}

/// A day, RFC 3339; `seconds` since 1970.
pub(super) fn day(seconds: u64) -> String {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX))
        .map_or_else(|_| "an unknown day".into(), |t| t.date().to_string())
}
