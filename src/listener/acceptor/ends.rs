//! When what a listener shows, or holds others to, begins and ends.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;

/// When something of a listener's ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEnd {
    /// `listener`, `client_ca`, `client_crl`.
    pub kind: &'static str,
    /// Where it stands.
    pub file: PathBuf,
    /// Before this it is not valid.
    pub begins: SystemTime,
    /// After this it is not valid; a revocation list should have been followed by another.
    pub ends: SystemTime,
}

/// From when to when a certificate is valid.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn validity(
    certificate: &CertificateDer<'_>,
) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|e| e.to_string())?;
    let time = |seconds: i64| {
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds.max(0) as u64))
            .ok_or_else(|| "its end is too far in the future".to_owned())
    };
    let validity = parsed.validity();
    Ok((
        time(validity.not_before.timestamp())?,
        time(validity.not_after.timestamp())?,
    ))
}
