//! Who asks: the peer of a connection, and what a request says of itself.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header, uri::Authority};
use rustls::crypto::CryptoProvider;

use super::settings::{Role, WindowSettings};
use crate::window::sessions::SecretHash;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Of TCP. `None`: it came by the Unix socket.
    pub(super) ip: Option<IpAddr>,
    /// Of the Unix socket, as the kernel says it.
    pub(super) uid: Option<u32>,
    /// The port that it came to.
    pub(super) port: u16,
    /// By TLS, to us.
    pub(super) is_encrypted: bool,
}

impl Peer {
    /// Whether what it says of others is believed.
    pub(super) fn is_trusted(&self, settings: &WindowSettings) -> bool {
        match self.ip {
            Some(ip) => settings.is_trusted(ip),
            None => settings.trusts_unix,
        }
    }
}

/// Where a request really comes from, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestOrigin {
    /// `None`: by the Unix socket.
    pub(super) ip: Option<IpAddr>,
    /// By TLS, to us or to a proxy that says so.
    pub(super) is_secure: bool,
    /// The peer is a proxy that is trusted.
    pub(super) is_proxied: bool,
}

impl RequestOrigin {
    /// The address, or `unix`.
    pub(super) fn written(&self) -> String {
        self.ip
            .map_or_else(|| "unix".to_owned(), |ip| ip.to_canonical().to_string())
    }

    /// As the peer and, where it is trusted, its headers say.
    pub(super) fn of(peer: &Peer, headers: &HeaderMap, settings: &WindowSettings) -> Self {
        if !peer.is_trusted(settings) {
            return Self {
                ip: peer.ip,
                is_secure: peer.is_encrypted,
                is_proxied: false,
            };
        }
        let said = headers.get_all("x-forwarded-for").iter();
        let said: Vec<&[u8]> = said.map(HeaderValue::as_bytes).collect();
        let said = said.join(&b',');
        // From the right, where the nearest proxy wrote: the first that is none of ours. What cannot be read ends it, and is read by
        // itself: what a stranger has put before it must not hide what the proxy says.
        let mut ip = peer.ip;
        for one in said
            .rsplit(|octet| *octet == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|one| !one.is_empty())
        {
            let Some(address) = std::str::from_utf8(one).ok().and_then(address) else {
                break;
            };
            ip = Some(address);
            if !settings.is_trusted(address) {
                break;
            }
        }
        let proto = headers
            .get("x-forwarded-proto")
            .and_then(|value| value.to_str().ok());
        Self {
            ip,
            is_secure: peer.is_encrypted || proto.is_some_and(|proto| proto.trim() == "https"),
            is_proxied: true,
        }
    }
}

/// An address as proxies write it: with a port or brackets, or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches(['[', ']']);
    let ip: Option<IpAddr> = bare.parse().ok();
    let ip = ip.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|at| at.ip()));
    ip.map(|ip| ip.to_canonical())
}

/// How somebody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A bearer token, of this hash.
    Token(SecretHash),
    /// A trusted proxy says so.
    Proxy,
    /// The kernel says so.
    Uid,
    /// A cookie.
    Session(SecretHash),
}

/// Somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The user's or the token's name.
    pub(super) name: String,
    /// What he may do.
    pub(super) role: Role,
    /// How he is known.
    pub(super) proof: Proof,
    /// The address, or `unix`.
    pub(super) from: String,
}

/// Why nobody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Nothing was said.
    Silent,
    /// What was said is not so.
    Wrong(&'static str),
    /// He is known, and no group of his may do anything.
    NoRole,
}

/// SHA-256.
pub(super) fn hash(text: &str) -> SecretHash {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    out.copy_from_slice(digest.as_ref());
    out
}

/// 256 bits that nobody can guess, in 43 letters. `None`: the machine has no randomness.
pub(super) fn secret() -> Option<String> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut octets = [0_u8; 32];
    let provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut octets).ok()?;
    Some(URL_SAFE_NO_PAD.encode(octets))
}

/// The only value of a header; `Err`: it was given twice, or is no text.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(());
    }
    first
        .map(|value| value.to_str().map_err(|_| ()))
        .transpose()
}

/// The value of a cookie, if there is one of that name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter();
    let mut found = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(given, _)| *given == name);
    let (_, value) = found.next()?;
    // Two of one name: somebody else has put one there.
    found.next().is_none().then_some(value)
}

/// Whether a Host is one that this window answers to: else a page of another name could be made to lead here (DNS rebinding).
pub(super) fn answers_to(authority: &Authority, hosts: &[String]) -> bool {
    let text = authority.as_str();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or_default(),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    // Neither a name of a user nor the rest of another name belongs there.
    let is_port = |port: &str| port.bytes().all(|octet| octet.is_ascii_digit());
    if !(port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) {
        return false;
    }
    let host = host.to_ascii_lowercase();
    host.parse::<IpAddr>().is_ok() || host == "localhost" || hosts.contains(&host)
}

/// What a cookie is called: with TLS bound to this host by its prefix, on plain loopback by its port, since a cookie knows none.
pub(super) fn cookie_name(is_secure: bool, port: u16) -> String {
    if is_secure {
        "__Host-postern".to_owned()
    } else {
        format!("postern-{port}")
    }
}

/// A bearer token.
pub(super) fn bearer(headers: &HeaderMap) -> Option<Result<&str, ()>> {
    let given = match only(headers, HeaderName::as_str(&header::AUTHORIZATION)) {
        Ok(given) => given?,
        Err(()) => return Some(Err(())),
    };
    let (scheme, token) = given.split_once(' ').unwrap_or((given, ""));
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| Ok(token.trim()))
}
