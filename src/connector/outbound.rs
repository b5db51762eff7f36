//! Which hosts are reached, and how: the proxy on the way, the hosts that are allowed, the addresses with rules of their own.
//!
//! SMTP, Graph and token endpoints obey one rule. It connects to nothing and looks no name up.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

use crate::secret::Secret;

/// A proxy, checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxy {
    /// `None`: straight.
    pub via: Option<ProxyServer>,
    /// Hosts (exact, `*.domain`) that are reached directly.
    pub bypass_hosts: Vec<String>,
    /// Networks that are reached directly; loopback always is.
    pub bypass_networks: Vec<IpNet>,
}

/// The metadata service of Azure's machines, which no proxy can reach for us.
pub(crate) const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

impl Proxy {
    /// The proxy on the way to this host; `None`: there is none, the host is this machine or the metadata service, or the
    /// bypass lists name it. The one rule for smtp, graph and token endpoints. A name is not looked up: a network among the
    /// lists is for hosts that are written as addresses.
    pub fn on_the_way_to(&self, host: &str) -> Option<&ProxyServer> {
        let server = self.via.as_ref()?;
        let host = bare(host);
        // RFC 6761 §6.3.
        if is_loopback(&host) || host.ends_with(".localhost") {
            return None;
        }
        let is_direct = match host.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip == METADATA
                    || self.bypass_networks.iter().any(|n| n.contains(&ip))
                    || self
                        .bypass_hosts
                        .iter()
                        .any(|pattern| names(pattern, &host))
            }
            Err(_) => self
                .bypass_hosts
                .iter()
                .any(|pattern| names(pattern, &host)),
        };
        (!is_direct).then_some(server)
    }
}

/// Whether an entry of a host list (`*`, `*.domain`, a name, an address) names this host; without case.
pub fn names(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (bare(pattern), bare(host));
    match pattern.strip_prefix("*.") {
        _ if pattern == "*" => true,
        Some(parent) => host
            .strip_suffix(parent)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

/// This machine, by address or by its usual name.
pub fn is_loopback(host: &str) -> bool {
    let host = bare(host);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// In small letters, without the brackets of an address and the dot of the root.
fn bare(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// The proxy itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyServer {
    /// `http` (CONNECT) or `socks5`.
    pub socks: bool,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User and password.
    pub login: Option<(String, Secret)>,
}

impl ProxyServer {
    /// The fault and the remedy when it does not let us in: `said` is its answer (407, what SOCKS has for it).
    pub(crate) fn refuses_login(&self, said: &str) -> String {
        if self.login.is_some() {
            format!(
                "{self} refuses the login ({said}); correct user and password in `proxy` (user:password) [proxy-login]"
            )
        } else {
            format!(
                "{self} asks for a login ({said}); write it into `proxy`, as in \"http://user:password@host:port\" [proxy-login]"
            )
        }
    }
}

impl fmt::Display for ProxyServer {
    /// Without the login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.socks { "SOCKS proxy" } else { "proxy" };
        if self.host.contains(':') {
            write!(f, "{kind} [{}]:{}", self.host, self.port)
        } else {
            write!(f, "{kind} {}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_proxy() {
        let proxy = Proxy {
            via: Some(ProxyServer {
                socks: false,
                host: "proxy.corp.example".into(),
                port: 3128,
                login: None,
            }),
            bypass_hosts: vec![
                "*.corp.example".into(),
                "mx.example".into(),
                "192.0.2.9".into(),
            ],
            bypass_networks: vec!["10.0.0.0/8".parse().unwrap()],
        };
        for (host, is_direct) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("a.localhost", true),
            ("localhost.evil.tld", false),
            ("127.0.0.2", true),
            ("::1", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("169.254.169.254", true),
            ("[::ffff:169.254.169.254]", true),
            ("169.254.169.253", false),
            ("a.Corp.example", true),
            ("a.corp.example.", true),
            ("corp.example", false),
            ("evilcorp.example", false),
            ("mx.example.", true),
            ("x.mx.example", false),
            ("10.1.1.1", true),
            ("::ffff:10.1.1.1", true),
            ("11.1.1.1", false),
            ("192.0.2.9", true),
            ("login.microsoftonline.com", false),
        ] {
            assert_eq!(proxy.on_the_way_to(host).is_none(), is_direct, "{host}");
        }
        assert!(Proxy::default().on_the_way_to("mx.example").is_none());
    }

    #[test]
    fn host_lists() {
        for (pattern, host, expected) in [
            ("*", "a.b", true),
            ("a.b", "a.b", true),
            ("A.b", "a.B", true),
            ("a.b", "a.b.", true),
            ("*.b", "a.b", true),
            ("*.b", "b", false),
            ("*.b", "ab", false),
            ("*.b", ".b", false),
            ("a.b", "a.b.evil.tld", false),
            ("::1", "[::1]", true),
            ("", "a.b", false),
        ] {
            assert_eq!(names(pattern, host), expected, "{pattern} {host}");
        }
    }
}
