//! What of a message becomes the body of a Graph draft, and what its attachments.
//!
//! It is pure. Graph has one body, HTML or text: of alternatives HTML is taken where there is any, since the text beside
//! it, which is the same in other words, is made anew by Exchange. Texts that stand one behind the other are all read, so they become
//! one, HTML where one of them is. Everything else is an attachment, octet for octet. A message that is signed
//! or encrypted as a whole cannot be taken apart and be what it was; it is left to another connector.

use std::{
    collections::{HashMap, HashSet},
    io,
    ops::Range,
};

use super::{
    coding::{self, Encoding},
    mime::{self, Part},
    page, words,
};
use crate::mail::headers;

/// Exchange Online takes so many attachments.
const ATTACHMENTS: usize = 250;
/// Texts that are shown one behind the other; more are files.
const TEXTS: usize = 20;
/// Octets of a Content-ID.
const CONTENT_ID: usize = 256;
/// Characters of a file name.
const NAME: usize = 200;

/// A message, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// The body is HTML.
    pub(super) html: bool,
    /// The body.
    pub(super) text: String,
    /// In the order of the message.
    pub(super) attachments: Vec<Attachment>,
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    /// Its file name; never empty.
    pub(super) name: String,
    /// Type and subtype.
    pub(super) kind: String,
    /// What an HTML body calls it by.
    pub(super) content_id: Option<String>,
    /// The HTML body shows it.
    pub(super) inline: bool,
    /// Its octets.
    pub(super) source: PartSource,
}

/// Where the octets of an attachment are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PartSource {
    /// In the body of the message.
    Range(Encoding, Range<usize>),
    /// Here.
    Text(String),
}

/// Why a message cannot be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Sealed {
    #[error("it is signed (S/MIME or PGP), and would lose its signature")]
    Signed,
    #[error("it is encrypted (S/MIME or PGP), and could no longer be opened")]
    Encrypted,
    #[error("it has more than 250 attachments")]
    TooMany,
}

/// Takes a message apart. A body that needs more than `room` octets of JSON becomes an attachment.
pub(super) fn take(header: &[u8], body: &[u8], room: usize) -> Result<Parts, Sealed> {
    let root = mime::read(header, body).map_err(|_| Sealed::TooMany)?;
    sealed(&root, true)?;
    let mut found = Sorted::default();
    found.sort(&root, true);
    let Sorted {
        mut shown,
        mut files,
    } = found;
    // Each costs a search of what is there already.
    if shown.len() > TEXTS {
        files.append(&mut shown.split_off(TEXTS));
    }
    let html = shown.iter().position(|part| is_html(part));
    let mut parts = Parts {
        html: html.is_some(),
        text: String::new(),
        attachments: Vec::new(),
    };
    if let Some(main) = html {
        let texts = shown
            .iter()
            .map(|part| (is_html(part), mime::text(part, body)));
        parts.text = page::joined(texts.collect(), main);
    } else {
        let texts: Vec<String> = shown.iter().map(|part| mime::text(part, body)).collect();
        parts.text = texts.join("\r\n");
    }
    // In the order in which they stand.
    files.sort_by_key(|part| part.body.start);
    parts
        .text
        .retain(|c| !c.is_control() || "\r\n\t".contains(c));
    let named = if parts.html {
        references(&parts.text, &files)
    } else {
        HashSet::new()
    };
    for (n, part) in files.iter().enumerate() {
        let id = part.content_id.as_deref();
        let inline = id.is_some_and(|id| named.contains(id));
        parts.attachments.push(Attachment {
            name: name(part, n + 1, body),
            kind: kind(part),
            content_id: part.content_id.clone(),
            inline,
            source: PartSource::Range(part.encoding, part.body.clone()),
        });
    }
    if json_length(&parts.text) > room {
        put_beside(&mut parts);
    }
    if parts.attachments.len() > ATTACHMENTS {
        return Err(Sealed::TooMany);
    }
    Ok(parts)
}

/// Signed and encrypted parts, at whatever depth: what stands around them would not be the same.
fn sealed(part: &Part, is_root: bool) -> Result<(), Sealed> {
    match part.kind.as_str() {
        "multipart/signed" => return Err(Sealed::Signed),
        "multipart/encrypted" => return Err(Sealed::Encrypted),
        // Below the root it is a file like any other.
        "application/pkcs7-mime" | "application/x-pkcs7-mime" if is_root => {
            return Err(Sealed::Encrypted);
        }
        _ => {}
    }
    part.parts.iter().try_for_each(|part| sealed(part, false))
}

#[derive(Debug, Default)]
struct Sorted<'a> {
    /// Texts that people read when they open the message.
    shown: Vec<&'a Part>,
    /// All else.
    files: Vec<&'a Part>,
}

impl<'a> Sorted<'a> {
    fn sort(&mut self, part: &'a Part, is_root: bool) {
        if part.kind == "multipart/alternative" && !part.parts.is_empty() {
            self.alternatives(part);
        } else if !part.parts.is_empty() {
            for part in &part.parts {
                self.sort(part, false);
            }
        } else if part.kind.starts_with("multipart/") {
            // One that has no parts is read as text by everybody.
            self.shown.push(part);
        } else if (is_html(part) || part.kind == "text/plain")
            && !part.attached
            && (is_root || part.name.is_none())
        {
            self.shown.push(part);
        } else {
            self.files.push(part);
        }
    }

    /// The last alternative with HTML, else the last with text; the files of all. Other renditions of the same text
    /// (`text/enriched`, `text/x-amp-html`) go, but a calendar entry is more than that.
    fn alternatives(&mut self, part: &'a Part) {
        let mut best: Option<Vec<&'a Part>> = None;
        for part in &part.parts {
            let mut found = Sorted::default();
            found.sort(part, false);
            let rendition = part.kind.starts_with("text/") && part.kind != "text/calendar";
            if !rendition || part.attached {
                self.files.append(&mut found.files);
            }
            let has_html = |shown: &[&Part]| shown.iter().any(|part| is_html(part));
            let better = match &best {
                Some(best) if has_html(best) => has_html(&found.shown),
                _ => !found.shown.is_empty(),
            };
            if better {
                best = Some(found.shown);
            }
        }
        self.shown.extend(best.unwrap_or_default());
    }
}

fn is_html(part: &Part) -> bool {
    part.kind == "text/html"
}

/// Which of the files an HTML text names by `cid:` (RFC 2392).
fn references<'a>(html: &str, files: &[&'a Part]) -> HashSet<&'a str> {
    let known = files.iter().filter_map(|part| part.content_id.as_deref());
    let known: HashMap<String, &str> = known.map(|id| (id.to_ascii_lowercase(), id)).collect();
    let mut found = HashSet::new();
    // A scheme is read without case (RFC 3986 §3.1), and those who write it so take the same liberty with the rest.
    let lower = html.to_ascii_lowercase();
    let mut rest = lower.as_bytes();
    while let Some(at) = memchr::memmem::find(rest, b"cid:") {
        rest = rest.get(at + 4..).unwrap_or_default();
        let ends = |b: &u8| b.is_ascii_whitespace() || b"\"'<>()\\".contains(b);
        let id: Vec<u8> = rest
            .iter()
            .take(CONTENT_ID)
            .take_while(|b| !ends(b))
            .copied()
            .collect();
        rest = rest.get(id.len()..).unwrap_or_default();
        let id = String::from_utf8_lossy(&id);
        for id in [id.as_ref(), &unescaped(&id)] {
            found.extend(known.get(&id.to_ascii_lowercase()));
        }
    }
    found
}

/// `%40` and `&amp;` as what they stand for.
fn unescaped(id: &str) -> String {
    let quoted = id
        .replace("&amp;", "&")
        .replace('=', "=3D")
        .replace('%', "=");
    let octets = coding::unquoted_printable(quoted.as_bytes(), false);
    String::from_utf8_lossy(&octets).into_owned()
}

/// Type and subtype, and of a calendar entry whether it is an invitation or an answer.
fn kind(part: &Part) -> String {
    match &part.method {
        Some(method) if part.kind == "text/calendar" => format!("{}; method={method}", part.kind),
        _ => part.kind.clone(),
    }
}

/// As the message has it, else by what it is.
fn name(part: &Part, number: usize, body: &[u8]) -> String {
    let clean = |name: &str| -> String {
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        shortened(name.trim())
    };
    if let Some(name) = part.name.as_deref().map(clean).filter(|n| !n.is_empty()) {
        return name;
    }
    if part.kind == "message/rfc822" && part.encoding == Encoding::Plain {
        let inner = body.get(part.body.clone()).unwrap_or_default();
        let (header, _) = mime::header_of(inner.get(..mime::HEADER).unwrap_or(inner));
        let subject = headers::value_of(header, "Subject").unwrap_or_default();
        let subject = clean(&words::text(subject).replace(['/', '\\', ':'], "_"));
        if !subject.is_empty() {
            return format!("{subject}.eml");
        }
    }
    let ending = match part.kind.as_str() {
        "text/plain" => "txt",
        "text/html" => "html",
        "text/calendar" => "ics",
        "text/csv" => "csv",
        "text/vcard" => "vcf",
        "message/rfc822" => "eml",
        "application/pdf" => "pdf",
        "application/zip" => "zip",
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "image/gif" => "gif",
        "image/tiff" => "tif",
        "image/svg+xml" => "svg",
        _ => "bin",
    };
    format!("part-{number}.{ending}")
}

/// A name that is too long loses its middle, not its ending.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME {
        return name.to_owned();
    }
    let ending = name
        .rfind('.')
        .map_or("", |at| name.get(at..).unwrap_or_default());
    let ending = if ending.chars().count() > 20 {
        ""
    } else {
        ending
    };
    let kept = NAME - ending.chars().count();
    name.chars().take(kept).chain(ending.chars()).collect()
}

/// Counted, not written: it may be large.
fn json_length(text: &str) -> usize {
    struct JsonLength(usize);
    impl io::Write for JsonLength {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0 += octets.len();
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = JsonLength(0);
    match serde_json::to_writer(&mut count, text) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

/// The body as the first attachment, and a sentence in its place.
fn put_beside(parts: &mut Parts) {
    let (name, kind) = if parts.html {
        ("message.html", "text/html")
    } else {
        ("message.txt", "text/plain")
    };
    let mut text = std::mem::take(&mut parts.text);
    // The mark says UTF-8 to whatever opens the file.
    text.insert(0, '\u{feff}');
    for attachment in &mut parts.attachments {
        attachment.inline = false;
    }
    parts.attachments.insert(
        0,
        Attachment {
            name: name.into(),
            kind: kind.into(),
            content_id: None,
            inline: false,
            source: PartSource::Text(text),
        },
    );
    parts.html = false;
    parts.text = format!("The text of this message is in the attached file {name}.\r\n");
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// `kind|text` and for each attachment `name kind octets`, with `!` behind an inline one's Content-ID.
    fn shown(message: &str, room: usize) -> String {
        let message = message.replace('\n', "\r\n");
        let (header, begin) = mime::header_of(message.as_bytes());
        let body = &message.as_bytes()[begin..];
        let parts = match take(header, body, room) {
            Ok(parts) => parts,
            Err(sealed) => return format!("{sealed:?}"),
        };
        let mut out = format!(
            "{}|{}",
            if parts.html { "html" } else { "text" },
            parts.text.trim_end()
        );
        for file in &parts.attachments {
            let octets = match &file.source {
                PartSource::Text(text) => text.clone().into_bytes(),
                PartSource::Range(encoding, range) => {
                    let encoded = bytes::Bytes::copy_from_slice(&body[range.clone()]);
                    let mut content = coding::Content::new(*encoding, encoded);
                    content.piece(0, content.len()).to_vec()
                }
            };
            let octets = String::from_utf8_lossy(&octets);
            write!(out, "\n{} {} {octets:?}", file.name, file.kind).unwrap();
            if let Some(id) = &file.content_id {
                let mark = if file.inline { "!" } else { "" };
                write!(out, " {id}{mark}").unwrap();
            }
        }
        out
    }

    fn check(message: &str, expected: &str) {
        assert_eq!(shown(message, 1 << 20), expected, "{message}");
    }

    /// A multipart of that subtype: its parts between delimiters of its own.
    fn multi(subtype: &str, parts: &[&str]) -> String {
        let boundary = format!("={subtype}=");
        let mut out = format!("Content-Type: multipart/{subtype}; boundary=\"{boundary}\"\n\n");
        for part in parts {
            write!(out, "--{boundary}\n{part}\n").unwrap();
        }
        out + &format!("--{boundary}--\n")
    }

    const TEXT: &str = "Content-Type: text/plain\n\ntext";
    const HTML: &str = "Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n<img src=3D\"cid:i=40x\">=E4";
    const IMAGE: &str = "Content-Type: image/png; name=i.png\nContent-ID: <i@x>\nContent-Transfer-Encoding: base64\n\naW1n";
    const PDF: &str = "Content-Type: application/pdf\nContent-Disposition: attachment; filename=\"a b.pdf\"\nContent-Transfer-Encoding: base64\n\ncGRm";

    #[test]
    fn bodies() {
        check("Subject: s\n\nhello\n", "text|hello");
        check(
            "Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: base64\n\naABpAA==\n",
            "text|hi",
        );
        check(
            "Content-Type: text/plain; charset=x-unknown\n\nGr\u{fc}\u{df}e\u{0} \u{7}\n",
            "text|Gr\u{fc}\u{df}e",
        );
        check(
            &multi("alternative", &[TEXT, HTML]),
            "html|<img src=\"cid:i@x\">\u{e4}",
        );
        check(
            &multi("alternative", &[HTML, TEXT]),
            "html|<img src=\"cid:i@x\">\u{e4}",
        );
        check(&multi("alternative", &[TEXT]), "text|text");
        check(
            &multi(
                "alternative",
                &[
                    TEXT,
                    "Content-Type: text/x-amp-html\n\n<amp>",
                    HTML,
                    "Content-Type: text/calendar; method=REQUEST\n\nBEGIN",
                ],
            ),
            "html|<img src=\"cid:i@x\">\u{e4}\npart-1.ics text/calendar; method=REQUEST \"BEGIN\"",
        );
        // Texts around a file are one text, HTML where one of them is.
        check(
            &multi("mixed", &[TEXT, PDF, "\nfooter"]),
            "text|text\r\nfooter\na b.pdf application/pdf \"pdf\"",
        );
        check(
            &multi(
                "mixed",
                &["Content-Type: text/html\n\n<p>", PDF, "\nfooter"],
            ),
            "html|<p>\r\n<div style=\"white-space: pre-wrap\">footer</div>\na b.pdf application/pdf \"pdf\"",
        );
        check(
            &multi("mixed", &[TEXT, "Content-Type: text/html\n\n<p>disclaimer"]),
            "html|\r\n<div style=\"white-space: pre-wrap\">text</div>\r\n<p>disclaimer",
        );
        check(
            &multi(
                "mixed",
                &[
                    "Content-Type: text/html\n\n<body>one</body>",
                    PDF,
                    "Content-Type: text/html\n\n<body>two</body>",
                ],
            ),
            "html|<body>one\r\ntwo\r\n</body>\na b.pdf application/pdf \"pdf\"",
        );
        // A page says its charset itself.
        check(
            "Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<META content=3D'text/html; charset=3DShift_JIS'>=93=FA=96{\n",
            "html|<META content='text/html; charset=Shift_JIS'>\u{65e5}\u{672c}",
        );
        check(
            "Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<meta charset=3D\"iso-8859-2\">=B1\n",
            "html|<meta charset=\"iso-8859-2\">\u{105}",
        );
        check(
            "Content-Type: text/html\n\n<meta charset=latin1>\u{105}\n",
            "html|<meta charset=latin1>\u{105}",
        );
        // A single file, and nothing to read.
        check(
            "Content-Type: application/pdf; name=scan.pdf\nContent-Transfer-Encoding: base64\n\ncGRm\n",
            "text|\nscan.pdf application/pdf \"pdf\"",
        );
    }

    #[test]
    fn files() {
        // An inline image is what the HTML names, whatever it says of itself.
        check(
            &multi("related", &[&multi("alternative", &[TEXT, HTML]), IMAGE]),
            "html|<img src=\"cid:i@x\">\u{e4}\ni.png image/png \"img\" i@x!",
        );
        check(
            &multi(
                "mixed",
                &["Content-Type: text/html\n\n<img src='cid:other'>", IMAGE],
            ),
            "html|<img src='cid:other'>\ni.png image/png \"img\" i@x",
        );
        check(
            &multi(
                "mixed",
                &["Content-Type: text/html\n\n<img src='cid:i%40x'>", IMAGE],
            ),
            "html|<img src='cid:i%40x'>\ni.png image/png \"img\" i@x!",
        );
        check(
            &multi(
                "mixed",
                &["Content-Type: text/html\n\n<img src='CID:I@X'>", IMAGE],
            ),
            "html|<img src='CID:I@X'>\ni.png image/png \"img\" i@x!",
        );
        check(
            &multi("mixed", &[TEXT, IMAGE]),
            "text|text\ni.png image/png \"img\" i@x",
        );
        // A text that is a file keeps its octets, whatever its charset.
        check(
            &multi(
                "mixed",
                &[
                    TEXT,
                    "Content-Type: text/plain; charset=iso-8859-1\nContent-Disposition: attachment; filename=a.csv\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4",
                ],
            ),
            "text|text\na.csv text/plain \"\u{e4}\"",
        );
        check(
            &multi(
                "mixed",
                &[
                    TEXT,
                    "Content-Type: message/rfc822\n\nSubject: =?utf-8?Q?Re:_=C3=A4/b?=\nContent-Type: multipart/signed; boundary=s\n\n--s\n\nx\n--s--",
                    "Content-Type: message/rfc822\n\n\nx",
                ],
            ),
            "text|text\nRe_ \u{e4}_b.eml message/rfc822 \"Subject: =?utf-8?Q?Re:_=C3=A4/b?=\\r\\nContent-Type: multipart/signed; boundary=s\\r\\n\\r\\n--s\\r\\n\\r\\nx\\r\\n--s--\"\npart-2.eml message/rfc822 \"\\r\\nx\"",
        );
        let long = "x".repeat(300);
        let message = format!("Content-Type: image/png; name=\"{long}.png\"\n\n");
        assert!(shown(&message, 100).contains(&format!("\n{}.png ", "x".repeat(196))));
    }

    #[test]
    fn what_cannot_be_taken_apart() {
        check(&multi("signed", &[TEXT, PDF]), "Signed");
        check(
            &multi("mixed", &[&multi("signed", &[TEXT, PDF]), TEXT]),
            "Signed",
        );
        check(&multi("encrypted", &[TEXT, PDF]), "Encrypted");
        check(
            "Content-Type: application/pkcs7-mime; name=smime.p7m\n\nx\n",
            "Encrypted",
        );
        check(
            &multi(
                "mixed",
                &[
                    TEXT,
                    "Content-Type: application/pkcs7-mime; name=smime.p7m\n\nx",
                ],
            ),
            "text|text\nsmime.p7m application/pkcs7-mime \"x\"",
        );
        let many: Vec<&str> = (0..251).map(|_| PDF).collect();
        check(&multi("mixed", &many), "TooMany");
    }

    /// Whatever it is fed, it gives pieces of the message, and each has a name.
    #[test]
    fn anything_at_all() {
        let mut random = fastrand::Rng::with_seed(31);
        let fragments = [
            "--b\n",
            "--b--\n",
            "--bb\n",
            "--bb--\n",
            "\n",
            "\n\n",
            "text ",
            "=3D",
            "=\n",
            "aGVsbG8=\n",
            "cid:x",
            "\u{e4}",
            "Content-Type: multipart/mixed; boundary=b\n",
            "Content-Type: multipart/alternative; boundary=bb\n",
            "Content-Type: text/html\n",
            "Content-Type: text/plain; charset=utf-16\n",
            "Content-Type: message/rfc822\n",
            "Content-Type: multipart/related; boundary=\"\"\n",
            "Content-Type: ; name=\n",
            "Content-ID: <x>\n",
            "Content-Disposition: attachment; filename*=''%ff\n",
            "Content-Transfer-Encoding: base64\n",
            "Content-Transfer-Encoding: quoted-printable\n",
        ];
        for _ in 0..20_000 {
            let message: String = (0..random.usize(0..30))
                .map(|_| fragments[random.usize(0..fragments.len())])
                .collect();
            let (header, begin) = mime::header_of(message.as_bytes());
            let body = &message.as_bytes()[begin..];
            let room = random.usize(0..200);
            let parts = take(header, body, room).unwrap();
            assert!(room < 100 || json_length(&parts.text) <= room);
            for file in &parts.attachments {
                assert!(
                    !file.name.is_empty() && file.kind.contains('/'),
                    "{message}"
                );
                if let PartSource::Range(_, range) = &file.source {
                    assert!(
                        range.start <= range.end && range.end <= body.len(),
                        "{message}"
                    );
                }
            }
        }
    }

    /// In linear time.
    #[test]
    fn what_is_meant_to_take_long() {
        for line in [
            "cid:",
            "--b\r\n",
            "=?utf-8?Q?a?= ",
            "=?",
            "Content-Type: text/html; name*0*=\r\n",
            "\r\n",
        ] {
            let body = line.repeat((1 << 20) / line.len());
            for header in [
                "Content-Type: text/html\r\n",
                "Content-Type: multipart/mixed; boundary=b\r\n",
            ] {
                let before = processor_time();
                let _ = take(header.as_bytes(), body.as_bytes(), 1000);
                let part = format!("--b\r\n{body}");
                let _ = take(header.as_bytes(), part.as_bytes(), 1000);
                let took = processor_time() - before;
                assert!(took < 2_500_000_000, "{header} {line}: {took} ns");
            }
        }
    }

    /// Of this thread, in nanoseconds: what others do on the machine does not count.
    fn processor_time() -> u64 {
        let of_thread = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let (on, _) = of_thread.split_once(' ').unwrap();
        on.parse().unwrap()
    }

    #[test]
    fn a_body_without_room_becomes_a_file() {
        assert_eq!(
            shown("Subject: s\n\n0123456789\n", 12),
            "text|The text of this message is in the attached file message.txt.\nmessage.txt text/plain \"\\u{feff}0123456789\\r\\n\""
        );
        let html = multi("related", &[HTML, IMAGE]);
        assert_eq!(
            shown(&html, 20),
            "text|The text of this message is in the attached file message.html.\nmessage.html text/html \"\\u{feff}<img src=\\\"cid:i@x\\\">\u{e4}\"\ni.png image/png \"img\" i@x"
        );
    }
}
