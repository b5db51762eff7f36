//! Values as other programs write them, made into values that the configuration takes, or nothing.
//!
//! What comes out of here is fit to be written: no control characters, no host that is none. It decides nothing about mail.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::{
    config::values,
    mail::{address::Address, text::is_printable},
};

/// No value of a configuration is longer.
const LONGEST: usize = 1000;

/// A word that can be written into a configuration and shown: nothing in it was lost in decoding, and no terminal obeys it.
pub(super) fn is_fine(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST
        && text.chars().all(|c| is_printable(c) && c != '\u{fffd}')
}

/// Transports that every Postfix has.
const TRANSPORTS: [&str; 12] = [
    "smtp", "relay", "lmtp", "smtps", "local", "virtual", "error", "retry", "discard", "uucp",
    "bsmtp", "maildrop",
];

/// A next hop for people, with or without its transport. What is none may be a login, and is not shown.
pub(super) fn shown_hop(text: &str) -> String {
    if let Some((transport, hop)) = text.split_once(':')
        && TRANSPORTS.contains(&transport)
    {
        let is_fine = hop.is_empty() || is_hop(hop);
        return format!("{transport}:{}", if is_fine { hop } else { "…" });
    }
    if is_hop(text) || TRANSPORTS.contains(&text) {
        return text.to_owned();
    }
    let after = text.rsplit_once('@').map(|(_, host)| host);
    match after.filter(|host| is_hop(host)) {
        Some(host) => format!("…@{host}"),
        None => "…".to_owned(),
    }
}

/// `host`, `[host]`, and each with a port.
fn is_hop(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !text.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    host(name).is_some() && port.is_none_or(|port| port_of(port).is_some())
}

/// A password that can be kept in a file: one line, as it was.
pub(super) fn is_password(text: &str) -> bool {
    !text.is_empty() && text.len() <= 4096 && !text.contains(['\n', '\r', '\0', '\u{fffd}'])
}

/// A name or an address, without the brackets that say "ask no MX".
pub(super) fn host(text: &str) -> Option<String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let bare = bare.strip_prefix("ipv6:").unwrap_or(bare);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some(ip.to_string());
    }
    let domain = values::domain(bare).ok()?;
    (!domain.is_literal() && is_fine(bare)).then(|| domain.to_string())
}

/// A domain that completes bare names.
pub(super) fn domain(text: &str) -> Option<String> {
    let domain = values::domain(text).ok().filter(|d| !d.is_literal())?;
    is_fine(text).then(|| domain.to_string())
}

/// Only this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// One address.
pub(super) fn address(text: &str) -> Option<String> {
    let address: Address = values::address(text).ok()?;
    is_fine(text).then(|| address.to_string())
}

/// A pattern of a sender or recipient.
pub(super) fn pattern(text: &str) -> Option<String> {
    (is_fine(text) && values::pattern(text).is_ok()).then(|| text.to_owned())
}

/// A network or one address, with or without brackets; bits behind the prefix are cleared.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let bare = ip.trim_start_matches('[').trim_end_matches(']');
    let ip: IpAddr = bare.parse().ok()?;
    let network = match prefix {
        None => IpNet::from(ip.to_canonical()),
        Some(mask) => {
            if let Ok(prefix) = mask.parse::<u8>() {
                IpNet::new(ip, prefix).ok()?
            } else {
                IpNet::with_netmask(ip, mask.parse().ok()?).ok()?
            }
        }
    };
    // IPv4 inside IPv6 is IPv4; the configuration says so too.
    let written = network.trunc().to_string();
    let taken = values::network(&written).or_else(|_| {
        let IpNet::V6(six) = network else {
            return values::network("");
        };
        let four = six
            .addr()
            .to_ipv4_mapped()
            .filter(|_| six.prefix_len() >= 96);
        four.map_or_else(
            || values::network(""),
            |four| {
                let prefix = six.prefix_len() - 96;
                IpNet::new(four.into(), prefix)
                    .map_or_else(|_| values::network(""), |net| Ok(net.trunc()))
            },
        )
    });
    taken.ok().map(|network| network.trunc())
}

/// A number, or the name of a service that speaks SMTP.
pub(super) fn port_of(text: &str) -> Option<u16> {
    match text {
        "smtp" => Some(25),
        "submission" => Some(587),
        "smtps" | "submissions" | "ssmtp" => Some(465),
        _ => text.parse().ok().filter(|port| *port > 0),
    }
}

/// A name of a section: what it may not hold becomes `-`.
pub(super) fn section_name(text: &str, otherwise: &str) -> String {
    let name: String = text
        .chars()
        .take(60)
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let name = name.trim_matches(['-', '.']).to_ascii_lowercase();
    if name.is_empty() {
        otherwise.to_owned()
    } else {
        name
    }
}

/// The same name with a number behind it, where it is taken.
pub(super) fn unique(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    (2..100_000)
        .map(|number| format!("{name}-{number}"))
        .find(|name| !taken(name))
        .unwrap_or_default()
}

/// In the largest unit that says it exactly.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    for (length, unit) in [(86_400, "d"), (3600, "h"), (60, "m")] {
        if seconds > 0 && seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

/// In the largest unit that says it exactly; between what the configuration takes.
pub(super) fn size(octets: u64) -> String {
    let octets = octets.clamp(1024, 2 << 30);
    for (length, unit) in [
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
        (1_000_000, "MB"),
        (1000, "KB"),
    ] {
        if octets.is_multiple_of(length) {
            return format!("{}{unit}", octets / length);
        }
    }
    format!("{octets}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_networks() {
        assert_eq!(
            host("[relay.corp.example]").as_deref(),
            Some("relay.corp.example")
        );
        assert_eq!(host("[192.0.2.7]").as_deref(), Some("192.0.2.7"));
        assert_eq!(host("[ipv6:::1]").as_deref(), Some("::1"));
        for odd in ["", "a b", "a\u{1b}[2J", "$relay", "a:587"] {
            assert_eq!(host(odd), None, "{odd:?}");
        }
        for (text, expected) in [
            ("127.0.0.0/8", "127.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("[::1]/128", "::1/128"),
            ("[::ffff:127.0.0.0]/104", "127.0.0.0/8"),
            ("[fd00::]/64", "fd00::/64"),
            ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.0.0.0/8 ", "-"),
            ("corp.example", "-"),
            ("10.0.0.0/33", "-"),
        ] {
            let found = network(text).map_or_else(|| "-".to_owned(), |n| n.to_string());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn lengths() {
        assert_eq!(duration(Duration::from_hours(120)), "5d");
        assert_eq!(duration(Duration::from_secs(90)), "90s");
        assert_eq!(size(10_240_000), "10000KiB");
        assert_eq!(size(25 << 20), "25MiB");
        assert_eq!(size(1_000_001), "1000001B");
        for text in [
            duration(Duration::from_secs(1)),
            duration(Duration::from_hours(1)),
        ] {
            assert!(values::duration(&text).is_ok(), "{text}");
        }
        for octets in [0, 1, 1023, 1 << 40, 12_345_678] {
            assert!(values::size(&size(octets)).is_ok(), "{octets}");
        }
    }
}
