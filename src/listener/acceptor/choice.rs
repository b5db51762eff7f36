//! Which library a client's hello goes to: the modern one whenever it can, the old one where that client may, else nobody.

use std::sync::Arc;

use rustls::{
    ProtocolVersion, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite,
    crypto::CryptoProvider, sign::SigningKey,
};

use super::hello::ClientOffer;
use crate::{
    mail::tls::{TlsFloor, TlsVersion},
    old_tls::{self, OldKey, OldPolicy},
};

/// What the modern library has of TLS 1.2 for the key of a certificate.
#[derive(Debug, Clone)]
pub(super) struct ModernSide {
    suites: Vec<u16>,
    groups: Vec<u16>,
    key: Arc<dyn SigningKey>,
}

impl ModernSide {
    pub(super) fn new(provider: &CryptoProvider, key: Arc<dyn SigningKey>) -> Self {
        let algorithm = key.algorithm();
        let suites = provider.cipher_suites.iter().filter(|suite| {
            matches!(suite, SupportedCipherSuite::Tls12(_))
                && suite.usable_for_signature_algorithm(algorithm)
        });
        let groups = provider.kx_groups.iter();
        let groups = groups.filter(|group| group.usable_for_version(ProtocolVersion::TLSv1_2));
        Self {
            suites: suites.map(|suite| u16::from(suite.suite())).collect(),
            groups: groups.map(|group| u16::from(group.name())).collect(),
            key,
        }
    }

    pub(super) fn old_key(&self) -> Option<OldKey> {
        match self.key.algorithm() {
            SignatureAlgorithm::RSA => Some(OldKey::Rsa),
            SignatureAlgorithm::ECDSA => Some(OldKey::Ecdsa),
            _ => None,
        }
    }

    /// Whether it comes to TLS 1.2 with a client that offers this. The library goes by the same four things.
    fn takes(&self, offer: &ClientOffer) -> bool {
        let both = |ours: &[u16], theirs: &[u16]| theirs.iter().any(|one| ours.contains(one));
        let schemes = offer.schemes.as_deref().unwrap_or_default();
        let schemes: Vec<SignatureScheme> =
            schemes.iter().copied().map(SignatureScheme::from).collect();
        newest(offer) == Some(TlsVersion::V1_2)
            && both(&self.suites, &offer.suites)
            && both(&self.groups, &offer.groups)
            && offer.has_plain_points
            && self.key.choose_scheme(&schemes).is_some()
    }
}

/// The newest version below 1.3. `None`: it has not even TLS 1.0.
fn newest(offer: &ClientOffer) -> Option<TlsVersion> {
    match offer.newest {
        0x0303 => Some(TlsVersion::V1_2),
        0x0302 => Some(TlsVersion::V1_1),
        0x0301 => Some(TlsVersion::V1_0),
        _ => None,
    }
}

/// Where a hello goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// To the modern library.
    Modern,
    /// To the old one.
    Old(OldPolicy),
    /// To the modern one, which will refuse it.
    Refused(TlsRemedy),
}

/// What would help a client that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsRemedy {
    /// A key of its `[[client]]`.
    Key(&'static str),
    /// A certificate with an RSA key, and perhaps a key of its `[[client]]`.
    Rsa(Option<&'static str>),
    /// A certificate of the client's is asked for, which it has no way to show.
    Certificate,
    /// Another build.
    Build,
    /// Nothing here.
    Nothing,
}

impl TlsRemedy {
    /// For the log, of a client that is in a `[[client]]` or in none.
    pub(super) fn hint(&self, is_in_client: bool) -> String {
        let set = |key: &str| {
            if is_in_client {
                format!("{key} for this client")
            } else {
                format!("{key} in a [[client]] for its address")
            }
        };
        match self {
            Self::Key(key) => set(key),
            Self::Rsa(key) => {
                let certificate =
                    "old_certificate with an RSA key for this listener (postern cert --rsa)";
                match key {
                    Some(key) => format!("{certificate}, and {}", set(key)),
                    None => certificate.to_owned(),
                }
            }
            Self::Certificate => {
                "client_certificates = \"required\" on this listener: clients of old TLS show none"
                    .to_owned()
            }
            Self::Build => "this program was built without old TLS (feature old-tls)".to_owned(),
            Self::Nothing => {
                "nothing of it is spoken here, whatever is configured: update the device, or let it send without TLS"
                    .to_owned()
            }
        }
    }
}

/// Chooses. `old`: what the key for old handshakes can do.
pub(super) fn choose(
    offer: &ClientOffer,
    floor: TlsFloor,
    modern: &ModernSide,
    old: Option<OldKey>,
) -> Choice {
    let is_modern = modern.takes(offer);
    if offer.has_13 || is_modern && floor.min <= TlsVersion::V1_2 {
        return Choice::Modern;
    }
    if is_modern {
        return Choice::Refused(TlsRemedy::Key("min_tls = \"1.2\""));
    }
    let Some(version) = newest(offer) else {
        return Choice::Refused(TlsRemedy::Nothing);
    };
    let takes = |policy: OldPolicy, key| policy.takes(version, &offer.suites, key);
    let allowed = OldPolicy::of(floor);
    if let Some(policy) = allowed
        && old_tls::IS_BUILT
        && old.is_some_and(|key| takes(policy, key))
    {
        return Choice::Old(policy);
    }
    // The strictest that would do.
    let least = |key| {
        OldPolicy::ALL
            .into_iter()
            .find(|policy| takes(*policy, key))
    };
    let remedy = match (old.and_then(least), least(OldKey::Rsa)) {
        (None, None) => TlsRemedy::Nothing,
        _ if !old_tls::IS_BUILT => TlsRemedy::Build,
        (Some(policy), _) => TlsRemedy::Key(key_of(policy, floor)),
        (None, Some(policy)) => {
            let is_allowed = allowed.is_some_and(|allowed| takes(allowed, OldKey::Rsa));
            TlsRemedy::Rsa((!is_allowed).then(|| key_of(policy, floor)))
        }
    };
    Choice::Refused(remedy)
}

fn key_of(policy: OldPolicy, floor: TlsFloor) -> &'static str {
    match policy {
        OldPolicy::From12 if floor.min > TlsVersion::V1_2 => {
            "min_tls = \"1.2\" and old_ciphers = true"
        }
        OldPolicy::From12 => "old_ciphers = true",
        OldPolicy::From11 => "min_tls = \"1.1\"",
        OldPolicy::From10 => "min_tls = \"1.0\"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(algorithm: &'static rcgen::SignatureAlgorithm) -> ModernSide {
        use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let key = provider.key_provider.load_private_key(der).unwrap();
        ModernSide::new(&provider, key)
    }

    /// The hello of Internet Explorer 11 on Windows 8.1, which Schannel sends for every program: GCM only with ECDSA and DHE.
    fn windows_8_1() -> ClientOffer {
        ClientOffer {
            newest: 0x0303,
            suites: vec![
                0xc028, 0xc027, 0xc014, 0xc013, 0x009f, 0x009e, 0x009d, 0x009c, 0x003d, 0x003c,
                0x0035, 0x002f, 0xc02c, 0xc02b, 0xc024, 0xc023, 0xc00a, 0xc009, 0x006a, 0x0040,
                0x0038, 0x0032, 0x000a, 0x0013,
            ],
            groups: vec![23, 24],
            schemes: Some(vec![0x0401, 0x0501, 0x0201, 0x0403, 0x0503, 0x0203, 0x0202]),
            has_plain_points: true,
            ..ClientOffer::default()
        }
    }

    fn floor(min: TlsVersion, old_ciphers: bool) -> TlsFloor {
        TlsFloor { min, old_ciphers }
    }

    /// The trap: it offers authenticated suites, and with an RSA key none of them.
    #[test]
    #[cfg(feature = "old-tls")]
    fn windows_8_1_with_either_key() {
        let (rsa, ecdsa) = (
            side(&rcgen::PKCS_RSA_SHA256),
            side(&rcgen::PKCS_ECDSA_P256_SHA256),
        );
        let offer = windows_8_1();
        let modern = floor(TlsVersion::V1_2, false);
        assert_eq!(
            choose(&offer, modern, &ecdsa, Some(OldKey::Ecdsa)),
            Choice::Modern
        );
        assert_eq!(
            choose(&offer, modern, &rsa, Some(OldKey::Rsa)),
            Choice::Refused(TlsRemedy::Key("old_ciphers = true"))
        );
        for (floor, policy) in [
            (floor(TlsVersion::V1_2, true), OldPolicy::From12),
            (floor(TlsVersion::V1_1, false), OldPolicy::From11),
            (floor(TlsVersion::V1_0, false), OldPolicy::From10),
        ] {
            let choice = choose(&offer, floor, &rsa, Some(OldKey::Rsa));
            assert_eq!(choice, Choice::Old(policy));
            // Where it can be modern, it is, whatever it may.
            let choice = choose(&offer, floor, &ecdsa, Some(OldKey::Rsa));
            assert_eq!(choice, Choice::Modern);
        }
    }

    #[test]
    #[cfg(feature = "old-tls")]
    fn every_floor_and_every_offer() {
        use OldKey::{Ecdsa, Rsa};
        use TlsVersion::{V1_0, V1_1, V1_2, V1_3};
        let rsa = side(&rcgen::PKCS_RSA_SHA256);
        let old = |newest, suites: &[u16]| ClientOffer {
            newest,
            suites: suites.to_vec(),
            has_plain_points: true,
            ..ClientOffer::default()
        };
        let good = ClientOffer {
            groups: vec![29],
            schemes: Some(vec![0x0804]),
            ..old(0x0303, &[0x002f, 0xc02f])
        };
        let key = |word| Choice::Refused(TlsRemedy::Key(word));
        let nothing = || Choice::Refused(TlsRemedy::Nothing);
        let v = |min| floor(min, false);
        for (offer, floor, kind, expected) in [
            (good.clone(), v(V1_2), Some(Rsa), Choice::Modern),
            (good.clone(), v(V1_0), Some(Rsa), Choice::Modern),
            (good.clone(), v(V1_3), Some(Rsa), key("min_tls = \"1.2\"")),
            // A group, a scheme or points that are not ours.
            (
                ClientOffer {
                    groups: vec![256],
                    ..good.clone()
                },
                floor(V1_2, true),
                Some(Rsa),
                Choice::Old(OldPolicy::From12),
            ),
            (
                ClientOffer {
                    schemes: None,
                    ..good.clone()
                },
                v(V1_0),
                Some(Rsa),
                Choice::Old(OldPolicy::From10),
            ),
            (
                ClientOffer {
                    has_plain_points: false,
                    ..good.clone()
                },
                v(V1_2),
                Some(Rsa),
                key("old_ciphers = true"),
            ),
            // 1.3 is modern, whatever else it offers.
            (
                ClientOffer {
                    has_13: true,
                    ..old(0x0301, &[0x002f])
                },
                v(V1_0),
                Some(Rsa),
                Choice::Modern,
            ),
            (
                old(0x0301, &[0x002f]),
                v(V1_0),
                Some(Rsa),
                Choice::Old(OldPolicy::From10),
            ),
            (
                old(0x0301, &[0x002f]),
                v(V1_1),
                Some(Rsa),
                key("min_tls = \"1.0\""),
            ),
            (
                old(0x0302, &[0x002f]),
                v(V1_1),
                Some(Rsa),
                Choice::Old(OldPolicy::From11),
            ),
            (
                old(0x0302, &[0x002f]),
                floor(V1_2, true),
                Some(Rsa),
                key("min_tls = \"1.1\""),
            ),
            (
                old(0x0303, &[0x002f]),
                v(V1_2),
                Some(Rsa),
                key("old_ciphers = true"),
            ),
            (
                old(0x0303, &[0x002f]),
                v(V1_3),
                Some(Rsa),
                key("min_tls = \"1.2\" and old_ciphers = true"),
            ),
            // 3DES is spoken from 1.0 on alone.
            (
                old(0x0303, &[0x000a]),
                floor(V1_2, true),
                Some(Rsa),
                key("min_tls = \"1.0\""),
            ),
            (
                old(0x0301, &[0x000a]),
                v(V1_0),
                Some(Rsa),
                Choice::Old(OldPolicy::From10),
            ),
            // Without a key for it.
            (
                old(0x0301, &[0x002f]),
                v(V1_0),
                Some(Ecdsa),
                Choice::Refused(TlsRemedy::Rsa(None)),
            ),
            (
                old(0x0301, &[0x002f]),
                v(V1_2),
                None,
                Choice::Refused(TlsRemedy::Rsa(Some("min_tls = \"1.0\""))),
            ),
            (
                old(0x0301, &[0xc009]),
                v(V1_0),
                Some(Ecdsa),
                Choice::Old(OldPolicy::From10),
            ),
            // DHE, RC4, SSL 3.0 and 2.0.
            (
                old(0x0301, &[0x0033, 0x0005]),
                v(V1_0),
                Some(Rsa),
                nothing(),
            ),
            (old(0x0300, &[0x002f]), v(V1_0), Some(Rsa), nothing()),
            (old(0x0002, &[0x002f]), v(V1_0), Some(Rsa), nothing()),
        ] {
            let choice = choose(&offer, floor, &rsa, kind);
            assert_eq!(choice, expected, "{offer} {floor} {kind:?}");
        }
    }

    #[test]
    fn hints_say_where() {
        let key = TlsRemedy::Key("min_tls = \"1.0\"");
        assert_eq!(key.hint(true), "min_tls = \"1.0\" for this client");
        assert_eq!(
            key.hint(false),
            "min_tls = \"1.0\" in a [[client]] for its address"
        );
        let rsa = TlsRemedy::Rsa(Some("min_tls = \"1.0\"")).hint(true);
        assert!(rsa.contains("postern cert --rsa") && rsa.ends_with("for this client"));
    }
}
