//! What an upstream's text says in its own words: without the addresses, names and subjects that it quotes.
//!
//! A sender or a recipient may be called anything, `"relay access denied"@x.example` for one, and must not decide what a refusal
//! means: no part of what stands in `<>` or in quotes is kept, and no word with an `@`.

use crate::mail::text::cut;

/// So much of a text is looked at, in octets: what an upstream has to say about us stands at the beginning.
const MOST: usize = 1000;

/// The text in lower case, blanks made one, without what is quoted in it.
pub(super) fn wording(text: &str) -> String {
    let text = cut(text, MOST).as_bytes();
    let mut kept = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&octet) = text.get(at) {
        let rest = text.get(at + 1..).unwrap_or_default();
        let before = kept.last().copied().unwrap_or(b' ');
        let quoted = match octet {
            b'<' => end_of_path(rest),
            b'"' => end_of_string(rest),
            // An apostrophe inside a word is none.
            b'\'' if !before.is_ascii_alphanumeric() => memchr::memchr(b'\'', rest),
            _ => None,
        };
        if let Some(length) = quoted {
            kept.push(b' ');
            at += length + 2;
        } else {
            kept.push(octet.to_ascii_lowercase());
            at += 1;
        }
    }
    String::from_utf8_lossy(&kept)
        .split_ascii_whitespace()
        .filter(|word| !word.contains('@'))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Octets up to the `>` that ends a path; one inside a quoted string does not (RFC 5321 §4.1.2).
fn end_of_path(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'>' => return Some(at),
            b'"' => at += end_of_string(text.get(at + 1..)?)? + 2,
            _ => at += 1,
        }
    }
}

/// Octets up to the `"` that ends a quoted string.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_left_out() {
        for (text, expected) in [
            (
                "<b@x.example>: Relay access denied",
                ": relay access denied",
            ),
            ("Relaying\nDENIED.  Proper", "relaying denied. proper"),
            (
                "<\"relay access denied\"@x>: no such user",
                ": no such user",
            ),
            ("<\"x> relay access denied <y\"@x>: no", ": no"),
            ("<\"x\\\"> relay access denied <y\"@x>: no", ": no"),
            ("'unable to relay' is spam", "is spam"),
            (
                "sorry, that domain isn't in my list",
                "sorry, that domain isn't in my list",
            ),
            (
                "The 'From' address you supplied",
                "the address you supplied",
            ),
            (
                "SendAsDenied; a@x not allowed to send as b@x",
                "sendasdenied; not allowed to send as",
            ),
            ("SendAsDenied@x.example... User unknown", "user unknown"),
            ("5 < 6 and \"no end", "5 < 6 and \"no end"),
            ("", ""),
        ] {
            assert_eq!(wording(text), expected, "{text}");
        }
    }
}
