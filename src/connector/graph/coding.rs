//! What is encoded, decoded (RFC 2045 §6): base64 piece by piece, quoted-printable at once.
//!
//! It is pure, and a large attachment is never in memory twice. It forgives what others send, and knows
//! neither parts nor charsets.

use bytes::Bytes;

/// Content-Transfer-Encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// 7bit, 8bit, binary, and whatever is not known.
    Plain,
    /// RFC 2045 §6.8.
    Base64,
    /// RFC 2045 §6.7.
    QuotedPrintable,
}

/// The octets of a part, decoded piece by piece as they are asked for.
#[derive(Debug, Clone)]
pub(super) struct Content {
    encoded: Bytes,
    base64: Option<Unbase64>,
    size: usize,
    /// What was decoded so far.
    done: usize,
}

impl Content {
    /// Of a part.
    pub(super) fn new(encoding: Encoding, encoded: Bytes) -> Self {
        let (encoded, base64) = match encoding {
            Encoding::Plain => (encoded, None),
            Encoding::Base64 => (encoded, Some(Unbase64::default())),
            Encoding::QuotedPrintable => (unquoted_printable(&encoded, true).into(), None),
        };
        let size = match base64 {
            None => encoded.len(),
            Some(mut decoder) => {
                let mut size = 0;
                decoder.run(&encoded, |_| {
                    size += 1;
                    true
                });
                size
            }
        };
        Self {
            encoded,
            base64,
            size,
            done: 0,
        }
    }

    /// All its octets.
    pub(super) fn len(&self) -> usize {
        self.size
    }

    /// Up to `length` octets from there on. Cheap when each call goes on where the one before ended.
    pub(super) fn piece(&mut self, from: usize, length: usize) -> Bytes {
        let end = from.saturating_add(length).min(self.size);
        let from = from.min(end);
        let Some(decoder) = &mut self.base64 else {
            return self.encoded.slice(from..end);
        };
        if from < self.done {
            *decoder = Unbase64::default();
            self.done = 0;
        }
        let skip = from - self.done;
        let wanted = end - self.done;
        let mut out = Vec::with_capacity(end - from);
        let mut seen = 0;
        if wanted > 0 {
            decoder.run(&self.encoded, |octet| {
                seen += 1;
                if seen > skip {
                    out.push(octet);
                }
                seen < wanted
            });
        }
        self.done = end;
        out.into()
    }
}

/// RFC 2045 §6.8: what is not of the alphabet is passed over. Behind padding it goes on: some join what they encoded apart.
#[derive(Debug, Clone, Copy, Default)]
struct Unbase64 {
    at: usize,
    bits: u32,
    count: u32,
}

impl Unbase64 {
    /// Gives octets until the end, or until it is told to stop.
    fn run(&mut self, encoded: &[u8], mut give: impl FnMut(u8) -> bool) {
        for b in encoded.get(self.at..).unwrap_or_default() {
            self.at += 1;
            let value = match b {
                b'A'..=b'Z' => b - b'A',
                b'a'..=b'z' => b - b'a' + 26,
                b'0'..=b'9' => b - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.count = 0;
                    continue;
                }
                _ => continue,
            };
            self.bits = (self.bits << 6) | u32::from(value);
            self.count += 6;
            if self.count >= 8 {
                self.count -= 8;
                if !give((self.bits >> self.count) as u8) {
                    return;
                }
            }
        }
    }
}

/// All of it at once.
pub(super) fn unbase64(encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len() / 4 * 3);
    Unbase64::default().run(encoded, |octet| {
        out.push(octet);
        true
    });
    out
}

/// RFC 2045 §6.7; what is not what it should be stays as it is. White space before a line end was added on the way (`lines`).
pub(super) fn unquoted_printable(encoded: &[u8], lines: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len());
    let hex = |b: Option<&u8>| b.and_then(|b| (*b as char).to_digit(16)).map(|v| v as u8);
    let mut rest = encoded;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'=' => match (hex(after.first()), hex(after.get(1))) {
                (Some(high), Some(low)) => {
                    out.push((high << 4) | low);
                    rest = after.get(2..).unwrap_or_default();
                }
                _ => match soft_break(after) {
                    Some(behind) if lines => rest = behind,
                    _ => out.push(b'='),
                },
            },
            b' ' | b'\t' if lines => {
                // The whole run at once: it may be as long as the message, and is looked at only once.
                let more = after.iter().take_while(|b| matches!(b, b' ' | b'\t'));
                let (more, behind) = after.split_at(more.count());
                if !matches!(behind.first(), None | Some(b'\r' | b'\n')) {
                    out.push(*first);
                    out.extend_from_slice(more);
                }
                rest = behind;
            }
            other => out.push(*other),
        }
    }
    out
}

/// What follows `=` at the end of a line.
fn soft_break(after: &[u8]) -> Option<&[u8]> {
    let blank = after.iter().take_while(|b| matches!(b, b' ' | b'\t'));
    let after = after.get(blank.count()..).unwrap_or_default();
    if after.is_empty() {
        return Some(after);
    }
    after
        .strip_prefix(b"\r")
        .unwrap_or(after)
        .strip_prefix(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoded: &str, lines: bool, expected: &str) {
        let found = unquoted_printable(encoded.as_bytes(), lines);
        assert_eq!(String::from_utf8_lossy(&found), expected, "{encoded:?}");
    }

    #[test]
    fn quoted_printable() {
        for (encoded, expected) in [
            ("a=3Db=\r\nc", "a=bc"),
            ("a=3db= \t\r\nc=", "a=bc"),
            ("a \t\r\nb ", "a\r\nb"),
            ("a=20\r\n", "a \r\n"),
            (" a \t b\t\n \n", " a \t b\n\n"),
            // `=` that was never encoded.
            ("?x=y&z=q=\"", "?x=y&z=q=\""),
            ("=C3=A4=\n=C3=B6", "\u{e4}\u{f6}"),
        ] {
            check(encoded, true, expected);
        }
        check("a =", false, "a =");
    }

    /// Each blank looked at the rest of the run once: at this size the test would not end.
    #[test]
    fn a_line_of_blanks_without_end() {
        let mut line = vec![b' '; 8 << 20];
        assert_eq!(unquoted_printable(&line, true), b"");
        line.push(b'x');
        assert!(unquoted_printable(&line, true) == line);
    }

    #[test]
    fn base64_as_it_comes() {
        for (encoded, expected) in [
            ("cGRm", "pdf"),
            ("cGRm\r\ncGRm", "pdfpdf"),
            ("cGQ=\r\ncGQ=\r\n", "pdpd"),
            ("cGR", "pd"),
            ("c-G!R m", "pdf"),
            ("", ""),
        ] {
            assert_eq!(unbase64(encoded.as_bytes()), expected.as_bytes());
        }
    }

    /// Whatever pieces it is asked for, in whatever order, they are those of the whole.
    #[test]
    fn pieces_make_the_whole() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let octets: Vec<u8> = (0..random.usize(0..400)).map(|_| random.u8(..)).collect();
            let mut encoded = String::new();
            let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &octets);
            for (n, c) in text.chars().enumerate() {
                if n > 0 && n % 76 == 0 {
                    encoded.push_str("\r\n");
                }
                encoded.push(c);
            }
            let mut content = Content::new(Encoding::Base64, encoded.clone().into());
            assert_eq!(content.len(), octets.len());
            assert_eq!(unbase64(encoded.as_bytes()), octets);
            let mut at = 0;
            for _ in 0..40 {
                if random.u8(0..4) == 0 {
                    at = random.usize(0..=octets.len());
                }
                let length = random.usize(0..100);
                let end = (at + length).min(octets.len());
                assert_eq!(content.piece(at, length), octets[at..end], "{at} {length}");
                at = end;
            }
        }
    }
}
