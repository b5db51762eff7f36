//! The first words of a TLS client, the ClientHello: where it ends in what has come, and what it offers.
//!
//! It answers nothing and chooses nothing. What cannot be understood is no hello, and left to the library that refuses it.

use std::fmt::{self, Write as _};

use tls_parser::{
    TlsCipherSuiteID, TlsExtension, parse_tls_client_hello_extensions,
    parse_tls_handshake_client_hello,
};

/// Octets up to the end of a hello, with the headers of its records.
pub(super) const LIMIT: usize = 16 * 1024;

/// TLS 1.2 on the wire (RFC 5246 §E.1). The second octet grows by one a version, from 0 for SSL 3.0.
const V1_2: u16 = 0x0303;
const V1_3: u16 = 0x0304;
/// What is no suite but a signal (RFC 5746 §3.3, RFC 7507 §2).
const SIGNALS: [u16; 2] = [0x00ff, 0x5600];
/// Suites that a line names.
const NAMED: usize = 8;

/// What the octets at the head of a stream are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TlsOpening {
    /// A hello that has not come whole.
    Partial,
    /// A hello that is longer than [`LIMIT`], or would be.
    Endless,
    /// One that is understood.
    Hello(ClientOffer),
    /// Anything else.
    Other,
}

/// What a client offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClientOffer {
    /// TLS 1.3.
    pub(super) has_13: bool,
    /// The newest other version, as on the wire: at most 0x0303.
    pub(super) newest: u16,
    /// In the client's order, without signals and without what is only there to be ignored (GREASE, RFC 8701).
    pub(super) suites: Vec<u16>,
    /// Groups for key exchange.
    pub(super) groups: Vec<u16>,
    /// Signature schemes. `None`: it names none, as before TLS 1.2.
    pub(super) schemes: Option<Vec<u16>>,
    /// It takes points of curves that are not compressed, as every client does that says nothing of it.
    pub(super) has_plain_points: bool,
}

/// Looks at what has come so far; never beyond the limit, however much of it came at once.
pub(super) fn look(head: &[u8]) -> TlsOpening {
    let head = &head[..head.len().min(LIMIT)];
    let found = match head {
        [] => return TlsOpening::Partial,
        [0x16, ..] => modern(head),
        // RFC 5246 §E.2: the length of the record has its first bit set.
        [first, ..] if first & 0x80 != 0 => ancient(head),
        _ => return TlsOpening::Other,
    };
    match found {
        TlsOpening::Partial if head.len() >= LIMIT => TlsOpening::Endless,
        found => found,
    }
}

/// In records of the handshake (RFC 5246 §6.2.1), which may cut it anywhere.
fn modern(mut head: &[u8]) -> TlsOpening {
    let mut message: Vec<u8> = Vec::new();
    loop {
        let (header, rest) = match head {
            [0x16, 3, _, high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
            [] | [0x16] | [0x16, 3] | [0x16, 3, _] | [0x16, 3, _, _] => return TlsOpening::Partial,
            _ => return TlsOpening::Other,
        };
        let length = usize::from(header);
        // An empty one says nothing, and so many of them could come.
        if length == 0 || length > LIMIT {
            return TlsOpening::Other;
        }
        message.extend_from_slice(rest.get(..length).unwrap_or(rest));
        if let [kind, high, middle, low, body @ ..] = message.as_slice() {
            let whole = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if *kind != 1 {
                return TlsOpening::Other;
            }
            if whole > LIMIT {
                return TlsOpening::Endless;
            }
            if let Some(body) = body.get(..whole) {
                return read(body).map_or(TlsOpening::Other, TlsOpening::Hello);
            }
        }
        let Some(behind) = rest.get(length..) else {
            return TlsOpening::Partial;
        };
        head = behind;
    }
}

fn read(body: &[u8]) -> Option<ClientOffer> {
    let (_, hello) = parse_tls_handshake_client_hello(body).ok()?;
    let mut offer = ClientOffer {
        newest: hello.version.0.min(V1_2),
        suites: suites(hello.ciphers.iter().map(|suite| suite.0)),
        has_plain_points: true,
        ..ClientOffer::default()
    };
    let (rest, extensions) =
        parse_tls_client_hello_extensions(hello.ext.unwrap_or_default()).ok()?;
    // What comes behind would count as well.
    if !rest.is_empty() {
        return None;
    }
    for extension in extensions {
        match extension {
            TlsExtension::EllipticCurves(groups) => {
                offer.groups = groups.iter().map(|group| group.0).collect();
            }
            TlsExtension::SignatureAlgorithms(schemes) => offer.schemes = Some(schemes),
            TlsExtension::EcPointFormats(formats) => {
                offer.has_plain_points = formats.contains(&0);
            }
            TlsExtension::SupportedVersions(versions) => {
                offer.has_13 = versions.iter().any(|version| version.0 == V1_3);
                let older = versions.iter().map(|version| version.0);
                offer.newest = older.filter(|v| *v <= V1_2).max().unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(offer)
}

/// A hello in the dress of SSL 2.0 (RFC 5246 §E.2), which says which version it is really for.
fn ancient(head: &[u8]) -> TlsOpening {
    let [first, second, kind, major, minor, lengths @ ..] = head else {
        return TlsOpening::Partial;
    };
    if *kind != 1 {
        return TlsOpening::Other;
    }
    let whole = usize::from(first & 0x7f) << 8 | usize::from(*second);
    let Some(record) = head.get(2..2 + whole) else {
        return if whole > LIMIT {
            TlsOpening::Endless
        } else {
            TlsOpening::Partial
        };
    };
    let [high, low, _, _, _, _, ..] = lengths else {
        return TlsOpening::Other;
    };
    let octets = usize::from(u16::from_be_bytes([*high, *low]));
    let Some(specs) = record.get(9..9 + octets) else {
        return TlsOpening::Other;
    };
    // Three octets each; those of TLS begin with 0.
    let of_tls = specs.chunks_exact(3).filter_map(|spec| match spec {
        [0, high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    });
    TlsOpening::Hello(ClientOffer {
        newest: u16::from_be_bytes([*major, *minor]).min(V1_2),
        suites: suites(of_tls),
        has_plain_points: true,
        ..ClientOffer::default()
    })
}

fn suites(all: impl Iterator<Item = u16>) -> Vec<u16> {
    all.filter(|suite| !SIGNALS.contains(suite) && !is_grease(*suite))
        .collect()
}

/// RFC 8701 §2.
fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

/// `TLS 1.0: AES128-SHA, DES-CBC3-SHA`.
impl fmt::Display for ClientOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.has_13, self.newest) {
            (true, _) => f.write_str("TLS 1.3")?,
            (false, V1_2) => f.write_str("TLS 1.2")?,
            (false, 0x0302) => f.write_str("TLS 1.1")?,
            (false, 0x0301) => f.write_str("TLS 1.0")?,
            (false, 0x0300) => f.write_str("SSL 3.0")?,
            (false, _) => f.write_str("SSL 2.0")?,
        }
        for (n, suite) in self.suites.iter().take(NAMED).enumerate() {
            f.write_str(if n == 0 { ": " } else { ", " })?;
            f.write_str(&name(*suite))?;
        }
        match self.suites.len().checked_sub(NAMED) {
            Some(more) if more > 0 => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// As OpenSSL and most devices call it, or its number.
fn name(suite: u16) -> String {
    let known = TlsCipherSuiteID(suite).get_ciphersuite();
    let Some(known) = known.and_then(|known| known.name.strip_prefix("TLS_")) else {
        return format!("0x{suite:04x}");
    };
    let (exchange, cipher) = known.split_once("_WITH_").unwrap_or(("RSA", known));
    let mut name = match exchange {
        "RSA" => String::new(),
        "DH_anon" => "ADH-".to_owned(),
        "ECDH_anon" => "AECDH-".to_owned(),
        "RSA_EXPORT" => "EXP-".to_owned(),
        other => format!("{}-", other.replace('_', "-")),
    };
    let short = [
        ("3DES_EDE_CBC", "DES-CBC3"),
        ("AES_128_CBC", "AES128"),
        ("AES_256_CBC", "AES256"),
        ("AES_128", "AES128"),
        ("AES_256", "AES256"),
        ("CAMELLIA_128_CBC", "CAMELLIA128"),
        ("CAMELLIA_256_CBC", "CAMELLIA256"),
        ("RC4_128", "RC4"),
        ("SEED_CBC", "SEED"),
        ("DES_CBC", "DES-CBC"),
    ];
    let begins = short.iter().find(|(long, _)| cipher.starts_with(long));
    let (long, brief) = begins.copied().unwrap_or_default();
    let rest = cipher.get(long.len()..).unwrap_or_default();
    let _ = write!(name, "{brief}{}", rest.replace('_', "-"));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello of this version, with these suites and extensions.
    fn body(version: u16, suites: &[u16], extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut out = version.to_be_bytes().to_vec();
        out.extend([7; 32]);
        out.push(0);
        out.extend((suites.len() as u16 * 2).to_be_bytes());
        out.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        out.extend([1, 0]);
        if !extensions.is_empty() {
            let octets: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, data)| {
                    let mut one = kind.to_be_bytes().to_vec();
                    one.extend((data.len() as u16).to_be_bytes());
                    one.extend(data);
                    one
                })
                .collect();
            out.extend((octets.len() as u16).to_be_bytes());
            out.extend(octets);
        }
        out
    }

    fn message(body: &[u8]) -> Vec<u8> {
        let mut out = vec![1];
        out.extend(&(body.len() as u32).to_be_bytes()[1..]);
        out.extend(body);
        out
    }

    /// In records of so many octets.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in message.chunks(size) {
            out.extend([0x16, 3, 1]);
            out.extend((piece.len() as u16).to_be_bytes());
            out.extend(piece);
        }
        out
    }

    fn list(numbers: &[u16]) -> Vec<u8> {
        let mut out = (numbers.len() as u16 * 2).to_be_bytes().to_vec();
        out.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
        out
    }

    fn hello(head: &[u8]) -> ClientOffer {
        match look(head) {
            TlsOpening::Hello(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    /// Every beginning of it is partial, however it is cut.
    #[test]
    fn pieces_make_the_same_hello() {
        let whole = message(&body(0x0301, &[0x002f, 0x000a], &[(10, list(&[23, 24]))]));
        let expected = hello(&records(&whole, 4096));
        assert_eq!(expected.to_string(), "TLS 1.0: AES128-SHA, DES-CBC3-SHA");
        assert_eq!(expected.groups, [23, 24]);
        for size in [1, 2, 3, 4, 5, 40, whole.len()] {
            let head = records(&whole, size);
            assert_eq!(hello(&head), expected);
            for end in 0..head.len() {
                assert_eq!(look(&head[..end]), TlsOpening::Partial, "{size} {end}");
            }
            let more = [&head[..], b"more"].concat();
            assert_eq!(hello(&more), expected);
        }
    }

    #[test]
    fn the_newest_version_is_the_one_it_says() {
        let versions = |all: &[u16]| {
            let mut data = vec![all.len() as u8 * 2];
            data.extend(all.iter().flat_map(|v| v.to_be_bytes()));
            vec![(43, data)]
        };
        for (version, extensions, has_13, newest) in [
            (0x0300, Vec::new(), false, 0x0300),
            (0x0301, Vec::new(), false, 0x0301),
            (0x0303, Vec::new(), false, 0x0303),
            // From the future, or nonsense: 1.2, as RFC 5246 says.
            (0x0399, Vec::new(), false, 0x0303),
            (0x0303, versions(&[0x1a1a, 0x0304, 0x0303]), true, 0x0303),
            (0x0303, versions(&[0x0304]), true, 0),
            (0x0303, versions(&[0x0302, 0x0301]), false, 0x0302),
        ] {
            let body = body(version, &[0xc02f], &extensions);
            let offer = hello(&records(&message(&body), 4096));
            assert_eq!((offer.has_13, offer.newest), (has_13, newest));
        }
    }

    #[test]
    fn what_is_there_to_be_ignored_is() {
        let extensions = [
            (0x2a2a, Vec::new()),
            (10, list(&[0x3a3a, 29])),
            (13, list(&[0x0401])),
            (11, vec![1, 0]),
            (0xfafa, vec![0]),
        ];
        let body = body(0x0303, &[0x0a0a, 0xc02f, 0x00ff, 0x5600], &extensions);
        let offer = hello(&records(&message(&body), 4096));
        assert_eq!(offer.suites, [0xc02f]);
        assert_eq!(offer.schemes.as_deref(), Some(&[0x0401][..]));
        assert!(offer.has_plain_points);
        assert_eq!(offer.to_string(), "TLS 1.2: ECDHE-RSA-AES128-GCM-SHA256");
    }

    #[test]
    fn a_hello_in_the_dress_of_ssl_2() {
        let mut specs = vec![0, 0, 0x35, 0, 0, 0x0a, 7, 0, 0xc0];
        let record = |version: [u8; 2], specs: &[u8]| {
            let mut out = vec![1, version[0], version[1], 0, specs.len() as u8, 0, 0, 0, 16];
            out.extend(specs);
            out.extend([9; 16]);
            let mut head = vec![0x80, out.len() as u8];
            head.extend(out);
            head
        };
        let head = record([3, 1], &specs);
        assert_eq!(
            hello(&head).to_string(),
            "TLS 1.0: AES256-SHA, DES-CBC3-SHA"
        );
        for end in 1..head.len() {
            assert_eq!(look(&head[..end]), TlsOpening::Partial, "{end}");
        }
        assert_eq!(hello(&record([3, 0], &specs)).newest, 0x0300);
        assert_eq!(hello(&record([0, 2], &specs)).newest, 0x0002);
        // The length of the list reaches beyond the record.
        specs.truncate(3);
        let mut lying = record([3, 1], &specs);
        lying[6] = 200;
        assert_eq!(look(&lying), TlsOpening::Other);
    }

    #[test]
    fn what_is_no_hello() {
        for other in [
            &b"EHLO printer\r\n"[..],
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x16\x02\x01\x00\x05",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\xff\xff",
            // Another message of the handshake.
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            // One whose lists are longer than it is.
            b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\x03\x01\x00\x00",
            b"\x80\x10\x02\x03\x01\x00",
        ] {
            assert_eq!(look(other), TlsOpening::Other, "{other:x?}");
        }
    }

    /// One that has no end is given up, in whatever pieces it comes.
    #[test]
    fn attack_endless_hellos() {
        assert_eq!(
            look(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"),
            TlsOpening::Endless
        );
        let long = records(&message(&body(0x0303, &[0x002f; 8170], &[])), 4096);
        assert_eq!(look(&long[..LIMIT - 1]), TlsOpening::Partial);
        assert_eq!(look(&long[..LIMIT]), TlsOpening::Endless);
        assert_eq!(look(&long), TlsOpening::Endless, "all at once");
        let slow = records(&message(&body(0x0303, &[0x002f; 4000], &[])), 1);
        assert_eq!(look(&slow[..LIMIT]), TlsOpening::Endless);
        assert_eq!(look(&[0xff; 64]), TlsOpening::Other);
        assert_eq!(look(b"\xff\xff\x01\x03\x01\x00\x10"), TlsOpening::Endless);
    }

    /// Whatever comes is one of the four, and quickly so.
    #[test]
    fn attack_hellos_that_lie() {
        let extensions = [
            (10, list(&[29, 23])),
            (11, vec![1, 0]),
            (13, list(&[0x0401, 0x0804])),
            (43, vec![4, 3, 4, 3, 3]),
        ];
        let whole = message(&body(0x0303, &[0x1301, 0xc02f, 0x002f], &extensions));
        let seeds = [records(&whole, 4096), records(&whole, 7)];
        let mut random = fastrand::Rng::with_seed(7);
        for turn in 0..20_000 {
            let mut octets = seeds[turn % seeds.len()].clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..octets.len());
                match random.u8(..4) {
                    0 => octets[at] = random.u8(..),
                    1 => octets.truncate(at.max(1)),
                    2 => octets.insert(at, random.u8(..)),
                    _ => octets[at] ^= 1 << random.u8(..8),
                }
            }
            let _ = look(&octets);
        }
    }

    /// A line stays a line.
    #[test]
    fn many_suites_are_cut() {
        let offer = ClientOffer {
            newest: 0x0301,
            suites: (0..200).collect(),
            ..ClientOffer::default()
        };
        let text = offer.to_string();
        assert!(text.ends_with(" and 192 more"), "{text}");
        for (suite, expected) in [
            (0x0005, "RC4-SHA"),
            (0x0033, "DHE-RSA-AES128-SHA"),
            (0x0034, "ADH-AES128-SHA"),
            (0x009f, "DHE-RSA-AES256-GCM-SHA384"),
            (0xc027, "ECDHE-RSA-AES128-SHA256"),
            (0xcca8, "ECDHE-RSA-CHACHA20-POLY1305-SHA256"),
            (0xeeee, "0xeeee"),
        ] {
            assert_eq!(name(suite), expected);
        }
    }
}
