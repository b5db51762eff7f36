//! Where the header ends, what is tidied in it, and what is added when From, Date or Message-ID are missing.
//!
//! Only what has one reading is repaired; what can be read in two ways is left for `policy::content` to refuse. It asks no clock:
//! the time comes with the message.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter, memrchr};

use super::{
    address::Address,
    headers::{fields, name_of, unfold},
    mailboxes,
    message::MessageId,
    text::quoted,
};

/// Where the header of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderEnd {
    /// The header is `buf[start..end]`; `start` is beyond 0 when first mbox lines (`From user date`) are dropped.
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
        // Before any field: nothing, or mbox lines only.
        let fresh = || start == 0 || is_mbox_line(line_before(buf, start));
        let end = |body| HeaderEnd {
            start: mbox_lines(buf),
            end: start,
            body,
        };
        match line {
            b"" | b"\r\n" | b"\n" => return Some(end(next)),
            // A continuation of nothing: text without a header, such as a table.
            [b' ' | b'\t', ..] if fresh() => return Some(end(start)),
            [b' ' | b'\t', ..] => {}
            _ if name_of(line).is_some() || (is_mbox_line(line) && fresh()) => {}
            _ => return Some(end(start)),
        }
        if next == buf.len() && complete {
            return Some(HeaderEnd {
                start: mbox_lines(buf),
                end: next,
                body: next,
            });
        }
    }
}

/// Octets of the first lines `From user date`, as they stand in mbox files; 0 when there are none.
fn mbox_lines(buf: &[u8]) -> usize {
    let mut end = 0;
    while let Some(rest) = buf.get(end..).filter(|rest| is_mbox_line(rest)) {
        end += memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
    }
    end
}

/// `From user date`, also quoted as `>From` (the cron of illumos and Solaris); `From : x` is a field.
fn is_mbox_line(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|b| **b == b'>').count();
    line.get(quotes..)
        .is_some_and(|rest| rest.starts_with(b"From "))
        && name_of(line).is_none()
}

/// The line that ends where `start` is.
fn line_before(buf: &[u8], start: usize) -> &[u8] {
    let before = buf.get(..start.saturating_sub(1)).unwrap_or_default();
    let begin = memrchr(b'\n', before).map_or(0, |at| at + 1);
    buf.get(begin..start).unwrap_or_default()
}

/// The header without what says nothing and is read in two ways: lines of blanks (RFC 5322 §4.2 lets them stand inside a
/// folded field, and some clients part header and body by one), and blanks before the colon (§4.5) of fields that name no
/// sender. So every reader behind this one finds the same fields; From and its like are left for the judge to refuse.
pub fn tidied(header: &[u8]) -> Cow<'_, [u8]> {
    const JUDGED: [&str; 4] = ["From", "Sender", "Resent-From", "Resent-Sender"];
    if is_plain(header) {
        return Cow::Borrowed(header);
    }
    let is_blank = |line: &[u8]| {
        line.iter().all(|b| b" \t\r\n".contains(b)) && line.iter().any(|b| b" \t".contains(b))
    };
    let is_spaced = |name: &[u8], raw: &[u8]| {
        matches!(raw.get(name.len()), Some(b' ' | b'\t'))
            && !name.is_empty()
            && !JUDGED
                .iter()
                .any(|judged| name.eq_ignore_ascii_case(judged.as_bytes()))
    };
    let untidy = |raw: &[u8]| raw.split_inclusive(|b| *b == b'\n').any(is_blank);
    if !fields(header).any(|f| is_spaced(f.name, f.raw) || untidy(f.raw)) {
        return Cow::Borrowed(header);
    }
    let mut out = Vec::with_capacity(header.len());
    for field in fields(header) {
        let mut raw = field.raw;
        if is_spaced(field.name, raw) {
            out.extend_from_slice(field.name);
            raw = raw
                .get(field.name.len()..)
                .unwrap_or_default()
                .trim_ascii_start();
        }
        for line in raw
            .split_inclusive(|b| *b == b'\n')
            .filter(|line| !is_blank(line))
        {
            out.extend_from_slice(line);
        }
    }
    Cow::Owned(out)
}

/// No blank stands before a colon and no line is blank: so it is with most headers, and seen at the speed of memory.
fn is_plain(header: &[u8]) -> bool {
    let is_blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let is_odd = |at: usize| {
        if header.get(at) == Some(&b':') {
            return is_blank(at.checked_sub(1).and_then(|before| header.get(before)));
        }
        let next = header.get(at + 1..).unwrap_or_default();
        is_blank(next.first())
            && matches!(
                next.iter().find(|b| !is_blank(Some(b))),
                None | Some(b'\r' | b'\n')
            )
    };
    !is_blank(header.first()) && !memchr2_iter(b':', b'\n', header).any(is_odd)
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
    } else if mailboxes::is_phrase(text) {
        out.extend_from_slice(text);
    } else {
        out.append(&mut quoted(text.iter().copied()));
    }
    out.extend_from_slice(format!(" <{address}>").as_bytes());
    Some(out)
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
        for quoted in [">From joe Mon\r\n", ">>From joe\r\n>From x\r\nFrom y\r\n"] {
            check(&format!("{quoted}A: b\r\n\r\nx"), "A: b\r\n", "x");
            check(&format!("{quoted}\r\nx"), "", "x");
            check(&format!("{quoted}text\r\n"), "", "text\r\n");
            check(&format!("{quoted} text\r\n"), "", " text\r\n");
            check(quoted, "", "");
        }
        check(
            "A: b\r\n>From joe Mon\r\n\r\nx",
            "A: b\r\n",
            ">From joe Mon\r\n\r\nx",
        );
        check(">From: a\r\nA: b\r\n\r\nx", ">From: a\r\nA: b\r\n", "x");
        // Text that begins with a blank has no header.
        for text in [
            " a: b\r\nA: b\r\n\r\nx",
            "\tload 4\r\n",
            "   \r\nx\r\n",
            " x",
        ] {
            check(text, "", text);
        }
        // What is refused later stays in the header.
        check("From : a\r\n\r\nx", "From : a\r\n", "x");
        check("A: b\r\n \r\nB: c\r\n\r\nx", "A: b\r\n \r\nB: c\r\n", "x");
        check(": b\r\nA: b\r\n", "", ": b\r\nA: b\r\n");
        check("A: b", "A: b", "");
        check("text", "", "text");
    }

    #[test]
    fn one_long_line_in_pieces_is_linear() {
        let line = vec![b'a'; 256 * 1024];
        let (mut from, mut looked) = (0, 0);
        for len in 0..=line.len() {
            // What is looked at: from where the last look stopped.
            looked += len - from;
            assert_eq!(header_end(&line[..len], &mut from, false), None);
            assert_eq!(from, len, "nothing of it is looked at again");
        }
        assert_eq!(looked, line.len(), "each octet once");
    }

    #[test]
    fn many_mbox_lines() {
        let lines = b">From a\r\n".repeat(30_000);
        let mut from = 0;
        assert_eq!(header_end(&lines, &mut from, false), None);
        let end = header_end(&lines, &mut from, true).unwrap();
        assert_eq!((end.start, end.body), (lines.len(), lines.len()));
    }

    #[test]
    fn tidied_headers() {
        for (header, expected) in [
            ("A: b\r\n c\r\n", "A: b\r\n c\r\n"),
            ("Subject \t : s\r\nBcc\t: x\r\n", "Subject: s\r\nBcc: x\r\n"),
            (
                "Subject: long\r\n \r\nTo: x\r\n",
                "Subject: long\r\nTo: x\r\n",
            ),
            ("Subject : a\r\n\t \r\n b\r\n \r\n", "Subject: a\r\n b\r\n"),
            ("To:\r\n \r\n x@y\r\n", "To:\r\n x@y\r\n"),
            ("From: a@b\r\n \r\n", "From: a@b\r\n"),
            // Who is named must be plain at first sight.
            ("From : a@b\r\n", "From : a@b\r\n"),
            ("sENDER\t: a@b\r\n", "sENDER\t: a@b\r\n"),
            ("Resent-From : a@b\r\n", "Resent-From : a@b\r\n"),
            // Not blanks.
            ("A: b\r\n \u{c}\r\n", "A: b\r\n \u{c}\r\n"),
            (" \r\n", ""),
            ("A: b", "A: b"),
            ("A: b\r\n ", "A: b\r\n"),
        ] {
            assert_eq!(
                String::from_utf8_lossy(&tidied(header.as_bytes())),
                expected,
                "{header:?}"
            );
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
            // Who ends the quotes with the line reads no sender at all.
            ("\"Scan,\r\n ner\"", Some("\"Scan, ner\" <me@corp.com>")),
            (
                "=?utf-8?q?B=C3=BCro?=",
                Some("=?utf-8?q?B=C3=BCro?= <me@corp.com>"),
            ),
            ("B\u{fc}ro", Some("B\u{fc}ro <me@corp.com>")),
            ("Scan: 2", Some("\"Scan: 2\" <me@corp.com>")),
            (
                "Job done; all is well",
                Some("\"Job done; all is well\" <me@corp.com>"),
            ),
            ("\"staff:;\"", Some("\"staff:;\" <me@corp.com>")),
            ("staff:;", None),
            ("undisclosed-recipients:; (none)", None),
            ("=?utf-8?q?x?=:;", None),
            ("staff: root;", None),
            ("b\u{fc}ro: \\;", None),
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
}
