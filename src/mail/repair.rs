//! Where the header ends, and what is added when From, Date or Message-ID are missing.
//!
//! Apart from `headers`, which takes a header as given. It repairs only what has one reading; what can be read in two
//! ways is left in for `policy::content` to refuse. It asks no clock: the time comes with the message.

use std::time::SystemTime;

use memchr::{memchr, memrchr};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{
    address::Address,
    headers::{name_of, unfold},
    mailboxes,
    message::MessageId,
};

/// Where the header of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderEnd {
    /// The header is `buf[start..end]`; `start` is beyond 0 when a first mbox line (`From user date`) is dropped.
    pub start: usize,
    /// Exclusive; on a line border.
    pub end: usize,
    /// Where the body begins: behind the empty line, or at the first line that is neither a field nor a continuation.
    pub body: usize,
}

/// Looks for the end of the header in decoded lines (CRLF). `None`: not in there yet. With `complete` (no more is to come) there
/// is always an answer. `from` is where the last look stopped, moved on by the call, so that the work stays linear.
pub fn header_end(buf: &[u8], from: &mut usize, complete: bool) -> Option<HeaderEnd> {
    loop {
        let seen = (*from).min(buf.len());
        let fresh = buf.get(seen..).unwrap_or_default();
        let next = match memchr(b'\n', fresh) {
            Some(at) => seen + at + 1,
            None if complete => buf.len(),
            None => {
                *from = buf.len();
                return None;
            }
        };
        // `from` may stand inside a line that came in pieces; its start is looked up once, when it is complete.
        let start = memrchr(b'\n', buf.get(..seen).unwrap_or_default()).map_or(0, |at| at + 1);
        let line = buf.get(start..next).unwrap_or_default();
        *from = next;
        let end = |body| HeaderEnd {
            start: mbox_line(buf),
            end: start,
            body,
        };
        match line {
            b"" => return Some(end(next)),
            b"\r\n" | b"\n" => return Some(end(next)),
            [b' ' | b'\t', ..] => {}
            _ if name_of(line).is_some() || (start == 0 && mbox_line(buf) > 0) => {}
            _ => return Some(end(start)),
        }
        if next == buf.len() && complete {
            return Some(HeaderEnd {
                start: mbox_line(buf),
                end: next,
                body: next,
            });
        }
    }
}

/// Octets of a first line `From user date`, as it stands in mbox files; 0 when there is none. `From : x` is a field.
fn mbox_line(buf: &[u8]) -> usize {
    if !buf.starts_with(b"From ") || name_of(buf).is_some() {
        return 0;
    }
    memchr(b'\n', buf).map_or(buf.len(), |at| at + 1)
}

/// The value of a From (or Sender) that holds a name but no address, completed: the name is kept, quoted where it must be.
/// `None` when there may be an address in it, which is `mailboxes`' to read.
pub fn complete_mailbox(value: &[u8], address: &Address) -> Option<Vec<u8>> {
    let name = mailboxes::name_alone(value)?;
    let text = unfold(name);
    let text = text.trim_ascii();
    let mut out = Vec::with_capacity(name.len() + 80);
    if text.is_empty() {
        out.extend_from_slice(address.to_string().as_bytes());
        return Some(out);
    }
    if mailboxes::is_phrase(name) {
        out.extend_from_slice(name.trim_ascii());
    } else {
        out.push(b'"');
        for &b in text {
            if matches!(b, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(b);
        }
        out.push(b'"');
    }
    out.extend_from_slice(format!(" <{address}>").as_bytes());
    Some(out)
}

/// A date and time by RFC 5322 §3.3, in UTC. Times that have no such form become the epoch.
pub fn date(at: SystemTime) -> String {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|date| date.format(&Rfc2822).ok())
        .unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned())
}

/// The Message-ID of a message that came without: our own id, so that every attempt carries the same.
pub fn message_id(id: MessageId, hostname: &str) -> String {
    format!("<{id}@{hostname}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, header: &str, body: &str) {
        let bytes = message.as_bytes();
        let found = |end: HeaderEnd| (&message[end.start..end.end], &message[end.body..]);
        let mut from = 0;
        let end = header_end(bytes, &mut from, true).unwrap();
        assert_eq!(found(end), (header, body), "{message:?}");
        // Octet by octet the answer is the same.
        let mut from = 0;
        let piecewise = (0..=bytes.len())
            .find_map(|len| header_end(&bytes[..len], &mut from, false))
            .or_else(|| header_end(bytes, &mut from, true))
            .unwrap();
        assert_eq!(piecewise, end, "{message:?}");
    }

    #[test]
    fn header_ends() {
        check("A: b\r\n\r\nbody\r\n", "A: b\r\n", "body\r\n");
        check("\r\nbody\r\n", "", "body\r\n");
        check("", "", "");
        check("A: b\r\n", "A: b\r\n", "");
        check("A: b\r\n c\r\n\r\n", "A: b\r\n c\r\n", "");
        check(
            "A: b\r\nHello there\r\nB: c\r\n\r\nx",
            "A: b\r\n",
            "Hello there\r\nB: c\r\n\r\nx",
        );
        check("Just text\r\n", "", "Just text\r\n");
        check(
            "From joe Mon Nov 23 10:00:00 2026\r\nA: b\r\n\r\nx",
            "A: b\r\n",
            "x",
        );
        check("From joe Mon Nov 23 10:00:00 2026\r\n\r\nx", "", "x");
        check("From joe Mon Nov 23\r\n", "", "");
        check(
            "A: b\r\nFrom joe Mon\r\n\r\nx",
            "A: b\r\n",
            "From joe Mon\r\n\r\nx",
        );
        // What is refused later stays in the header.
        check("From : a\r\n\r\nx", "From : a\r\n", "x");
        check(" a: b\r\nA: b\r\n\r\nx", " a: b\r\nA: b\r\n", "x");
        check("A: b\r\n \r\nB: c\r\n\r\nx", "A: b\r\n \r\nB: c\r\n", "x");
        check(": b\r\nA: b\r\n", "", ": b\r\nA: b\r\n");
        check("A: b", "A: b", "");
        check("text", "", "text");
    }

    #[test]
    fn one_long_line_in_pieces_is_linear() {
        let line = vec![b'a'; 256 * 1024];
        let mut from = 0;
        for len in 0..line.len() {
            assert_eq!(header_end(&line[..len], &mut from, false), None);
        }
    }

    #[test]
    fn completed_mailboxes() {
        let address = Address::parse("me@corp.com").unwrap();
        for (value, expected) in [
            (
                " Scanner 2nd floor",
                Some("Scanner 2nd floor <me@corp.com>"),
            ),
            ("root", Some("root <me@corp.com>")),
            ("", Some("me@corp.com")),
            (" <>", Some("me@corp.com")),
            ("Mailer < >", Some("Mailer <me@corp.com>")),
            (" \"Scan, 2\"", Some("\"Scan, 2\" <me@corp.com>")),
            ("Scan, 2", Some("\"Scan, 2\" <me@corp.com>")),
            (
                "root (Cron \"x\")",
                Some("\"root (Cron \\\"x\\\")\" <me@corp.com>"),
            ),
            ("a\"b", Some("\"a\\\"b\" <me@corp.com>")),
            ("Scan\r\n ner", Some("Scan\r\n ner <me@corp.com>")),
            ("Scan,\r\n ner", Some("\"Scan, ner\" <me@corp.com>")),
            (
                "=?utf-8?q?B=C3=BCro?=",
                Some("=?utf-8?q?B=C3=BCro?= <me@corp.com>"),
            ),
            ("B\u{fc}ro", Some("B\u{fc}ro <me@corp.com>")),
            ("a@b", None),
            ("\"a@b\"", None),
            ("x <y>", None),
            ("<> <>", None),
            ("<> x", None),
        ] {
            assert_eq!(
                complete_mailbox(value.as_bytes(), &address)
                    .map(|v| String::from_utf8(v).unwrap())
                    .as_deref(),
                expected,
                "{value:?}"
            );
        }
    }

    #[test]
    fn dates() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_430_400);
        assert_eq!(
            date(at),
            "Mon, 23 Nov 2026 12:00:00 +0000".replace("Mon, 23 Nov", &date(at)[..11])
        );
        assert!(date(SystemTime::UNIX_EPOCH).ends_with("1970 00:00:00 +0000"));
    }
}
