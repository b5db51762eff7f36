//! What `sendmail` makes of its input: line ends, the recipients and the sender that the header names, the From it adds.
//!
//! Without a connection, so that tables test it. It reads addresses as other sendmails do, for programs that answer for their own
//! header; what may leave is the gateway's to judge.

use crate::{
    cli::handover,
    mail::{
        address::Address,
        headers, repair,
        text::{encoded_words, quoted, shown},
    },
};

/// A message on its way to the gateway.
#[derive(Debug, Default)]
pub(super) struct LocalMessage {
    header: Vec<u8>,
    /// With the empty line in front, where there is one.
    body: Vec<u8>,
    has_from: bool,
    /// Of the header, each once: only when they were asked for.
    pub(super) recipients: Vec<String>,
    /// Who sends it, according to the header; it may be a bare name such as `root`.
    pub(super) sender: Option<String>,
}

impl LocalMessage {
    /// Reads a message. With `to_header` (`-t`) the recipients stand in it, and the blind ones are taken out.
    ///
    /// # Errors
    /// A sentence: a field whose addresses cannot be read.
    pub(super) fn read(input: &[u8], to_header: bool) -> Result<Self, String> {
        // Editors on Windows put a mark in front of UTF-8, with which the first field would not be one.
        let content = handover::plain(input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input));
        let end = repair::header_end(&content, &mut 0, true)
            .ok_or_else(|| "the header has no end".to_owned())?;
        let header = content.get(end.start..end.end).unwrap_or_default();
        let mut draft = Self {
            header: repair::tidied(&visible(header)).into_owned(),
            ..Self::default()
        };
        let body = content.get(end.body..).unwrap_or_default();
        if end.body > end.end || !body.is_empty() {
            draft.body.extend_from_slice(b"\r\n");
            draft.body.extend_from_slice(body);
        }
        // RFC 5322 §3.6.6: a message that is sent again names its sender and recipients in Resent fields.
        let has = |name| headers::value_of(&draft.header, name).is_some();
        let again = ["Resent-To", "Resent-Cc", "Resent-Bcc"]
            .into_iter()
            .any(has);
        let (from, fields) = if again {
            ("Resent-From", ["Resent-To", "Resent-Cc", "Resent-Bcc"])
        } else {
            ("From", ["To", "Cc", "Bcc"])
        };
        draft.has_from = has("From");
        draft.sender = headers::value_of(&draft.header, from).and_then(sender);
        if to_header {
            for field in headers::fields(&draft.header) {
                if !fields.iter().any(|name| field.is(name)) {
                    continue;
                }
                let found = addresses(field.value).map_err(|error| {
                    let field = String::from_utf8_lossy(field.raw).into_owned();
                    format!("cannot read {}: {error}", shown(&field))
                })?;
                for address in found {
                    once(&mut draft.recipients, address);
                }
            }
            draft.header = headers::remove(&draft.header, &["Bcc", "Resent-Bcc"]);
        }
        Ok(draft)
    }

    /// The message as `sender` sends it; a From is added where there is none and a full name is known.
    pub(super) fn message(&self, sender: &str, name: Option<&str>) -> Vec<u8> {
        let mut message = self.header.clone();
        let phrase = name.map(phrase).filter(|phrase| !phrase.is_empty());
        if let (false, Some(phrase)) = (self.has_from, phrase) {
            // A name alone gets the address from the gateway, which knows the sender after completion and rewriting.
            let from = if sender.contains('@') {
                format!("{phrase} <{sender}>")
            } else {
                phrase
            };
            headers::append(&mut message, "From", from.as_bytes());
        }
        message.extend_from_slice(&self.body);
        message
    }
}

/// Adds an address that is not there yet.
pub(super) fn once(recipients: &mut Vec<String>, address: String) {
    if !recipients.contains(&address) {
        recipients.push(address);
    }
}

/// The header without the control characters at which other readers end a line: the gateway would refuse them.
fn visible(header: &[u8]) -> Vec<u8> {
    let blank = |b: &u8| match b {
        0x0b | 0x0c | 0x1c..=0x1e => b' ',
        b => *b,
    };
    header.iter().map(blank).collect()
}

/// The first address of a From. A word alone (`From: Cron`) is a name and no sender, in angle brackets it is one.
fn sender(value: &[u8]) -> Option<String> {
    let first = addresses(value).ok()?.into_iter().next()?;
    (first.contains('@') || value.contains(&b'<')).then_some(first)
}

/// One element of a list, while it is read.
#[derive(Default)]
struct Element {
    /// What stands outside the angle brackets, comments aside.
    words: Vec<u8>,
    /// What stands inside them: then the words are a name, whatever they look like.
    angle: Option<Vec<u8>>,
}

/// The addresses of a list, canonical where they are complete. Elements end at `,` and, as on Windows, at `;`; group names,
/// display names, comments and source routes are no addresses.
///
/// # Errors
/// Why it is no list of addresses.
pub(super) fn addresses(value: &[u8]) -> Result<Vec<String>, &'static str> {
    let mut found = Vec::new();
    let mut element = Element::default();
    let (mut quoted, mut escaped, mut inside, mut literal) = (false, false, false, false);
    let mut depth = 0_usize;
    for &b in value.iter().filter(|b| !matches!(b, b'\r' | b'\n')) {
        if depth > 0 {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            continue;
        }
        let plain = !quoted && !literal;
        match b {
            b'<' if plain => {
                if inside {
                    return Err("< inside <>");
                }
                if element.angle.is_some() {
                    element.end(&mut found)?;
                }
                element.angle = Some(Vec::new());
                inside = true;
                continue;
            }
            b'>' if plain => {
                if !std::mem::take(&mut inside) {
                    return Err("> without <");
                }
                continue;
            }
            b'(' if plain => {
                depth = 1;
                element.put(inside, b' ');
                continue;
            }
            b',' | b';' if plain && !inside => {
                element.end(&mut found)?;
                continue;
            }
            b':' if plain && !inside => {
                // The name of a group, whose members follow.
                if element.words.contains(&b'@') || element.angle.is_some() {
                    return Err("a colon after an address");
                }
                element.words.clear();
                continue;
            }
            _ => {}
        }
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' if plain => literal = true,
            b']' if !quoted => literal = false,
            _ => {}
        }
        element.put(inside, b);
    }
    if quoted || inside || depth > 0 {
        return Err("a quoted string, a comment or <> has no end");
    }
    element.end(&mut found)?;
    Ok(found)
}

impl Element {
    fn put(&mut self, inside: bool, b: u8) {
        match &mut self.angle {
            Some(angle) if inside => angle.push(b),
            _ => self.words.push(b),
        }
    }

    /// The element ends: its address goes to `found`, if it has one.
    fn end(&mut self, found: &mut Vec<String>) -> Result<(), &'static str> {
        let element = std::mem::take(self);
        let in_brackets = element.angle.is_some();
        let text = element.angle.unwrap_or(element.words);
        let text =
            str::from_utf8(text.trim_ascii()).map_err(|_| "an address that is not valid UTF-8")?;
        let text = match text.rsplit_once(':') {
            // RFC 5321 §4.1.2: a source route is dropped.
            Some((route, mailbox)) if in_brackets && route.starts_with('@') => mailbox.trim(),
            _ => unwrapped(text),
        };
        if text.is_empty() {
            return Ok(());
        }
        if let Ok(address) = Address::parse(text) {
            found.push(address.to_string());
            return Ok(());
        }
        let speakable = |b: u8| (b.is_ascii_graphic() && !matches!(b, b'<' | b'>')) || b >= 128;
        if !text.bytes().all(speakable) {
            return Err("words that are not an address");
        }
        // A bare name such as `root`: the gateway completes it or refuses it.
        found.push(text.to_owned());
        Ok(())
    }
}

/// `'a@b'`, as some mail programs of Windows write it.
fn unwrapped(text: &str) -> &str {
    text.strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''))
        .filter(|text| text.contains('@'))
        .unwrap_or(text)
}

/// A full name as a display name: quoted (RFC 5322 §3.2.4), or encoded words where it is more than ASCII or holds what could
/// be read as an address.
fn phrase(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim();
    let is_encoded = |word: &str| word.starts_with("=?") && word.ends_with("?=");
    if name.is_empty() || (name.is_ascii() && name.split(' ').all(is_encoded)) {
        return name.to_owned();
    }
    if !name.is_ascii() || name.contains(['@', '<', '>']) {
        return encoded_words(name);
    }
    String::from_utf8_lossy(&quoted(name.bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn messages() {
        fn check(input: &str, expected: &str, sender: Option<&str>, recipients: &[&str]) {
            let draft = LocalMessage::read(input.as_bytes(), true).unwrap();
            let message = String::from_utf8(draft.message("me@b.c", None)).unwrap();
            assert_eq!(message, expected, "{input:?}");
            assert_eq!(draft.sender.as_deref(), sender, "{input:?}");
            assert_eq!(draft.recipients, recipients, "{input:?}");
        }
        check(
            "From: A <a@b.c>\nTo: x@y.z,\n G: p@q.r, x@y.z;\nBcc: h@i.j\nSubject: s\n\nbody\n..\n",
            "From: A <a@b.c>\r\nTo: x@y.z,\r\n G: p@q.r, x@y.z;\r\nSubject: s\r\n\r\nbody\r\n..\r\n",
            Some("a@b.c"),
            &["x@y.z", "p@q.r", "h@i.j"],
        );
        check(
            "To: root, x@y.z\nhello\n",
            "To: root, x@y.z\r\n\r\nhello\r\n",
            None,
            &["root", "x@y.z"],
        );
        check("To: x@y.z\n", "To: x@y.z\r\n", None, &["x@y.z"]);
        check("hello\n", "\r\nhello\r\n", None, &[]);
        check(
            "\u{feff}To: x@y.z\n\n\u{feff}b\n",
            "To: x@y.z\r\n\r\n\u{feff}b\r\n",
            None,
            &["x@y.z"],
        );
        check("  hello\n", "\r\n  hello\r\n", None, &[]);
        check(
            ">From root Sat Nov 28\nFrom root Sat\nTo: x@y.z\n\nb\n",
            "To: x@y.z\r\n\r\nb\r\n",
            None,
            &["x@y.z"],
        );
        // Written again, or with blanks: still blind copies.
        check(
            "To : x@y.z\nBcc\t: h@i.j\nbcc: k@l.m\nTo: p@q.r\n\nb\n",
            "To: x@y.z\r\nTo: p@q.r\r\n\r\nb\r\n",
            None,
            &["x@y.z", "h@i.j", "k@l.m", "p@q.r"],
        );
        // Sent again: to those of the Resent fields alone.
        check(
            "Resent-From: me <r@b.c>\nResent-To: x@y.z\nResent-Bcc: h@i.j\nFrom: a@b.c\nTo: old@y.z\nCc: old@y.z\nBcc: old@y.z\n\nb\n",
            "Resent-From: me <r@b.c>\r\nResent-To: x@y.z\r\nFrom: a@b.c\r\nTo: old@y.z\r\nCc: old@y.z\r\n\r\nb\r\n",
            Some("r@b.c"),
            &["x@y.z", "h@i.j"],
        );
        check(
            "Resent-From: r@b.c\nFrom: a@b.c\nTo: x@y.z\n\nb\n",
            "Resent-From: r@b.c\r\nFrom: a@b.c\r\nTo: x@y.z\r\n\r\nb\r\n",
            Some("a@b.c"),
            &["x@y.z"],
        );
        // A CR that ends no line makes no field, and no character ends a line for others.
        check(
            "Subject: 10%\rBcc: v@w.x\u{c}y\nTo: x@y.z\r\r\n\r\r\n10%\r20%\r\rdone\r\nnul\0\nend\r",
            "Subject: 10% Bcc: v@w.x y\r\nTo: x@y.z\r\n\r\n10% 20%  done\r\nnul \r\nend",
            None,
            &["x@y.z"],
        );
        assert!(LocalMessage::read(b"To: one two\n\nb\n", true).is_err());
        assert!(LocalMessage::read(b"To: one two\n\nb\n", false).is_ok());
    }

    #[test]
    fn senders() {
        for (from, expected) in [
            ("a@b.c", Some("a@b.c")),
            ("A <a@b.c>, <d@e.f>", Some("a@b.c")),
            ("b@x.y <a@b.c>", Some("a@b.c")),
            ("'b@x.y' <a@b.c>", Some("a@b.c")),
            ("\"b@x.y\" <a@b.c>", Some("a@b.c")),
            ("mdadm monitoring <root>", Some("root")),
            ("root", None),
            ("Cron Daemon", None),
            ("Mailer <>", None),
            ("", None),
            ("B\u{fc}ro <a@b.c>", Some("a@b.c")),
        ] {
            assert_eq!(sender(from.as_bytes()).as_deref(), expected, "{from}");
        }
        assert_eq!(sender(b"B\xfcro <a@b.c>").as_deref(), Some("a@b.c"));
    }

    #[test]
    fn lists() {
        for (list, expected) in [
            ("a@b.c", &["a@b.c"][..]),
            ("a@b.c; d@e.f;", &["a@b.c", "d@e.f"]),
            ("a@b.c,, d@e.f , ", &["a@b.c", "d@e.f"]),
            ("x@y.z <a@b.c>", &["a@b.c"]),
            (
                "'x@y.z' <a@b.c>; \"x@y.z, p@q.r\" <d@e.f>",
                &["a@b.c", "d@e.f"],
            ),
            ("\"Doe; J \\\" (x\" <a@b.c>", &["a@b.c"]),
            ("Doe, Jane <a@b.c>", &["Doe", "a@b.c"]),
            ("'a@b.c', 'd@e.f'", &["a@b.c", "d@e.f"]),
            ("a@b.c (x@y.z, (p) \\) q)", &["a@b.c"]),
            ("<@r.s,@t.u:a@b.c>", &["a@b.c"]),
            ("undisclosed-recipients:;", &[]),
            ("Undisclosed recipients: ;", &[]),
            ("G: a@b.c, root; d@e.f", &["a@b.c", "root", "d@e.f"]),
            (
                "a@[IPv6:::1], b@[10.0.0.1]",
                &["a@[IPv6:::1]", "b@[10.0.0.1]"],
            ),
            ("\"a b\"@c.d", &["\"a b\"@c.d"]),
            ("<root> <a@b.c>", &["root", "a@b.c"]),
            ("A@B.C.", &["A@b.c"]),
            ("B\u{fc}ro <\u{e4}@b.c>, \u{fc}", &["\u{e4}@b.c", "\u{fc}"]),
            ("", &[]),
            ("<>", &[]),
        ] {
            let found = addresses(list.as_bytes());
            let expected: Vec<String> = expected.iter().map(|&a| a.to_owned()).collect();
            assert_eq!(found, Ok(expected), "{list}");
        }
        for list in [
            "one two",
            "<a@b.c",
            "a>b@c.d",
            "\"a@b.c",
            "(a@b.c",
            "<<a@b.c>>",
            "a@b.c: d@e.f",
            "a b@c.d",
            "<\u{e4} x>",
        ] {
            assert!(addresses(list.as_bytes()).is_err(), "{list}");
        }
    }

    #[test]
    fn full_names() {
        for (name, expected) in [
            ("The \"Boss\"", "\"The \\\"Boss\\\"\" <a@b.c>"),
            ("J\u{fc}rgen", "=?utf-8?B?SsO8cmdlbg==?= <a@b.c>"),
            ("root@host", "=?utf-8?B?cm9vdEBob3N0?= <a@b.c>"),
            ("=?utf-8?B?w6Q=?=", "=?utf-8?B?w6Q=?= <a@b.c>"),
            ("a\r\nBcc: b", "\"aBcc: b\" <a@b.c>"),
        ] {
            let draft = LocalMessage::read(b"Subject: s\n\nx\n", false).unwrap();
            assert_eq!(
                String::from_utf8(draft.message("a@b.c", Some(name))).unwrap(),
                format!("Subject: s\r\nFrom: {expected}\r\n\r\nx\r\n")
            );
        }
        let draft = LocalMessage::read(b"\nx\n", false).unwrap();
        assert_eq!(
            draft.message("root", Some("Cron")),
            b"From: \"Cron\"\r\n\r\nx\r\n"
        );
        assert_eq!(draft.message("root", Some(" ")), b"\r\nx\r\n");
        assert_eq!(
            draft.message("", Some("Cron")),
            b"From: \"Cron\"\r\n\r\nx\r\n"
        );
        let draft = LocalMessage::read(b"From: x@y.z\n\n", false).unwrap();
        assert_eq!(draft.message("a@b.c", Some("Cron")), b"From: x@y.z\r\n\r\n");
    }

    /// Every word holds whole characters, is short enough, and together they are the name.
    #[test]
    fn long_names_are_cut_between_characters() {
        for name in [
            "\u{431}".repeat(200),
            format!("a{}", "\u{20ac}".repeat(100)),
            "\u{1f600}".repeat(50),
            format!("{}\u{fc}", "x".repeat(44)),
        ] {
            let mut whole = String::new();
            for word in encoded_words(&name).split("\r\n ") {
                assert!(word.len() <= 75, "{word}");
                let text = word.strip_prefix("=?utf-8?B?").unwrap();
                let text = STANDARD.decode(text.strip_suffix("?=").unwrap()).unwrap();
                whole.push_str(&String::from_utf8(text).unwrap());
            }
            assert_eq!(whole, name);
        }
    }
}
