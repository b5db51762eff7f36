//! What several sections say together: open relays, and logins that nobody could make.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Ground,
    client::{Clients, Located, Users},
    listener::{Listener, Listeners},
};
use crate::{
    config::values::Fault,
    listener::TlsMode,
    mail::pattern::Pattern,
    policy::{Allowlist, AuthMode},
};

pub(super) fn check(
    ground: Ground<'_>,
    listeners: &Listeners,
    clients: &Clients,
    users: &Users,
    allowlist: Option<&Allowlist>,
) {
    logins(ground, listeners, clients, users);
    if let Some(allowlist) = allowlist
        && allowlist.recipients.iter().any(Pattern::is_anything)
    {
        for client in &clients.all {
            open_relay(ground, listeners, client);
        }
    }
}

fn logins(ground: Ground<'_>, listeners: &Listeners, clients: &Clients, users: &Users) {
    let any_credentials = clients.all.iter().any(|c| c.client.any_credentials);
    let offers = |l: &Listener| l.settings.auth != AuthMode::Off;
    for listener in listeners.all.iter().filter(|l| offers(l)) {
        let settings = &listener.settings;
        if settings.tls == TlsMode::Off && !settings.plaintext_auth && !any_credentials {
            ground.source.error(
                &listener.auth_span,
                Fault::new(
                    "nobody could log in: there is no TLS, and without TLS AUTH is not offered",
                    "add tls = \"starttls\", `certificate` and `key`; or plaintext_auth = true on a trusted network",
                ),
            );
        }
        if users.span.is_none() && !any_credentials {
            ground.source.error(
                &listener.auth_span,
                Fault::new(
                    "nobody could log in: there is no [[user]]",
                    "add\n[[user]]\nname = \"app\"\npassword = \"$argon2id$…\"   # postern hash-password",
                ),
            );
        }
    }
    if listeners.all.is_empty() || listeners.all.iter().any(offers) {
        return;
    }
    for client in clients.all.iter().filter(|c| c.client.require_auth) {
        ground.source.error(
            &client.span,
            Fault::new(
                format!(
                    "the client \"{}\" must log in, but no listener offers AUTH",
                    client.client.name
                ),
                "add auth = \"optional\" to a [[listener]]",
            ),
        );
    }
    if let Some(span) = &users.span {
        ground.source.warning(
            span,
            Fault::new(
                "no listener offers AUTH, so no [[user]] can log in",
                "add auth = \"optional\" to a [[listener]]",
            ),
        );
    }
}

/// Public addresses, wider than /16 (IPv6: /32), without a login, to anybody: that is a relay for the whole world.
fn open_relay(ground: Ground<'_>, listeners: &Listeners, located: &Located) {
    let client = &located.client;
    let to_anybody = client
        .recipients
        .as_ref()
        .is_none_or(|list| list.iter().any(Pattern::is_anything));
    if !to_anybody || client.require_auth {
        return;
    }
    // Where any name and password will do, a required login requires nothing.
    let Some(listener) = listeners.all.iter().find(|l| {
        !l.is_loopback() && (l.settings.auth != AuthMode::Required || client.any_credentials)
    }) else {
        return;
    };
    for network in &located.networks {
        if is_wide_and_public(&network.value) {
            ground.source.error(
                &network.span,
                Fault::new(
                    format!(
                        "open relay: everybody in {} could send to anybody through the listener \"{}\" without a login",
                        network.value, listener.settings.name
                    ),
                    "name smaller networks, or the `recipients` this client needs, or add require_auth = true",
                ),
            );
        }
    }
}

fn is_wide_and_public(network: &IpNet) -> bool {
    const PRIVATE_V4: [(Ipv4Addr, u8); 6] = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    const PRIVATE_V6: [(Ipv6Addr, u8); 2] = [
        (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
        (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    ];
    match network {
        IpNet::V4(network) => {
            network.prefix_len() < 16
                && !PRIVATE_V4
                    .iter()
                    .filter_map(|(ip, prefix)| Ipv4Net::new(*ip, *prefix).ok())
                    .any(|private| private.contains(network))
        }
        IpNet::V6(network) => {
            network.prefix_len() < 32
                && !PRIVATE_V6
                    .iter()
                    .filter_map(|(ip, prefix)| Ipv6Net::new(*ip, *prefix).ok())
                    .any(|private| private.contains(network))
        }
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
        ] {
            check(fine, false);
        }
    }
}
