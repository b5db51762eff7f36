//! The parts of a message (RFC 2045, 2046): what each is, how it is encoded, and where in the body it stands.
//!
//! It is pure and copies nothing: a large message is in memory once, and its parts are ranges of it. The header of a
//! part and its charset are read by mail-parser, which given the whole message would decode every part of it at once. What a part is
//! good for is decided in `parts`, its octets are `coding`'s.

use std::ops::Range;

use mail_parser::{MessageParser, MimeHeaders as _, decoders::charsets::map::charset_decoder};
use memchr::memchr;

use super::{
    coding::{Encoding, unbase64, unquoted_printable},
    words,
};

/// Multiparts in multiparts; deeper ones are taken as one part.
const DEPTH: usize = 20;
/// Parts of a message, all in all; Exchange Online takes 250 attachments.
const PARTS: usize = 1000;
/// Octets of an HTML text in which its charset is looked for.
const LOOKED_AT: usize = 4096;
/// Octets of a part's header that are looked at.
pub(super) const HEADER: usize = 64 * 1024;

/// A part, or the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// `text/plain`, in lower case.
    pub(super) kind: String,
    /// Of a text.
    pub(super) charset: Option<String>,
    /// What is to be done with a calendar entry (RFC 6047 §2.4).
    pub(super) method: Option<String>,
    /// The file name, by whichever field.
    pub(super) name: Option<String>,
    /// Without angle brackets.
    pub(super) content_id: Option<String>,
    /// `Content-Disposition: attachment`.
    pub(super) attached: bool,
    /// How the body is encoded.
    pub(super) encoding: Encoding,
    /// Where the body is.
    pub(super) body: Range<usize>,
    /// Of a multipart.
    pub(super) parts: Vec<Part>,
}

/// There are more parts than anybody would write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// Reads the structure of a message.
pub(super) fn read(header: &[u8], body: &[u8]) -> Result<Part, TooMany> {
    let mut left = PARTS;
    read_part(header, "text/plain", body, 0..body.len(), DEPTH, &mut left)
}

fn read_part(
    header: &[u8],
    default: &str,
    all: &[u8],
    body: Range<usize>,
    depth: usize,
    left: &mut usize,
) -> Result<Part, TooMany> {
    *left = left.checked_sub(1).ok_or(TooMany)?;
    let (mut part, boundary) = described(header, default, body.clone());
    let Some(boundary) = boundary.filter(|_| depth > 0 && part.kind.starts_with("multipart/"))
    else {
        return Ok(part);
    };
    let default = match part.kind.as_str() {
        // RFC 2046 §5.1.5.
        "multipart/digest" => "message/rfc822",
        _ => "text/plain",
    };
    for range in split(all, body, boundary.as_bytes()) {
        let text = all.get(range.clone()).unwrap_or_default();
        let (header, begin) = header_of(text);
        part.parts.push(read_part(
            header,
            default,
            all,
            range.start + begin..range.end,
            depth - 1,
            left,
        )?);
    }
    Ok(part)
}

/// What the header says of the part, and its boundary.
fn described(header: &[u8], default: &str, body: Range<usize>) -> (Part, Option<String>) {
    let mut part = Part {
        kind: default.to_owned(),
        charset: None,
        method: None,
        name: None,
        content_id: None,
        attached: false,
        encoding: Encoding::Plain,
        body,
        parts: Vec::new(),
    };
    let mut fields = words::readable(header.get(..HEADER).unwrap_or(header));
    fields.extend_from_slice(b"\r\n");
    let parser = MessageParser::new().with_mime_headers();
    let Some(parsed) = parser.parse_headers(&fields) else {
        return (part, None);
    };
    let Some(read) = parsed.parts.first() else {
        return (part, None);
    };
    let mut boundary = None;
    if let Some(kind) = read.content_type() {
        if let Some(subtype) = kind.subtype() {
            part.kind = format!("{}/{subtype}", kind.ctype()).to_ascii_lowercase();
        } else if kind.ctype().eq_ignore_ascii_case("text") {
            // `Content-Type: text`, from before MIME.
            part.kind = "text/plain".into();
        }
        part.charset = kind.attribute("charset").map(str::to_owned);
        let token = |text: &&str| {
            let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            !text.is_empty() && text.len() <= 32 && text.bytes().all(fine)
        };
        part.method = kind.attribute("method").filter(token).map(str::to_owned);
        boundary = kind
            .attribute("boundary")
            .filter(|b| !b.is_empty())
            .map(str::to_owned);
    }
    part.name = read.attachment_name().map(str::to_owned);
    part.content_id = read
        .content_id()
        .map(|id| id.trim_matches(['<', '>', ' ']).to_owned())
        .filter(|id| !id.is_empty());
    part.attached = read
        .content_disposition()
        .is_some_and(|d| d.ctype().eq_ignore_ascii_case("attachment"));
    let encoding = read.content_transfer_encoding().unwrap_or_default().trim();
    if encoding.eq_ignore_ascii_case("base64") {
        part.encoding = Encoding::Base64;
    } else if encoding.eq_ignore_ascii_case("quoted-printable") {
        part.encoding = Encoding::QuotedPrintable;
    }
    (part, boundary)
}

/// The header of a part, and where its body begins: behind the first empty line.
pub(super) fn header_of(text: &[u8]) -> (&[u8], usize) {
    let mut at = 0;
    while let Some(line) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let end = memchr(b'\n', line).map_or(line.len(), |end| end + 1);
        if line.get(..end).is_some_and(|l| l.trim_ascii().is_empty()) {
            return (text.get(..at).unwrap_or_default(), at + end);
        }
        at += end;
    }
    (text, text.len())
}

/// The parts between the delimiter lines (RFC 2046 §5.1.1). The line end before a delimiter belongs to the delimiter; preamble
/// and epilogue belong to nobody; a multipart without its last delimiter ends with its body.
fn split(all: &[u8], body: Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut begin = None;
    let mut at = body.start;
    while at < body.end {
        let rest = all.get(at..body.end).unwrap_or_default();
        let end = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let line = rest.get(..end).unwrap_or_default();
        let closes = line
            .strip_prefix(b"--")
            .and_then(|line| line.strip_prefix(boundary))
            .map(<[u8]>::trim_ascii_end)
            .filter(|after| matches!(*after, b"" | b"--"))
            .map(|after| after == b"--");
        if let Some(last) = closes {
            if let Some(begin) = begin {
                found.push(begin..before(all, begin, at));
            }
            begin = (!last).then_some(at + end);
            if last || found.len() > PARTS {
                return found;
            }
        }
        at += end;
    }
    if let Some(begin) = begin {
        found.push(begin..body.end.max(begin));
    }
    found
}

/// Without the line end before `at`.
fn before(all: &[u8], begin: usize, at: usize) -> usize {
    let part = all.get(begin..at).unwrap_or_default();
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    begin + part.strip_suffix(b"\r").unwrap_or(part).len()
}

/// The text of a part.
pub(super) fn text(part: &Part, body: &[u8]) -> String {
    let raw = body.get(part.body.clone()).unwrap_or_default();
    let octets = match part.encoding {
        Encoding::Plain => raw.to_vec(),
        Encoding::Base64 => unbase64(raw),
        Encoding::QuotedPrintable => unquoted_printable(raw, true),
    };
    let charset = part.charset.as_deref().unwrap_or_default();
    // What calls itself ASCII and is not, is UTF-8 more often than anything else.
    let says_nothing =
        ["", "utf-8", "utf8", "us-ascii", "ascii"].contains(&charset.to_ascii_lowercase().as_str());
    if !says_nothing && let Some(decoder) = charset_decoder(charset.as_bytes()) {
        return decoder(&octets);
    }
    let within = (part.kind == "text/html")
        .then(|| declared(&octets))
        .flatten();
    if let Some(decoder) = within.and_then(charset_decoder)
        && (octets.contains(&0x1b) || std::str::from_utf8(&octets).is_err())
    {
        return decoder(&octets);
    }
    String::from_utf8(octets).unwrap_or_else(|e| words::western(e.as_bytes()))
}

/// The charset that an HTML text declares in itself, for when nothing else does (HTML §13.2.3.2).
fn declared(html: &[u8]) -> Option<&[u8]> {
    let front = html.get(..LOOKED_AT).unwrap_or(html);
    let lower = front.to_ascii_lowercase();
    let mut at = 0;
    while let Some(found) = memchr::memmem::find(lower.get(at..)?, b"<meta") {
        let begin = at + found;
        let end = begin + memchr(b'>', lower.get(begin..)?)?;
        let tag = lower.get(begin..end)?;
        if let Some(found) = memchr::memmem::find(tag, b"charset") {
            let from = begin + found + "charset".len();
            let value = front
                .get(from..end)?
                .trim_ascii_start()
                .strip_prefix(b"=")?;
            let quotes = |b: &u8| b"\"' ".contains(b);
            let skip = value.iter().take_while(|b| quotes(b)).count();
            let value = value.get(skip..)?;
            let length = value
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
                .count();
            return value.get(..length).filter(|name| !name.is_empty());
        }
        at = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{super::coding::Content, *};
    use bytes::Bytes;

    fn outline(part: &Part, body: &[u8], out: &mut String) {
        use std::fmt::Write as _;
        write!(out, "{}", part.kind).unwrap();
        if part.parts.is_empty() {
            let mut content = Content::new(
                part.encoding,
                Bytes::copy_from_slice(&body[part.body.clone()]),
            );
            let octets = content.piece(0, content.len());
            write!(out, "={:?}", String::from_utf8_lossy(&octets)).unwrap();
        } else {
            out.push('(');
            for (n, part) in part.parts.iter().enumerate() {
                if n > 0 {
                    out.push(' ');
                }
                outline(part, body, out);
            }
            out.push(')');
        }
    }

    fn check(message: &str, expected: &str) {
        let message = message.replace('\n', "\r\n");
        let (header, begin) = header_of(message.as_bytes());
        let body = &message.as_bytes()[begin..];
        let mut found = String::new();
        outline(&read(header, body).unwrap(), body, &mut found);
        assert_eq!(found, expected, "{message}");
    }

    #[test]
    fn structures() {
        check("Subject: s\n\nhello\n", "text/plain=\"hello\\r\\n\"");
        check(
            "Content-Type: application/PDF\nContent-Transfer-Encoding: BASE64\n\ncGRm\n",
            "application/pdf=\"pdf\"",
        );
        check(
            "Content-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n\none\n\n--b  \nContent-Type: text/html\n\n<p>\n--b--\nepilogue\n--b\n\nno\n",
            "multipart/mixed(text/plain=\"one\\r\\n\" text/html=\"<p>\")",
        );
        // A boundary that begins another, the outer one first and the inner one first; a delimiter in the middle of a line.
        check(
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=b1\n\n--b1\n\nt --b1\n--b1x\n--b1--\n--b\n\nx\n--b--\n",
            "multipart/mixed(multipart/alternative(text/plain=\"t --b1\\r\\n--b1x\") text/plain=\"x\")",
        );
        check(
            "Content-Type: multipart/mixed; boundary=b1\n\n--b1\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\nt\n--b--\n--b1\n\nx\n--b1--\n",
            "multipart/mixed(multipart/alternative(text/plain=\"t\") text/plain=\"x\")",
        );
        // No end, no parts, no boundary, no empty line.
        check(
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n",
            "multipart/mixed(text/plain=\"one\\r\\n\")",
        );
        check(
            "Content-Type: multipart/mixed; boundary=b\n\nnothing\n",
            "multipart/mixed=\"nothing\\r\\n\"",
        );
        check(
            "Content-Type: multipart/mixed\n\nnothing\n",
            "multipart/mixed=\"nothing\\r\\n\"",
        );
        check(
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n--b\n--b--\n",
            "multipart/mixed(text/html=\"\" text/plain=\"\")",
        );
        // A message in it is one part, with its own boundaries and encodings.
        check(
            "Content-Type: multipart/digest; boundary=b\n\n--b\n\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nx\n--c--\n\n--b--\n",
            "multipart/digest(message/rfc822=\"Content-Type: multipart/mixed; boundary=c\\r\\n\\r\\n--c\\r\\n\\r\\nx\\r\\n--c--\\r\\n\")",
        );
        check(
            "Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\na=3D=\nb  \nc=zz =E4\n",
            "text/plain=\"a=b\\r\\nc=zz \u{fffd}\\r\\n\"",
        );
    }

    #[test]
    fn too_deep_and_too_many() {
        let mut message = String::new();
        for n in 0..40 {
            let part = "Content-Type: multipart/mixed; boundary=b#\n\n--b#\n";
            message.push_str(&part.replace('#', &n.to_string()));
        }
        let message = message.replace('\n', "\r\n");
        let (header, begin) = header_of(message.as_bytes());
        assert!(read(header, &message.as_bytes()[begin..]).is_ok());
        let many = "--b\r\n\r\nx\r\n".repeat(1001);
        assert_eq!(
            read(
                b"Content-Type: multipart/mixed; boundary=b\r\n",
                many.as_bytes()
            ),
            Err(TooMany)
        );
    }

    fn name(header: &[u8], expected: Option<&str>) {
        let (part, _) = described(header, "text/plain", 0..0);
        assert_eq!(
            part.name.as_deref(),
            expected,
            "{}",
            String::from_utf8_lossy(header)
        );
    }

    #[test]
    fn file_names() {
        let pdf = |rest: &str| format!("Content-Type: application/pdf{rest}\r\n").into_bytes();
        name(&pdf(""), None);
        name(&pdf("; name=a.pdf"), Some("a.pdf"));
        name(&pdf("; name=\"a \\\"b\\\".pdf\""), Some("a \"b\".pdf"));
        name(
            &pdf("; name=\"=?utf-8?Q?=C3=A4?= b.pdf\""),
            Some("\u{e4} b.pdf"),
        );
        name(
            &pdf(
                "\r\nContent-Disposition: attachment;\r\n filename*0*=utf-8''%E8%AB%8B;\r\n filename*1*=%E6%B1%82;\r\n filename*2=.pdf",
            ),
            Some("\u{8acb}\u{6c42}.pdf"),
        );
        name(
            &pdf("\r\nContent-Disposition: attachment; filename*=iso-8859-1'de'%FCber.pdf"),
            Some("\u{fc}ber.pdf"),
        );
        name(
            &pdf("\r\nContent-Disposition: attachment; filename=\"\u{1f600}.pdf\""),
            Some("\u{1f600}.pdf"),
        );
        name(
            b"Content-Disposition: attachment; filename=\"\xfc.pdf\"\r\n",
            Some("\u{fc}.pdf"),
        );
        name(
            &pdf("; name=\"=?utf-8?B?44GT8J8=?=\r\n =?utf-8?B?mIA=?=.pdf\""),
            Some("\u{3053}\u{1f600}.pdf"),
        );
        name(
            &pdf("; name=\"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=.pdf\""),
            Some("\u{65e5}\u{672c}.pdf"),
        );
    }
}
