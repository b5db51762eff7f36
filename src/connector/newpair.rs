//! A new key for an application, with the certificate that makes it known to Entra: RSA 3072, signed by itself.
//!
//! For `postern setup exchange` and for the rotation, which must make the same kind of pair. It writes no file and keeps nothing.

use std::time::SystemTime;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};
use time::{Duration, OffsetDateTime};

use crate::secret::Secret;

/// A certificate and its key.
#[derive(Debug)]
pub struct NewPair {
    /// For everybody to see.
    pub certificate_pem: String,
    /// PKCS #8, without a passphrase.
    pub key_pem: Secret,
    /// The certificate as Entra takes it.
    pub der: Vec<u8>,
}

/// RFC 5280, appendix A.1: `ub-common-name`.
const LONGEST_NAME: usize = 64;

/// A pair that is good from five minutes before `now`, since clocks differ, until so many days after it.
///
/// # Errors
/// A sentence: the system has no randomness, or the time is past what a certificate can say.
pub fn new_pair(common_name: &str, days: u32, now: SystemTime) -> Result<NewPair, String> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072).map_err(unmade)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, cut(common_name));
    let now = OffsetDateTime::from(now);
    let moment = |moved: Duration| now.checked_add(moved).ok_or_else(|| unmade("the clock"));
    params.not_before = moment(Duration::minutes(-5))?;
    params.not_after = moment(Duration::days(i64::from(days)))?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).map_err(unmade)?;
    Ok(NewPair {
        certificate_pem: certificate.pem(),
        key_pem: Secret::new(key.serialize_pem()),
        der: certificate.der().to_vec(),
    })
}

/// The name, or as many whole characters of its beginning as a certificate takes.
fn cut(name: &str) -> &str {
    name.char_indices()
        .nth(LONGEST_NAME)
        .map_or(name, |(end, _)| name.get(..end).unwrap_or_default())
}

fn unmade(why: impl std::fmt::Display) -> String {
    format!("no key and certificate can be made: {why}")
}

#[cfg(test)]
mod tests {
    use rustls::SignatureAlgorithm;
    use x509_parser::public_key::PublicKey;

    use super::*;
    use crate::connector::keypair;

    #[test]
    fn a_pair_is_rsa_3072_belongs_together_and_ends_when_it_should() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_796_000_000);
        let pair = new_pair("postern relay.corp.example", 730, now).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&pair.der).unwrap();
        let Ok(PublicKey::RSA(rsa)) = parsed.public_key().parsed() else {
            panic!("no RSA key");
        };
        assert_eq!(rsa.key_size(), 3072);
        assert_eq!(
            parsed.subject().to_string(),
            "CN=postern relay.corp.example"
        );
        assert_eq!(parsed.subject(), parsed.issuer());
        parsed.verify_signature(None).unwrap();
        let validity = parsed.validity();
        assert_eq!(validity.not_before.timestamp(), 1_796_000_000 - 300);
        assert_eq!(validity.not_after.timestamp(), 1_796_000_000 + 730 * 86_400);

        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("a.pem"), dir.path().join("a.key"));
        std::fs::write(&chain, &pair.certificate_pem).unwrap();
        std::fs::write(&key, pair.key_pem.reveal()).unwrap();
        assert_eq!(
            keypair::belongs(&chain, &key).unwrap(),
            SignatureAlgorithm::RSA
        );
        assert_eq!(keypair::first(&chain).unwrap().as_ref(), pair.der);
        assert!(!format!("{pair:?}").contains("PRIVATE KEY"));
    }

    #[test]
    fn a_long_name_is_cut_and_a_time_without_end_is_refused() {
        assert_eq!(cut(&"ä".repeat(70)).chars().count(), 64);
        assert_eq!(cut("short"), "short");
        let far = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_000);
        let why = new_pair("x", 730, far).unwrap_err();
        assert!(why.contains("no key and certificate"), "{why}");
    }
}
