//! Makes To, Cc and Bcc say what the envelope says: Graph has no envelope, and sends to whoever stands in the header.
//!
//! Apart because it is pure and because an allowlist could be walked around here: an address that the envelope does not have
//! must not stand in any of the fields, and none of the envelope's may be missing. The body is not touched.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::mail::{
    address::{Address, is_atext},
    headers::{self, Field},
    mailboxes::{self, Mailbox},
};

/// Fields whose addresses Graph would send to.
const RECIPIENTS: &[&str] = &["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"];

/// The header with its recipients made equal to `recipients`: To and Cc keep those of their addresses that are among them,
/// groups flattened, each once; all others go into one Bcc; nothing else of these fields is kept. Names are quoted anew, in From
/// and Sender too (Graph reads an unquoted `@` in a name as another sender).
pub fn rewritten(header: &[u8], recipients: &[Address]) -> Vec<u8> {
    let mut wanted: HashSet<String> = recipients.iter().map(key).collect();
    let mut out = Vec::with_capacity(header.len() + 256);
    let mut to = Vec::new();
    let mut cc = Vec::new();
    for field in headers::fields(header) {
        if RECIPIENTS.iter().any(|name| field.is(name)) {
            let list = if field.is("To") {
                &mut to
            } else if field.is("Cc") {
                &mut cc
            } else {
                continue;
            };
            // A field that is not understood whole is dropped whole; its recipients are still in `wanted`.
            for mailbox in mailboxes::parse(field.value).unwrap_or_default() {
                if !mailbox.in_name && wanted.remove(&key(&mailbox.address)) {
                    list.push(written(field.value, &mailbox));
                }
            }
        } else if field.is("From") || field.is("Sender") {
            quoted(&field, &mut out);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    let mut bcc = Vec::new();
    for address in recipients {
        if wanted.remove(&key(address)) {
            bcc.push(bare(address));
        }
    }
    for (name, list) in [("To", to), ("Cc", cc), ("Bcc", bcc)] {
        if !list.is_empty() {
            headers::append(&mut out, name, &list.join(&b",\r\n "[..]));
        }
    }
    out
}

/// The one mailbox that a header is from: From, or Sender where From has several.
pub fn mailbox_of(header: &[u8]) -> Option<Address> {
    let one = |name: &str| {
        let found = mailboxes::parse(headers::value_of(header, name)?).ok()?;
        let mut addresses = found.into_iter().filter(|m| !m.in_name);
        match (addresses.next(), addresses.next()) {
            (Some(only), None) => Some(only.address),
            _ => None,
        }
    };
    one("From").or_else(|| one("Sender"))
}

/// Exchange compares without case.
fn key(address: &Address) -> String {
    address.to_string().to_ascii_lowercase()
}

fn quoted(field: &Field<'_>, out: &mut Vec<u8>) {
    let Ok(found) = mailboxes::parse(field.value) else {
        out.extend_from_slice(field.raw);
        return;
    };
    let list: Vec<Vec<u8>> = found
        .iter()
        .filter(|m| !m.in_name)
        .map(|m| written(field.value, m))
        .collect();
    if list.is_empty() {
        out.extend_from_slice(field.raw);
        return;
    }
    let name = if field.is("From") { "From" } else { "Sender" };
    headers::append(out, name, &list.join(&b",\r\n "[..]));
}

/// `"name" <address>`, or the address alone.
fn written(value: &[u8], mailbox: &Mailbox) -> Vec<u8> {
    let raw = value.get(mailbox.name.clone()).unwrap_or_default();
    let name = phrase(&headers::unfold(raw));
    if name.is_empty() {
        return bare(&mailbox.address);
    }
    let mut out = name;
    // A long name and its address stand on lines of their own.
    out.extend_from_slice(if out.len() > 60 { b"\r\n <" } else { b" <" });
    out.extend_from_slice(mailbox.address.to_string().as_bytes());
    out.push(b'>');
    out
}

/// An address alone. A quoted local part goes into brackets: some readers take it for a name otherwise.
fn bare(address: &Address) -> Vec<u8> {
    let text = address.to_string();
    if text.starts_with('"') {
        format!("<{text}>").into_bytes()
    } else {
        text.into_bytes()
    }
}

/// A display name that every reader takes for one: atoms and encoded words as they are, anything else in quotes, octets above 127
/// as encoded words.
fn phrase(raw: &[u8]) -> Vec<u8> {
    let raw = raw.trim_ascii();
    if raw.is_empty() {
        return Vec::new();
    }
    let text = unquoted(raw);
    if text.iter().any(|b| *b > 127) {
        return encoded(&String::from_utf8_lossy(&text));
    }
    let plain = |word: &[u8]| word.iter().all(|b| is_atext(*b)) && !word.is_empty();
    if !raw.contains(&b'"') && raw.split(|b| *b == b' ').all(plain) {
        return raw.to_vec();
    }
    let mut out = vec![b'"'];
    for b in text.iter().filter(|b| **b >= b' ' && **b < 127) {
        if matches!(b, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*b);
    }
    out.push(b'"');
    out
}

/// Quotes and their backslashes out.
pub(super) fn unquoted(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut octets = raw.iter();
    let mut inside = false;
    while let Some(b) = octets.next() {
        match b {
            b'"' => inside = !inside,
            b'\\' if inside => out.extend(octets.next()),
            b'\t' => out.push(b' '),
            _ => out.push(*b),
        }
    }
    out
}

/// RFC 2047 words of at most 75 octets, whole characters in each.
fn encoded(text: &str) -> Vec<u8> {
    let mut words: Vec<String> = vec![String::new()];
    for c in text.chars().filter(|c| !c.is_control()) {
        if words.last().is_some_and(|w| w.len() + c.len_utf8() > 42) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    let words: Vec<String> = words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)))
        .collect();
    words.join("\r\n ").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, to: &[&str], expected: &str) {
        let to: Vec<Address> = to.iter().map(|a| Address::parse(a).unwrap()).collect();
        let found = rewritten(header.replace('\n', "\r\n").as_bytes(), &to);
        assert_eq!(
            String::from_utf8_lossy(&found).replace("\r\n", "\n"),
            expected,
            "{header}"
        );
    }

    #[test]
    fn the_header_says_what_the_envelope_says() {
        check("Subject: s\n", &["x@a.b"], "Subject: s\nBcc: x@a.b\n");
        check(
            "To: x@a.b\nCc: y@a.b\nBcc: z@a.b\n",
            &["x@a.b"],
            "To: x@a.b\n",
        );
        check(
            "To: X <x@a.b>, v@victim.tld\nSubject: s\n",
            &["x@a.b", "w@a.b"],
            "Subject: s\nTo: X <x@a.b>\nBcc: w@a.b\n",
        );
        check("To: undisclosed-recipients:;\n", &["x@a.b"], "Bcc: x@a.b\n");
        check(
            "To: team: x@a.b, Y <y@a.b>;\nCc: X@A.B\n",
            &["x@a.b", "y@a.b"],
            "To: x@a.b,\n Y <y@a.b>\n",
        );
        check("To: broken <<\n", &["x@a.b"], "Bcc: x@a.b\n");
        check(
            "Resent-To: v@victim.tld\nResent-Bcc: w@v.tld\nresent-cc: q@v.tld\n",
            &["x@a.b"],
            "Bcc: x@a.b\n",
        );
        check(
            "To: a@a.b,\n\tB <b@a.b>\nTO: c@a.b\n",
            &["a@a.b", "b@a.b", "c@a.b"],
            "To: a@a.b,\n B <b@a.b>,\n c@a.b\n",
        );
        check(
            "To: v@victim.tld <x@a.b>\n",
            &["x@a.b"],
            "To: \"v@victim.tld\" <x@a.b>\n",
        );
        check(
            "From: scan@a.b <scan@a.b>\n",
            &["x@a.b"],
            "From: \"scan@a.b\" <scan@a.b>\nBcc: x@a.b\n",
        );
        check(
            "From: \"Doe, \\\"J\\\"\" <d@a.b>\n",
            &["x@a.b"],
            "From: \"Doe, \\\"J\\\"\" <d@a.b>\nBcc: x@a.b\n",
        );
        check(
            "From: =?utf-8?q?=C3=A4?= <d@a.b>\n",
            &["x@a.b"],
            "From: =?utf-8?q?=C3=A4?= <d@a.b>\nBcc: x@a.b\n",
        );
        check(
            "From: J\u{fc}rgen <d@a.b>\n",
            &["x@a.b"],
            "From: =?utf-8?B?SsO8cmdlbg==?= <d@a.b>\nBcc: x@a.b\n",
        );
    }

    /// For 10,000 headers: the addresses that two readers find are the envelope, exactly.
    #[test]
    fn two_readers_find_the_envelope_and_nothing_else() {
        let mut random = fastrand::Rng::with_seed(11);
        let pool: Vec<String> = (0..12)
            .map(|n| match n % 4 {
                0 => format!("user{n}@corp.example"),
                1 => format!("u.{n}+tag@sub.corp.example"),
                2 => format!("\"odd {n}\"@corp.example"),
                _ => format!("v{n}@victim.tld"),
            })
            .collect();
        for _ in 0..10_000 {
            let mut header = String::from("From: a@corp.example\r\n");
            for _ in 0..random.usize(0..6) {
                let name = [
                    "To",
                    "Cc",
                    "Bcc",
                    "TO",
                    "cC",
                    "Resent-To",
                    "Resent-Bcc",
                    "X-To",
                ][random.usize(0..8)];
                let mut members = Vec::new();
                for _ in 0..random.usize(0..5) {
                    let address = &pool[random.usize(0..pool.len())];
                    members.push(match random.u8(0..9) {
                        0 => format!("Name <{address}>"),
                        1 => format!("\"Last, First\" <{address}>"),
                        2 => format!("=?utf-8?b?w6Q=?= <{address}>"),
                        3 => format!("team: {address};"),
                        4 => format!("\r\n\t{address}"),
                        5 => format!("(comment) {address}"),
                        6 => format!("other@victim.tld <{address}>"),
                        7 => "undisclosed-recipients:;".to_owned(),
                        _ => address.clone(),
                    });
                }
                header.push_str(name);
                header.push_str(": ");
                header.push_str(&members.join(", "));
                header.push_str("\r\n");
            }
            let envelope: Vec<Address> = (0..random.usize(1..7))
                .map(|_| Address::parse(&pool[random.usize(0..pool.len())]).unwrap())
                .collect();
            let wanted: HashSet<String> = envelope.iter().map(key).collect();
            let out = rewritten(header.as_bytes(), &envelope);

            let mut judged = HashSet::new();
            for field in headers::fields(&out) {
                if RECIPIENTS.iter().any(|name| field.is(name)) {
                    for mailbox in mailboxes::parse(field.value).unwrap() {
                        assert!(
                            judged.insert(key(&mailbox.address)),
                            "twice: {}",
                            String::from_utf8_lossy(&out)
                        );
                    }
                }
            }
            assert_eq!(
                judged,
                wanted,
                "{header}\n{}",
                String::from_utf8_lossy(&out)
            );

            let mut content = out.clone();
            content.extend_from_slice(b"\r\nbody\r\n");
            let parsed = mail_parser::MessageParser::default()
                .parse(&content)
                .unwrap();
            let mut read = HashSet::new();
            for list in [
                parsed.to(),
                parsed.cc(),
                parsed.bcc(),
                parsed.resent_to(),
                parsed.resent_cc(),
                parsed.resent_bcc(),
            ]
            .into_iter()
            .flatten()
            {
                for address in list.clone().into_list() {
                    let text = address.address.unwrap().into_owned();
                    // mail-parser gives a quoted local part without its quotes.
                    let text = if text.contains(' ') && !text.starts_with('"') {
                        let (local, domain) = text.rsplit_once('@').unwrap();
                        format!("\"{local}\"@{domain}")
                    } else {
                        text
                    };
                    read.insert(text.to_ascii_lowercase());
                }
            }
            assert_eq!(read, wanted, "{header}\n{}", String::from_utf8_lossy(&out));
            assert!(out.split(|b| *b == b'\n').all(|line| line.len() < 200));
        }
    }
}
