//! What the authorities of clients' certificates have revoked, by the lists of a file.
//!
//! A list counts for the certificates of the key that has signed it, wherever it stands in the file, and whatever names of places to
//! fetch it from stand in it: two authorities may have one name, as one has before and after its key was renewed.

use std::{cmp::Ordering, path::Path, time::SystemTime};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, SubjectPublicKeyInfoDer, UnixTime,
        pem::PemObject as _,
    },
};
use webpki::{
    CertRevocationList, EndEntityCert, Error, KeyUsage, OwnedCertRevocationList, VerifiedPath,
};
use x509_parser::{
    num_bigint::BigUint,
    parse_x509_crl,
    prelude::{FromDer as _, ParsedExtension},
    x509::SubjectPublicKeyInfo,
};

use super::ends::CertificateEnd;
use crate::mail::time;

/// The lists of a file.
#[derive(Debug, Default)]
pub(super) struct RevocationLists(Vec<RevocationList>);

#[derive(Debug)]
struct RevocationList {
    list: CertRevocationList<'static>,
    /// What is signed, and the signature.
    signed: (Vec<u8>, Vec<u8>),
    /// The key that it says has signed it.
    by: Option<Vec<u8>>,
    number: Option<BigUint>,
    made: i64,
    due: Option<SystemTime>,
}

impl RevocationList {
    /// A sentence says why it cannot be read.
    fn read(der: &CertificateRevocationListDer<'_>) -> Result<Self, String> {
        let (_, parsed) = parse_x509_crl(der).map_err(|e| e.to_string())?;
        let list = OwnedCertRevocationList::from_der(der).map_err(|e| e.to_string())?;
        let by = parsed.extensions().iter().find_map(|extension| {
            let ParsedExtension::AuthorityKeyIdentifier(by) = extension.parsed_extension() else {
                return None;
            };
            by.key_identifier.as_ref().map(|key| key.0.to_vec())
        });
        Ok(Self {
            list: list.into(),
            signed: (
                parsed.tbs_cert_list.as_ref().to_vec(),
                parsed.signature_value.data.to_vec(),
            ),
            by,
            number: parsed.crl_number().cloned(),
            made: parsed.last_update().timestamp(),
            due: parsed.next_update().map(|at| time::at(at.timestamp())),
        })
    }

    /// It is of the same key and for the same certificates as `other`, and takes its place.
    fn follows(&self, other: &Self) -> bool {
        let order = match (&self.number, &other.number) {
            (Some(one), Some(two)) => one.cmp(two),
            _ => Ordering::Equal,
        };
        self.by.is_some()
            && self.by == other.by
            && self.list.issuer() == other.list.issuer()
            && self.list.issuing_distribution_point() == other.list.issuing_distribution_point()
            && order.then(self.made.cmp(&other.made)).is_gt()
    }

    fn is_signed_by(&self, key: &SubjectPublicKeyInfoDer<'_>, provider: &CryptoProvider) -> bool {
        let Ok((_, key)) = SubjectPublicKeyInfo::from_der(key) else {
            return false;
        };
        let (text, signature) = &self.signed;
        let mut known = provider.signature_verification_algorithms.all.iter();
        known.any(|algorithm| {
            algorithm
                .verify_signature(&key.subject_public_key.data, text, signature)
                .is_ok()
        })
    }
}

impl RevocationLists {
    /// Reads a file, and when the first of its lists is due.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub(super) fn read(file: &Path) -> Result<(Self, Option<CertificateEnd>), String> {
        let cannot = |e: &dyn std::fmt::Display| format!("{} cannot be used: {e}", file.display());
        let mut lists = Vec::new();
        for found in CertificateRevocationListDer::pem_file_iter(file).map_err(|e| cannot(&e))? {
            let der = found.map_err(|e| cannot(&e))?;
            lists.push(RevocationList::read(&der).map_err(|e| cannot(&e))?);
        }
        if lists.is_empty() {
            return Err(cannot(
                &"it holds no revocation list in PEM form (no \"BEGIN X509 CRL\" in it)",
            ));
        }
        let mut kept: Vec<RevocationList> = Vec::new();
        for list in lists {
            kept.retain(|other| !list.follows(other));
            if !kept.iter().any(|other| other.follows(&list)) {
                kept.push(list);
            }
        }
        let due = kept.iter().filter_map(|list| list.due).min();
        let end = due.map(|ends| CertificateEnd {
            kind: "client_crl",
            file: file.to_owned(),
            begins: SystemTime::UNIX_EPOCH,
            ends,
        });
        Ok((Self(kept), end))
    }

    /// Whether a list of that issuer's name has a certificate on it. Where no way to an authority was looked for it is not known which key
    /// has signed it, and one that may have been revoked is.
    pub(super) fn name(&self, der: &CertificateDer<'_>) -> bool {
        EndEntityCert::try_from(der).is_ok_and(|certificate| {
            self.0.iter().any(|list| {
                list.list.issuer() == certificate.issuer()
                    && !matches!(list.list.find_serial(certificate.serial()), Ok(None))
            })
        })
    }

    /// Whether every way from a certificate to an authority leads over one that was revoked. That there is a way was found before.
    pub(super) fn revoke(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        roots: &RootCertStore,
        provider: &CryptoProvider,
        now: UnixTime,
    ) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Ok(certificate) = EndEntityCert::try_from(end_entity) else {
            return true;
        };
        let verified = certificate.verify_for_usage(
            provider.signature_verification_algorithms.all,
            &roots.roots,
            intermediates,
            now,
            KeyUsage::client_auth(),
            None,
            Some(&|path: &VerifiedPath<'_>| {
                if self.are_on(path, provider) {
                    Err(Error::CertRevoked)
                } else {
                    Ok(())
                }
            }),
        );
        verified.is_err()
    }

    /// Whether one of the certificates of a way was revoked.
    fn are_on(&self, path: &VerifiedPath<'_>, provider: &CryptoProvider) -> bool {
        let own: &webpki::Cert<'_> = path.end_entity();
        let mut above = path.intermediate_certificates().peekable();
        let mut below = Some(own);
        while let Some(certificate) = below {
            let (key, next) = match above.next() {
                Some(issuer) => (issuer.subject_public_key_info(), Some(issuer)),
                None => (anchored(path), None),
            };
            let is_listed = |list: &RevocationList| {
                list.list.issuer() == certificate.issuer()
                    // What cannot be looked up may be there.
                    && !matches!(list.list.find_serial(certificate.serial()), Ok(None))
                    && list.is_signed_by(&key, provider)
            };
            if self.0.iter().any(is_listed) {
                return true;
            }
            below = next;
        }
        false
    }
}

/// The key at the end of a way.
fn anchored(path: &VerifiedPath<'_>) -> SubjectPublicKeyInfoDer<'static> {
    let content = &path.anchor().subject_public_key_info;
    // The sequence around it was left out (RFC 5914 says it is there).
    let mut der = vec![0x30];
    match content.len() {
        short @ 0..0x80 => der.push(short as u8),
        long => {
            let octets = long.to_be_bytes();
            let used = octets.iter().skip_while(|octet| **octet == 0);
            der.push(0x80 | used.clone().count() as u8);
            der.extend(used);
        }
    }
    der.extend_from_slice(content);
    der.into()
}
