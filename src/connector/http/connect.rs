//! What an HTTP proxy says to CONNECT (RFC 9110 §9.3.6), and what its refusals mean.
//!
//! SMTP asks for tunnels itself, while HTTP leaves it to its client, which does not tell why there is none: there the
//! proxy is asked once more, and the answer is read here. No request and no secret of the upstream's goes along.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{connector::outbound::ProxyServer, mail::text::bounded, smtp::client::mask::Mask};

/// A header of a proxy is not longer.
const HEADER: usize = 16_384;
/// A second question waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connector) enum NoTunnel {
    /// It wants a login, or another one.
    Login(String),
    /// It does not let us go there.
    Closed(String),
}

/// Asks for a tunnel on a fresh connection; its answer, up to the empty line.
///
/// # Errors
/// The connection broke, or the answer has no end.
pub(in crate::connector) async fn ask(
    stream: &mut TcpStream,
    server: &ProxyServer,
    authority: &str,
) -> std::io::Result<Vec<u8>> {
    let login = server.login.as_ref().map_or_else(String::new, |(u, p)| {
        let pair = STANDARD.encode(format!("{u}:{}", p.reveal()));
        format!("Proxy-Authorization: Basic {pair}\r\n")
    });
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{login}\r\n");
    stream.write_all(request.as_bytes()).await?;
    // Octet by octet up to the empty line: what follows is the upstream's.
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() > HEADER {
            return Err(std::io::Error::other("an answer without an end"));
        }
        answer.push(stream.read_u8().await?);
    }
    Ok(answer)
}

/// Why there is no tunnel; asked a second time, since nobody has said.
pub(in crate::connector) async fn why(
    server: &ProxyServer,
    host: &str,
    port: u16,
    by: Instant,
) -> Option<NoTunnel> {
    let authority = authority(host, port);
    let asked = async {
        let mut stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
        ask(&mut stream, server, &authority).await
    };
    let answer = timeout_at(by.min(Instant::now() + PATIENCE), asked).await;
    refusal(server, &authority, &answer.ok()?.ok()?)
}

/// `host:port`, with brackets around an IPv6 address.
pub(in crate::connector) fn authority(host: &str, port: u16) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Reads an answer; nothing: the tunnel is open.
pub(in crate::connector) fn refusal(
    server: &ProxyServer,
    authority: &str,
    answer: &[u8],
) -> Option<NoTunnel> {
    let text = String::from_utf8_lossy(answer);
    // It may repeat what was sent to it.
    let line = Mask::new(server.login.as_ref()).text(text.lines().next().unwrap_or_default());
    let line = bounded(&line);
    let status = line.split(' ').nth(1).unwrap_or_default();
    if status.len() == 3 && status.starts_with('2') {
        return None;
    }
    if status != "407" {
        return Some(NoTunnel::Closed(format!(
            "{server} opens no connection to {authority}: {line}; allow {authority} there (CONNECT) [proxy-refuses]"
        )));
    }
    let offered: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("proxy-authenticate"))
        .filter_map(|(_, value)| value.split_whitespace().next())
        .map(|word| {
            word.chars()
                .filter(char::is_ascii_alphanumeric)
                .take(20)
                .collect()
        })
        .collect();
    let is_other = |scheme: &String| !scheme.eq_ignore_ascii_case("basic");
    if !offered.is_empty() && offered.iter().all(is_other) {
        let offered = offered
            .into_iter()
            .take(5)
            .collect::<Vec<_>>()
            .join(" and ");
        return Some(NoTunnel::Login(format!(
            "{server} takes {offered} only (407), and Postern logs in with Basic only; allow {authority} there without a login, or put a proxy in between that logs in there [proxy-ntlm]"
        )));
    }
    Some(NoTunnel::Login(server.refuses_login("407")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_says_to_connect() {
        let server = ProxyServer {
            socks: false,
            host: "p.example".into(),
            port: 3128,
            login: None,
        };
        let check = |answer: &str, expected: Option<&str>| {
            let answer = answer.replace('\n', "\r\n");
            let said = match refusal(&server, "h.example:443", answer.as_bytes()) {
                None => None,
                Some(NoTunnel::Login(text)) => Some(format!("login: {text}")),
                Some(NoTunnel::Closed(text)) => Some(format!("closed: {text}")),
            };
            match (&said, expected) {
                (None, None) => {}
                (Some(said), Some(expected)) if said.starts_with(expected) => {}
                _ => panic!("{answer}: {said:?}"),
            }
        };
        check("HTTP/1.1 200 Connection established\n\n", None);
        check("HTTP/1.0 204\n\n", None);
        check(
            "HTTP/1.1 403 Forbidden\nVia: 1.1 p\n\n",
            Some(
                "closed: proxy p.example:3128 opens no connection to h.example:443: HTTP/1.1 403 Forbidden; allow",
            ),
        );
        check("SSH-2.0-x\n\n", Some("closed: "));
        check("\n\n", Some("closed: "));
        for (offered, expected) in [
            (
                "",
                "login: proxy p.example:3128 asks for a login (407); write it into `proxy`",
            ),
            (
                "Proxy-Authenticate: NTLM\nproxy-authenticate: Basic realm=\"x\"\n",
                "login: proxy p.example:3128 asks for a login",
            ),
            (
                "Proxy-Authenticate: Negotiate\nProxy-Authenticate: NTLM\n",
                "login: proxy p.example:3128 takes Negotiate and NTLM only (407), and Postern logs in with Basic only",
            ),
            (
                "Proxy-Authenticate: Digest realm=\"x\", nonce=\"y\"\n",
                "login: proxy p.example:3128 takes Digest only",
            ),
        ] {
            check(&format!("HTTP/1.1 407 Login\n{offered}\n"), Some(expected));
        }
    }

    #[test]
    fn authorities() {
        assert_eq!(authority("h", 1), "h:1");
        assert_eq!(authority("::1", 1), "[::1]:1");
        assert_eq!(authority("[::1]", 1), "[::1]:1");
    }
}
