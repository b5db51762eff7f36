//! The little of TLS up to 1.2 that shows a server's certificate: a ClientHello with everything old in it, and the reading of what
//! comes back. There is no key, no secret and no handshake; nothing that is read is believed.

/// What a hello says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldHello {
    /// TLS 1.2, with extensions.
    Tls12,
    /// TLS 1.0 without any, for what breaks on more.
    Tls10,
}

/// Suites of each kind that shows a certificate, from ECDHE with AES-GCM down to RC4 and DES.
const SUITES: &[u16] = &[
    0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc023, 0xc027, 0xc009, 0xc013, 0xc024, 0xc028,
    0xc00a, 0xc014, 0x009e, 0x009f, 0x0067, 0x006b, 0x0033, 0x0039, 0x009c, 0x009d, 0x003c, 0x003d,
    0x002f, 0x0035, 0xc008, 0xc012, 0x0016, 0x000a, 0xc007, 0xc011, 0x0005, 0x0004, 0x0015, 0x0009,
    // RFC 5746: this is not a renegotiation.
    0x00ff,
];
/// x25519 and the curves of NIST.
const GROUPS: &[u16] = &[0x001d, 0x0017, 0x0018, 0x0019];
/// RSA, RSA-PSS and ECDSA, from SHA-512 down to SHA-1.
const SIGNATURES: &[u16] = &[
    0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0301, 0x0303, 0x0201,
    0x0203,
];

/// A ClientHello (RFC 5246 §7.4.1.2) in its record. `name` is said to the server (SNI).
pub(super) fn hello(which: OldHello, random: [u8; 32], name: Option<&str>) -> Vec<u8> {
    let version: u16 = match which {
        OldHello::Tls12 => 0x0303,
        OldHello::Tls10 => 0x0301,
    };
    let mut body = Vec::new();
    body.extend(version.to_be_bytes());
    body.extend(random);
    // No session to go on with.
    body.push(0);
    body.extend(counted(&numbers(SUITES)));
    // No compression.
    body.extend([1, 0]);
    if which == OldHello::Tls12 {
        let mut extensions = Vec::new();
        if let Some(name) = name {
            let entry = [&[0], counted(name.as_bytes()).as_slice()].concat();
            extensions.extend(extension(0, &counted(&entry)));
        }
        extensions.extend(extension(10, &counted(&numbers(GROUPS))));
        extensions.extend(extension(11, &[1, 0]));
        extensions.extend(extension(13, &counted(&numbers(SIGNATURES))));
        body.extend(counted(&extensions));
    }
    let mut message = vec![1, 0];
    message.extend(counted(&body));
    let mut record = vec![22, 3, 1];
    record.extend(counted(&message));
    record
}

fn numbers(all: &[u16]) -> Vec<u8> {
    all.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// With its length before it. None of them is as long as 64 KiB: a name that has come so far has at most 255 octets.
fn counted(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::from((octets.len() as u16).to_be_bytes());
    out.extend(octets);
    out
}

fn extension(number: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::from(number.to_be_bytes());
    out.extend(counted(body));
    out
}

/// What the server's octets come to so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerShown {
    /// More is needed.
    Partial,
    /// The server's own certificate, in DER.
    Certificate(Vec<u8>),
    /// It ended it with this alert.
    Alert(u8),
    /// It is not TLS, or shows no certificate.
    Other,
}

/// Reads records as far as they are whole. Whoever calls bounds how many there are.
pub(super) fn look(octets: &[u8]) -> ServerShown {
    let mut messages = Vec::new();
    let mut rest = octets;
    loop {
        let Some((&[kind, 3, _, high, low], after)) = rest.split_first_chunk::<5>() else {
            return match (rest, own_certificate(&messages)) {
                (_, Some(found)) => found,
                // Where the pattern fails on a whole header, its second octet is no version.
                ([_, major, ..], None) if *major != 3 => ServerShown::Other,
                (_, None) => ServerShown::Partial,
            };
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some((body, after)) = after.split_at_checked(length) else {
            return own_certificate(&messages).unwrap_or(ServerShown::Partial);
        };
        match (kind, body) {
            (21, [_, number]) => return ServerShown::Alert(*number),
            (22, _) => messages.extend_from_slice(body),
            _ => return own_certificate(&messages).unwrap_or(ServerShown::Other),
        }
        rest = after;
    }
}

/// The first certificate among handshake messages. `None`: more is needed.
fn own_certificate(messages: &[u8]) -> Option<ServerShown> {
    let mut rest = messages;
    loop {
        let (&kind, after) = rest.split_first()?;
        let (body, after) = lengthy(after)?;
        match kind {
            // ServerHello, then Certificate (RFC 5246 §7.4.2).
            2 => rest = after,
            11 => {
                let own = lengthy(body).and_then(|(list, _)| lengthy(list));
                return Some(match own {
                    Some((own, _)) if !own.is_empty() => ServerShown::Certificate(own.to_vec()),
                    _ => ServerShown::Other,
                });
            }
            _ => return Some(ServerShown::Other),
        }
    }
}

/// What a length of three octets stands before, and what follows.
fn lengthy(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[a, b, c], after) = octets.split_first_chunk::<3>()?;
    after.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [[kind, 3, 1].as_slice(), &counted(body)].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [[kind, 0].as_slice(), &counted(body)].concat()
    }

    fn list(certificates: &[&[u8]]) -> Vec<u8> {
        let entries: Vec<u8> = certificates
            .iter()
            .flat_map(|one| [[0].as_slice(), &counted(one)].concat())
            .collect();
        [[0].as_slice(), &counted(&entries)].concat()
    }

    #[test]
    fn a_certificate_is_found_however_it_is_cut() {
        let messages = [
            message(2, &[0; 70]),
            message(11, &list(&[b"own", b"issuer"])),
        ]
        .concat();
        for at in 1..messages.len() {
            let (one, two) = messages.split_at(at);
            let whole = [record(22, one), record(22, two)].concat();
            assert_eq!(
                look(&whole),
                ServerShown::Certificate(b"own".to_vec()),
                "{at}"
            );
            for end in 0..whole.len() {
                // Never anything else before it is whole.
                let found = look(&whole[..end]);
                assert!(
                    matches!(found, ServerShown::Partial | ServerShown::Certificate(_)),
                    "{at} {end} {found:?}"
                );
            }
        }
    }

    #[test]
    fn attack_what_a_server_sends_is_no_certificate() {
        for (octets, expected) in [
            (record(21, &[2, 70]), ServerShown::Alert(70)),
            (b"220 relay ESMTP\r\n".to_vec(), ServerShown::Other),
            (record(23, b"x"), ServerShown::Other),
            (record(22, &message(11, &list(&[]))), ServerShown::Other),
            (record(22, &message(11, &list(&[b""]))), ServerShown::Other),
            (
                record(22, &message(11, b"\xff\xff\xff")),
                ServerShown::Other,
            ),
            (record(22, &message(14, b"")), ServerShown::Other),
            (record(22, &[11, 0xff, 0xff, 0xff]), ServerShown::Partial),
            (vec![22, 3], ServerShown::Partial),
            (Vec::new(), ServerShown::Partial),
        ] {
            assert_eq!(look(&octets), expected, "{octets:?}");
        }
    }

    #[test]
    fn a_hello_is_one() {
        for which in [OldHello::Tls12, OldHello::Tls10] {
            for name in [None, Some("mail.corp.example")] {
                let octets = hello(which, [7; 32], name);
                let (rest, parsed) = tls_parser::parse_tls_plaintext(&octets).unwrap();
                assert!(rest.is_empty());
                let Some(tls_parser::TlsMessage::Handshake(
                    tls_parser::TlsMessageHandshake::ClientHello(parsed),
                )) = parsed.msg.first()
                else {
                    panic!("{which:?}");
                };
                assert_eq!(parsed.ciphers.len(), SUITES.len());
                assert_eq!(parsed.ext.is_some(), which == OldHello::Tls12);
                if let Some(ext) = parsed.ext {
                    let (rest, all) = tls_parser::parse_tls_client_hello_extensions(ext).unwrap();
                    assert!(rest.is_empty());
                    assert_eq!(all.len(), 3 + usize::from(name.is_some()));
                }
            }
        }
    }
}
