//! The keys that mail is signed with (DKIM: RFC 6376, and RFC 8463 for Ed25519): which of them sign for a domain on a day, what is in
//! their files, and the record that publishes each.
//!
//! Configuration, commands and the connector share it. It signs octets, and knows no message.

use std::{borrow::Borrow, time::SystemTime};

use aws_lc_rs::{
    digest,
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use crate::{
    mail::{address::Domain, headers, mailboxes, text::pem},
    secret::Secret,
};

/// A string of a TXT record has at most so many octets (RFC 1035 §3.3).
const STRING: usize = 255;

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// Whose mail it signs: `d=`.
    pub domain: Domain,
    /// The name under which it is published: `s=`, in lower case.
    pub selector: String,
    /// PKCS #8 in PEM form. `None`: nobody asked for its value, or only the unit that is handed it knows it; whatever delivers mail does.
    pub key: Option<Secret>,
    /// It signs from this moment on.
    pub from: Option<SystemTime>,
    /// From this moment on it signs no more.
    pub until: Option<SystemTime>,
}

impl DkimKey {
    /// The name of its record.
    pub fn record_name(&self) -> String {
        record_name(&self.domain, &self.selector)
    }

    /// Whether it signs at that time.
    pub fn signs_at(&self, now: SystemTime) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// The name of the record that publishes a key (RFC 6376 §3.6.2.1).
pub fn record_name(domain: &Domain, selector: &str) -> String {
    format!("{selector}._domainkey.{domain}")
}

/// The keys that sign mail from this domain now: those of the domain itself, else of the nearest one above it that has any today.
pub fn signing<'a, K: Borrow<DkimKey>>(
    keys: &'a [K],
    domain: &Domain,
    now: SystemTime,
) -> Vec<&'a K> {
    above(domain)
        .map(|name| {
            let signs = |key: &DkimKey| key.domain.as_str() == name && key.signs_at(now);
            keys.iter()
                .filter(|key| signs((*key).borrow()))
                .collect::<Vec<_>>()
        })
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// Whose mail a message is: the domain of the first address of its From. `None`: that has none, or cannot be read.
pub fn domain_of_from(header: &[u8]) -> Option<Domain> {
    let mailboxes = mailboxes::parse(headers::value_of(header, "From")?).ok()?;
    let first = mailboxes.into_iter().find(|mailbox| !mailbox.in_name)?;
    Some(first.address.domain().clone())
}

/// The domain and all above it, the nearest first. Above an address there is nothing.
fn above(domain: &Domain) -> impl Iterator<Item = &str> {
    let steps = if domain.is_literal() { 1 } else { usize::MAX };
    std::iter::successors(Some(domain.as_str()), |name| Some(name.split_once('.')?.1)).take(steps)
}

/// When mail of a domain is not signed any more, by the dates of the keys that [`signing`] looks at, its own and those of the domains above it:
/// from now on where none of them signs, and one has. `None`: one signs for as long as anybody knows, or none has begun.
pub fn runs_out<K: Borrow<DkimKey>>(
    keys: &[K],
    domain: &Domain,
    now: SystemTime,
) -> Option<SystemTime> {
    let names: Vec<&str> = above(domain).collect();
    let keys: Vec<&DkimKey> = keys
        .iter()
        .map(Borrow::borrow)
        .filter(|key: &&DkimKey| names.contains(&key.domain.as_str()))
        .collect();
    let mut signed_until = now;
    loop {
        let covering = keys.iter().filter(|key| key.signs_at(signed_until));
        let mut ends = covering.map(|key| key.until).collect::<Vec<_>>();
        if ends.contains(&None) {
            return None;
        }
        ends.sort();
        match ends.pop().flatten() {
            Some(end) => signed_until = end,
            None if signed_until > now => return Some(signed_until),
            // None signs: the last that did says since when.
            None => {
                return keys
                    .iter()
                    .filter_map(|key| key.until)
                    .filter(|end| *end <= now)
                    .max();
            }
        }
    }
}

/// Why a text is no key to sign with. Reads as what stands behind "the key".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DkimKeyFault {
    /// Something else, or nothing.
    #[error("is not a private key in PEM form")]
    NoPem,
    /// Encrypted.
    #[error("has a passphrase, which nobody could type in")]
    Passphrase,
    /// PKCS #1, or SEC 1.
    #[error("is not in the form PKCS #8 (BEGIN PRIVATE KEY)")]
    OldForm,
    /// Below 2048 bits.
    #[error("is an RSA key of less than 2048 bits, which receivers take for forged")]
    Short,
    /// An elliptic curve, say.
    #[error("is neither an RSA key of 2048 to 8192 bits nor an Ed25519 key")]
    Kind,
}

impl DkimKeyFault {
    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoPem => "name the file that `postern dkim new` wrote",
            Self::Passphrase | Self::OldForm => {
                "convert it with openssl pkcs8 -topk8 -nocrypt -in old.key -out new.key"
            }
            Self::Short | Self::Kind => "make a new one with `postern dkim new`, and publish it",
        }
    }
}

/// A private key that signs.
pub enum DkimPair {
    /// `a=rsa-sha256` (RFC 6376 §3.3.1).
    Rsa(Box<RsaKeyPair>),
    /// `a=ed25519-sha256` (RFC 8463).
    Ed25519(Box<Ed25519KeyPair>),
}

impl std::fmt::Debug for DkimPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DkimPair({} ***)", self.algorithm())
    }
}

impl DkimPair {
    /// Reads one.
    ///
    /// # Errors
    /// [`DkimKeyFault`].
    pub fn read(pem: &Secret) -> Result<Self, DkimKeyFault> {
        let text = pem.reveal();
        let begins = |what: &str| text.contains(&format!("-----BEGIN {what}-----"));
        if begins("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(DkimKeyFault::Passphrase);
        }
        if begins("RSA PRIVATE KEY") || begins("EC PRIVATE KEY") {
            return Err(DkimKeyFault::OldForm);
        }
        let Ok(PrivateKeyDer::Pkcs8(der)) = PrivateKeyDer::from_pem_slice(text.as_bytes()) else {
            return Err(DkimKeyFault::NoPem);
        };
        let der = der.secret_pkcs8_der();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(Box::new(pair)));
        }
        match RsaKeyPair::from_pkcs8(der) {
            Ok(pair) => Ok(Self::Rsa(Box::new(pair))),
            Err(why) if why.to_string() == "TooSmall" => Err(DkimKeyFault::Short),
            Err(_) => Err(DkimKeyFault::Kind),
        }
    }

    /// Makes one, RSA of 2048 bits or Ed25519, with its text in PEM form. `None`: the system gives no random octets.
    pub fn generate(is_ed25519: bool) -> Option<(Self, Secret)> {
        if is_ed25519 {
            let pair = Ed25519KeyPair::generate().ok()?;
            // The first version of the form, which OpenSSL reads as well.
            let text = Secret::new(pem("PRIVATE KEY", pair.to_pkcs8v1().ok()?.as_ref()));
            return Some((Self::Ed25519(Box::new(pair)), text));
        }
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
        let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
        let text = Secret::new(pem("PRIVATE KEY", der.as_ref()));
        Some((Self::Rsa(Box::new(pair)), text))
    }

    /// `a=`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "rsa-sha256",
            Self::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// Signs these octets. `None`: the library could not.
    pub fn sign(&self, octets: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, octets, &mut signature)
                    .ok()?;
                Some(signature)
            }
            // What is signed is the hash (RFC 8463 §3).
            Self::Ed25519(pair) => {
                let hash = digest::digest(&digest::SHA256, octets);
                Some(pair.try_sign(hash.as_ref()).ok()?.as_ref().to_vec())
            }
        }
    }

    /// The text of the record that publishes it (RFC 6376 §3.6.1, RFC 8463 §4). `None`: the library could not write it.
    pub fn record(&self) -> Option<String> {
        Some(match self {
            Self::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
                format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(der.as_ref()))
            }
            Self::Ed25519(pair) => {
                let octets = pair.public_key().as_ref();
                format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(octets))
            }
        })
    }
}

/// The record as a zone file has it: in strings of at most 255 octets each, which are read as one.
pub fn zone_line(name: &str, record: &str) -> String {
    let strings = record.as_bytes().chunks(STRING);
    let strings: Vec<String> = strings
        .map(|string| format!("\"{}\"", String::from_utf8_lossy(string)))
        .collect();
    match strings.as_slice() {
        [one] => format!("{name}. IN TXT {one}"),
        several => format!("{name}. IN TXT ( {} )", several.join("\n    ")),
    }
}

#[cfg(test)]
mod tests;
