//! Certificates of clients: the names in them, and how the configuration writes them.
//!
//! What is here has been verified before: the chain, the dates, the purpose and the revocation are the listener's to look at.

use std::fmt;

use crate::mail::{text::hex, unicode};

/// Whether a listener asks its clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// No.
    #[default]
    Off,
    /// Who shows one that fits a user is logged in; the others are as they were.
    Optional,
    /// There is no handshake without one that verifies.
    Required,
}

impl ClientCertificates {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// What a certificate that verifies says of its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    dns: Vec<String>,
    emails: Vec<String>,
    common: Vec<String>,
    sha256: [u8; 32],
}

impl CertificateNames {
    /// Alternative names of both kinds, common names, and the hash of the whole certificate.
    pub fn new(
        dns: Vec<String>,
        emails: Vec<String>,
        common: Vec<String>,
        sha256: [u8; 32],
    ) -> Self {
        let lower = |names: Vec<String>| {
            let lower = |name: &String| unicode::lower(name).into_owned();
            names.iter().map(lower).collect()
        };
        Self {
            dns: lower(dns),
            emails: lower(emails),
            common: lower(common),
            sha256,
        }
    }
}

impl fmt::Display for CertificateNames {
    /// As a user of the configuration would have them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("dns", &self.dns),
            ("email", &self.emails),
            ("cn", &self.common),
        ];
        for (kind, names) in kinds {
            for name in names {
                write!(f, "{kind}:{name} ")?;
            }
        }
        write!(f, "sha256:{}", hex(&self.sha256))
    }
}

/// `certificate` of a user: a certificate that has this is the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificatePattern {
    /// `dns:`, an alternative name, in lower case.
    Dns(String),
    /// `email:`, an alternative name, in lower case.
    Email(String),
    /// `cn:`, a common name, in lower case.
    Common(String),
    /// `sha256:` of the certificate.
    Sha256([u8; 32]),
}

impl CertificatePattern {
    /// Reads `dns:erp.corp.example`.
    ///
    /// # Errors
    /// Why it is none, as a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const KINDS: &str = "it begins with \"dns:\", \"email:\", \"cn:\" or \"sha256:\"";
        let (kind, value) = text.split_once(':').ok_or(KINDS)?;
        let value = value.trim();
        if value.is_empty() {
            return Err("nothing follows the colon");
        }
        if value.chars().any(char::is_control) {
            return Err("there is a control character in it");
        }
        match kind {
            "dns" | "email" if value.contains('*') => {
                Err("names are compared exactly: there is no `*`")
            }
            "dns" | "email" if !value.is_ascii() => {
                Err("a certificate has it in ASCII: write a domain as its A-label (\"xn--…\")")
            }
            "dns" if value.contains(['@', ' ', ':']) => Err("this is not the name of a host"),
            "dns" => Ok(Self::Dns(value.to_lowercase())),
            "email" if !value.contains('@') => Err("this is not an address: it has no `@`"),
            "email" => Ok(Self::Email(value.to_lowercase())),
            "cn" => Ok(Self::Common(unicode::lower(value).into_owned())),
            "sha256" => sha256(value)
                .map(Self::Sha256)
                .ok_or("a SHA-256 has 64 hexadecimal digits, with or without colons between"),
            _ => Err(KINDS),
        }
    }

    /// Whether a certificate has it.
    pub(super) fn fits(&self, names: &CertificateNames) -> bool {
        match self {
            Self::Dns(name) => names.dns.contains(name),
            Self::Email(name) => names.emails.contains(name),
            Self::Common(name) => names.common.contains(name),
            Self::Sha256(hash) => names.sha256 == *hash,
        }
    }

    /// Whether one certificate is likely to have both: the same name, since a common name is mostly an alternative name, too.
    pub fn shares(&self, other: &Self) -> bool {
        match (self.name(), other.name()) {
            (Some(one), Some(two)) => one == two,
            _ => self == other,
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Dns(name) | Self::Email(name) | Self::Common(name) => Some(name),
            Self::Sha256(_) => None,
        }
    }

    /// The least that a certificate with it says (`postern explain`).
    pub fn example(&self) -> CertificateNames {
        let mut names = CertificateNames::default();
        match self {
            Self::Dns(name) => names.dns.push(name.clone()),
            Self::Email(name) => names.emails.push(name.clone()),
            Self::Common(name) => names.common.push(name.clone()),
            Self::Sha256(hash) => names.sha256 = *hash,
        }
        names
    }
}

impl fmt::Display for CertificatePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Email(name) => write!(f, "email:{name}"),
            Self::Common(name) => write!(f, "cn:{name}"),
            Self::Sha256(hash) => write!(f, "sha256:{}", hex(hash)),
        }
    }
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
    let mut hash = [0; 32];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (octet, pair) in hash.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).ok()?;
        let is_hex = pair.bytes().all(|b| b.is_ascii_hexdigit());
        *octet = u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str =
        "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00112233445566778899aabbccddeeff";

    fn pattern(text: &str) -> CertificatePattern {
        CertificatePattern::parse(text).unwrap()
    }

    #[test]
    fn patterns() {
        for (text, shown) in [
            ("dns:ERP.corp.example", "dns:erp.corp.example"),
            ("email:Erp@Corp.example", "email:erp@corp.example"),
            ("cn:Hall 3, Scanner Ö", "cn:hall 3, scanner ö"),
            (
                &format!("sha256:{HASH}"),
                "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            ),
        ] {
            assert_eq!(pattern(text).to_string(), shown);
        }
        for (text, words) in [
            ("erp.corp.example", "begins with"),
            ("ip:10.0.0.1", "begins with"),
            ("DNS:erp", "begins with"),
            ("dns:", "nothing follows"),
            ("dns: ", "nothing follows"),
            ("dns:*.corp.example", "exactly"),
            ("dns:bücher.example", "A-label"),
            ("dns:erp@corp.example", "host"),
            ("email:erp", "no `@`"),
            ("cn:a\u{0}b", "control"),
            ("sha256:1234", "64"),
            (&format!("sha256:{HASH}0"), "64"),
            (&format!("sha256:+1{}", &HASH[2..]), "64"),
        ] {
            let why = CertificatePattern::parse(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn names_that_one_certificate_may_have() {
        for (one, two, expected) in [
            ("dns:a.example", "dns:A.example", true),
            ("dns:a.example", "cn:a.example", true),
            ("email:x@a.example", "cn:X@a.example", true),
            ("dns:a.example", "dns:b.example", false),
            ("cn:a", "cn:a b", false),
        ] {
            assert_eq!(pattern(one).shares(&pattern(two)), expected, "{one} {two}");
        }
        let hash = pattern(&format!("sha256:{HASH}"));
        assert!(hash.shares(&hash) && !hash.shares(&pattern("cn:a")));
    }
}
