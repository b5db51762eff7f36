//! The coded text of the DSN parameters ENVID and ORCPT (RFC 3461 §4): checked as it comes in, decoded for a report, coded for an
//! upstream.
//!
//! It is a client's word and nothing more: nobody judges, routes or trusts by it.

use std::fmt::Write as _;

use super::address::Address;

/// Octets of ENVID, as written (RFC 3461 §4.4).
const ENVID: usize = 100;
/// Octets of ORCPT, as written (RFC 3461 §4.2).
const ORCPT: usize = 500;

/// What an xtext stands for. `None`: it is none, or holds something else than printable ASCII and blanks.
pub fn decode(text: &str) -> Option<String> {
    let hex = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut out = String::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'+' => (hex(octets.next()?)? << 4) | hex(octets.next()?)?,
            b'=' => return None,
            b'!'..=b'~' => octet,
            _ => return None,
        };
        if !matches!(octet, b' '..=b'~') {
            return None;
        }
        out.push(char::from(octet));
    }
    Some(out)
}

/// Whether it may be the value of ENVID.
pub fn is_envelope_id(text: &str) -> bool {
    (1..=ENVID).contains(&text.len()) && decode(text).is_some()
}

/// Whether it may be the value of ORCPT: a type, a semicolon and xtext (RFC 3461 §4.2; of the type `utf-8` RFC 6533 §3).
pub fn is_original(text: &str) -> bool {
    let Some((kind, xtext)) = text.split_once(';') else {
        return false;
    };
    let is_atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/?^_`{|}~".contains(&b);
    let Some(decoded) = decode(xtext) else {
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
/// written.
pub fn shown_original(text: &str) -> Option<String> {
    let (kind, xtext) = text.split_once(';')?;
    if is_utf8(kind) {
        return Some(text.to_owned());
    }
    Some(format!("{kind};{}", decode(xtext)?))
}

/// The value of ORCPT that says that a recipient was this address before (RFC 3461 §5.2.7.1). `None`: it would be too long.
pub fn original_of(address: &Address) -> Option<String> {
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
        assert!(is_original(&of(500)) && !is_original(&of(501)));
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
            let shown = is_original(text).then(|| shown_original(text).unwrap());
            assert_eq!(shown.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_address_becomes_an_original_and_is_read_back() {
        for text in ["a+b=c@x.example", "\"a b\"@x.example", "plain@x.example"] {
            let made = original_of(&Address::parse(text).unwrap()).unwrap();
            assert!(is_original(&made), "{made}");
            assert_eq!(shown_original(&made), Some(format!("rfc822;{text}")));
        }
    }
}
