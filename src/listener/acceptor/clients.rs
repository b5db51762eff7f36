//! Certificates of clients: which authority they are held to, and what came of one in its handshake.
//!
//! Each handshake has a verdict of its own: where a certificate is only optional, one that does not verify is no reason to break off, and
//! must not count all the same. Whose a certificate is, the policy says.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{
    extensions::GeneralName, parse_x509_certificate, public_key::PublicKey, time::ASN1Time,
};

use super::{
    ends::{CertificateEnd, validity},
    revocation::RevocationLists,
};
use crate::{mail::time, policy::certificate::CertificateNames};

/// Bits of an RSA key by which a signature can be verified.
const LEAST_RSA: usize = 2048;

/// The files that clients' certificates are held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTrustPaths {
    /// The authorities.
    pub ca: PathBuf,
    /// What they have revoked.
    pub crl: Option<PathBuf>,
    /// There is no handshake without a certificate that verifies.
    pub is_required: bool,
}

/// When what clients' certificates are held to ends, if it can be used.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn look_at_client_trust(paths: &ClientTrustPaths) -> Result<Vec<CertificateEnd>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientTrust::read(paths, &provider).map(|trust| trust.ends)
}

/// The files, loaded.
#[derive(Debug)]
pub(super) struct ClientTrust {
    /// Those that may vouch for others.
    authorities: Arc<RootCertStore>,
    /// `None`: there are none.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Certificates that are trusted as they are.
    pinned: Vec<CertificateDer<'static>>,
    /// Whom clients are told that certificates may be from.
    hints: Vec<DistinguishedName>,
    revoked: RevocationLists,
    provider: Arc<CryptoProvider>,
    is_required: bool,
    ends: Vec<CertificateEnd>,
}

impl ClientTrust {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub(super) fn read(
        paths: &ClientTrustPaths,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let (authorities, pinned, hints, mut ends) = trusted(&paths.ca)?;
        // An authority of which there is no list has revoked nothing. A list whose time is over still says what it said: that nobody
        // could send any more since one was not renewed is worse, and its end is told before.
        let revoked = match &paths.crl {
            None => RevocationLists::default(),
            Some(file) => {
                let (lists, end) = RevocationLists::read(file)?;
                ends.extend(end);
                lists
            }
        };
        let authorities = Arc::new(authorities);
        let verifier = if authorities.is_empty() {
            None
        } else {
            let roots = Arc::clone(&authorities);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
            let built = builder.build();
            Some(built.map_err(|e| format!("{} cannot be used: {e}", paths.ca.display()))?)
        };
        Ok(Self {
            authorities,
            verifier,
            pinned,
            hints,
            revoked,
            provider: Arc::clone(provider),
            is_required: paths.is_required,
            ends,
        })
    }

    /// Whether there is no handshake without a certificate.
    pub(super) fn is_required(&self) -> bool {
        self.is_required
    }

    /// The first authority to end, and when the next list is due.
    pub(super) fn ends(&self) -> &[CertificateEnd] {
        &self.ends
    }

    /// For one handshake.
    pub(super) fn ask(self: &Arc<Self>) -> Arc<CertificateVerdict> {
        Arc::new(CertificateVerdict {
            trust: Arc::clone(self),
            found: OnceLock::new(),
        })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let fault = |fault: CertificateError| Err(Error::InvalidCertificate(fault));
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            if self.revoked.name(end_entity) {
                return fault(CertificateError::Revoked);
            }
            return look_at_pinned(end_entity, now);
        }
        let Some(verifier) = &self.verifier else {
            return fault(CertificateError::UnknownIssuer);
        };
        verifier.verify_client_cert(end_entity, intermediates, now)?;
        let (roots, provider) = (&self.authorities, &self.provider);
        if (self.revoked).revoke(end_entity, intermediates, roots, provider, now) {
            return fault(CertificateError::Revoked);
        }
        Ok(())
    }
}

/// A certificate that is trusted as it is still has its dates and its purpose.
fn look_at_pinned(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let fault = |fault: CertificateError| Err(Error::InvalidCertificate(fault));
    let Ok((_, certificate)) = parse_x509_certificate(der) else {
        return fault(CertificateError::BadEncoding);
    };
    let seconds = |at: ASN1Time| {
        let after = u64::try_from(at.timestamp()).unwrap_or_default();
        UnixTime::since_unix_epoch(Duration::from_secs(after))
    };
    let validity = certificate.validity();
    let (not_before, not_after) = (seconds(validity.not_before), seconds(validity.not_after));
    if now < not_before {
        return fault(CertificateError::NotValidYetContext {
            time: now,
            not_before,
        });
    }
    if now > not_after {
        return fault(CertificateError::ExpiredContext {
            time: now,
            not_after,
        });
    }
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) if usage.value.client_auth || usage.value.any => Ok(()),
        Ok(Some(_)) => fault(CertificateError::InvalidPurpose),
        Err(_) => fault(CertificateError::BadEncoding),
    }
}

/// The bits of an RSA key that are too few: no proof by it can be verified.
pub(super) fn short_key(der: &CertificateDer<'_>) -> Option<usize> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()).filter(|bits| *bits < LEAST_RSA),
        _ => None,
    }
}

/// What a file trusts: authorities, and certificates that stand for themselves; whom it names, and when the first of all ends.
type Trusted = (
    RootCertStore,
    Vec<CertificateDer<'static>>,
    Vec<DistinguishedName>,
    Vec<CertificateEnd>,
);

fn trusted(file: &Path) -> Result<Trusted, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("{} cannot be used: {e}", file.display());
    let (mut authorities, mut all) = (RootCertStore::empty(), RootCertStore::empty());
    let mut pinned = Vec::new();
    let mut first: Option<(SystemTime, SystemTime)> = None;
    let now = SystemTime::now();
    for found in CertificateDer::pem_file_iter(file).map_err(|e| cannot(&e))? {
        let der = found.map_err(|e| cannot(&e))?;
        let (begins, ends) = validity(&der).map_err(|e| cannot(&e))?;
        let odd = |_| cannot(&"there is a certificate in it that cannot be read");
        if is_authority(&der) {
            authorities.add(der.clone()).map_err(odd)?;
        }
        all.add(der.clone()).map_err(odd)?;
        pinned.push(der);
        // Of several the first to end that is still good; the end of those that are over is past.
        let is_first = first.is_none_or(|(_, known)| known < now || (now..known).contains(&ends));
        if is_first {
            first = Some((begins, ends));
        }
    }
    let Some((begins, ends)) = first else {
        return Err(cannot(
            &"it holds no certificate (no \"BEGIN CERTIFICATE\" in it)",
        ));
    };
    let end = CertificateEnd {
        kind: "client_ca",
        file: file.to_owned(),
        begins,
        ends,
    };
    Ok((authorities, pinned, all.subjects(), vec![end]))
}

/// Whether a certificate was made to vouch for others (RFC 5280 §4.2.1.9, §4.2.1.3). One of version 1 says nothing of that, and vouches
/// for nobody but itself: else whoever has the key of one device could be all of them.
fn is_authority(der: &CertificateDer<'_>) -> bool {
    parse_x509_certificate(der).is_ok_and(|(_, certificate)| {
        let may_sign = match certificate.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        };
        certificate.is_ca() && may_sign
    })
}

/// What came of the certificate of one handshake; nothing, while none was shown.
#[derive(Debug)]
pub(super) struct CertificateVerdict {
    trust: Arc<ClientTrust>,
    /// `Err`: why it does not do.
    found: OnceLock<Result<(), String>>,
}

/// A certificate was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::listener) enum ShownCertificate {
    /// It was verified, and says this of its owner.
    Verified(CertificateNames),
    /// It does not do, for this reason, and counts for nothing.
    Unfit(String),
}

impl CertificateVerdict {
    /// When the handshake is done: `own` is what the client has shown.
    pub(super) fn of(&self, own: Option<&CertificateDer<'_>>) -> Option<ShownCertificate> {
        match self.found.get()? {
            Ok(()) => Some(ShownCertificate::Verified(names(own?))),
            Err(why) => Some(ShownCertificate::Unfit(why.clone())),
        }
    }

    /// A signature by a certificate that counts for nothing proves nothing, and need not be right.
    fn signed(
        &self,
        verify: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.found.get() {
            Some(Ok(())) => verify(&self.trust.provider.signature_verification_algorithms),
            _ => Ok(HandshakeSignatureValid::assertion()),
        }
    }
}

impl ClientCertVerifier for CertificateVerdict {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trust.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        self.trust.is_required
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.trust.verify(end_entity, intermediates, now);
        let mut found = verified.as_ref().copied().map_err(unfit);
        // Where a certificate must verify, its proof will not, which ends the handshake with the same words.
        if let (Ok(()), Some(bits), false) = (&found, short_key(end_entity), self.trust.is_required)
        {
            found = Err(format!(
                "the client's certificate has an RSA key of {bits} bits; it needs {LEAST_RSA}"
            ));
        }
        // Once in a handshake.
        let _ = self.found.set(found);
        match verified {
            Err(error) if self.trust.is_required => Err(error),
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(|known| verify_tls12_signature(message, certificate, signed, known))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(|known| verify_tls13_signature(message, certificate, signed, known))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.trust.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}

/// What a certificate says of its owner. One that cannot be read here has its hash alone.
fn names(der: &CertificateDer<'_>) -> CertificateNames {
    let (mut dns, mut emails, mut common) = (Vec::new(), Vec::new(), Vec::new());
    if let Ok((_, certificate)) = parse_x509_certificate(der) {
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let all = alternatives
            .iter()
            .flat_map(|found| &found.value.general_names);
        for name in all {
            match name {
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => emails.push((*name).to_owned()),
                _ => {}
            }
        }
        let subject = certificate.subject();
        common.extend(
            subject
                .iter_common_name()
                .filter_map(|name| name.as_str().ok().map(str::to_owned)),
        );
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut sha256 = [0; 32];
    for (octet, found) in sha256.iter_mut().zip(digest.as_ref()) {
        *octet = *found;
    }
    CertificateNames::new(dns, emails, common, sha256)
}

/// Why a client's certificate does not do, for the log.
pub(super) fn unfit(error: &Error) -> String {
    use CertificateError as Fault;
    let Error::InvalidCertificate(fault) = error else {
        return "the client's certificate cannot be verified".to_owned();
    };
    let day = |at: &UnixTime| time::day(time::at(at.as_secs() as i64));
    let why = match fault {
        Fault::ExpiredContext { not_after, .. } => {
            return format!("the client's certificate expired on {}", day(not_after));
        }
        Fault::NotValidYetContext { not_before, .. } => {
            return format!(
                "the client's certificate is not valid before {}",
                day(not_before)
            );
        }
        Fault::Expired => "has expired, or one of its issuers'",
        Fault::NotValidYet => "is not valid yet, or one of its issuers'",
        Fault::Revoked => "has been revoked (client_crl)",
        Fault::UnknownIssuer => "is from no authority in client_ca",
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            "is not made for clients (extended key usage clientAuth)"
        }
        Fault::BadSignature => "is not by the authority that it names, or its key is too weak",
        Fault::BadEncoding => "cannot be read",
        Fault::UnhandledCriticalExtension => "has a critical extension that is not known here",
        Fault::UnsupportedSignatureAlgorithmContext { .. }
        | Fault::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is no longer accepted"
        }
        _ => "cannot be verified",
    };
    format!("the client's certificate {why}")
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
        CrlIssuingDistributionPoint, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        RevokedCertParams, SerialNumber,
    };
    use tempfile::TempDir;

    use super::*;

    fn params(name: &str, serial: u64) -> CertificateParams {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
    }

    /// An authority, by its name.
    fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
        let mut params = params(name, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, Issuer::new(params, key))
    }

    fn issued(
        by: &Issuer<'_, KeyPair>,
        serial: u64,
        listed_at: &[&str],
    ) -> CertificateDer<'static> {
        let mut params = params("erp.corp.example", serial);
        params.use_authority_key_identifier_extension = true;
        let uris = listed_at.iter().map(|uri| (*uri).to_owned()).collect();
        if !listed_at.is_empty() {
            params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        }
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, by).unwrap().der().clone()
    }

    fn list(by: &Issuer<'_, KeyPair>, number: u64, serials: &[u64], place: Option<&str>) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(2044, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: place.map(|uri| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec![uri.to_owned()],
                },
                scope: None,
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(by).unwrap().pem().unwrap()
    }

    fn trust(ca: &[&str], crl: &[&str]) -> Result<ClientTrust, String> {
        let dir = TempDir::new().unwrap();
        let (ca_file, crl_file) = (dir.path().join("ca.pem"), dir.path().join("crl.pem"));
        std::fs::write(&ca_file, ca.concat()).unwrap();
        std::fs::write(&crl_file, crl.concat()).unwrap();
        let paths = ClientTrustPaths {
            ca: ca_file,
            crl: (!crl.is_empty()).then_some(crl_file),
            is_required: false,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientTrust::read(&paths, &provider)
    }

    /// `ok`, or why it does not do.
    fn verdict(trust: &ClientTrust, shown: &CertificateDer<'_>) -> String {
        let verified = trust.verify(shown, &[], UnixTime::now());
        verified.map_or_else(|error| unfit(&error), |()| "ok".to_owned())
    }

    const REVOKED: &str = "the client's certificate has been revoked (client_crl)";
    const UNKNOWN: &str = "the client's certificate is from no authority in client_ca";

    #[test]
    fn attack_the_key_of_a_device_makes_certificates_for_others() {
        let mut own = params("printer.corp.example", 1);
        own.is_ca = IsCa::ExplicitNoCa;
        let key = KeyPair::generate().unwrap();
        let made = own.self_signed(&key).unwrap();
        let device = Issuer::new(own, key);
        let minted = issued(&device, 2, &[]);
        let (devices, _) = authority("devices");
        for ca in [&[&*made.pem()][..], &[&devices, &made.pem()]] {
            let trust = trust(ca, &[]).unwrap();
            assert_eq!(verdict(&trust, made.der()), "ok");
            assert_eq!(verdict(&trust, &minted), UNKNOWN);
            assert_eq!(trust.hints.len(), ca.len());
        }
        // One that may sign, and may not sign certificates.
        let mut signs = params("signs", 1);
        signs.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        signs.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let pem = signs.self_signed(&key).unwrap().pem();
        let minted = issued(&Issuer::new(signs, key), 2, &[]);
        assert_eq!(verdict(&trust(&[&pem], &[]).unwrap(), &minted), UNKNOWN);
    }

    #[test]
    fn a_certificate_of_its_own_making_stands_for_itself_as_the_usual_command_makes_it() {
        let mut own = params("printer.corp.example", 1);
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let made = own.self_signed(&key).unwrap();
        let pem = made.pem();
        assert_eq!(verdict(&trust(&[&pem], &[]).unwrap(), made.der()), "ok");
        for (from, until, usage, why) in [
            (2020, 2021, None, "expired on 2021-01-01"),
            (2080, 2081, None, "is not valid before 2080-01-01"),
            (
                2020,
                2081,
                Some(rcgen::ExtendedKeyUsagePurpose::ServerAuth),
                "is not made for clients",
            ),
            (
                2020,
                2081,
                Some(rcgen::ExtendedKeyUsagePurpose::ClientAuth),
                "ok",
            ),
        ] {
            let mut own = own.clone();
            own.not_before = rcgen::date_time_ymd(from, 1, 1);
            own.not_after = rcgen::date_time_ymd(until, 1, 1);
            own.extended_key_usages = usage.into_iter().collect();
            let made = own.self_signed(&key).unwrap();
            let pem = made.pem();
            let found = verdict(&trust(&[&pem], &[]).unwrap(), made.der());
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn attack_an_older_list_of_the_same_authority_hides_what_was_revoked() {
        let (ca, by) = authority("devices");
        let (good, bad) = (issued(&by, 10, &[]), issued(&by, 11, &[]));
        let (before, now) = (list(&by, 1, &[], None), list(&by, 2, &[11], None));
        // What was held for a while and is no longer is on the older one alone.
        let held = list(&by, 1, &[10], None);
        for lists in [
            &[&*before, &*now][..],
            &[&now, &before],
            &[&now],
            &[&held, &now],
            &[&now, &held],
        ] {
            let trust = trust(&[&ca], lists).unwrap();
            assert_eq!(verdict(&trust, &good), "ok");
            assert_eq!(verdict(&trust, &bad), REVOKED);
        }
        assert_eq!(verdict(&trust(&[&ca], &[&before]).unwrap(), &bad), "ok");
    }

    #[test]
    fn attack_a_certificate_that_stands_in_the_file_itself_and_was_revoked() {
        let (ca, by) = authority("devices");
        let mut params = params("erp.corp.example", 11);
        params.use_authority_key_identifier_extension = true;
        let made = params
            .signed_by(&KeyPair::generate().unwrap(), &by)
            .unwrap();
        let (own, revoked) = (made.pem(), list(&by, 1, &[11], None));
        for ca in [&[&*own][..], &[&own, &ca], &[&ca, &own]] {
            let found = |lists: &[&str]| verdict(&trust(ca, lists).unwrap(), made.der());
            assert_eq!(found(&[]), "ok");
            assert_eq!(found(&[&list(&by, 1, &[12], None)]), "ok");
            assert_eq!(found(&[&revoked]), REVOKED);
        }
    }

    #[test]
    fn an_authority_whose_key_was_renewed_has_two_lists() {
        let (old_ca, old) = authority("devices");
        let (new_ca, new) = authority("devices");
        let both = |by| (issued(by, 10, &[]), issued(by, 11, &[]));
        let ((old_good, old_bad), (new_good, new_bad)) = (both(&old), both(&new));
        let (old_list, new_list) = (list(&old, 7, &[11], None), list(&new, 1, &[11], None));
        for lists in [
            &[&*old_list, &*new_list][..],
            &[&new_list, &old_list],
            &[&old_list],
            &[&new_list],
            &[],
        ] {
            for ca in [[&*old_ca, &*new_ca], [&new_ca, &old_ca]] {
                let trust = trust(&ca, lists).unwrap();
                for (shown, its) in [(&old_bad, &old_list), (&new_bad, &new_list)] {
                    let is_listed = lists.contains(&&**its);
                    let expected = if is_listed { REVOKED } else { "ok" };
                    assert_eq!(verdict(&trust, shown), expected);
                }
                assert_eq!(verdict(&trust, &old_good), "ok");
                assert_eq!(verdict(&trust, &new_good), "ok");
            }
        }
    }

    #[test]
    fn attack_a_list_that_was_fetched_from_elsewhere_than_the_certificate_says() {
        let (ca, by) = authority("devices");
        let bad = issued(&by, 11, &["http://pki.corp.example/a.crl"]);
        for place in [None, Some("http://pki.corp.example/b.crl")] {
            let all = list(&by, 2, &[11], place);
            assert_eq!(verdict(&trust(&[&ca], &[&all]).unwrap(), &bad), REVOKED);
        }
        // Lists of several places stand side by side, whatever their numbers.
        let one = list(&by, 2, &[11], Some("http://pki.corp.example/a.crl"));
        let two = list(&by, 9, &[], Some("http://pki.corp.example/b.crl"));
        for lists in [[&*one, &*two], [&two, &one]] {
            assert_eq!(verdict(&trust(&[&ca], &lists).unwrap(), &bad), REVOKED);
        }
    }

    #[test]
    fn an_intermediate_that_was_revoked_takes_its_own_with_it() {
        let (ca, root) = authority("root");
        let mut below = params("below", 11);
        below.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        below.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let between = below.signed_by(&key, &root).unwrap().der().clone();
        let shown = issued(&Issuer::new(below, key), 20, &[]);
        let now = UnixTime::now();
        for (serials, is_good) in [(&[11][..], false), (&[20], true), (&[], true)] {
            let list = list(&root, 1, serials, None);
            let trust = trust(&[&ca], &[&list]).unwrap();
            let found = trust.verify(&shown, std::slice::from_ref(&between), now);
            assert_eq!(found.is_ok(), is_good, "{serials:?}: {found:?}");
        }
    }
}
