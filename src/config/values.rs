//! Durations, sizes and rates as the file writes them: `"5m"`, `"35MiB"`, `"30/min"`.
//!
//! They are plain functions on text, with tables of their own. They know no keys and no spans; `table` puts
//! their words beside the place.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    connector::{Rate, Upload},
    mail::{
        address::{Address, Domain},
        cause::Cause,
        pattern, unicode,
    },
};

/// Why a text is not a value, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The sentence.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Fault {
    /// With a hint.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// A usual mistake: its word in brackets ends the message.
    pub(super) fn of(mut self, cause: Cause) -> Self {
        self.message = cause.marked(&self.message);
        self
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self {
            message,
            hint: None,
        }
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// A sentence and, behind a semicolon, what to write instead; both as `format!` takes them.
macro_rules! fault {
    ($message:literal $(, $part:expr)*) => {
        $crate::config::values::Fault::from(format!($message $(, $part)*))
    };
    ($message:literal $(, $part:expr)*; $hint:literal $(, $hint_part:expr)*) => {
        $crate::config::values::Fault::new(format!($message $(, $part)*), format!($hint $(, $hint_part)*))
    };
}
pub(super) use fault;

/// What helps against what the TOML reader says.
pub(super) fn toml_hint(said: &str, text: &str, at: &std::ops::Range<usize>) -> Option<String> {
    if said.starts_with("string values must be quoted") {
        return Some("put the value in quotes: key = \"value\"".to_owned());
    }
    let line_end = text.get(at.start..).and_then(|rest| rest.find('\n'));
    let line = text
        .get(..line_end.map_or(text.len(), |end| at.start + end))
        .and_then(|before| before.rsplit('\n').next())
        .unwrap_or_default();
    let is_escape = said.starts_with("missing escaped value")
        || said.contains("unicode value digits")
        || said.contains("hexadecimal value")
        // The backslash took the closing quote.
        || (said.starts_with("invalid basic string") && line.contains('\\'));
    is_escape.then(|| BACKSLASH.to_owned())
}

/// Of a backslash that was meant as one.
pub(super) const BACKSLASH: &str = "between \" and \" a backslash begins an escape such as \\n: write the value between single quotes, as in 'CORP\\relay', or double the backslash";

/// A control character of a text, in a word, or nothing.
pub(super) fn control_character(text: &str) -> Option<String> {
    let found = text.chars().find(|c| c.is_control())?;
    Some(match found {
        '\u{8}' => "a backspace, \\b".to_owned(),
        '\t' => "a tab, \\t".to_owned(),
        '\n' => "a line break, \\n".to_owned(),
        '\u{c}' => "a form feed, \\f".to_owned(),
        '\r' => "a carriage return, \\r".to_owned(),
        '\u{1b}' => "an escape, \\e".to_owned(),
        other => format!("U+{:04X}", u32::from(other)),
    })
}

/// `"90s" "5m" "2h" "7d" "500ms"`.
///
/// # Errors
/// A [`Fault`] that shows the form.
pub fn duration(text: &str) -> Result<Duration, Fault> {
    let fault = |why: &str| {
        fault!("not a duration: {why}";
            "write a number and a unit, as in \"500ms\", \"90s\", \"5m\", \"2h\", \"7d\"")
    };
    let (number, unit) = split_unit(text).ok_or_else(|| fault("it has no number"))?;
    let meant = |number: u64, unit: &str| fault!("not a duration: this unit is not known"; "write \"{number}{unit}\"");
    let millis: u64 = match unit {
        "ms" => 1,
        "s" | "sec" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(fault("it has no unit")),
        _ => {
            return Err(match unit.to_ascii_lowercase().as_str() {
                "second" | "seconds" | "secs" => meant(number, "s"),
                "minute" | "minutes" | "mins" | "m" => meant(number, "m"),
                "hour" | "hours" | "hr" | "hrs" | "h" => meant(number, "h"),
                "day" | "days" | "d" => meant(number, "d"),
                "w" | "week" | "weeks" => meant(number.saturating_mul(7), "d"),
                _ => fault("this unit is not known"),
            });
        }
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(|| fault("it is too long"))
}

/// `"35MiB" "10MB" "512KiB" "2GiB" "100B"`, in octets.
///
/// # Errors
/// A [`Fault`] that shows the form.
pub fn size(text: &str) -> Result<u64, Fault> {
    let fault = |why: &str| {
        fault!("not a size: {why}";
            "write a number and a unit, as in \"512KiB\", \"35MiB\", \"10MB\", \"2GiB\"")
    };
    let (number, unit) = split_unit(text).ok_or_else(|| fault("it has no number"))?;
    let octets: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "" => return Err(fault("it has no unit")),
        other => {
            let unit = match other {
                "k" => "KiB",
                "m" => "MiB",
                "g" => "GiB",
                _ => return Err(fault("this unit is not known")),
            };
            return Err(fault!("not a size: this unit is not known"; "write \"{number}{unit}\""));
        }
    };
    number
        .checked_mul(octets)
        .ok_or_else(|| fault("it is too large"))
}

/// `"30/min"`, `"100/10min"`: messages in a window; `s`, `min`, `h` or `d`.
///
/// # Errors
/// A [`Fault`] that shows the form.
pub fn rate(text: &str) -> Result<Rate, Fault> {
    let fault = |why: &str| {
        fault!("not a rate: {why}";
            "write a number and a window, as in \"2/s\", \"30/min\", \"100/10min\", \"2000/d\"")
    };
    let (count, per) = text
        .split_once('/')
        .ok_or_else(|| fault("it has no window"))?;
    let count = count
        .trim()
        .parse::<u32>()
        .map_err(|_| fault("it does not begin with a number"))?;
    if count == 0 {
        return Err(fault("0 would never send anything"));
    }
    let per = window(per).map_err(fault)?;
    Ok(Rate { count, per })
}

/// `"150MB/5min"`: octets in a window.
///
/// # Errors
/// A [`Fault`] that shows the form.
pub fn upload(text: &str) -> Result<Upload, Fault> {
    let fault = |why: &str| {
        fault!("not an upload rate: {why}";
            "write a size and a window, as in \"150MB/5min\", \"1GB/h\"")
    };
    let (octets, per) = text
        .split_once('/')
        .ok_or_else(|| fault("it has no window"))?;
    let octets = size(octets.trim())?;
    if octets == 0 {
        return Err(fault("0 would never send anything"));
    }
    let per = window(per).map_err(fault)?;
    Ok(Upload { octets, per })
}

/// `min`, `5min`: up to a week.
fn window(text: &str) -> Result<Duration, &'static str> {
    let text = text.trim();
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(end).unwrap_or((text, ""));
    let unit = match unit {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        "d" | "day" => 86_400,
        _ => return Err("this window is not known"),
    };
    let number = match number {
        "" => 1,
        number => number.parse::<u64>().unwrap_or(u64::MAX),
    };
    match number.saturating_mul(unit) {
        0 => Err("its window is empty"),
        seconds @ 1..=604_800 => Ok(Duration::from_secs(seconds)),
        _ => Err("its window is longer than a week"),
    }
}

/// A network in CIDR form or a single address. IPv4 inside IPv6 (`::ffff:10.0.0.0/104`) is IPv4.
///
/// # Errors
/// A [`Fault`]; host bits are refused with the network that was probably meant.
pub fn network(text: &str) -> Result<IpNet, Fault> {
    let form = "write it as in \"10.20.0.0/16\", \"192.0.2.7\" or \"fd00:1::/64\"";
    let write = |meant: String| fault!("not a network"; "write \"{meant}\"");
    if let Ok(ip) = text.parse::<IpAddr>() {
        if let IpAddr::V4(v4) = ip.to_canonical()
            && let [first, second, third, 0] = v4.octets()
        {
            let meant = match (first, second, third) {
                (0, 0, 0) => 0,
                (_, 0, 0) => 8,
                (_, _, 0) => 16,
                _ => 24,
            };
            return Err(
                fault!("{v4} alone is one address, and one that ends in .0 is hardly a machine";
                    "write the network \"{v4}/{meant}\"; \"{v4}/32\" is this one address"),
            );
        }
        return Ok(IpNet::from(ip.to_canonical()));
    }
    if let "*" | "any" | "all" = text {
        return Err(
            fault!("not a network"; "every address is \"0.0.0.0/0\" for IPv4 and \"::/0\" for IPv6"),
        );
    }
    if text == "localhost" {
        return Err(fault!("not a network"; "write \"127.0.0.0/8\" and \"::1\""));
    }
    // As in [::1], and as in a netmask.
    if let Some(ip) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        && let Ok(ip) = ip.parse::<IpAddr>()
    {
        return Err(write(ip.to_string()));
    }
    if let Some((ip, mask)) = text.split_once('/')
        && let (Ok(ip), Ok(mask)) = (ip.parse::<Ipv4Addr>(), mask.parse::<Ipv4Addr>())
        && let Ok(prefix) = ipnet::ipv4_mask_to_prefix(mask)
        && let Ok(net) = IpNet::new(ip.into(), prefix)
    {
        return Err(write(net.trunc().to_string()));
    }
    // As other programs shorten it: 10.20. and 10.20.*
    let short = text.trim_end_matches(['.', '*']);
    let octets: Vec<_> = short.split('.').map(str::parse::<u8>).collect();
    if short != text && octets.len() < 4 && octets.iter().all(Result::is_ok) {
        let zeros = ".0".repeat(4 - octets.len());
        return Err(write(format!("{short}{zeros}/{}", octets.len() * 8)));
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| Fault::new("not a network", form))?;
    let masked = network.trunc();
    if masked != network {
        return Err(
            fault!("{network} is an address inside a network, with bits behind the /{}", network.prefix_len();
                "write the network \"{masked}\", or the one address \"{}\"", network.addr()),
        );
    }
    Ok(canonical(masked))
}

/// IPv4 inside IPv6 as what it is, since that is how connections are looked up.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(inner) = network else {
        return network;
    };
    let is_mapped = |ip: Ipv6Addr| ip.to_ipv4_mapped();
    match (
        is_mapped(inner.network()),
        inner.prefix_len().checked_sub(96),
    ) {
        (Some(ip), Some(prefix)) => IpNet::new(IpAddr::V4(ip), prefix).unwrap_or(network),
        _ => network,
    }
}

/// A domain as people write it.
///
/// # Errors
/// A [`Fault`] with the rule that is broken.
pub fn domain(text: &str) -> Result<Domain, Fault> {
    pattern::domain_from_file(text).map_err(|why| fault!("not a domain: {}", plain(&why)))
}

/// Octets of a name in the DNS, as it is written (RFC 1035 §2.3.4).
pub const LONGEST_NAME: usize = 253;

/// A name below `_domainkey` (RFC 6376 §3.1).
///
/// # Errors
/// A [`Fault`] with the rule that is broken.
pub fn selector(text: &str) -> Result<String, Fault> {
    match Domain::parse(text) {
        Ok(name) if text.is_ascii() && !name.is_literal() && !text.ends_with('.') => {
            Ok(name.to_string())
        }
        _ => Err(fault!("\"{}\" cannot be a selector", plain(text);
            "it is letters, digits and hyphens, as in \"p2026\"")),
    }
}

/// A name that EHLO may say (RFC 5321 §2.3.5): of several labels of letters, digits and hyphens, and not one that every machine has.
pub fn is_full_name(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let last = labels.last().copied().unwrap_or_default();
    labels.len() > 1
        && labels.iter().all(is_label)
        && !last.bytes().all(|b| b.is_ascii_digit())
        && !["localdomain", "localhost", "local", "invalid"].contains(&last)
        && labels.first() != Some(&"localhost")
}

/// The full name that `/etc/hosts` gives a machine of that name: the first word with a dot on a line that has both.
pub fn full_name(name: &str, hosts: &str) -> Option<String> {
    hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut names = line.split_ascii_whitespace().skip(1);
        let is_ours = names.clone().any(|n| n.eq_ignore_ascii_case(name));
        names
            .find(|n| is_ours && is_full_name(n))
            .map(str::to_ascii_lowercase)
    })
}

/// A mailbox, the domain as people write it.
///
/// # Errors
/// A [`Fault`] with the rule that is broken.
pub fn address(text: &str) -> Result<Address, Fault> {
    let form = "write it as in \"postmaster@corp.example\", without a name and without < >";
    if text.contains(['<', '>']) {
        return Err(Fault::new("not an address alone", form));
    }
    let (local, name) = text
        .rsplit_once('@')
        .ok_or_else(|| Fault::new("not an address: it has no @domain", form))?;
    // A file may have it in another form than the wire.
    Address::complete(&unicode::composed(local), &domain(name)?)
        .map_err(|why| Fault::new(format!("not an address: {why}"), form))
}

/// A pattern, its fault worded as the others.
///
/// # Errors
/// A [`Fault`] with the rule that is broken.
pub fn pattern(text: &str) -> Result<pattern::Pattern, Fault> {
    let pattern = pattern::Pattern::parse(text).map_err(|why| {
        fault!("not a pattern: {}", plain(&why);
            "a pattern is \"*\", \"<>\", \"corp.example\", \"*.corp.example\", \"app@corp.example\" or \"app-*@corp.example\"")
    })?;
    if pattern.is_one_word() {
        let word = plain(text);
        return Err(
            fault!("\"{word}\" alone is read as a domain, and could be meant as a local part";
                "write \"{word}@*\" for that name in any domain, \"{word}@corp.example\" for one address, \"*@{word}\" for the domain"),
        );
    }
    Ok(pattern)
}

pub(super) use crate::mail::text::{is_printable as is_plain, shown as plain};

/// The digits at the start, and the rest without spaces around it.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names() {
        for (name, is_full) in [
            ("relay.corp.example", true),
            ("a-1.b", true),
            ("xn--bcher-kva.example", true),
            ("vm", false),
            ("my_host.corp.example", false),
            ("localhost", false),
            ("localhost.localdomain", false),
            ("vm.localdomain", false),
            ("localhost.corp.example", false),
            ("10.0.0.5", false),
            ("[10.0.0.5]", false),
            ("vm.", false),
            ("", false),
        ] {
            assert_eq!(is_full_name(name), is_full, "{name}");
        }
        let hosts = "127.0.0.1 localhost.localdomain localhost\n# 10.0.0.9 x.example vm\n127.0.1.1\tVM.corp.example vm # mine\n10.0.0.7 other.example other\n";
        assert_eq!(full_name("vm", hosts).as_deref(), Some("vm.corp.example"));
        assert_eq!(full_name("localhost", hosts), None);
        assert_eq!(full_name("box", hosts), None);
        assert_eq!(full_name("vm", ""), None);
    }

    #[test]
    fn durations() {
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(
                duration(text).ok(),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
        for (text, millis) in [
            ("500ms", 500),
            ("90s", 90_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("0s", 0),
            ("5 m", 300_000),
        ] {
            check(text, Some(millis));
        }
        for text in [
            "",
            "5",
            "m",
            "-5m",
            "5y",
            "1.5h",
            "5M",
            "99999999999999999999s",
            "18446744073709551615d",
            "5m5",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn sizes() {
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
        for (text, octets) in [
            ("35MiB", 36_700_160),
            ("10MB", 10_000_000),
            ("1kib", 1024),
            ("2GiB", 2 << 30),
            ("100 B", 100),
        ] {
            check(text, Some(octets));
        }
        for text in [
            "",
            "35",
            "MiB",
            "35M",
            "35 MiBs",
            "18446744073709551615GiB",
            "-1KB",
            "\u{661}KB",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn rates() {
        fn check(text: &str, expected: Option<(u32, u64)>) {
            assert_eq!(
                rate(text).ok(),
                expected.map(|(count, per)| Rate {
                    count,
                    per: Duration::from_secs(per)
                }),
                "{text}"
            );
        }
        check("30/min", Some((30, 60)));
        check("1/s", Some((1, 1)));
        check("2000 / day", Some((2000, 86_400)));
        check("30/6s", Some((30, 6)));
        check("100/10min", Some((100, 600)));
        check("1/7d", Some((1, 604_800)));
        for text in [
            "",
            "30",
            "0/min",
            "-1/s",
            "30/",
            "30/fortnight",
            "/min",
            "4294967296/s",
            "30/0s",
            "30/8d",
            "30/-1s",
            "30/1.5s",
            "30/5",
            "30/99999999999999999999s",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn upload_rates() {
        fn check(text: &str, expected: Option<(u64, u64)>) {
            let found = upload(text).ok().map(|u| (u.octets, u.per.as_secs()));
            assert_eq!(found, expected, "{text}");
        }
        check("150MB/5min", Some((150_000_000, 300)));
        check("1GiB / h", Some((1 << 30, 3600)));
        for text in ["", "150MB", "150/5min", "0MB/min", "/min", "1MB/", "1MB/x"] {
            check(text, None);
        }
    }

    #[test]
    fn networks() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(
                network(text).ok().map(|n| n.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
        check("10.20.0.0/16", Some("10.20.0.0/16"));
        check("10.0.0.5", Some("10.0.0.5/32"));
        check("::1", Some("::1/128"));
        check("::ffff:10.0.0.0/104", Some("10.0.0.0/8"));
        check("::ffff:10.0.0.1", Some("10.0.0.1/32"));
        check("::/0", Some("::/0"));
        for text in [
            "",
            "10.0.0.5/24",
            "10.0.0.0/33",
            "*",
            "corp.example",
            "10.0.0.0-10.0.0.9",
            "fd00::1/64",
        ] {
            check(text, None);
        }
        assert_eq!(
            network("10.0.0.5/24").unwrap_err().hint.as_deref(),
            Some("write the network \"10.0.0.0/24\", or the one address \"10.0.0.5\"")
        );
    }

    #[test]
    fn what_was_meant() {
        fn check<T>(found: Result<T, Fault>, expected: &str) {
            let hint = found.err().and_then(|fault| fault.hint).unwrap_or_default();
            assert!(hint.starts_with(&format!("write {expected}")), "{hint}");
        }
        check(duration("5 minutes"), "\"5m\"");
        check(duration("1w"), "\"7d\"");
        check(duration("5M"), "\"5m\"");
        check(size("35M"), "\"35MiB\"");
        check(size("512 k"), "\"512KiB\"");
        for (text, expected) in [
            ("10.20.0.0", "the network \"10.20.0.0/16\""),
            ("10.0.0.0", "the network \"10.0.0.0/8\""),
            ("192.168.7.0", "the network \"192.168.7.0/24\""),
            ("0.0.0.0", "the network \"0.0.0.0/0\""),
            ("10.20.0.0/255.255.0.0", "\"10.20.0.0/16\""),
            ("10.20.3.4/255.255.0.0", "\"10.20.0.0/16\""),
            ("10.20.", "\"10.20.0.0/16\""),
            ("10.20.*", "\"10.20.0.0/16\""),
            ("192.168.7.*", "\"192.168.7.0/24\""),
            ("[::1]", "\"::1\""),
            ("localhost", "\"127.0.0.0/8\" and \"::1\""),
        ] {
            check(network(text), expected);
        }
        assert!(network("10.20.0.0/32").is_ok());
    }

    #[test]
    fn text_of_the_file_is_bounded_and_plain() {
        assert_eq!(plain("a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
        assert!(plain(&"x".repeat(100_000)).len() < 210);
    }
}
