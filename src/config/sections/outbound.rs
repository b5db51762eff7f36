//! `[outbound]` and proxies: where connections may go, and through what.

use std::net::IpAddr;

use ipnet::IpNet;

use super::context::Context;
use crate::{
    config::{
        diagnostic::Span,
        table::Table,
        values::{self, Fault, fault, plain},
    },
    connector::{Proxy, ProxyServer, names},
    mail::cause,
    secret::Secret,
};

#[derive(Debug)]
pub(super) struct Outbound {
    allowed: Vec<String>,
    /// The default of every connector.
    pub(super) proxy: Proxy,
}

impl Outbound {
    /// Patterns of hosts, for the connectors that open connections of their own accord.
    pub(super) fn allowed(&self) -> &[String] {
        &self.allowed
    }

    /// Whether any host may be named.
    pub(super) fn allows_all(&self) -> bool {
        self.allowed.iter().any(|pattern| pattern == "*")
    }

    /// Says so when a host is not among `allowed_hosts`.
    pub(super) fn check(&self, context: Context<'_>, span: &Span, host: &str) {
        if !self.allowed.iter().any(|pattern| names(pattern, host)) {
            context.error(
                span,
                fault!("the host {} is not in [outbound] `allowed_hosts`", plain(host);
                    "add \"{}\" to it", plain(host))
                .of(cause::HOST_NOT_ALLOWED),
            );
        }
    }

    /// The proxy of one connector: its own, else the default.
    pub(super) fn proxy_for(&self, context: Context<'_>, table: &Table<'_>) -> Proxy {
        let mut proxy = self.proxy.clone();
        if let Some(given) = table.parsed("proxy", server) {
            if let Some(server) = &given.value {
                self.check(context, &given.span, &server.host);
            }
            proxy.via = given.value;
        }
        proxy
    }
}

pub(super) fn read(context: Context<'_>, root: &Table<'_>) -> Outbound {
    let table = root.table("outbound");
    let allowed = table.list_or_default("allowed_hosts", host_pattern);
    let via = table.parsed("proxy", server);
    let mut bypass_hosts = Vec::new();
    let mut bypass_networks: Vec<IpNet> = Vec::new();
    let is_network = |text: &str| text.contains('/') || text.parse::<IpAddr>().is_ok();
    for entry in table.list_or_default("proxy_bypass", |text| {
        if is_network(text) {
            values::network(text).map(Ok)
        } else {
            host_pattern(text).map(Err)
        }
    }) {
        match entry {
            Ok(network) => bypass_networks.push(network),
            Err(host) => bypass_hosts.push(host),
        }
    }
    table.finish();
    let via_span = via.as_ref().map(|at| at.span.clone());
    let outbound = Outbound {
        allowed,
        proxy: Proxy {
            via: via.and_then(|at| at.value),
            bypass_hosts,
            bypass_networks,
        },
    };
    if let (Some(server), Some(span)) = (&outbound.proxy.via, via_span) {
        outbound.check(context, &span, &server.host);
    }
    outbound
}

/// `*`, `*.corp.example`, a name or an address; lower case, names as they go over the wire.
fn host_pattern(text: &str) -> Result<String, Fault> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    if let Some(parent) = text.strip_prefix("*.") {
        return Ok(format!("*.{}", values::domain(parent)?));
    }
    host(text)
}

/// A host: a name as it goes over the wire, or an address.
pub(super) fn host(text: &str) -> Result<String, Fault> {
    if let Ok(ip) = text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
    {
        return Ok(ip.to_string());
    }
    let Some(slip) = Slip::of(text) else {
        return values::domain(text).map(|name| name.to_string());
    };
    Err(Fault::new(
        slip.message,
        slip.host.map_or_else(
            || "write \"smtp.corp.example\"".to_owned(),
            |host| format!("write \"{host}\""),
        ),
    ))
}

/// The `host` of a connector: as [`host`], and what was meant is said in the keys that say it.
pub(super) fn connector_host(text: &str) -> Result<String, Fault> {
    host(text).map_err(|fault| {
        let Some(slip) = Slip::of(text) else {
            return fault;
        };
        let Some(host) = slip.host else {
            return Fault::new(slip.message, "write host = \"smtp.corp.example\"");
        };
        let mut hint = format!("write host = \"{host}\"");
        for more in [
            slip.port.map(|port| format!("port = {port}")),
            slip.tls.map(|tls| format!("tls = \"{tls}\"")),
        ]
        .into_iter()
        .flatten()
        {
            hint.push_str(" and ");
            hint.push_str(&more);
        }
        Fault::new(slip.message, hint)
    })
}

/// More than a name, as other programs write it: `[relay]:587`, `relay:587`, `smtp://relay`.
struct Slip {
    message: &'static str,
    /// The name alone, where one is left.
    host: Option<String>,
    port: Option<u16>,
    tls: Option<&'static str>,
}

impl Slip {
    fn of(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.trim().split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, without_transport(text.trim())),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // What stands before @ may be a password.
        let (has_login, rest) = match rest.rsplit_once('@') {
            Some((_, rest)) => (true, rest),
            None => (false, rest),
        };
        let in_brackets = rest.starts_with('[');
        let (name, port) = match rest.rsplit_once(':') {
            Some((name, port)) if in_brackets || !name.contains(':') => {
                (name, port.parse::<u16>().ok())
            }
            _ => (rest, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let message = if scheme.is_some() {
            "a host is a name or an address, not a URL"
        } else if text.contains([',', ';']) || text.trim().contains(char::is_whitespace) {
            "this is more than one host; a second smarthost is another [[connector]] in the route's list"
        } else if has_login {
            "a host has no user name in it: that is `username`"
        } else if port.is_some() {
            "a host has no port in it"
        } else if in_brackets {
            "a name stands without brackets; MX records are never asked for"
        } else if text.trim() != text {
            "a host has no blanks around it"
        } else {
            return None;
        };
        let host = match name.parse::<IpAddr>() {
            Ok(ip) => Some(ip.to_string()),
            Err(_) => values::domain(name).ok().map(|name| name.to_string()),
        };
        Some(Self {
            message,
            host,
            port,
            tls: match scheme.as_deref() {
                Some("smtps") => Some("implicit"),
                Some("smtp+starttls") => Some("starttls"),
                _ => None,
            },
        })
    }
}

/// Without the transport of a Postfix map: `relay:[smtp.corp.example]:587`.
fn without_transport(text: &str) -> &str {
    match text.split_once(":[") {
        Some(("smtp" | "smtps" | "relay" | "lmtp", _)) => {
            text.split_once(':').map_or(text, |(_, rest)| rest)
        }
        _ => text,
    }
}

/// `"none"`, `"http://user:password@host:port"` or `"socks5://…"`.
fn server(text: &str) -> Result<Option<ProxyServer>, Fault> {
    let fault = |why: &str| {
        fault!("not a proxy: {why}";
            "write \"http://host:port\", \"socks5://host:port\" or \"none\"; a login as in \"http://user:password@host:port\"")
    };
    if text == "none" {
        return Ok(None);
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| fault("it does not begin with http:// or socks5://"))?;
    let socks = match scheme {
        "http" => false,
        "socks5" | "socks5h" => true,
        "https" => return Err(fault("TLS to the proxy itself is not supported")),
        _ => return Err(fault("only http:// and socks5:// are known")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (login, authority) = match rest.rsplit_once('@') {
        Some((login, authority)) => (Some(login), authority),
        None => (None, rest),
    };
    let login = match login {
        None => None,
        Some(login) => {
            let (user, password) = login
                .split_once(':')
                .ok_or_else(|| fault("the login has no password"))?;
            let decode =
                |text| decode(text).ok_or_else(|| fault("the login has a % that is no escape"));
            Some((decode(user)?, Secret::new(decode(password)?)))
        }
    };
    let (name, port) = authority
        .rsplit_once(':')
        .ok_or_else(|| fault("it has no port"))?;
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| fault("it has no port"))?;
    Ok(Some(ProxyServer {
        socks,
        host: host(name).map_err(|_| fault("its host is not a name or an address"))?,
        port,
        login,
    }))
}

/// Percent-decoding (RFC 3986 §2.1).
fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        octets.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_other_programs_write_them() {
        fn check(text: &str, expected: &str) {
            let hint = connector_host(text).unwrap_err().hint.unwrap_or_default();
            assert_eq!(hint, expected, "{text}");
        }
        for (text, expected) in [
            ("[relay.test]", "write host = \"relay.test\""),
            (
                "[relay.test]:587",
                "write host = \"relay.test\" and port = 587",
            ),
            (
                "relay.test:587",
                "write host = \"relay.test\" and port = 587",
            ),
            ("[::1]:587", "write host = \"::1\" and port = 587"),
            ("192.0.2.7:25", "write host = \"192.0.2.7\" and port = 25"),
            ("relay:[relay.test]", "write host = \"relay.test\""),
            (
                "smtp:[relay.test]:587",
                "write host = \"relay.test\" and port = 587",
            ),
            ("smtp://relay.test", "write host = \"relay.test\""),
            (
                "smtp://relay.test:25/",
                "write host = \"relay.test\" and port = 25",
            ),
            (
                "smtps://me:hunter2@relay.test:465",
                "write host = \"relay.test\" and port = 465 and tls = \"implicit\"",
            ),
            ("me@relay.test", "write host = \"relay.test\""),
            (" relay.test", "write host = \"relay.test\""),
            ("a.test, b.test", "write host = \"smtp.corp.example\""),
            ("smtp://", "write host = \"smtp.corp.example\""),
        ] {
            check(text, expected);
        }
        assert_eq!(connector_host("[::1]").unwrap(), "::1");
        assert_eq!(
            host("relay.test:587").unwrap_err().hint.as_deref(),
            Some("write \"relay.test\"")
        );
        assert!(connector_host("re lay").is_err() && connector_host("$HOST").is_err());
    }

    #[test]
    fn proxies() {
        /// What it was read as, in one line; `-` = refused.
        fn check(text: &str, expected: &str) {
            let found = match server(text) {
                Err(_) => "-".to_owned(),
                Ok(None) => "straight".to_owned(),
                Ok(Some(server)) => {
                    let kind = if server.socks { "socks" } else { "http" };
                    let login = server.login.map_or_else(String::new, |(user, password)| {
                        format!(" {user} {}", password.reveal())
                    });
                    format!("{kind} {} {}{login}", server.host, server.port)
                }
            };
            assert_eq!(found, expected, "{text}");
        }
        check("none", "straight");
        check("http://proxy:3128", "http proxy 3128");
        check(
            "http://me:p%40ss:w@proxy.corp.example:3128/",
            "http proxy.corp.example 3128 me p@ss:w",
        );
        check("socks5://[::1]:1080", "socks ::1 1080");
        for text in [
            "",
            "proxy:3128",
            "https://p:1",
            "http://p",
            "http://p:0",
            "http://u@p:1",
            "http://u:%zz@p:1",
            "http://:1",
        ] {
            check(text, "-");
        }
    }
}
