//! Clients and users: whose connection it is.
//!
//! What the client may do is for `grants`. No name is resolved and none is trusted: HELO and reverse DNS give no right.

use std::net::IpAddr;

use ipnet::IpNet;

use super::certificate::CertificatePattern;
use crate::{
    mail::{pattern::Pattern, tls::TlsFloor},
    secret::Secret,
};

/// How much is forgiven; `smtp::server::tolerance` spells out what each level means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToleranceLevel {
    /// Nothing.
    Strict,
    /// What old but sane clients do.
    #[default]
    Standard,
    /// And what is only safe on a trusted network.
    Device,
}

/// One `[[client]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Where it connects from; the longest prefix over all clients applies.
    pub networks: Vec<IpNet>,
    /// Narrows the allowlist.
    pub senders: Option<Vec<Pattern>>,
    /// Narrows the allowlist.
    pub recipients: Option<Vec<Pattern>>,
    /// Do not offer STARTTLS.
    pub hide_starttls: bool,
    /// `<LF>.<LF>` ends DATA.
    pub lf_only: bool,
    /// How much is forgiven.
    pub tolerance: ToleranceLevel,
    /// May not send without AUTH.
    pub require_auth: bool,
    /// AUTH is offered always, any name and password will do, and grant nothing.
    pub any_credentials: bool,
    /// Log every command and reply.
    pub transcript: bool,
    /// The least of TLS that is spoken with it.
    pub tls: TlsFloor,
}

/// One `[[user]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name that SMTP AUTH gives.
    pub name: String,
    /// The argon2id hash, a PHC string that was checked at load; empty where there is no password.
    pub password: Secret,
    /// A certificate with one of these is as good as the password.
    pub certificates: Vec<CertificatePattern>,
    /// Narrows the allowlist.
    pub senders: Option<Vec<Pattern>>,
    /// Narrows the allowlist.
    pub recipients: Option<Vec<Pattern>>,
}

/// The client with the longest prefix over the address; of equals the first. IPv4 is compared as IPv4, in whatever
/// form socket or configuration give it.
pub(super) fn longest(clients: &[Client], ip: IpAddr) -> Option<&Client> {
    let mut best: Option<(u8, &Client)> = None;
    for client in clients {
        for network in &client.networks {
            if let Some(length) = prefix_over(network, ip.to_canonical())
                && best.is_none_or(|(longest, _)| length > longest)
            {
                best = Some((length, client));
            }
        }
    }
    best.map(|(_, client)| client)
}

/// The length of the prefix, where the network holds the (canonical) address.
fn prefix_over(network: &IpNet, ip: IpAddr) -> Option<u8> {
    if network.contains(&ip) {
        return Some(network.prefix_len());
    }
    // `::ffff:10.0.0.0/104` is 10.0.0.0/8; `::/0` is not all of IPv4.
    match (network, ip) {
        (IpNet::V6(net), IpAddr::V4(v4)) => {
            net.network().to_ipv4_mapped()?;
            let length = net.prefix_len().checked_sub(96)?;
            net.contains(&v4.to_ipv6_mapped()).then_some(length)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::client;

    #[test]
    fn longest_prefix() {
        let clients = [
            client("all", "0.0.0.0/0"),
            client("ten", "10.0.0.0/8 fd00::/8"),
            client("one", "10.0.0.5/32"),
            client("again", "10.0.0.0/8"),
            client("mapped", "::ffff:192.168.0.0/112"),
        ];
        for (ip, expected) in [
            ("10.0.0.5", Some("one")),
            ("::ffff:10.0.0.5", Some("one")),
            ("10.0.0.6", Some("ten")),
            ("::ffff:10.0.0.6", Some("ten")),
            ("11.0.0.1", Some("all")),
            ("192.168.0.9", Some("mapped")),
            ("::ffff:192.168.0.9", Some("mapped")),
            ("fd00::1", Some("ten")),
            ("2001:db8::1", None),
        ] {
            let found = longest(&clients, ip.parse().unwrap());
            assert_eq!(found.map(|c| c.name.as_str()), expected, "{ip}");
        }
        assert_eq!(longest(&[], "127.0.0.1".parse().unwrap()), None);
        let six = [client("six", "::/0")];
        assert_eq!(longest(&six, "127.0.0.1".parse().unwrap()), None);
    }
}
