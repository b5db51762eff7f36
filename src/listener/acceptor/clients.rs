//! Certificates of clients: which authority they are held to, and what came of one in its handshake.
//!
//! Each handshake has a verdict of its own: where a certificate is only optional, one that does not verify is no reason to break off, and
//! must not count all the same. Whose a certificate is, the policy says.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject as _},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{extensions::GeneralName, parse_x509_certificate, parse_x509_crl};

use super::ends::{CertificateEnd, validity};
use crate::{mail::time, policy::certificate::CertificateNames};

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
    verifier: Arc<dyn ClientCertVerifier>,
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
        let (ca, mut ends) = authorities(&paths.ca)?;
        let crls = match &paths.crl {
            None => Vec::new(),
            Some(file) => {
                let (crls, end) = revoked(file)?;
                ends.extend(end);
                crls
            }
        };
        // An authority of which there is no list has revoked nothing. A list whose time is over still says what it said: that nobody
        // could send any more since one was not renewed is worse, and its end is told before.
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(ca), provider.clone())
            .with_crls(crls)
            .allow_unknown_revocation_status();
        let builder = if paths.is_required {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        let verifier = builder.build().map_err(|e| {
            let file = paths.crl.as_deref().unwrap_or(&paths.ca);
            format!("{} cannot be used: {e}", file.display())
        })?;
        Ok(Self {
            verifier,
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
}

fn authorities(file: &Path) -> Result<(RootCertStore, Vec<CertificateEnd>), String> {
    let cannot = |e: &dyn std::fmt::Display| format!("{} cannot be used: {e}", file.display());
    let mut roots = RootCertStore::empty();
    let mut first: Option<(SystemTime, SystemTime)> = None;
    let now = SystemTime::now();
    for found in CertificateDer::pem_file_iter(file).map_err(|e| cannot(&e))? {
        let der = found.map_err(|e| cannot(&e))?;
        let (begins, ends) = validity(&der).map_err(|e| cannot(&e))?;
        roots.add(der).map_err(|_| {
            cannot(&"there is a certificate in it that cannot be an authority for others")
        })?;
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
    Ok((roots, vec![end]))
}

type RevocationLists = (
    Vec<CertificateRevocationListDer<'static>>,
    Option<CertificateEnd>,
);

fn revoked(file: &Path) -> Result<RevocationLists, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("{} cannot be used: {e}", file.display());
    let mut lists = Vec::new();
    let mut due: Option<SystemTime> = None;
    for found in CertificateRevocationListDer::pem_file_iter(file).map_err(|e| cannot(&e))? {
        let der = found.map_err(|e| cannot(&e))?;
        let next = match parse_x509_crl(&der) {
            Ok((_, list)) => list.next_update().map(|at| time::at(at.timestamp())),
            Err(e) => return Err(cannot(&e)),
        };
        due = match (due, next) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        lists.push(der);
    }
    if lists.is_empty() {
        return Err(cannot(
            &"it holds no revocation list in PEM form (no \"BEGIN X509 CRL\" in it)",
        ));
    }
    let end = due.map(|ends| CertificateEnd {
        kind: "client_crl",
        file: file.to_owned(),
        begins: SystemTime::UNIX_EPOCH,
        ends,
    });
    Ok((lists, end))
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

    fn is_verified(&self) -> bool {
        matches!(self.found.get(), Some(Ok(())))
    }

    /// A signature by a certificate that counts for nothing proves nothing, and need not be right.
    fn signed(
        &self,
        verify: impl FnOnce(&dyn ClientCertVerifier) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.is_verified() {
            verify(self.trust.verifier.as_ref())
        } else {
            Ok(HandshakeSignatureValid::assertion())
        }
    }
}

impl ClientCertVerifier for CertificateVerdict {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.trust.verifier.root_hint_subjects()
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
        let verifier = &self.trust.verifier;
        let verified = verifier.verify_client_cert(end_entity, intermediates, now);
        let found = verified.as_ref().map(|_| ()).map_err(unfit);
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
        self.signed(|verifier| verifier.verify_tls12_signature(message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed(|verifier| verifier.verify_tls13_signature(message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.verifier.supported_verify_schemes()
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
