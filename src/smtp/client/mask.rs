//! What an upstream must not be heard repeating: the credentials of the connection, in whatever form they come back.
//!
//! What a reply means is decided by what was really said ([`super::reply`]); only what is kept or shown of
//! it is masked. It knows no stage: a connection keeps its mask as long as it lives.

use super::reply::{LINE_KEPT, printable};
use crate::{mail::reply::Reply, secret::Secret, smtp::sasl};

/// So many characters in a row are no accident.
const GRAM: usize = 8;
/// A line so long may have been cut when it was read, its enhanced code taken off.
const LONG: usize = LINE_KEPT - 16;

/// The credentials of one connection, taken apart.
#[derive(Default)]
pub struct Mask {
    /// Every eight characters in a row of a form, without case, blanks and line ends: sorted, each once.
    grams: Vec<[u8; GRAM]>,
    /// Forms that are shorter; they count as whole words only.
    words: Vec<Secret>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(***)")
    }
}

impl Mask {
    /// The mask of who logs in so; of nobody it hides nothing.
    pub fn new(login: Option<&(String, Secret)>) -> Self {
        let mut mask = Self::default();
        let Some((user, secret)) = login.filter(|(_, secret)| !secret.reveal().is_empty()) else {
            return mask;
        };
        for form in sasl::forms(user, secret) {
            let octets = normal(form.reveal());
            mask.grams.extend(octets.array_windows::<GRAM>());
            if octets.len() < GRAM {
                // As replies are read: what is not printable is "?".
                let read = form.reveal().bytes().map(printable);
                mask.words.push(Secret::new(read.collect::<String>()));
            }
        }
        mask.grams.sort_unstable();
        mask.grams.dedup();
        mask
    }

    /// The reply as it may be kept and shown.
    pub fn reply(&self, reply: &Reply) -> Reply {
        Reply {
            code: reply.code,
            enhanced: reply.enhanced,
            text: self.text(&reply.text),
        }
    }

    /// A text with `***` where a part of a secret stood: eight characters of any form of it in a row, wherever case was
    /// changed or blanks and line ends put in between; a shorter one as a word by itself.
    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        if !self.grams.is_empty() {
            out = self.without_grams(&out);
        }
        for word in &self.words {
            out = without_word(&out, word.reveal());
        }
        if self.grams.is_empty() || out.len() < LONG {
            return out;
        }
        // Where a line was cut there may be the beginning of a secret, too short to be known.
        let lines = out.split('\n').map(|line| match line.len() {
            LONG.. => line.get(..line.len() - GRAM).unwrap_or_default(),
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn without_grams(&self, text: &str) -> String {
        // The characters that count, and where each stands.
        let places: Vec<usize> = text
            .bytes()
            .enumerate()
            .filter_map(|(at, octet)| (!octet.is_ascii_whitespace()).then_some(at))
            .collect();
        let mut hidden = vec![false; text.len()];
        for (at, gram) in normal(text).array_windows::<GRAM>().enumerate() {
            if self.grams.binary_search(gram).is_ok()
                && let (Some(first), Some(last)) = (places.get(at), places.get(at + GRAM - 1))
                && let Some(range) = hidden.get_mut(*first..=*last)
            {
                range.fill(true);
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut before = false;
        for (at, c) in text.char_indices() {
            let now = hidden.get(at).is_some_and(|hidden| *hidden);
            match (before, now) {
                (_, false) => out.push(c),
                (false, true) => out.push_str("***"),
                (true, true) => {}
            }
            before = now;
        }
        out
    }
}

/// Without blanks, line ends and case; both alphabets of base64 (RFC 4648 §4, §5) as one.
fn normal(text: &str) -> Vec<u8> {
    text.bytes()
        .filter(|octet| !octet.is_ascii_whitespace())
        .map(|octet| match octet.to_ascii_lowercase() {
            b'-' => b'+',
            b'_' => b'/',
            octet if octet.is_ascii_graphic() => octet,
            _ => b'?',
        })
        .collect()
}

/// A short secret where it is a word; inside another one it is an accident.
fn without_word(text: &str, word: &str) -> String {
    let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some((front, behind)) = rest.split_once(word) {
        out.push_str(front);
        let is_word = !is_part(front.chars().last().or(before)) && !is_part(behind.chars().next());
        out.push_str(if is_word { "***" } else { word });
        before = word.chars().last();
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(user: &str, secret: &str) -> Mask {
        Mask::new(Some(&(user.to_owned(), Secret::new(secret))))
    }

    #[test]
    fn what_is_hidden() {
        let blob = "AHJlbGF5AENhbjRyeSsvJj1wYXNz";
        let password = "Can4ry+/&=pass";
        let mask = mask("relay", password);
        for (text, expected) in [
            (
                "5.7.3 Authentication unsuccessful",
                "5.7.3 Authentication unsuccessful",
            ),
            ("relay access denied", "relay access denied"),
            ("no: Can4ry+/&=pass.", "no: ***."),
            ("no: CAN4RY+/&=PASS.", "no: ***."),
            ("no: can4ry +/&= pass.", "no: ***."),
            ("no: Can4ry+/\n&=pass", "no: ***"),
            ("no: Can4ry+/&=", "no: ***"),
            ("xxCan4ry+/&=passxx", "xx***xx"),
            ("Can4ry%2B%2F%26%3Dpass", "***"),
            ("Q2FuNHJ5Ky8mPXBhc3M=", "***"),
            ("Q2FuNHJ5Ky8m\nPXBhc3M=", "***"),
            ("Q2FuNHJ5Ky8mPXBhc3M", "***"),
            ("Q2FuNHJ5Ky8mPXBhc3M=Q2FuNHJ5", "***"),
            ("pass is a word", "pass is a word"),
            ("", ""),
        ] {
            assert_eq!(mask.text(text), expected, "{text}");
        }
        for text in [
            blob,
            &blob.to_lowercase(),
            &blob[..12],
            &blob[12..],
            &blob.replace('C', " C"),
        ] {
            assert_eq!(mask.text(&format!("AUTH PLAIN {text}?")), "AUTH PLAIN ***?");
        }
    }

    /// What of a secret stands in base64 of something else, at whichever place.
    #[test]
    fn hidden_in_base64_wherever_it_stands() {
        let mask = mask("relay", "hush-hush-password");
        for before in ["", "x", "xy", "auth=Bearer ", "user:"] {
            let said = sasl::base64(&format!("{before}hush-hush-password and more"));
            let shown = mask.text(&said);
            let piece = sasl::base64("h-hush-passw");
            assert!(
                shown.contains("***") && !shown.contains(&piece[..8]),
                "{said} {shown}"
            );
            assert!(shown.len() < said.len() - 14, "{said} {shown}");
        }
    }

    #[test]
    fn short_ones_are_words() {
        for (secret, text, expected) in [
            ("p", "p is wrong", "*** is wrong"),
            ("p", "pp up: 'p'", "pp up: '***'"),
            ("ok", "ok, not okay: ok", "***, not okay: ***"),
            ("secret", "a secretary's secret", "a secretary's ***"),
            ("p", "cA== AHUAcA==", "*** ***"),
            ("", "nothing", "nothing"),
            ("dr\u{e4}", "dr??!", "***!"),
        ] {
            assert_eq!(mask("u", secret).text(text), expected, "{secret}");
        }
        // As replies are read: each octet that is not ASCII is a "?".
        assert_eq!(mask("u", "p\u{e4}ssword").text("p??ssword"), "***");
        let cut = format!("{}passwor", "x".repeat(990));
        assert!(!mask("u", "password").text(&cut).contains("pas"));
        assert_eq!(Mask::default().text("all of it"), "all of it");
        assert_eq!(format!("{:?}", mask("u", "password")), "Mask(***)");
    }
}
