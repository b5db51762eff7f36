//! Which versions and suites old TLS has, and for whom: the library's policies, as far as a choice needs to know them.

use crate::mail::tls::{TlsFloor, TlsVersion};

/// What is spoken with somebody. None of them has TLS 1.3, finite-field Diffie-Hellman, tickets or renegotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OldPolicy {
    /// TLS 1.2 with the old ciphers.
    From12,
    /// The same, and TLS 1.1.
    From11,
    /// The same, and TLS 1.0; with 3DES.
    From10,
}

/// What a certificate's key can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OldKey {
    /// Signs and takes a secret: key exchange of both kinds.
    Rsa,
    /// Signs.
    Ecdsa,
}

/// Suites, by the number of IANA: whose key, and whether it came with TLS 1.2.
const SUITES: &[(u16, OldKey, bool)] = &[
    (0xc02b, OldKey::Ecdsa, true),
    (0xc02f, OldKey::Rsa, true),
    (0xc023, OldKey::Ecdsa, true),
    (0xc027, OldKey::Rsa, true),
    (0xc009, OldKey::Ecdsa, false),
    (0xc013, OldKey::Rsa, false),
    (0xc02c, OldKey::Ecdsa, true),
    (0xc030, OldKey::Rsa, true),
    (0xc024, OldKey::Ecdsa, true),
    (0xc028, OldKey::Rsa, true),
    (0xc00a, OldKey::Ecdsa, false),
    (0xc014, OldKey::Rsa, false),
    (0x009c, OldKey::Rsa, true),
    (0x003c, OldKey::Rsa, true),
    (0x002f, OldKey::Rsa, false),
    (0x009d, OldKey::Rsa, true),
    (0x003d, OldKey::Rsa, true),
    (0x0035, OldKey::Rsa, false),
    (TRIPLE_DES, OldKey::Rsa, false),
];

/// `DES-CBC3-SHA`.
const TRIPLE_DES: u16 = 0x000a;

impl OldPolicy {
    /// The strictest first.
    pub const ALL: [Self; 3] = [Self::From12, Self::From11, Self::From10];

    /// The one that a floor allows. `None`: nothing old.
    pub fn of(floor: TlsFloor) -> Option<Self> {
        floor.is_old().then_some(match floor.min {
            TlsVersion::V1_3 | TlsVersion::V1_2 => Self::From12,
            TlsVersion::V1_1 => Self::From11,
            TlsVersion::V1_0 => Self::From10,
        })
    }

    /// The oldest version it has.
    pub fn least(self) -> TlsVersion {
        match self {
            Self::From12 => TlsVersion::V1_2,
            Self::From11 => TlsVersion::V1_1,
            Self::From10 => TlsVersion::V1_0,
        }
    }

    /// Whether a peer that speaks `version` at most, and these suites, has something in common with a server of that key.
    pub fn takes(self, version: TlsVersion, suites: &[u16], key: OldKey) -> bool {
        version >= self.least()
            && SUITES.iter().any(|(suite, of, is_of_12)| {
                *of == key
                    && (!is_of_12 || version >= TlsVersion::V1_2)
                    && (*suite != TRIPLE_DES || self == Self::From10)
                    && suites.contains(suite)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_what_the_floor_says() {
        for (min, old_ciphers, expected) in [
            (TlsVersion::V1_3, true, None),
            (TlsVersion::V1_2, false, None),
            (TlsVersion::V1_2, true, Some(OldPolicy::From12)),
            (TlsVersion::V1_1, false, Some(OldPolicy::From11)),
            (TlsVersion::V1_0, false, Some(OldPolicy::From10)),
        ] {
            assert_eq!(OldPolicy::of(TlsFloor { min, old_ciphers }), expected);
        }
    }

    #[test]
    fn suites_go_with_versions_and_keys() {
        use OldKey::{Ecdsa, Rsa};
        use OldPolicy::{From10, From11, From12};
        use TlsVersion::{V1_0, V1_1, V1_2};
        for (policy, version, suite, key, expected) in [
            (From12, V1_2, 0x002f, Rsa, true),
            (From12, V1_1, 0x002f, Rsa, false),
            (From11, V1_1, 0x002f, Rsa, true),
            (From11, V1_0, 0x002f, Rsa, false),
            (From10, V1_0, 0x002f, Rsa, true),
            (From10, V1_0, 0x002f, Ecdsa, false),
            (From10, V1_0, 0xc009, Ecdsa, true),
            // Authenticated encryption and SHA-256 came with 1.2.
            (From10, V1_1, 0x009c, Rsa, false),
            (From10, V1_2, 0x009c, Rsa, true),
            (From10, V1_0, 0x000a, Rsa, true),
            (From11, V1_1, 0x000a, Rsa, false),
            // DHE, RC4 and what there is not.
            (From10, V1_2, 0x0033, Rsa, false),
            (From10, V1_0, 0x0005, Rsa, false),
        ] {
            assert_eq!(
                policy.takes(version, &[0x0a0a, suite], key),
                expected,
                "{policy:?} {version} {suite:04x} {key:?}"
            );
        }
    }
}
