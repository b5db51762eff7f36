//! The coded text of the DSN parameters ENVID and ORCPT (RFC 3461 §4): checked as it comes in, decoded for a report, coded for an
//! upstream.
//!
//! It is a client's word and nothing more: nobody judges, routes or trusts by it.

use std::{borrow::Cow, fmt::Write as _};

use super::{address::Address, unicode};

/// Octets of ENVID, as written (RFC 3461 §4.4).
const ENVID: usize = 100;
/// Octets of ORCPT, as written (RFC 3461 §4.2).
const ORCPT: usize = 500;

/// What an xtext stands for. `None`: it is none, or holds something else than printable ASCII and blanks.
pub fn decode(text: &str) -> Option<String> {
    decode_utf8(text).filter(|text| text.is_ascii())
}

/// The same, and it may hold what may stand in an address that is not ASCII.
fn decode_utf8(text: &str) -> Option<String> {
    let hex = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'+' => (hex(octets.next()?)? << 4) | hex(octets.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => octet,
            _ => return None,
        };
        if !matches!(octet, b' '..=b'~' | 128..) {
            return None;
        }
        out.push(octet);
    }
    let out = String::from_utf8(out).ok()?;
    unicode::check_characters(&out).ok()?;
    Some(out)
}

/// Whether it may be the value of ENVID.
pub fn is_envelope_id(text: &str) -> bool {
    (1..=ENVID).contains(&text.len()) && decode(text).is_some()
}

/// Whether it may be the value of ORCPT: a type, a semicolon and xtext (RFC 3461 §4.2; of the type `utf-8` RFC 6533 §3, where
/// characters that are not ASCII may also stand as they are). `utf8`: MAIL was said with SMTPUTF8, after which Postfix writes
/// such an address as xtext of the type `rfc822`.
pub fn is_original(text: &str, utf8: bool) -> bool {
    let Some((kind, given)) = text.split_once(';') else {
        return false;
    };
    let xtext = if is_utf8(kind) {
        if unicode::check_characters(given).is_err() {
            return false;
        }
        &*embedded(given)
    } else {
        given
    };
    let is_atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/?^_`{|}~".contains(&b);
    let coded = if utf8 && kind.eq_ignore_ascii_case("rfc822") {
        decode_utf8(xtext)
    } else {
        decode(xtext)
    };
    let Some(decoded) = coded else {
        return false;
    };
    text.len() <= ORCPT
        && !kind.is_empty()
        && kind.bytes().all(is_atom)
        && !decoded.trim().is_empty()
        && (!is_utf8(kind) || is_unicode(&decoded))
}

fn is_utf8(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("utf-8")
}

/// Every backslash begins a `\x{…}`, and none of them stands for a control character (RFC 6533 §3).
fn is_unicode(text: &str) -> bool {
    let mut pieces = text.split('\\');
    pieces.next();
    pieces.all(|piece| {
        let digits = piece
            .strip_prefix("x{")
            .and_then(|rest| rest.split_once('}'));
        digits.is_some_and(|(digits, _)| {
            (1..=6).contains(&digits.len())
                && digits.bytes().all(|b| b.is_ascii_hexdigit())
                && u32::from_str_radix(digits, 16)
                    .ok()
                    .and_then(char::from_u32)
                    .is_some_and(|c| !c.is_control())
        })
    })
}

/// The value of ORCPT as a report prints it in Original-Recipient (RFC 3461 §6.3): decoded, but that of `utf-8` stays as it was
/// written, or in ASCII where that is asked for.
pub fn shown_original(text: &str, ascii: bool) -> Option<String> {
    let (kind, xtext) = text.split_once(';')?;
    if is_utf8(kind) {
        return Some(if ascii {
            embedded(text).into_owned()
        } else {
            text.to_owned()
        });
    }
    let decoded = decode_utf8(xtext)?;
    if decoded.is_ascii() {
        return Some(format!("{kind};{decoded}"));
    }
    let shown = if ascii {
        embedded(&decoded)
    } else {
        decoded.into()
    };
    Some(format!("utf-8;{shown}"))
}

/// With each character that is not ASCII as `\x{…}` (RFC 6533 §3), for servers without SMTPUTF8.
pub fn embedded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        append_embedded(c, c.is_ascii(), &mut out);
    }
    Cow::Owned(out)
}

fn append_embedded(c: char, as_it_is: bool, out: &mut String) {
    if as_it_is {
        out.push(c);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
    }
}

/// The value of ORCPT as it goes to an upstream: as it was given, but in ASCII to one that was not told SMTPUTF8, and of the type `utf-8`
/// where it is not ASCII as `rfc822`, which nobody has to understand. `None`: it would be too long then.
pub fn sent_original(text: &str, utf8: bool) -> Option<Cow<'_, str>> {
    if let Some((kind, xtext)) = text.split_once(';')
        && kind.eq_ignore_ascii_case("rfc822")
        && let Some(address) = decode_utf8(xtext).filter(|address| !address.is_ascii())
    {
        return unicode_original(&address, utf8).map(Cow::Owned);
    }
    if utf8 {
        return Some(Cow::Borrowed(text));
    }
    Some(embedded(text)).filter(|text| text.len() <= ORCPT)
}

/// An address of the type `utf-8` (RFC 6533 §3). `utf8`: characters that are not ASCII may stand as they are.
fn unicode_original(address: &str, utf8: bool) -> Option<String> {
    let mut out = String::from("utf-8;");
    for c in address.chars() {
        let is_plain = matches!(c, '!'..='~') && !matches!(c, '+' | '=' | '\\');
        append_embedded(c, is_plain || utf8 && !c.is_ascii(), &mut out);
    }
    (out.len() <= ORCPT).then_some(out)
}

/// The value of ORCPT that says that a recipient was this address before (RFC 3461 §5.2.7.1); of one that is not ASCII by RFC 6533
/// §3. `None`: it would be too long.
pub fn original_of(address: &Address) -> Option<String> {
    if address.needs_utf8() {
        return unicode_original(&address.to_string(), false);
    }
    let mut out = String::from("rfc822;");
    for octet in address.to_string().bytes() {
        if matches!(octet, b'!'..=b'~') && octet != b'+' && octet != b'=' {
            out.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "+{octet:02X}");
        }
    }
    (out.len() <= ORCPT).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_printable_whatever_it_stands_for() {
        for (text, expected) in [
            ("", Some("")),
            ("abc", Some("abc")),
            ("a+2Bb+3D+20c", Some("a+b= c")),
            ("<a@b>;,", Some("<a@b>;,")),
            ("a=b", None),
            ("a b", None),
            ("a+2b", None),
            ("a+2", None),
            ("a+", None),
            ("+0D+0A", None),
            ("+00", None),
            ("+7F", None),
            ("+C3+BC", None),
            ("+7E", Some("~")),
            ("\u{fc}", None),
            ("a\r", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn bounds() {
        assert!(is_envelope_id(&"x".repeat(100)) && !is_envelope_id(&"x".repeat(101)));
        assert!(!is_envelope_id(""));
        let of = |len: usize| format!("rfc822;{}", "x".repeat(len - 7));
        assert!(is_original(&of(500), false) && !is_original(&of(501), false));
    }

    #[test]
    fn originals() {
        for (text, expected) in [
            ("rfc822;a@b.example", Some("rfc822;a@b.example")),
            ("RFC822;a+2Bc@b.example", Some("RFC822;a+c@b.example")),
            ("x400;/G=a/S=b", None),
            ("x400;/G+3Da/S+3Db", Some("x400;/G=a/S=b")),
            (
                "utf-8;\\x{20AC}@b.example",
                Some("utf-8;\\x{20AC}@b.example"),
            ),
            (
                "utf-8;\u{20ac}@b.example",
                Some("utf-8;\\x{20AC}@b.example"),
            ),
            ("utf-8;a\u{85}@b.example", None),
            ("utf-8;a\u{202e}@b.example", None),
            ("utf-8;a\u{ff20}b.example", None),
            ("rfc822;\u{20ac}@b.example", None),
            ("utf-8;a\\x{D}@b.example", None),
            ("utf-8;a+5Cx{0A}", None),
            ("utf-8;a\\x{85}", None),
            ("utf-8;a\\x{D800}", None),
            ("utf-8;a\\x{110000}", None),
            ("utf-8;a\\x{}", None),
            ("utf-8;a\\b", None),
            ("x;a\\b", Some("x;a\\b")),
            ("rfc822;<x@y>", Some("rfc822;<x@y>")),
            ("rfc822", None),
            (";a@b", None),
            ("rfc822;", None),
            ("rfc822;+20", None),
            ("rf(c;a@b", None),
            ("rfc822;a+0Db", None),
        ] {
            let shown = is_original(text, false).then(|| shown_original(text, true).unwrap());
            assert_eq!(shown.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_postfix_makes_of_an_address_that_is_not_ascii() {
        let given = "rfc822;b+C3+BCro@b.example";
        assert!(is_original(given, true) && !is_original(given, false));
        assert_eq!(
            shown_original(given, false).as_deref(),
            Some("utf-8;b\u{fc}ro@b.example")
        );
        assert_eq!(
            shown_original(given, true).as_deref(),
            Some("utf-8;b\\x{FC}ro@b.example")
        );
        for bad in [
            "rfc822;b+FCro@b.example",
            "rfc822;+C2+85@b.example",
            "rfc822;a+E2+80+AEb@b.example",
            "rfc822;+0D@b.example",
            "x400;b+C3+BCro",
        ] {
            assert!(!is_original(bad, true), "{bad}");
        }
        for (given, told, not_told) in [
            (
                "rfc822;b+C3+BCro@b.example",
                "utf-8;b\u{fc}ro@b.example",
                "utf-8;b\\x{FC}ro@b.example",
            ),
            (
                "RFC822;+C3+BC+2Bx+3D+20y@b.example",
                "utf-8;\u{fc}\\x{2B}x\\x{3D}\\x{20}y@b.example",
                "utf-8;\\x{FC}\\x{2B}x\\x{3D}\\x{20}y@b.example",
            ),
            (
                "rfc822;a+2Bb@b.example",
                "rfc822;a+2Bb@b.example",
                "rfc822;a+2Bb@b.example",
            ),
        ] {
            assert_eq!(sent_original(given, true).as_deref(), Some(told));
            assert_eq!(sent_original(given, false).as_deref(), Some(not_told));
            assert!(is_original(told, true) && is_original(not_told, false));
        }
        let long = format!("rfc822;+C3+BC{}", "+2B".repeat(160));
        assert!(is_original(&long, true));
        assert!(sent_original(&long, true).is_none() && sent_original(&long, false).is_none());
    }

    #[test]
    fn an_address_becomes_an_original_and_is_read_back() {
        for text in ["a+b=c@x.example", "\"a b\"@x.example", "plain@x.example"] {
            let made = original_of(&Address::parse(text).unwrap()).unwrap();
            assert!(is_original(&made, false), "{made}");
            assert_eq!(shown_original(&made, true), Some(format!("rfc822;{text}")));
        }
        for (text, expected) in [
            ("b\u{fc}ro@x.example", "utf-8;b\\x{FC}ro@x.example"),
            (
                "\u{1f4ee}+a=b@x.example",
                "utf-8;\\x{1F4EE}\\x{2B}a\\x{3D}b@x.example",
            ),
            (
                "\"\u{fc} x\"@x.example",
                "utf-8;\"\\x{FC}\\x{20}x\"@x.example",
            ),
        ] {
            let made = original_of(&Address::parse(text).unwrap()).unwrap();
            assert_eq!(made, expected);
            assert!(is_original(&made, false), "{made}");
        }
        let given = "utf-8;\u{fc}@x.example";
        assert_eq!(sent_original(given, true).as_deref(), Some(given));
        assert_eq!(
            sent_original(given, false).as_deref(),
            Some("utf-8;\\x{FC}@x.example")
        );
        let long = format!("utf-8;{}", "\u{fc}".repeat(240));
        assert!(is_original(&long, true) && sent_original(&long, false).is_none());
    }
}
