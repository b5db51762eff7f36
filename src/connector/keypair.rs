//! A certificate of ours and its key: whether they belong together, and from when to when the certificate is good.
//!
//! The application's certificate at a token endpoint and the client certificate of SMTP expire in the same way: without
//! a word, and with mail that waits. Read for `check`, `status`, the log and the sentence of a refusal. It trusts nothing and signs
//! nothing.

use std::{path::Path, time::SystemTime};

use rustls::{
    SignatureAlgorithm,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::mail::{
    cause,
    time::{at, day},
};

/// Certificates are longer than nothing and shorter than this.
const FILE: u64 = 1 << 20;
/// A certificate that ends within so many days is spoken of.
const SOON: i64 = 30;
const DAY: i64 = 86_400;

/// From when to when, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    begins: i64,
    ends: i64,
}

/// What there is to say of it today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValidityNow {
    /// It is good for a while.
    Good,
    /// It ends within thirty days.
    EndsSoon,
    /// Its time has not come.
    NotYet,
    /// Its time is over.
    Expired,
}

impl Validity {
    /// Of what is known already.
    pub fn between(begins: SystemTime, ends: SystemTime) -> Self {
        Self {
            begins: seconds(begins),
            ends: seconds(ends),
        }
    }

    /// Of what has no beginning that is known.
    pub fn until(ends: SystemTime) -> Self {
        Self {
            begins: 0,
            ends: seconds(ends),
        }
    }

    /// What there is to say of it at that time.
    pub fn standing(self, now: SystemTime) -> ValidityNow {
        let now = seconds(now);
        if now > self.ends {
            ValidityNow::Expired
        } else if now < self.begins {
            ValidityNow::NotYet
        } else if self.ends - now < SOON * DAY {
            ValidityNow::EndsSoon
        } else {
            ValidityNow::Good
        }
    }

    /// As a sentence about "the certificate"; nothing while there is nothing to say.
    pub fn said(self, now: SystemTime) -> Option<String> {
        let day = |seconds| day(at(seconds));
        let left = (self.ends - seconds(now)) / DAY;
        match self.standing(now) {
            ValidityNow::Good => None,
            ValidityNow::EndsSoon => {
                let left = match left {
                    0 => "within a day".to_owned(),
                    1 => "in 1 day".to_owned(),
                    left => format!("in {left} days"),
                };
                Some(format!("ends {left}, on {}", day(self.ends)))
            }
            ValidityNow::NotYet => Some(format!("is not valid before {}", day(self.begins))),
            ValidityNow::Expired => Some(format!("expired on {}", day(self.ends))),
        }
    }

    /// When half of it is over, in seconds since 1970.
    pub fn half(self) -> i64 {
        self.begins.saturating_add(self.seconds() / 2)
    }

    /// How long it is, in seconds.
    pub fn seconds(self) -> i64 {
        self.ends.saturating_sub(self.begins)
    }

    /// Its beginning.
    pub fn begins(self) -> SystemTime {
        moment(self.begins)
    }

    /// Its end.
    pub fn ends(self) -> SystemTime {
        moment(self.ends)
    }
}

fn moment(seconds: i64) -> SystemTime {
    let after = u64::try_from(seconds).unwrap_or_default();
    SystemTime::UNIX_EPOCH
        .checked_add(std::time::Duration::from_secs(after))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Why a certificate and a key are no pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// One of the files cannot be read, or is nothing in PEM form.
    #[error("{0}")]
    File(String),
    /// They are not made for each other, or for use.
    #[error("{0}")]
    Pair(String),
}

/// When the first certificate of a file is good.
///
/// # Errors
/// A sentence that names the file.
pub fn validity(chain: &Path) -> Result<Validity, String> {
    of(&first(chain)?).ok_or_else(|| broken(chain))
}

/// Files with more roots are those of a system: some of them end every year, and nobody can say which one is needed.
const ROOTS: usize = 10;

/// When the first of the roots in a file ends. One that has ended is passed over while another is good: a new root stands beside the old
/// one until that is over. `None`: there is none, or there are too many to say which one matters.
pub fn roots(file: &Path) -> Option<Validity> {
    let octets = read(file).ok()?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&octets)
        .take(ROOTS + 1)
        .collect::<Result<_, _>>()
        .ok()?;
    if all.len() > ROOTS {
        return None;
    }
    let all: Vec<Validity> = all.iter().filter_map(|der| of(der)).collect();
    let now = seconds(SystemTime::now());
    let good = all.iter().filter(|one| one.ends >= now);
    let first = good.min_by_key(|one| one.ends);
    let last = all.iter().max_by_key(|one| one.ends);
    first.or(last).copied()
}

/// When a certificate in DER is good.
pub(super) fn of(certificate: &[u8]) -> Option<Validity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    Some(Validity {
        begins: validity.not_before.timestamp(),
        ends: validity.not_after.timestamp(),
    })
}

/// That the key is the certificate's; what kind of key it is.
///
/// # Errors
/// A sentence that names both files.
pub fn belongs(chain: &Path, key: &Path) -> Result<SignatureAlgorithm, Unfit> {
    let certificate = first(chain).map_err(Unfit::File)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
        .map_err(|_| Unfit::Pair(broken(chain)))?;
    let pem = read(key).map_err(Unfit::File)?;
    let unusable = || {
        let met = format!(
            "{} holds no private key that can be used: it must be in PEM form, without a passphrase (openssl pkey -in OLD -out NEW removes it)",
            key.display()
        );
        Unfit::Pair(cause::KEY_UNUSABLE.marked(&met))
    };
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable())?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let private = provider
        .key_provider
        .load_private_key(private)
        .map_err(|_| unusable())?;
    // A key that does not say what belongs to it is found out by whoever checks its signature.
    let is_own = private
        .public_key()
        .is_none_or(|public| public.as_ref() == parsed.public_key().raw);
    if is_own {
        return Ok(private.algorithm());
    }
    let met = format!(
        "the key in {} does not belong to the certificate in {}",
        key.display(),
        chain.display()
    );
    Err(Unfit::Pair(cause::CERTIFICATE_MISMATCH.marked(&met)))
}

/// The first certificate of a file.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn first(chain: &Path) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(&read(chain)?)
        .map_err(|_| format!("{} holds no certificate in PEM form", chain.display()))
}

fn broken(chain: &Path) -> String {
    format!("the first certificate in {} is broken", chain.display())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let unread = |e| format!("{} cannot be read: {e}", path.display());
    let mut octets = Vec::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(FILE).read_to_end(&mut octets).map_err(unread)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_said_of_a_certificate() {
        let validity = Validity {
            begins: 100 * DAY,
            ends: 500 * DAY,
        };
        for (at, standing, said) in [
            (
                99 * DAY,
                ValidityNow::NotYet,
                Some("is not valid before 1970-04-11"),
            ),
            (100 * DAY, ValidityNow::Good, None),
            (470 * DAY, ValidityNow::Good, None),
            (
                470 * DAY + 1,
                ValidityNow::EndsSoon,
                Some("ends in 29 days, on 1971-05-16"),
            ),
            (
                500 * DAY,
                ValidityNow::EndsSoon,
                Some("ends within a day, on 1971-05-16"),
            ),
            (
                500 * DAY + 1,
                ValidityNow::Expired,
                Some("expired on 1971-05-16"),
            ),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(at.unsigned_abs());
            assert_eq!(validity.standing(now), standing, "{at}");
            assert_eq!(validity.said(now).as_deref(), said, "{at}");
        }
    }

    #[test]
    fn a_key_of_another_pair_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec!["app".to_owned()]).unwrap();
            (
                write(&format!("{name}.pem"), &made.cert.pem()),
                write(&format!("{name}.key"), &made.signing_key.serialize_pem()),
            )
        };
        let (one, other) = (made("one"), made("other"));
        let rubbish = write(
            "rubbish.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        assert_eq!(belongs(&one.0, &one.1), Ok(SignatureAlgorithm::ECDSA));
        assert_eq!(
            validity(&one.0).unwrap().standing(SystemTime::now()),
            ValidityNow::Good
        );
        for (chain, key, words) in [
            (&one.0, &other.1, "other.key does not belong to"),
            (&one.1, &one.1, "one.key holds no certificate"),
            (&one.0, &one.0, "one.pem holds no private key"),
            (&rubbish, &one.1, "rubbish.pem is broken"),
            (&dir.path().join("none"), &one.1, "none cannot be read"),
        ] {
            let said = belongs(chain, key).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }
}
