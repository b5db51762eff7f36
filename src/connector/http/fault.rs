//! Why an HTTP request got no answer, and whether it may have been acted on.
//!
//! It reads the causes behind an error and names the one that people can repair. The URL is left out, since
//! it may hold what is not for the log.

use std::error::Error as StdError;

use tokio_rustls::rustls;

use super::connect::NoTunnel;
use crate::{
    connector::{outbound::ProxyServer, tls::words},
    mail::{cause, outcome::Obstacle, text::bounded},
};

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nothing was asked: name, connection, TLS, proxy.
    Unreached(String),
    /// The proxy wants other credentials than it got; nothing was asked.
    ProxyRefused(String),
    /// It broke, or the time was over, before the last octet of the request: it cannot have been acted on.
    Broken(String),
    /// The whole request is out, and it may have been acted on: the answer was lost or late.
    Unanswered(String),
}

impl NoAnswer {
    /// The sentence.
    pub fn text(&self) -> &str {
        match self {
            NoAnswer::Unreached(text)
            | NoAnswer::ProxyRefused(text)
            | NoAnswer::Broken(text)
            | NoAnswer::Unanswered(text) => text,
        }
    }

    /// The same, with what the proxy said to that when it was asked again.
    pub(super) fn because(self, host: &str, why: Option<NoTunnel>) -> Self {
        match why {
            Some(NoTunnel::Login(text)) => NoAnswer::ProxyRefused(format!("{host}: {text}")),
            Some(NoTunnel::Closed(text)) => NoAnswer::Unreached(format!("{host}: {text}")),
            None => self,
        }
    }

    /// Where nothing was attempted by it.
    pub fn obstacle(&self, stage: &str) -> Obstacle {
        let text = format!("{stage}: {}", self.text());
        match self {
            NoAnswer::ProxyRefused(_) => Obstacle::misconfigured(text),
            NoAnswer::Unreached(_) | NoAnswer::Broken(_) | NoAnswer::Unanswered(_) => {
                Obstacle::down(text)
            }
        }
    }
}

/// The fault behind an error of the request to `host`, through `proxy`; `is_sent`: its last octet was handed over.
pub(super) fn of(
    error: &reqwest::Error,
    host: &str,
    proxy: Option<&ProxyServer>,
    is_sent: bool,
) -> NoAnswer {
    let said = chain(error);
    // What breaks later, be it TLS, tells nothing about who can be reached.
    if error.is_connect() || error.is_dns() || error.is_builder() {
        return unreached(error, host, proxy, &said);
    }
    if is_sent {
        NoAnswer::Unanswered(format!("{host}: {said}"))
    } else {
        NoAnswer::Broken(format!(
            "{host}: the connection broke before the request was whole: {said}"
        ))
    }
}

/// The proxy opened no tunnel; its client has no type for it, only these words.
pub(super) fn is_tunnel(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        let said = cause.to_string();
        said.contains("tunnel error") || said.contains("proxy authorization required")
    })
}

/// Why there was no connection to ask anything on.
fn unreached(
    error: &reqwest::Error,
    host: &str,
    proxy: Option<&ProxyServer>,
    said: &str,
) -> NoAnswer {
    for cause in causes(error) {
        if let Some(problem) = tls_error(cause) {
            let why = words::trouble(problem, host, proxy.is_some());
            return NoAnswer::Unreached(format!("{host}: TLS: {why}"));
        }
        if let Some(proxy) = proxy
            && let Some(what) = login_refused(&cause.to_string())
        {
            return NoAnswer::ProxyRefused(format!("{host}: {}", proxy.refuses_login(what)));
        }
    }
    let by = proxy.map_or_else(String::new, |proxy| format!(" by {proxy}"));
    let (dns, cause) = match (error.is_dns(), proxy) {
        (true, None) => ("DNS: ", cause::DNS_FAILED),
        (true, Some(_)) => ("DNS: ", cause::PROXY_UNREACHABLE),
        (false, Some(_)) => ("", cause::PROXY_UNREACHABLE),
        (false, None) => ("", cause::HOST_UNREACHABLE),
    };
    NoAnswer::Unreached(cause.at(format_args!("{host} cannot be reached{by}: {dns}{said}")))
}

/// The causes in one line, the innermost last.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in causes(error) {
        if let Some(problem) = tls_error(cause) {
            // Its own words are names out of the library's code.
            said.push(format!("TLS: {}", words::trouble(problem, "", false)));
            break;
        }
        said.push(cause.to_string());
    }
    said.dedup();
    if said.is_empty() {
        said.push(if error.is_timeout() {
            "timed out".to_owned()
        } else {
            "the request failed".to_owned()
        });
    }
    bounded(&said.join(": ")).to_owned()
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// The proxy's client has no type for it, only these words: of CONNECT (407), and of SOCKS5 (RFC 1928 §3, RFC 1929 §2).
fn login_refused(text: &str) -> Option<&'static str> {
    [
        ("proxy authorization required", "407"),
        ("credentials not accepted", "user and password"),
        (
            "does not support user/pass authentication",
            "no login method that both know",
        ),
        (
            "implements authentication incorrectly",
            "a login method other than those offered",
        ),
    ]
    .into_iter()
    .find_map(|(words, what)| text.contains(words).then_some(what))
}

fn tls_error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(error);
    }
    let inner = cause.downcast_ref::<std::io::Error>()?.get_ref()?;
    if let Some(error) = inner.downcast_ref::<rustls::Error>() {
        return Some(error);
    }
    tls_error(inner.downcast_ref::<std::io::Error>()?)
}
