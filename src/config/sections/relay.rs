//! What several sections say together: open relays, and logins that nobody could make.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    client::{Clients, Located},
    client_owner,
    context::Context,
    listener::{ListenerSection, ListenerSections},
    user::Users,
};
use crate::{
    config::{
        table::At,
        values::{Fault, fault},
    },
    listener::TlsMode,
    mail::pattern::is_the_world,
    policy::{Allowlist, AuthMode, client::Client},
};

pub(super) fn check(
    context: Context<'_>,
    listeners: &ListenerSections,
    clients: &Clients,
    users: &Users,
    allowlist: Option<&Allowlist>,
) {
    logins(context, listeners, clients, users);
    client_owner::check(context, listeners, users);
    if !allowlist.is_some_and(|list| is_the_world(&list.recipients)) {
        return;
    }
    let relaying: Vec<&Located> = clients
        .all
        .iter()
        .filter(|located| {
            let own = located.client.recipients.as_ref();
            !located.client.require_auth && own.is_none_or(|list| is_the_world(list))
        })
        .collect();
    open_relay(context, listeners, &relaying);
    for listener in &listeners.all {
        believed(context, listener, &relaying);
    }
}

fn logins(context: Context<'_>, listeners: &ListenerSections, clients: &Clients, users: &Users) {
    let any_credentials = clients.all.iter().any(|c| c.client.any_credentials);
    let offers_auth = |l: &ListenerSection| l.settings.auth != AuthMode::Off;
    let offers = |l: &ListenerSection| offers_auth(l) || l.certificates_span.is_some();
    for listener in listeners.all.iter().filter(|l| offers_auth(l)) {
        let settings = &listener.settings;
        if settings.tls == TlsMode::Off && !settings.plaintext_auth && !any_credentials {
            context.error(
                &listener.auth_span,
                fault!("nobody could log in: there is no TLS, and without TLS AUTH is not offered";
                    "add tls = \"starttls\", `certificate` and `key`; or plaintext_auth = true on a trusted network"),
            );
        }
        if users.span.is_none() && !any_credentials {
            context.error(
                &listener.auth_span,
                fault!("nobody could log in: there is no [[user]]";
                    "add\n[[user]]\nname = \"app\"\npassword = \"$argon2id$…\"   # postern hash-password"),
            );
        }
    }
    if listeners.all.is_empty() || listeners.all.iter().any(offers) {
        return;
    }
    for client in clients.all.iter().filter(|c| c.client.require_auth) {
        context.error(
            &client.span,
            fault!("the client \"{}\" must log in, but no listener offers AUTH", client.client.name;
                "add auth = \"optional\" to a [[listener]]"),
        );
    }
    if let Some(span) = &users.span {
        context.warning(
            span,
            fault!("no listener offers AUTH, so no [[user]] can log in";
                "add auth = \"optional\" to a [[listener]]"),
        );
    }
}

/// Whether this client may send by that listener without a login. Where any name and password will do, a required login
/// requires nothing.
fn is_open_to(listener: &ListenerSection, client: &Client) -> bool {
    listener.settings.auth != AuthMode::Required || client.any_credentials
}

/// Public addresses, wider than /16 (IPv6: /32), without a login, to anybody: that is a relay for the whole world.
fn open_relay(context: Context<'_>, listeners: &ListenerSections, relaying: &[&Located]) {
    const HINT: &str =
        "name smaller networks, or the `recipients` this client needs, or add require_auth = true";
    let mut narrow = Vec::new();
    for located in relaying {
        let mut reachable = listeners.all.iter().filter(|l| !l.is_loopback());
        let Some(listener) = reachable.find(|l| is_open_to(l, &located.client)) else {
            continue;
        };
        let name = &listener.settings.name;
        for At { value, span } in &located.networks {
            if is_wide_and_public(value) {
                context.error(span, Fault::new(
                        format!(
                            "open relay: everybody in {value} could send to anybody through the listener \"{name}\" without a login"
                        ),
                        HINT,
                    ));
            } else {
                narrow.push((value, span, name));
            }
        }
    }
    // Many small networks are a large one.
    let networks: Vec<IpNet> = narrow.iter().map(|(network, ..)| **network).collect();
    if let Some(whole) = wide_together(&networks)
        && let Some((_, span, name)) = narrow.iter().find(|(network, ..)| whole.holds(network))
    {
        context.error(span, Fault::new(
                format!(
                    "open relay: {whole} could send to anybody through the listener \"{name}\" without a login"
                ),
                HINT,
            ));
    }
}

/// Who may send a PROXY header says which client he is.
fn believed(context: Context<'_>, listener: &ListenerSection, relaying: &[&Located]) {
    if listener.is_bound_to_loopback() {
        return;
    }
    let Some(located) = relaying
        .iter()
        .find(|located| is_open_to(listener, &located.client))
    else {
        return;
    };
    let fault = |who: &str| {
        fault!(
            "open relay: {who} may claim in a PROXY header to be the client \"{}\", and so could send to anybody through the listener \"{}\" without a login", located.client.name, listener.settings.name;
            "name only the addresses of your proxies, as in proxy_protocol = [\"10.20.0.5\"]")
    };
    let (wide, narrow): (Vec<_>, Vec<_>) = listener
        .proxies
        .iter()
        .partition(|at| is_wide_and_public(&at.value));
    for At { value, span } in wide {
        context.error(span, fault(&format!("everybody in {value}")));
    }
    let networks: Vec<IpNet> = narrow.iter().map(|at| at.value).collect();
    if let Some(whole) = wide_together(&networks)
        && let Some(first) = narrow.iter().find(|at| whole.holds(&at.value))
    {
        context.error(&first.span, fault(&whole.to_string()));
    }
}

/// Networks that are wide only together.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Together {
    /// They are neighbours, and this is what they make up.
    One(IpNet),
    /// They lie apart, and are so many.
    Many(usize),
}

impl Together {
    fn holds(&self, network: &IpNet) -> bool {
        match self {
            Self::One(whole) => whole.contains(&canonical(*network)),
            Self::Many(_) => is_public(&canonical(*network)),
        }
    }
}

impl std::fmt::Display for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(whole) => write!(f, "everybody in {whole}, which these networks make up,"),
            Self::Many(count) => write!(f, "everybody in {count} large public networks"),
        }
    }
}

/// Whether networks are wide together: as neighbours that make up a wide one, or as more than sixteen times the widest
/// that may stand alone.
fn wide_together(networks: &[IpNet]) -> Option<Together> {
    let public: Vec<IpNet> = networks
        .iter()
        .map(|network| canonical(*network))
        .filter(is_public)
        .collect();
    let whole = IpNet::aggregate(&public);
    if let Some(wide) = whole.iter().find(|network| is_wide_and_public(network)) {
        return Some(Together::One(*wide));
    }
    // In parts of a /32, and of a /64 for IPv6.
    let (mut four, mut six) = (0u64, 0u64);
    for network in &whole {
        let (sum, bits) = match network {
            IpNet::V4(network) => (&mut four, 32 - network.prefix_len()),
            IpNet::V6(network) => (&mut six, 64 - network.prefix_len().min(64)),
        };
        *sum = sum.saturating_add(1 << bits);
    }
    (four > 1 << 20 || six > 1 << 36).then_some(Together::Many(public.len()))
}

/// IPv4 networks as such, in whatever form they are written: as addresses of a dual-stack socket, or behind NAT64 (RFC 6052
/// §2.1).
pub(super) fn canonical(network: IpNet) -> IpNet {
    const MAPPED: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
    ];
    let IpNet::V6(six) = network else {
        return network;
    };
    let [.., a, b, c, d] = six.network().octets();
    let inside = MAPPED
        .iter()
        .filter_map(|ip| Ipv6Net::new(*ip, 96).ok())
        .any(|mapped| mapped.contains(&six));
    six.prefix_len()
        .checked_sub(96)
        .filter(|_| inside)
        .and_then(|prefix| Ipv4Net::new(Ipv4Addr::new(a, b, c, d), prefix).ok())
        .map_or(network, IpNet::V4)
}

fn is_wide_and_public(network: &IpNet) -> bool {
    let network = canonical(*network);
    let most = match network {
        IpNet::V4(_) => 16,
        IpNet::V6(_) => 32,
    };
    network.prefix_len() < most && is_public(&network)
}

/// Whether it is not all in private networks; of canonical ones.
pub(super) fn is_public(network: &IpNet) -> bool {
    const PRIVATE_V4: [(Ipv4Addr, u8); 6] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    const PRIVATE_V6: [(Ipv6Addr, u8); 3] = [
        (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        (Ipv6Addr::LOCALHOST, 128),
    ];
    match network {
        IpNet::V4(network) => !PRIVATE_V4
            .iter()
            .filter_map(|(ip, prefix)| Ipv4Net::new(*ip, *prefix).ok())
            .any(|private| private.contains(network)),
        IpNet::V6(network) => !PRIVATE_V6
            .iter()
            .filter_map(|(ip, prefix)| Ipv6Net::new(*ip, *prefix).ok())
            .any(|private| private.contains(network)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_public() {
        fn check(network: &str, expected: bool) {
            assert_eq!(
                is_wide_and_public(&network.parse().unwrap()),
                expected,
                "{network}"
            );
        }
        for wide in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "8.0.0.0/15",
            "172.0.0.0/8",
            "::/0",
            "2000::/3",
            "2001:db8::/31",
            "::ffff:0:0/96",
            "::ffff:8.0.0.0/111",
            "64:ff9b::/96",
            "2002::/16",
        ] {
            check(wide, true);
        }
        for fine in [
            "10.0.0.0/8",
            "192.0.0.0/16",
            "172.16.0.0/12",
            "127.0.0.0/8",
            "8.8.0.0/16",
            "fc00::/7",
            "2001:db8::/32",
            "::ffff:10.0.0.0/104",
            "::ffff:8.8.0.0/112",
            "::1/128",
        ] {
            check(fine, false);
        }
    }

    #[test]
    fn many_small_networks() {
        fn check(networks: &[String], expected: Option<&str>) {
            let networks: Vec<IpNet> = networks.iter().map(|n| n.parse().unwrap()).collect();
            let found = wide_together(&networks).map(|whole| whole.to_string());
            assert_eq!(found.as_deref(), expected, "{networks:?}");
        }
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let neighbours = Some("everybody in 8.8.0.0/15, which these networks make up,");
        check(&list("8.8.0.0/16 8.9.0.0/16"), neighbours);
        check(
            &list("8.9.0.0/17 8.8.0.0/16 10.0.0.0/9 8.9.128.0/17"),
            neighbours,
        );
        check(&list("::ffff:8.8.0.0/112 8.9.0.0/16"), neighbours);
        check(&list("8.8.0.0/16 8.10.0.0/16 192.0.2.0/24"), None);
        check(&list("10.0.0.0/9 10.128.0.0/9"), None);
        // They lie apart; one of them is private.
        let apart: Vec<String> = (8..60).map(|n| format!("{n}.0.0.0/17")).collect();
        check(&apart, Some("everybody in 51 large public networks"));
        check(&apart[..20], None);
        let six: Vec<String> = (0..20).map(|n| format!("2a00:{}::/32", n * 2)).collect();
        check(&six, Some("everybody in 20 large public networks"));
        check(&six[..10], None);
    }
}
