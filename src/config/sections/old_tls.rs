//! Old TLS of clients: only for small or private networks, and only where a listener can speak it.

use std::collections::HashSet;

use ipnet::IpNet;

use super::{
    client::{Clients, Located},
    context::Context,
    listener::{ListenerSection, ListenerSections},
    relay::{canonical, is_public},
    user::Users,
};
use crate::{
    config::{
        diagnostic::Span,
        table::At,
        values::{Fault, fault},
    },
    mail::tls::{TlsFloor, TlsVersion},
    old_tls,
    policy::{AuthMode, certificate::ClientCertificates},
};

/// Public addresses of one client that may speak it.
const ADDRESSES: u64 = 256;

pub(super) fn check(
    context: Context<'_>,
    listeners: &ListenerSections,
    clients: &Clients,
    users: &Users,
) {
    let old: Vec<(&Located, &Span)> = clients
        .all
        .iter()
        .filter_map(|located| Some((located, located.old_span.as_ref()?)))
        .collect();
    for (located, span) in &old {
        if !old_tls::IS_BUILT {
            context.error(
                span,
                fault!("this program was built without old TLS";
                    "use one that was built with the cargo feature old-tls, as every package is"),
            );
            continue;
        }
        if let Some(At { value, span }) = too_many(&located.networks) {
            context.error(
                span,
                fault!("{} would be spoken with more than {ADDRESSES} public addresses, or more than one /64 of IPv6, in {value}", spoken(located.client.tls);
                    "name only the networks of the devices that need it, in a [[client]] of their own"),
            );
        }
        if !listeners.all.is_empty() {
            keys(context, &listeners.all, span, located.client.tls);
            passwords(context, &listeners.all, users, located, span);
        }
    }
    if old.is_empty() {
        for span in listeners.all.iter().filter_map(|l| l.old_span.as_ref()) {
            context.warning(
                span,
                fault!("`old_certificate` has no effect: no [[client]] may speak old TLS";
                    "add min_tls = \"1.0\", \"1.1\" or old_ciphers = true to the [[client]] of the devices that need it"),
            );
        }
    }
}

/// What is weak in what is spoken.
pub(super) fn spoken(tls: TlsFloor) -> String {
    if tls.min < TlsVersion::V1_2 {
        tls.min.to_string()
    } else {
        format!("{} with old ciphers", tls.min)
    }
}

/// The network that is too wide by itself, or makes the sum too large.
fn too_many(networks: &[At<IpNet>]) -> Option<&At<IpNet>> {
    let (mut four, mut six) = (0u64, 0u64);
    // Single addresses of a /64 are no more than the whole of it.
    let mut places: HashSet<u128> = HashSet::new();
    networks.iter().find(|at| {
        let network = canonical(at.value);
        if !is_public(&network) {
            return false;
        }
        match network {
            IpNet::V4(network) => {
                four = four.saturating_add(1 << (32 - network.prefix_len()));
                four > ADDRESSES
            }
            IpNet::V6(network) => {
                match network.prefix_len() {
                    64.. => {
                        places.insert(network.network().to_bits() >> 64);
                    }
                    length => {
                        let inside = 1u64.checked_shl(u32::from(64 - length));
                        six = six.saturating_add(inside.unwrap_or(u64::MAX));
                    }
                }
                six.saturating_add(places.len() as u64) > 1
            }
        }
    })
}

/// Whether any listener has the key that an old client needs.
fn keys(context: Context<'_>, listeners: &[ListenerSection], span: &Span, tls: TlsFloor) {
    let (spoken, with): (String, Vec<&ListenerSection>) = (
        spoken(tls),
        listeners
            .iter()
            // Where a certificate is required there is no old TLS.
            .filter(|l| l.settings.certificate.is_some())
            .filter(|l| l.settings.client_certificates() != ClientCertificates::Required)
            .collect(),
    );
    if with.is_empty() && listeners.iter().any(|l| l.settings.certificate.is_some()) {
        context.warning(
            span,
            fault!("every listener with TLS requires a certificate of its clients, which {spoken} does not show here, so nobody can speak it";
                "write client_certificates = \"optional\", or give these devices a [[listener]] of their own"),
        );
        return;
    }
    if with.is_empty() {
        context.warning(
            span,
            fault!("no listener speaks TLS at all, so nobody can speak {spoken}";
                "add tls = \"starttls\", `certificate` and `key` to a [[listener]]"),
        );
        return;
    }
    // What nobody has looked at may be right.
    if with.iter().all(|l| l.is_rsa == Some(false)) {
        context.warning(
            span,
            fault!("{spoken} needs an RSA key, for nearly every device, and no listener has one";
                "`postern cert --rsa` makes a certificate with one: name it as old_certificate and old_key of the [[listener]]"),
        );
    }
}

/// Whether passwords would be said over it.
fn passwords(
    context: Context<'_>,
    listeners: &[ListenerSection],
    users: &Users,
    located: &Located,
    span: &Span,
) {
    let is_asked =
        |l: &ListenerSection| l.settings.auth != AuthMode::Off && l.settings.certificate.is_some();
    if !users.have_passwords() || located.client.any_credentials || !listeners.iter().any(is_asked)
    {
        return;
    }
    let networks: Vec<String> = located
        .networks
        .iter()
        .map(|at| at.value.to_string())
        .collect();
    context.warning(
        span,
        Fault::new(
            format!(
                "passwords travel under {} from {}",
                spoken(located.client.tls),
                networks.join(", ")
            ),
            "give these devices users of their own, with narrow `senders` and `recipients`; or let them send without a login",
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_weak_stays_in_a_network() {
        for (networks, expected) in [
            ("10.0.0.0/8 fc00::/7 192.168.0.0/16", None),
            ("192.0.2.0/24", None),
            ("2a00::1/128 2a00::2/128 2a00::ffff/128", None),
            ("2a00::1/128 2a01::1/128", Some("2a01::1/128")),
            ("2a00::/64 2a00::1/128", None),
            ("2a00::/63", Some("2a00::/63")),
            ("192.0.2.0/23", Some("192.0.2.0/23")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("192.0.2.0/25 10.0.0.0/8 198.51.100.0/25", None),
            (
                "192.0.2.0/25 198.51.100.0/25 203.0.113.7/32",
                Some("203.0.113.7/32"),
            ),
            ("::ffff:192.0.2.0/119", Some("::ffff:192.0.2.0/119")),
            ("2001:db8::/64", None),
            ("2001:db8::/63", Some("2001:db8::/63")),
            ("::/0", Some("::/0")),
            ("2001:db8::/64 2001:db8:1::/64", Some("2001:db8:1::/64")),
            ("2001:db8::1/128 2001:db8::2/128", None),
        ] {
            let networks: Vec<At<IpNet>> = networks
                .split(' ')
                .map(|network| At {
                    value: network.parse().unwrap(),
                    span: 0..0,
                })
                .collect();
            let found = too_many(&networks).map(|at| at.value.to_string());
            assert_eq!(found.as_deref(), expected);
        }
    }
}
