//! Makes To, Cc and Bcc say what the envelope says: Graph has no envelope, and sends to whoever stands in the header.
//!
//! It is pure. An allowlist could be walked around here: an address that the envelope does not have
//! must not stand in any of the fields, and none of the envelope's may be missing. The body is not touched.

use std::collections::HashSet;

use super::{
    people::{self, Person},
    words,
};
use crate::mail::{
    address::{Address, is_atext},
    headers::{self, Field},
    mailboxes,
    recipient::Recipient,
    text::{self, encoded_words},
};

/// Fields whose addresses Graph would send to, or that name recipients to everybody (Apparently-To, RFC 2076 §3.6).
const RECIPIENTS: &[&str] = &[
    "To",
    "Cc",
    "Bcc",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Apparently-To",
];

/// Fields whose names are written anew.
const QUOTED: [&str; 3] = ["From", "Sender", "Reply-To"];

/// The header with its recipients made equal to `recipients`: To and Cc keep those of their addresses that are among them,
/// groups flattened, each once; all others go into one Bcc; nothing else of these fields is kept. Names are quoted anew, in From,
/// Sender and Reply-To too (Graph reads an unquoted `@` in a name as another sender).
pub fn rewritten(header: &[u8], recipients: &[Recipient]) -> Vec<u8> {
    let mut wanted: HashSet<String> = recipients.iter().map(|r| key(&r.address)).collect();
    let mut out = Vec::with_capacity(header.len() + 256);
    let mut to = Vec::new();
    let mut cc = Vec::new();
    let charset = words::declared(header);
    for field in headers::fields(header) {
        if RECIPIENTS.iter().any(|name| field.is(name)) {
            let list = if field.is("To") {
                &mut to
            } else if field.is("Cc") {
                &mut cc
            } else {
                continue;
            };
            // Whoever cannot be made out in a field is still in `wanted`.
            for person in people::listed(field.value) {
                if wanted.remove(&key(&person.address)) {
                    list.push(written(&person, charset.as_deref()));
                }
            }
        } else if QUOTED.iter().any(|name| field.is(name)) {
            quoted(&field, charset.as_deref(), &mut out);
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    let mut bcc = Vec::new();
    for Recipient { address, .. } in recipients {
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

/// Whether an address of From or Sender is not ASCII.
pub fn has_utf8_sender(header: &[u8]) -> bool {
    let mut fields = headers::fields(header).filter(|f| f.is("From") || f.is("Sender"));
    fields.any(|field| {
        !field.value.is_ascii()
            && mailboxes::parse(field.value)
                .is_ok_and(|found| found.iter().any(|mailbox| mailbox.address.needs_utf8()))
    })
}

/// Whether a header is from another mailbox than this one.
pub fn is_foreign(header: &[u8], mailbox: &str) -> bool {
    mailbox_of(header).is_some_and(|from| !from.to_string().eq_ignore_ascii_case(mailbox))
}

/// Exchange compares without case.
fn key(address: &Address) -> String {
    address.to_string().to_ascii_lowercase()
}

fn quoted(field: &Field<'_>, charset: Option<&str>, out: &mut Vec<u8>) {
    let understood = mailboxes::parse(field.value).is_ok();
    let people = people::listed(field.value);
    let list: Vec<Vec<u8>> = people.iter().map(|p| written(p, charset)).collect();
    // It was judged when it came; what is not understood is not made up here.
    if !understood || list.is_empty() {
        out.extend_from_slice(field.raw);
        return;
    }
    let name = QUOTED.into_iter().find(|name| field.is(name));
    let name = name.unwrap_or_default();
    headers::append(out, name, &list.join(&b",\r\n "[..]));
}

/// `"name" <address>`, or the address alone.
fn written(person: &Person, charset: Option<&str>) -> Vec<u8> {
    let name = phrase(&person.name, charset);
    if name.is_empty() {
        return bare(&person.address);
    }
    let mut out = name;
    // A long name and its address stand on lines of their own.
    out.extend_from_slice(if out.len() > 60 { b"\r\n <" } else { b" <" });
    out.extend_from_slice(person.address.to_string().as_bytes());
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
/// as encoded words. `charset` is what the message says of itself.
fn phrase(raw: &[u8], charset: Option<&str>) -> Vec<u8> {
    let raw = raw.trim_ascii();
    if raw.is_empty() {
        return Vec::new();
    }
    let text = unquoted(raw);
    if !words::is_ascii(&text) {
        return encoded_words(&words::name(&text, charset)).into_bytes();
    }
    let plain = |word: &[u8]| word.iter().all(|b| is_atext(*b)) && !word.is_empty();
    if !raw.contains(&b'"') && raw.split(|b| *b == b' ').all(plain) {
        return raw.to_vec();
    }
    text::quoted(text.into_iter().filter(|b| (b' '..=b'~').contains(b)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn check(header: &str, to: &[&str], expected: &str) {
        let to: Vec<Recipient> = to
            .iter()
            .map(|a| Address::parse(a).unwrap().into())
            .collect();
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
            "To: x@a.b; y@a.b; v@victim.tld\n",
            &["x@a.b", "y@a.b", "z@a.b"],
            "To: x@a.b,\n y@a.b\nBcc: z@a.b\n",
        );
        check(
            "To: 'x@a.b'\nCc: <y@a.b> <v@victim.tld>\n",
            &["x@a.b", "y@a.b"],
            "To: x@a.b\nCc: y@a.b\n",
        );
        check(
            "From: a@a.b (Scanner 2)\nTo: x@a.b (Front \\(desk)\n",
            &["x@a.b"],
            "From: Scanner 2 <a@a.b>\nTo: \"Front (desk\" <x@a.b>\n",
        );
        check("Apparently-To: v@victim.tld\n", &["x@a.b"], "Bcc: x@a.b\n");
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

    /// Raw octets in names are what they were, whatever the charset.
    #[test]
    fn raw_names_keep_their_letters() {
        let latin = b"From: M\xfcller <a@a.b>\r\nTo: \"J\xf6rg, K.\" <x@a.b>\r\n";
        let japanese =
            b"Content-Type: text/plain; charset=\"Shift_JIS\"\r\nFrom: \x93\xfa\x96{ <a@a.b>\r\n";
        let chinese = b"From: \xd6\xd0\xce\xc4 <a@a.b>\r\nContent-Type: text/plain;\r\n charset=gb2312; format=flowed\r\n";
        let utf8 = "From: M\u{fc}ller <a@a.b>\r\nContent-Type: text/plain; charset=shift_jis\r\n";
        let mixed = b"From: =?utf-8?Q?J=C3=B6rg?= M\xfcller <a@a.b>\r\n";
        let reply = b"From: a@a.b\r\nReply-To: K\xe4the <k@a.b>, x@a.b\r\n";
        for (header, field, name) in [
            (&latin[..], "From", "M\u{fc}ller"),
            (latin, "To", "J\u{f6}rg, K."),
            (japanese, "From", "\u{65e5}\u{672c}"),
            (chinese, "From", "\u{4e2d}\u{6587}"),
            (utf8.as_bytes(), "From", "M\u{fc}ller"),
            (mixed, "From", "J\u{f6}rg M\u{fc}ller"),
            (reply, "Reply-To", "K\u{e4}the"),
        ] {
            let out = rewritten(header, &[Address::parse("x@a.b").unwrap().into()]);
            assert!(out.is_ascii());
            let value = headers::value_of(&out, field).unwrap();
            let found = words::text(value);
            assert!(found.starts_with(name), "{found}");
        }
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
        for _ in 0..fixture::times(10_000) {
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
                    members.push(match random.u8(0..14) {
                        9 => format!("{address};"),
                        10 => format!("'{address}'"),
                        11 => format!("<{address}> <v@victim.tld>"),
                        12 => format!("{address} (Name)"),
                        13 => format!("v@victim.tld; M\u{fc}ller <{address}"),
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
            let envelope: Vec<Recipient> = (0..random.usize(1..7))
                .map(|_| {
                    Address::parse(&pool[random.usize(0..pool.len())])
                        .unwrap()
                        .into()
                })
                .collect();
            let wanted: HashSet<String> = envelope.iter().map(|r| key(&r.address)).collect();
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
