//! Octets of an upstream to replies (RFC 5321 §4.2).
//!
//! A hostile or broken upstream is met here first: everything is bounded, any code from 200 to
//! 599 and any octet is read, and what is not a reply is an error, never a guess. It does not say what a reply means.

use std::fmt;

use crate::mail::{reply::Reply, text::ascii};

/// A line longer than this, in octets, is not a reply.
pub const LINE_LIMIT: usize = 4096;
/// What is kept of a line, in octets.
pub const LINE_KEPT: usize = 1000;
/// Lines of one reply, at most.
pub const LINES: usize = 200;
/// Octets of one reply, at most.
pub const TOTAL: usize = 100_000;

/// Why what came is not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadReply {
    /// A line over [`LINE_LIMIT`].
    LongLine,
    /// More than [`LINES`] lines or [`TOTAL`] octets.
    Endless,
    /// No three-digit code from 200 to 599, or something else than a space or a hyphen behind it.
    NoCode,
    /// Lines of one reply with different codes (RFC 5321 §4.2.1 forbids it).
    MixedCodes,
    /// A TLS record where a reply should be.
    Tls,
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadReply::LongLine => "a reply line without an end",
            BadReply::Endless => "a reply without an end",
            BadReply::NoCode => "something that is no SMTP reply",
            BadReply::MixedCodes => "a reply whose lines have different codes",
            BadReply::Tls => {
                "TLS where plain SMTP was expected (is this a port for tls = \"implicit\"?)"
            }
        })
    }
}

/// The replies in a stream, however it is cut into reads.
///
/// Holds at most what one [`Replies::feed`] brought, a line and a reply; so feed only after
/// [`Replies::next_reply`] said `None`.
#[derive(Debug, Default)]
pub struct Replies {
    buffer: Vec<u8>,
    start: usize,
    /// The buffer up to here holds no LF.
    searched: usize,
    code: Option<u16>,
    enhanced: Option<(u8, u16, u16)>,
    text: String,
    lines: usize,
    octets: usize,
}

impl Replies {
    /// Takes in what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
            self.searched = 0;
        } else if self.start > LINE_LIMIT {
            self.buffer.drain(..self.start);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete reply, or `None` when more octets are needed.
    ///
    /// # Errors
    /// [`BadReply`]: the stream is useless from here on.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, BadReply> {
        loop {
            let from = self.searched.max(self.start);
            let unread = self.buffer.get(from..).unwrap_or_default();
            let Some(at) = memchr::memchr(b'\n', unread) else {
                self.searched = self.buffer.len();
                let pending = self.buffer.get(self.start..).unwrap_or_default();
                if self.lines == 0 && matches!(pending, [0x14..=0x17, 3, ..]) {
                    return Err(BadReply::Tls);
                }
                if pending.len() > LINE_LIMIT {
                    return Err(BadReply::LongLine);
                }
                return Ok(None);
            };
            let end = from + at;
            let line = self.buffer.get(self.start..end).unwrap_or_default();
            if self.lines == 0 && matches!(line, [0x14..=0x17, 3, ..]) {
                return Err(BadReply::Tls);
            }
            if line.len() > LINE_LIMIT {
                return Err(BadReply::LongLine);
            }
            self.octets += line.len() + 1;
            self.lines += 1;
            if self.octets > TOTAL || self.lines > LINES {
                return Err(BadReply::Endless);
            }
            // A bare LF ends a line as well: old upstreams do it, and nothing can be smuggled towards us.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let (code, more, rest) = split_line(line)?;
            if *self.code.get_or_insert(code) != code {
                return Err(BadReply::MixedCodes);
            }
            if self.lines > 1 {
                self.text.push('\n');
            }
            let rest = rest.get(..LINE_KEPT).unwrap_or(rest);
            let (enhanced, rest) = split_enhanced(code, rest);
            if self.lines == 1 {
                self.enhanced = enhanced;
            }
            self.text.extend(rest.iter().map(|b| printable(*b)));
            self.start = end + 1;
            self.searched = self.start;
            if !more {
                let reply = Reply {
                    code,
                    enhanced: self.enhanced.take(),
                    text: std::mem::take(&mut self.text),
                };
                self.code = None;
                self.lines = 0;
                self.octets = 0;
                return Ok(Some(reply));
            }
        }
    }

    /// The first of what is here and was not handed out, for people: the line that is not a reply, or not yet one.
    pub fn rest(&self) -> String {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = line.get(..LINE_KEPT).unwrap_or(line).trim_ascii();
        match (self.code, line.iter().any(u8::is_ascii_graphic)) {
            (_, true) => line.iter().map(|b| printable(*b)).collect(),
            // A reply has begun, and goes on.
            (Some(code), false) => format!("{code}-"),
            (None, false) => String::new(),
        }
    }

    /// Nothing is buffered: no octet came that was not part of a reply already handed out.
    pub fn is_drained(&self) -> bool {
        self.start == self.buffer.len() && self.lines == 0
    }
}

/// Text from outside, without anything that a terminal or a log would act upon.
pub(super) fn printable(octet: u8) -> char {
    match octet {
        b'\t' => ' ',
        _ => ascii(char::from(octet)),
    }
}

/// Code, "another line follows", text.
fn split_line(line: &[u8]) -> Result<(u16, bool, &[u8]), BadReply> {
    let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
        return Err(BadReply::NoCode);
    };
    let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    match rest {
        // "250" alone occurs (RFC 5321 §4.2 asks receivers to bear it).
        [] => Ok((code, false, rest)),
        [b' ' | b'\t', text @ ..] => Ok((code, false, text)),
        [b'-', text @ ..] => Ok((code, true, text)),
        _ => Err(BadReply::NoCode),
    }
}

/// The enhanced code (RFC 2034 §4) at the front, when its class is the reply's.
fn split_enhanced(code: u16, text: &[u8]) -> (Option<(u8, u16, u16)>, &[u8]) {
    let found = || {
        let end = memchr::memchr(b' ', text).unwrap_or(text.len());
        let word = std::str::from_utf8(text.get(..end)?).ok()?;
        let mut parts = word.split('.');
        let class = number(parts.next()?)?;
        let subject = number(parts.next()?)?;
        let detail = number(parts.next()?)?;
        let fits = parts.next().is_none() && u16::from(class as u8) == code / 100 && class < 6;
        fits.then_some((
            (class as u8, subject, detail),
            text.get(end + 1..).unwrap_or_default(),
        ))
    };
    match found() {
        Some((enhanced, rest)) => (Some(enhanced), rest),
        None => (None, text),
    }
}

fn number(digits: &str) -> Option<u16> {
    let fits = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8], chunk: usize) -> (Vec<Reply>, Option<BadReply>, bool) {
        let mut replies = Replies::default();
        let mut out = Vec::new();
        for piece in input.chunks(chunk) {
            replies.feed(piece);
            loop {
                match replies.next_reply() {
                    Ok(Some(reply)) => out.push(reply),
                    Ok(None) => break,
                    Err(broken) => return (out, Some(broken), false),
                }
            }
        }
        (out, None, replies.is_drained())
    }

    type Short<'a> = (u16, Option<(u8, u16, u16)>, &'a str);

    fn check(input: &[u8], expected: &[Short<'_>]) {
        for chunk in 1..=input.len() {
            let (replies, broken, drained) = parse(input, chunk);
            let got: Vec<_> = replies
                .iter()
                .map(|r| (r.code, r.enhanced, r.text.as_str()))
                .collect();
            assert_eq!(got, expected, "{} by {chunk}", input.escape_ascii());
            assert_eq!(broken, None);
            assert!(drained);
        }
    }

    fn check_broken(input: &[u8], expected: BadReply) {
        for chunk in [1, 7, 4096, input.len()] {
            assert_eq!(parse(input, chunk).1, Some(expected), "{chunk}");
        }
    }

    #[test]
    fn replies() {
        check(b"250 ok\r\n", &[(250, None, "ok")]);
        check(b"250\r\n", &[(250, None, "")]);
        check(b"250 \r\n", &[(250, None, "")]);
        check(b"250 ok\n220 x\n", &[(250, None, "ok"), (220, None, "x")]);
        check(b"571 no\r\n", &[(571, None, "no")]);
        check(b"299 odd\r\n", &[(299, None, "odd")]);
        check(b"550 5.1.1 no\r\n", &[(550, Some((5, 1, 1)), "no")]);
        check(b"550 5.1.1\r\n", &[(550, Some((5, 1, 1)), "")]);
        check(b"550 4.1.1 no\r\n", &[(550, None, "4.1.1 no")]);
        check(b"250 2.0.0.1 x\r\n", &[(250, None, "2.0.0.1 x")]);
        check(b"250 2.00000.1 x\r\n", &[(250, None, "2.00000.1 x")]);
        check(
            b"550-5.7.1 a\r\n550-5.7.1 b\r\n550 c\r\n",
            &[(550, Some((5, 7, 1)), "a\nb\nc")],
        );
        check(b"250 caf\xe9\x1b[31m\0\r\n", &[(250, None, "caf??[31m?")]);
        check(b"250-   \r\n250-\r\n250 x\r\n", &[(250, None, "   \n\nx")]);
    }

    #[test]
    fn what_is_no_reply() {
        for input in [
            &b"HELLO\n"[..],
            b"\r\n",
            b"25\r\n",
            b"150 x\r\n",
            b"650 x\r\n",
            b"2500 x\r\n",
            b"250:x\r\n",
            b"-250 x\r\n",
        ] {
            check_broken(input, BadReply::NoCode);
        }
        check_broken(b"250-a\r\n550 b\r\n", BadReply::MixedCodes);
        check_broken(b"\x16\x03\x03\0\x01", BadReply::Tls);
        check_broken(b"\x15\x03\x01\0\x02\x02\n", BadReply::Tls);
    }

    #[test]
    fn bounds() {
        check_broken(&[b'2'; 5000], BadReply::LongLine);
        let mut long = b"250 ".to_vec();
        long.extend([b'x'; 5000]);
        long.extend(b"\r\n");
        check_broken(&long, BadReply::LongLine);
        check_broken(&b"220-x\r\n".repeat(LINES + 1), BadReply::Endless);
        let mut line = b"220-".to_vec();
        line.extend([b'x'; 3000]);
        line.extend(b"\r\n");
        check_broken(&line.repeat(40), BadReply::Endless);
        let mut kept = b"250 ".to_vec();
        kept.extend([b'x'; 4000]);
        kept.extend(b"\r\n");
        assert_eq!(parse(&kept, 100).0[0].text.len(), LINE_KEPT);
    }

    #[test]
    fn the_buffer_does_not_grow() {
        let mut replies = Replies::default();
        for _ in 0..10_000 {
            replies.feed(&b"250 ok\r\n250 ok\r\n2"[..]);
            while let Ok(Some(_)) = replies.next_reply() {}
            replies.feed(b"50 ok\r\n");
            while let Ok(Some(_)) = replies.next_reply() {}
            assert!(replies.buffer.capacity() < 16_384);
        }
        assert!(replies.is_drained());
    }
}
