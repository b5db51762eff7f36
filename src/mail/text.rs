//! Text from outside on its way to a log, a terminal, a reply or a header: what may stand as it is, how the rest is written, and
//! where it is cut.
//!
//! The one place that knows which characters a terminal or a reader of logs would obey. It knows no words of its own.

use std::{borrow::Cow, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Text from the network is cut to so many octets in a log line or on a terminal.
pub const SHORT: usize = 200;
/// What is kept of an upstream's answer, in octets.
pub const ANSWER: usize = 1000;

/// Octets of text in an encoded word: 72 with what stands around it, of the 75 that RFC 2047 §2 allows.
const ENCODED: usize = 45;

/// Whether a character may go to a log or a terminal as it is. Not: control characters (C0, C1, DEL), marks that reorder or hide
/// text, line and paragraph separators, and private or unassigned ranges that terminals use for tricks.
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// For a terminal: what is not printable is written as `\u{1b}`; at most [`SHORT`] octets.
pub fn shown(text: &str) -> String {
    shown_to(text, SHORT)
}

/// As [`shown`], of another length.
pub fn shown_to(text: &str, most: usize) -> String {
    let mut out = String::new();
    append(text, most, &mut out, |c, out| {
        out.extend(c.escape_unicode());
    });
    out
}

/// For a terminal: sentences of our own, with words from outside in them, as long as they are. Line ends stay.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| out.extend(c.escape_unicode()))
}

/// JSON that a terminal may show: to a program it is the same. Its makers escape no more than they must (RFC 8259 §7).
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// Printable ASCII and line ends. Block by block and without a branch in one, so that the compiler takes many octets at once.
pub fn is_plain(octets: &[u8]) -> bool {
    let is_odd = |octet: &u8| !matches!(octet, b' '..=b'~' | b'\n');
    octets
        .chunks(256)
        .all(|block| !block.iter().fold(false, |odd, octet| odd | is_odd(octet)))
}

/// Line ends stay.
fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let stays = |c| c == '\n' || is_printable(c);
    if is_plain(text.as_bytes()) || text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if stays(c) {
            out.push(c);
        } else {
            escape(c, &mut out);
        }
    }
    Cow::Owned(out)
}

/// For a log: what is not printable is escaped, line ends as `\n`; at most [`SHORT`] octets.
pub fn logged(text: &str) -> String {
    logged_to(text, SHORT)
}

/// As [`logged`], of another length: for sentences of our own with words from the network in them.
pub fn logged_to(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    append_logged(text, most, &mut out);
    out
}

/// [`logged_to`] behind what is there already.
pub fn append_logged(text: &str, most: usize, out: &mut String) {
    append(text, most, out, |c, out| {
        out.extend(c.escape_default());
    });
}

fn append(text: &str, most: usize, out: &mut String, escape: impl Fn(char, &mut String)) {
    // Nearly all text is short and printable ASCII.
    if text.len() <= most && text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        out.push_str(text);
        return;
    }
    let most = out.len() + most;
    let mut with_mark = out.len();
    for c in text.chars() {
        if is_printable(c) {
            out.push(c);
        } else {
            escape(c, out);
        }
        if out.len() > most {
            out.truncate(with_mark);
            out.push('…');
            return;
        }
        if out.len() + '…'.len_utf8() <= most {
            with_mark = out.len();
        }
    }
}

/// The beginning, at most so many octets, whole characters.
pub fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// What is kept of an upstream's answer.
pub fn bounded(text: &str) -> &str {
    cut(text, ANSWER)
}

/// Printable ASCII; whatever else becomes `?`.
pub fn ascii(c: char) -> char {
    if matches!(c, ' '..='~') { c } else { '?' }
}

/// One word of at most so many characters, in which nothing ends a comment, a field or a line, whatever a client sent.
pub fn word(text: impl Iterator<Item = char>, most: usize) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let word: String = text
        .take(most)
        .map(|c| if is_plain(c) { c } else { '?' })
        .collect();
    if word.is_empty() {
        "unknown".to_owned()
    } else {
        word
    }
}

/// A quoted string (RFC 5322 §3.2.4).
pub fn quoted(text: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut out = vec![b'"'];
    for b in text {
        if matches!(b, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(b);
    }
    out.push(b'"');
    out
}

/// Encoded words, folded: each holds whole characters (RFC 2047 §5).
pub fn encoded_words(text: &str) -> String {
    let mut words = vec![String::new()];
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= ENCODED => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let words: Vec<String> = words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)))
        .collect();
    words.join("\r\n ")
}

/// Octets as lower-case hex digits.
pub fn hex(octets: &[u8]) -> String {
    use std::fmt::Write as _;
    octets.iter().fold(String::new(), |mut digits, octet| {
        let _ = write!(digits, "{octet:02x}");
        digits
    })
}

/// A PEM file (RFC 7468) of DER: `CERTIFICATE`, lines of 64.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // It is ASCII.
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    let _ = writeln!(out, "-----END {label}-----");
    out
}

/// Quoted-printable (RFC 2045 §6.7): lines of at most 76 octets, each with CRLF; blanks at their ends are encoded.
pub fn quoted_printable(octets: &[u8]) -> String {
    let mut out = String::new();
    for line in octets.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut width = 0;
        for (at, &b) in line.iter().enumerate() {
            let is_last = at + 1 == line.len();
            let is_literal = (b.is_ascii_graphic() && b != b'=') || (b == b' ' && !is_last);
            let needs = if is_literal { 1 } else { 3 };
            if width + needs > 75 {
                out.push_str("=\r\n");
                width = 0;
            }
            if is_literal {
                out.push(char::from(b));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(out, "={b:02X}");
            }
            width += needs;
        }
        out.push_str("\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped() {
        for (text, terminal, log) in [
            ("a@b.example", "a@b.example", "a@b.example"),
            ("caf\u{e9}", "caf\u{e9}", "caf\u{e9}"),
            ("x\r\nfake\t", "x\\u{d}\\u{a}fake\\u{9}", "x\\r\\nfake\\t"),
            ("\u{1b}[31m", "\\u{1b}[31m", "\\u{1b}[31m"),
            ("\u{9b}2J", "\\u{9b}2J", "\\u{9b}2J"),
        ] {
            assert_eq!(shown(text), terminal);
            assert_eq!(logged(text), log);
        }
        for c in
            "\u{7f}\u{ad}\u{61c}\u{180e}\u{200f}\u{202e}\u{2064}\u{2066}\u{feff}\u{fffb}\u{e0041}"
                .chars()
        {
            assert_eq!(
                shown(&format!("a{c}b")),
                format!("a\\u{{{:x}}}b", u32::from(c))
            );
        }
    }

    #[test]
    fn whole_texts() {
        let text = "caf\u{e9}\n\u{1b}[31m\r\n\u{e0041}";
        assert_eq!(
            shown_lines(text),
            "caf\u{e9}\n\\u{1b}[31m\\u{d}\n\\u{e0041}"
        );
        let text = serde_json::json!({ "a": "\u{1b}\u{202e}\u{7f}\u{e0041}\u{e9}" });
        let safe = json(&text.to_string()).into_owned();
        assert_eq!(safe, r#"{"a":"\u001b\u202e\u007f\udb40\udc41é"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
            text
        );
    }

    #[test]
    fn what_is_cut() {
        assert_eq!(shown(&"a".repeat(SHORT)).len(), SHORT);
        for text in ["\u{1b}", "\u{e4}", "a", "\u{1f600}", "\n"].map(|c| c.repeat(5000)) {
            for (text, most) in [(shown(&text), SHORT), (logged_to(&text, 50), 50)] {
                assert!(text.len() <= most && text.len() > most - 9, "{text}");
                // No escape is left half.
                assert!(
                    text.trim_end_matches('…')
                        .ends_with(['}', 'n', 'a', '\u{e4}', '\u{1f600}']),
                    "{text}"
                );
            }
        }
        let mut line = "before ".to_owned();
        append_logged(&"a".repeat(11), 10, &mut line);
        assert_eq!(line, "before aaaaaaa…");
        assert_eq!(cut("a\u{e4}", 2), "a");
        assert_eq!(bounded(&"x".repeat(5000)).len(), ANSWER);
    }

    #[test]
    fn octets_as_text() {
        for (octets, expected) in [
            ("a=b \r\n\u{fc}\r\n", "a=3Db=20\r\n=C3=BC\r\n"),
            ("", ""),
            ("a\n\nb", "a\r\n\r\nb\r\n"),
        ] {
            assert_eq!(quoted_printable(octets.as_bytes()), expected);
        }
        let long = quoted_printable("\u{fc}".repeat(100).as_bytes());
        assert!(long.lines().all(|line| line.len() <= 76), "{long}");
    }

    #[test]
    fn words() {
        for (text, expected) in [
            ("mail.corp.example", "mail.corp.example"),
            ("[::1]", "[::1]"),
            ("a) b\r\n", "a??b??"),
            ("", "unknown"),
            ("0123456789abcdef0123", "0123456789abcdef0"),
        ] {
            assert_eq!(word(text.chars(), 17), expected);
        }
        assert_eq!(quoted(*b"a \"b\\"), b"\"a \\\"b\\\\\"");
        assert_eq!(encoded_words("J\u{fc}rgen"), "=?utf-8?B?SsO8cmdlbg==?=");
        let long = encoded_words(&"\u{fc}\u{1f600}".repeat(100));
        for word in long.split("\r\n ") {
            assert!(word.len() <= 75, "{word}");
            let text = word.strip_prefix("=?utf-8?B?").unwrap().strip_suffix("?=");
            String::from_utf8(STANDARD.decode(text.unwrap()).unwrap()).unwrap();
        }
    }
}
