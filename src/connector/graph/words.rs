//! Header text as people read it: encoded words (RFC 2047) and raw octets above 127 made into Unicode.
//!
//! Names, subjects and file names all need it. The decoding is mail-parser's; what is done here is what it leaves
//! undone: a character that was split between two encoded words, and raw octets that are not UTF-8.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mail_parser::{HeaderValue, decoders::charsets::map::charset_decoder, parsers::MessageStream};

use super::coding::{unbase64, unquoted_printable};
use crate::mail::headers;

/// What stands in a field, on one line, without control characters.
pub(super) fn text(raw: &[u8]) -> String {
    let mut line = readable(raw);
    line.push(b'\n');
    let text = match MessageStream::new(&line).parse_unstructured() {
        HeaderValue::Text(text) => text.into_owned(),
        _ => String::new(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    text.trim().to_owned()
}

/// A header or a value in a form from which a reader that takes word for word loses nothing: UTF-8, and neighbouring encoded words
/// of a charset made one.
pub(super) fn readable(raw: &[u8]) -> Vec<u8> {
    let joined = joined(raw);
    match std::str::from_utf8(&joined) {
        Ok(_) => joined.into_owned(),
        Err(_) => western(&joined).into_bytes(),
    }
}

/// Octets of which nobody says what they are, and which are not UTF-8.
pub(super) fn western(octets: &[u8]) -> String {
    match charset_decoder(b"windows-1252") {
        Some(decoder) => decoder(octets),
        None => String::from_utf8_lossy(octets).into_owned(),
    }
}

/// Nothing in it but ASCII as it is meant; ISO-2022-JP writes Japanese with the same octets.
pub(super) fn is_ascii(raw: &[u8]) -> bool {
    raw.is_ascii() && !is_iso_2022(raw)
}

fn is_iso_2022(raw: &[u8]) -> bool {
    memchr::memmem::find(raw, b"\x1b$").is_some()
}

/// A name in raw octets: UTF-8, else what the message declares, else what most who declare nothing write.
pub(super) fn name(raw: &[u8], declared: Option<&str>) -> String {
    let charset = if is_iso_2022(raw) {
        Some("iso-2022-jp")
    } else {
        declared.filter(|_| std::str::from_utf8(raw).is_err())
    };
    let text = match charset.and_then(|charset| charset_decoder(charset.as_bytes())) {
        Some(decoder) => decoder(raw),
        None => String::from_utf8_lossy(&readable(raw)).into_owned(),
    };
    self::text(text.as_bytes())
}

/// The charset that a message says it is in, where that tells anything of raw octets.
pub(super) fn declared(header: &[u8]) -> Option<String> {
    let value = headers::unfold(headers::value_of(header, "Content-Type")?).to_ascii_lowercase();
    let (_, rest) = value.split_at(memchr::memmem::find(&value, b"charset")? + "charset".len());
    let rest = rest.trim_ascii_start().strip_prefix(b"=")?;
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let is_token = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    let charset: Vec<u8> = rest.iter().take_while(is_token).copied().collect();
    let charset = String::from_utf8(charset).ok()?;
    (!["", "utf-8", "utf8", "us-ascii", "ascii"].contains(&charset.as_str())).then_some(charset)
}

/// RFC 2047 §5 forbids it, but long names arrive with a character in two words: only together can they be decoded.
fn joined(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(raw, b"?=").is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while !rest.is_empty() {
        let Some((charset, mut octets, mut length)) = word(rest) else {
            let (first, after) = rest.split_at(1);
            out.extend_from_slice(first);
            rest = after;
            continue;
        };
        let mut words = 1;
        loop {
            let after = rest.get(length..).unwrap_or_default();
            let blank = after.len() - after.trim_ascii_start().len();
            match word(after.trim_ascii_start()) {
                Some((next, more, taken)) if next.eq_ignore_ascii_case(charset) => {
                    octets.extend_from_slice(&more);
                    length += blank + taken;
                    words += 1;
                }
                _ => break,
            }
        }
        let (taken, after) = rest.split_at(length);
        if words == 1 {
            out.extend_from_slice(taken);
        } else {
            out.extend_from_slice(b"=?");
            out.extend_from_slice(charset);
            out.extend_from_slice(b"?B?");
            out.extend_from_slice(STANDARD.encode(&octets).as_bytes());
            out.extend_from_slice(b"?=");
        }
        rest = after;
    }
    Cow::Owned(out)
}

/// An encoded word at the beginning: its charset, its octets, its length.
fn word(text: &[u8]) -> Option<(&[u8], Vec<u8>, usize)> {
    let inner = text.strip_prefix(b"=?")?;
    let mut parts = inner.splitn(4, |b| *b == b'?');
    let (charset, encoding) = (parts.next()?, parts.next()?);
    let (encoded, rest) = (parts.next()?, parts.next()?);
    if charset.is_empty()
        || !rest.starts_with(b"=")
        || [charset, encoded].iter().any(|t| t.contains(&b' '))
    {
        return None;
    }
    let octets = match encoding {
        b"B" | b"b" => unbase64(encoded),
        b"Q" | b"q" => {
            let spaced: Vec<u8> = encoded
                .iter()
                .map(|b| if *b == b'_' { b' ' } else { *b })
                .collect();
            unquoted_printable(&spaced, false)
        }
        _ => return None,
    };
    // =? charset ? e ? text ?=
    Some((charset, octets, charset.len() + encoded.len() + 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &[u8], expected: &str) {
        assert_eq!(text(raw), expected, "{}", String::from_utf8_lossy(raw));
    }

    #[test]
    fn what_people_read() {
        check(b" plain", "plain");
        check(b"", "");
        check(b" a\r\n  b", "a b");
        check("Gr\u{fc}\u{df}e".as_bytes(), "Gr\u{fc}\u{df}e");
        check(b"Gr\xfc\xdfe", "Gr\u{fc}\u{df}e");
        check(b"=?utf-8?Q?Gr=C3=BC=C3=9Fe_aus?=", "Gr\u{fc}\u{df}e aus");
        check(b"=?iso-8859-1?Q?Gr=FC=DFe?= x", "Gr\u{fc}\u{df}e x");
        check(b"=?utf-8?B?w6Q=?= =?utf-8?B?w7Y=?=", "\u{e4}\u{f6}");
        check(
            b"=?utf-8?Q?a?= b =?utf-8?Q?c?= =?iso-8859-1?Q?=E4?=",
            "a b c\u{e4}",
        );
        // A character in two words.
        check(
            b"=?utf-8?Q?a=F0=9F?=\r\n =?UTF-8?Q?=98=80b?=",
            "a\u{1f600}b",
        );
        check(
            b"=?utf-8?B?44Gm44GZ?=\r\n =?utf-8?B?44GI?= x",
            "\u{3066}\u{3059}\u{3048} x",
        );
        check(b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "\u{65e5}\u{672c}");
        check(b"=?shift_jis?B?k/qWew==?=", "\u{65e5}\u{672c}");
        check(b"=?gb2312?B?1tDOxA==?=", "\u{4e2d}\u{6587}");
        check(b"=?utf-8?Q?broken", "=?utf-8?Q?broken");
        check(b"=?utf-8?Q?a=0D=0Ab=00?=", "ab");
    }
}
