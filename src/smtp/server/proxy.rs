//! The PROXY protocol header, versions 1 and 2 (haproxy `proxy-protocol.txt`): who the client behind a load balancer is.
//!
//! The session begins only when the client is known. It decides nothing: from which networks such a
//! header is expected, and that it is then required, is the listener's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its octets, at the front of the input.
    pub len: usize,
    /// The client; `None` when the balancer speaks for itself (`LOCAL`, `UNKNOWN`): the peer of the socket is meant.
    pub client: Option<SocketAddr>,
}

/// Version 1 is never longer (§2.1).
const V1_LIMIT: usize = 107;
/// Version 2 with its TLVs; the format allows 64 KiB, no balancer comes near.
const V2_LIMIT: usize = 16 + 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads a header at the front of `input`; `None` when it is not complete yet. At most some 4 KiB are ever needed.
///
/// # Errors
/// What is wrong with it. The connection must then be closed without a word (§2).
pub fn parse(input: &[u8]) -> Result<Option<Header>, &'static str> {
    if begins(input, SIGNATURE) {
        version_2(input)
    } else if begins(input, b"PROXY ") {
        version_1(input)
    } else {
        Err("no PROXY header, though one must come from there")
    }
}

/// `input` begins with `mark`, as far as it goes.
fn begins(input: &[u8], mark: &[u8]) -> bool {
    let most = input.len().min(mark.len());
    input.get(..most) == mark.get(..most)
}

fn version_1(input: &[u8]) -> Result<Option<Header>, &'static str> {
    let head = input.get(..V1_LIMIT).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', head) else {
        return if head.len() < V1_LIMIT {
            Ok(None)
        } else {
            Err("PROXY header without an end")
        };
    };
    let line = head
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or("PROXY header that does not end with CRLF")?;
    let fields: Vec<&str> = line.split(' ').collect();
    let client = match fields.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family, source, destination, from, to] => {
            let address = |text: &str| -> Option<IpAddr> {
                match *family {
                    "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                    "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                    _ => None,
                }
            };
            let port = |text: &str| text.parse::<u16>().ok();
            match (address(source), address(destination), port(from), port(to)) {
                (Some(ip), Some(_), Some(port), Some(_)) => Some(SocketAddr::new(ip, port)),
                _ => return Err("PROXY header with a bad address"),
            }
        }
        _ => return Err("PROXY header with a bad form"),
    };
    Ok(Some(Header {
        len: end + 1,
        client,
    }))
}

fn version_2(input: &[u8]) -> Result<Option<Header>, &'static str> {
    let Some(&[command, family, high, low]) = input.get(12..16) else {
        return Ok(None);
    };
    let len = 16 + usize::from(u16::from_be_bytes([high, low]));
    if len > V2_LIMIT {
        return Err("PROXY header longer than 4 KiB");
    }
    let Some(addresses) = input.get(16..len) else {
        return Ok(None);
    };
    let client = match (command, family) {
        (0x21, 0x11) => {
            let (ip, port) = fields::<4>(addresses).ok_or("PROXY header cut short")?;
            Some(SocketAddr::new(Ipv4Addr::from(ip).into(), port))
        }
        (0x21, 0x21) => {
            let (ip, port) = fields::<16>(addresses).ok_or("PROXY header cut short")?;
            Some(SocketAddr::new(Ipv6Addr::from(ip).into(), port))
        }
        // LOCAL is a health check of the balancer's own; AF_UNSPEC and local sockets name nobody either.
        (0x20, _) | (0x21, 0x00 | 0x31 | 0x32) => None,
        (0x21, _) => return Err("PROXY header of an unknown family"),
        _ => return Err("PROXY header of an unknown version or command"),
    };
    Ok(Some(Header { len, client }))
}

/// Source address, destination address, source port, destination port; the first and third are wanted.
fn fields<const N: usize>(addresses: &[u8]) -> Option<([u8; N], u16)> {
    let ip = addresses.get(..N)?.try_into().ok()?;
    let &[high, low, _, _] = addresses.get(2 * N..2 * N + 4)? else {
        return None;
    };
    Some((ip, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client, `""` for the peer itself, `None` for an error; cut anywhere before it is incomplete.
    fn check(input: &[u8], expected: Option<&str>) {
        let with_more = [input, b"EHLO x\r\n"].concat();
        let read = parse(&with_more);
        match expected {
            None => assert!(read.is_err(), "{}", input.escape_ascii()),
            Some(client) => {
                let client = (!client.is_empty()).then(|| client.parse().unwrap());
                let len = input.len();
                assert_eq!(read, Ok(Some(Header { len, client })));
                for cut in 0..len {
                    assert_eq!(parse(&input[..cut]), Ok(None), "cut at {cut}");
                }
            }
        }
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = (addresses.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, addresses].concat()
    }

    #[test]
    fn version_1_headers() {
        check(
            b"PROXY TCP4 10.0.0.5 10.0.0.1 5000 25\r\n",
            Some("10.0.0.5:5000"),
        );
        check(
            b"PROXY TCP6 2001:db8::1 ::1 5000 25\r\n",
            Some("[2001:db8::1]:5000"),
        );
        check(b"PROXY UNKNOWN\r\n", Some(""));
        check(b"PROXY UNKNOWN a b c d\r\n", Some(""));
        for bad in [
            &b"PROXY TCP4 ::1 10.0.0.1 1 2\r\n"[..],
            b"PROXY TCP4 10.0.0.5 10.0.0.1 1\r\n",
            b"PROXY TCP4 10.0.0.5 10.0.0.1 1 99999\r\n",
            b"PROXY TCP4 10.0.0.5 10.0.0.1 1 2\n",
            b"PROXY  TCP4 10.0.0.5 10.0.0.1 1 2\r\n",
            b"proxy TCP4 10.0.0.5 10.0.0.1 1 2\r\n",
            b"EHLO x\r\n",
        ] {
            check(bad, None);
        }
        check(&[b"PROXY ".as_slice(), &[b'a'; 200]].concat(), None);
    }

    #[test]
    fn version_2_headers() {
        let v4 = [10, 0, 0, 5, 10, 0, 0, 1, 0x13, 0x88, 0, 25];
        check(&v2(0x21, 0x11, &v4), Some("10.0.0.5:5000"));
        let with_tlv = [&v4[..], &[4, 0, 1, 9]].concat();
        check(&v2(0x21, 0x11, &with_tlv), Some("10.0.0.5:5000"));
        let mut v6 = [0u8; 36];
        v6[15] = 1;
        v6[32..34].copy_from_slice(&5000u16.to_be_bytes());
        check(&v2(0x21, 0x21, &v6), Some("[::1]:5000"));
        check(&v2(0x20, 0, &[]), Some(""));
        check(&v2(0x21, 0, &[]), Some(""));
        check(&v2(0x21, 0x11, &v4[..11]), None);
        check(&v2(0x11, 0x11, &v4), None);
        check(&v2(0x21, 0x12, &v4), None);
        check(&v2(0x21, 0x11, &[0; 5000]), None);
    }
}
