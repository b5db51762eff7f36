//! A delivery status notification (RFC 3464), as octets.
//!
//! It is what a person reads on their worst day, so it has exact tests. Who gets one is decided elsewhere, and nothing is sent
//! here: a report is a message that goes through the queue like any other.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::SystemTime,
};

use bytes::Bytes;
use memchr::memmem;

use super::notice::{ReportKind, ReportedRecipient};
use crate::mail::{
    address::Address,
    headers,
    message::{Body, Envelope, Message, MessageId, Origin},
    recipient::{DsnWish, Notify, Recipient},
    text::{encoded_words, quoted_printable},
    time::rfc5322,
    xtext,
};

/// Behind the type of a part.
const EIGHT_BIT: &str = "\r\nContent-Transfer-Encoding: 8bit";
/// So much of the original header is sent back.
const MOST_HEADER: usize = 16 * 1024;

/// A report on its way to being written.
#[derive(Debug)]
pub(super) struct ReportDraft<'a> {
    /// What it is about.
    pub(super) message: &'a Message,
    /// Which kind.
    pub(super) kind: ReportKind,
    /// Whom it is about.
    pub(super) recipients: &'a [ReportedRecipient],
    /// Reporting-MTA, and the visible From.
    pub(super) by: (&'a str, &'a Address),
    /// The body, where the whole message goes back (RET=FULL).
    pub(super) whole: Option<Bytes>,
    /// When it is made.
    pub(super) now: SystemTime,
}

impl ReportDraft<'_> {
    /// The report to one of those who are told. `id` names it.
    pub(super) fn to(&self, to: &Address, id: MessageId) -> Message {
        let (host, from) = self.by;
        let boundary = format!("=_{id}");
        let is_global = self.is_global(to);
        let mut header = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            header,
            "From: Mail delivery <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}@{host}>\r\n",
            subject = plain_words(self.subject()),
            date = rfc5322(self.now),
        );
        let original = field(&self.message.header, "message-id");
        if let Some(original) = original.filter(|value| is_plain_id(value)) {
            let _ = write!(
                header,
                "In-Reply-To: {original}\r\nReferences: {original}\r\n"
            );
        }
        let _ = write!(
            header,
            "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n"
        );
        let (charset, kind, encoding) = if is_global {
            ("utf-8", "global-delivery-status", EIGHT_BIT)
        } else {
            ("us-ascii", "delivery-status", "")
        };
        let mut body = format!(
            "--{boundary}\r\nContent-Type: text/plain; charset={charset}{encoding}\r\n\r\n{}\r\n\
             --{boundary}\r\nContent-Type: message/{kind}{encoding}\r\n\r\n{}\r\n--{boundary}\r\n",
            self.people(),
            self.machines(is_global),
        )
        .into_bytes();
        let eight_bit = self.bring_back(&boundary, is_global, &mut body) || is_global;
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        if eight_bit {
            header.push_str("Content-Transfer-Encoding: 8bit\r\n");
        }
        Message {
            id,
            envelope: Envelope {
                sender: None,
                recipients: vec![addressee(to)],
                eight_bit,
                dsn: None,
            },
            origin: Origin {
                listener: "bounce".to_owned(),
                peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
                client: None,
                helo: host.to_owned(),
                tls: false,
                esmtp: true,
                utf8: is_global,
                user: None,
                at: self.now,
                rules: Vec::new(),
                copy_of: None,
            },
            header: Bytes::from(header),
            body: Body::Memory(Bytes::from(body)),
        }
    }

    /// An address in it is not ASCII (RFC 6533 §3): its parts are of the types for that then.
    fn is_global(&self, to: &Address) -> bool {
        let is_utf8 = |told: &ReportedRecipient| {
            let Recipient { address, dsn } = &told.recipient;
            let original = dsn.as_ref().and_then(|dsn| dsn.original.as_ref());
            address.needs_utf8() || original.is_some_and(|text| !text.is_ascii())
        };
        to.needs_utf8() || self.recipients.iter().any(is_utf8)
    }

    /// Until when all that waits is tried.
    fn until(&self) -> Option<SystemTime> {
        self.recipients.iter().filter_map(|told| told.until).min()
    }

    fn subject(&self) -> String {
        let begins = match (self.kind, self.recipients) {
            (ReportKind::Failed, [one]) if one.in_doubt => "Perhaps not delivered",
            (ReportKind::Failed, _) => "Not delivered",
            (ReportKind::Relayed, _) => "Passed on",
            (ReportKind::Delivered, _) => "Delivered",
            (ReportKind::Delayed, _) => "Not yet delivered",
        };
        match self.recipients {
            [one] => format!("{begins} to {}", one.recipient),
            many => format!("{begins} to {} recipients", many.len()),
        }
    }

    /// What became of it, in whose words, and what to do about it.
    fn people(&self) -> String {
        let (host, _) = self.by;
        let mut out = format!(
            "This is the mail relay {host}.\r\n\r\nYour message of {} {}:\r\n",
            rfc5322(self.message.origin.at),
            match self.kind {
                ReportKind::Failed => "could not be delivered to",
                ReportKind::Relayed =>
                    "was passed on to a server that makes no reports of its own, for",
                ReportKind::Delivered => "was delivered to",
                ReportKind::Delayed => "waits longer than usual. It is not delivered yet to",
            }
        );
        for told in self.recipients {
            let _ = write!(out, "\r\n  {}\r\n    {}\r\n", told.recipient, told.why);
            for line in told.said.iter().flat_map(|said| said.split('\n')).take(10) {
                let _ = write!(out, "    > {line}\r\n");
            }
        }
        let id = self.message.id;
        let _ = match self.kind {
            ReportKind::Failed => write!(
                out,
                "\r\nCheck the addresses and what the answers say. Then send it again{},\r\n\
                 or ask whoever looks after this relay: the number of the message is\r\n{id}.\r\n",
                if self.recipients.iter().any(|told| told.in_doubt) {
                    " if it did not arrive"
                } else {
                    ""
                },
            ),
            ReportKind::Relayed => write!(
                out,
                "\r\nYou asked to be told. Whether it reached the mailbox is not known here. The number\r\n\
                 of the message is {id}.\r\n"
            ),
            ReportKind::Delivered => write!(
                out,
                "\r\nYou asked to be told. The number of the message is {id}.\r\n"
            ),
            ReportKind::Delayed => match self.until() {
                Some(until) => write!(
                    out,
                    "\r\nYou need not send it again: this relay goes on trying until\r\n{}.\r\nThe number of the message is {id}.\r\n",
                    rfc5322(until),
                ),
                None => write!(
                    out,
                    "\r\nYou need not send it again. Ask whoever looks after this relay: the number of the message\r\nis {id}.\r\n"
                ),
            },
        };
        out
    }

    /// RFC 3464 §2.2 and §2.3: the fields for the message, then a group for each recipient.
    fn machines(&self, is_global: bool) -> String {
        let (host, _) = self.by;
        let message = self.message;
        let mut out = String::new();
        // RFC 3461 §6.2: decoded, which leaves printable ASCII.
        let envid = message
            .envelope
            .dsn
            .as_ref()
            .and_then(|dsn| dsn.id.as_ref());
        if let Some(envid) = envid.and_then(|id| xtext::decode(id)) {
            let _ = write!(out, "Original-Envelope-Id: {envid}\r\n");
        }
        let _ = write!(
            out,
            "Reporting-MTA: dns; {host}\r\nX-Postern-Queue-ID: {}\r\nArrival-Date: {}\r\n",
            message.id,
            rfc5322(message.origin.at)
        );
        for told in self.recipients {
            out.push_str("\r\n");
            let original = told
                .recipient
                .dsn
                .as_ref()
                .and_then(|dsn| dsn.original.as_ref());
            let original = original.and_then(|text| xtext::shown_original(text, !is_global));
            if let Some(original) = original {
                let _ = write!(out, "Original-Recipient: {original}\r\n");
            }
            let kind = if told.recipient.address.needs_utf8() {
                "utf-8"
            } else {
                "rfc822"
            };
            let _ = write!(
                out,
                "Final-Recipient: {kind}; {}\r\nAction: {}\r\nStatus: {}\r\n",
                told.recipient,
                self.kind.as_str(),
                told.status,
            );
            if let Some(said) = &told.said {
                let _ = write!(
                    out,
                    "Diagnostic-Code: smtp; {}\r\n",
                    said.replace('\n', "\r\n  ")
                );
                // Of what waits it is not known here when it was tried.
                if self.kind != ReportKind::Delayed {
                    let _ = write!(out, "Last-Attempt-Date: {}\r\n", rfc5322(self.now));
                }
            }
            if let Some(until) = told.until {
                let _ = write!(out, "Will-Retry-Until: {}\r\n", rfc5322(until));
            }
        }
        out
    }

    /// What comes back of the message; whether it is 8-bit.
    fn bring_back(&self, boundary: &str, is_global: bool, out: &mut Vec<u8>) -> bool {
        let header = &self.message.header;
        // RFC 6533 §5: a header in UTF-8 has a type of its own.
        let is_utf8 = is_global && !header.is_ascii() && str::from_utf8(header).is_ok();
        let end = memmem::Finder::new(boundary.as_bytes());
        if let Some(body) = &self.whole
            // A boundary in it would end the part early.
            && end.find(header).is_none()
            && end.find(body).is_none()
        {
            let eight_bit = !header.is_ascii() || !body.is_ascii();
            let kind = if is_utf8 { "global" } else { "rfc822" };
            out.extend_from_slice(format!("Content-Type: message/{kind}\r\n").as_bytes());
            if eight_bit {
                out.extend_from_slice(b"Content-Transfer-Encoding: 8bit\r\n");
            }
            for piece in [b"\r\n", &header[..], b"\r\n", &body[..]] {
                out.extend_from_slice(piece);
            }
            return eight_bit;
        }
        let header = beginning(header);
        if is_utf8 && has_bearable_lines(header) && end.find(header).is_none() {
            out.extend_from_slice(
                b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
            );
            out.extend_from_slice(header);
            return true;
        }
        let (original, is_encoded) = original(header);
        out.extend_from_slice(b"Content-Type: text/rfc822-headers\r\n");
        if is_encoded {
            out.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(original.as_bytes());
        false
    }
}

/// One who is told, and wants to hear of nothing (RFC 3461 §6.1, §5.2.9).
pub(super) fn addressee(to: &Address) -> Recipient {
    Recipient {
        address: to.clone(),
        dsn: Some(DsnWish {
            notify: Some(Notify::NEVER),
            original: None,
        }),
    }
}

/// A subject of our own, with an address in it that may not be ASCII.
fn plain_words(text: String) -> String {
    if text.is_ascii() {
        text
    } else {
        encoded_words(&text)
    }
}

/// The original header up to a whole field within the bound.
fn beginning(header: &[u8]) -> &[u8] {
    let mut end = header.len();
    if end > MOST_HEADER {
        let cut = header.get(..MOST_HEADER).unwrap_or_default();
        end = cut
            .windows(3)
            .rposition(|w| matches!(w, [b'\r', b'\n', next] if *next != b' ' && *next != b'\t'))
            .map_or(0, |at| at + 2);
    }
    header.get(..end).unwrap_or_default()
}

/// RFC 5322 §2.1.1.
fn has_bearable_lines(header: &[u8]) -> bool {
    header
        .split(|b| *b == b'\n')
        .all(|line| line.len() <= 998 && !line.contains(&0))
}

/// A header, and whether it had to be encoded to be 7-bit with lines of bearable length (RFC 2045 §6.7).
fn original(header: &[u8]) -> (String, bool) {
    let plain = header.is_ascii() && has_bearable_lines(header);
    // A boundary in it would end the part early; encoded, a line cannot begin with `--=_`.
    if plain && memmem::find(header, b"--=_").is_none() {
        return (String::from_utf8_lossy(header).into_owned(), false);
    }
    (quoted_printable(header), true)
}

/// The unfolded value of the first field of that name; ASCII only.
pub(super) fn field(header: &[u8], name: &str) -> Option<String> {
    let value = headers::unfold(headers::value_of(header, name)?);
    let text = str::from_utf8(&value).ok().filter(|text| text.is_ascii())?;
    Some(text.trim().to_owned())
}

/// `<x@y>` that may be repeated in a field of ours as it is.
fn is_plain_id(id: &str) -> bool {
    id.len() <= 250
        && id.starts_with('<')
        && id.ends_with('>')
        && id.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::{
        delivery::plan::{Failure, Receipt},
        fixture::{self, address},
        mail::{recipient::ReportWish, reply::Reply},
    };

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn message(header: &[u8], envid: Option<&str>) -> Message {
        Message {
            id: MessageId::new(at(), 1),
            envelope: Envelope {
                sender: Some(address("app@corp.example")),
                recipients: vec![address("x@partner.example").into()],
                eight_bit: true,
                dsn: envid.map(|id| ReportWish {
                    content: None,
                    id: Some(id.to_owned()),
                }),
            },
            origin: fixture::origin(at()),
            header: Bytes::copy_from_slice(header),
            body: Body::Memory(Bytes::from_static(b"secret\r\n")),
        }
    }

    fn to(text: &str, original: Option<&str>) -> Recipient {
        Recipient {
            address: address(text),
            dsn: original.map(|original| DsnWish {
                notify: None,
                original: Some(original.to_owned()),
            }),
        }
    }

    fn failure(recipient: &str, reply: Reply, gave_up: bool, in_doubt: bool) -> ReportedRecipient {
        ReportedRecipient::failed(&Failure {
            recipient: to(recipient, None),
            reply,
            gave_up,
            in_doubt,
            bounce: true,
        })
    }

    fn taken(recipient: Recipient, reply: Reply, is_final: bool) -> ReportedRecipient {
        ReportedRecipient::taken(&Receipt {
            recipient,
            reply,
            is_final,
        })
    }

    const HEADER: &[u8] = b"From: App <app@corp.example>\r\nTo: x@partner.example\r\nSubject: Report\r\n of the day\r\nMessage-ID:\r\n <1@corp.example>\r\n";

    fn draft<'a>(
        message: &'a Message,
        kind: ReportKind,
        recipients: &'a [ReportedRecipient],
        from: &'a Address,
    ) -> ReportDraft<'a> {
        ReportDraft {
            message,
            kind,
            recipients,
            by: ("relay.corp.example", from),
            whole: None,
            now: at() + Duration::from_hours(2),
        }
    }

    /// The octets against the file of that name; `POSTERN_BLESS=1` writes the files anew.
    fn check(name: &str, draft: &ReportDraft<'_>) -> String {
        let id = MessageId::new(at(), 2);
        let app = address("app@corp.example");
        let made = draft.to(&app, id);
        assert_eq!(
            made.envelope.sender, None,
            "<>, so that it never comes back"
        );
        assert_eq!(made.envelope.recipients, [addressee(&app)]);
        let Body::Memory(body) = &made.body else {
            panic!("in memory")
        };
        let octets = [&made.header[..], b"\r\n", &body[..]].concat();
        let text = String::from_utf8(octets).unwrap();
        assert_eq!(text.is_ascii(), !made.envelope.eight_bit);
        assert!(text.lines().all(|line| line.len() <= 998));
        assert!(
            text.split("\r\n").all(|l| !l.contains(['\r', '\n'])),
            "CRLF only"
        );
        assert_eq!(text.contains("secret"), draft.whole.is_some());
        let parsed = mail_parser::MessageParser::default()
            .parse(text.as_bytes())
            .unwrap();
        assert_eq!(parsed.parts.len(), 4, "report and three parts");
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/messages/dsn/{name}.eml"));
        if std::env::var_os("POSTERN_BLESS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap();
        // A checkout may have changed the line endings of the file.
        assert_eq!(
            text.replace("\r\n", "\n"),
            expected.replace("\r\n", "\n"),
            "{name}"
        );
        text
    }

    fn failed(name: &str, header: &[u8], recipients: &[ReportedRecipient]) -> String {
        let (message, from) = (message(header, None), address("postmaster@corp.example"));
        check(
            name,
            &draft(&message, ReportKind::Failed, recipients, &from),
        )
    }

    #[test]
    fn golden_refused() {
        let text = "no such user\nsee https://partner.example/5.1.1";
        let reply = Reply::new(550, (5, 1, 1), text);
        failed(
            "refused",
            HEADER,
            &[failure("x@partner.example", reply, false, false)],
        );
    }

    #[test]
    fn golden_mixed() {
        failed(
            "mixed",
            HEADER,
            &[
                failure(
                    "x@partner.example",
                    Reply::new(450, (4, 2, 1), "later"),
                    true,
                    false,
                ),
                failure(
                    "y@partner.example",
                    Reply::plain(451, "connection lost"),
                    true,
                    true,
                ),
                failure(
                    "\"a b\"@partner.example",
                    Reply::plain(571, "\n\nno"),
                    false,
                    true,
                ),
            ],
        );
    }

    #[test]
    fn golden_eight_bit() {
        let no = Reply::new(550, (5, 0, 0), "no");
        let header = "Subject: Gr\u{fc}\u{df}e \u{202e}\r\nX: trailing \r\n".as_bytes();
        let text = failed(
            "eight-bit",
            header,
            &[failure("x@partner.example", no, false, false)],
        );
        assert!(text.contains("quoted-printable"));
    }

    #[test]
    fn golden_global() {
        let no = || Reply::new(550, (5, 1, 1), "no such user");
        let header = "From: B\u{fc}ro <app@corp.example>\r\nTo: <\u{43f}\u{43e}\u{447}\u{442}\u{430}@xn--80a1acny.example>\r\nSubject: \u{43e}\u{442}\u{447}\u{451}\u{442}\r\n";
        let utf8 = "\u{43f}\u{43e}\u{447}\u{442}\u{430}@xn--80a1acny.example";
        let all = [
            failure(utf8, no(), false, false),
            failure("y@partner.example", no(), false, false),
        ];
        let text = failed("global", header.as_bytes(), &all);
        assert!(text.contains("message/global-headers"));
        let one = [failure(utf8, no(), false, false)];
        failed("global-ascii-header", HEADER, &one);
        let (message, from) = (
            message(header.as_bytes(), None),
            address("postmaster@corp.example"),
        );
        let draft = draft(&message, ReportKind::Failed, &one, &from);
        let whole = Some(Bytes::from_static(b"secret\r\n"));
        check("global-whole", &ReportDraft { whole, ..draft });
    }

    #[test]
    fn a_report_to_an_address_that_is_not_ascii_is_of_those_types_and_so_is_one_of_such_an_original()
     {
        let (message, from) = (message(HEADER, None), address("postmaster@corp.example"));
        let no = Reply::new(550, (5, 0, 0), "no");
        let one = [failure("x@partner.example", no.clone(), false, false)];
        let original = "utf-8;b\u{fc}ro@corp.example";
        let mut named = failure("x@partner.example", no, false, false);
        named.recipient = to("x@partner.example", Some(original));
        let id = MessageId::new(at(), 2);
        for (to, all) in [
            ("b\u{fc}ro@corp.example", &one),
            ("a@corp.example", &[named]),
        ] {
            let to = address(to);
            let made = draft(&message, ReportKind::Failed, all, &from).to(&to, id);
            let Body::Memory(body) = &made.body else {
                panic!("in memory")
            };
            let body = str::from_utf8(body).unwrap();
            assert!(made.origin.utf8 && made.envelope.eight_bit);
            assert!(
                body.contains(
                    "message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n"
                )
            );
            assert!(body.contains("Final-Recipient: rfc822; x@partner.example"));
            assert_eq!(body.contains(original), !to.needs_utf8());
        }
    }

    #[test]
    fn golden_relayed() {
        let (message, from) = (
            message(HEADER, Some("QQ+3D1+20x")),
            address("postmaster@corp.example"),
        );
        let ok = Reply::new(250, (2, 6, 0), "queued as 77");
        let all = [
            taken(
                to("x@partner.example", Some("rfc822;y+2Bz@corp.example")),
                ok,
                false,
            ),
            taken(
                to("z@partner.example", Some("utf-8;\\x{FC}@corp.example")),
                Reply::plain(202, "Accepted"),
                false,
            ),
        ];
        check(
            "relayed",
            &draft(&message, ReportKind::Relayed, &all, &from),
        );
    }

    #[test]
    fn golden_delivered() {
        let (message, from) = (message(HEADER, None), address("postmaster@corp.example"));
        let kept = Reply::new(250, (2, 0, 0), "kept as 1.eml");
        let all = [taken(to("x@partner.example", None), kept, true)];
        check(
            "delivered",
            &draft(&message, ReportKind::Delivered, &all, &from),
        );
    }

    #[test]
    fn golden_delayed() {
        let (message, from) = (message(HEADER, None), address("postmaster@corp.example"));
        let tried = |mut told: ReportedRecipient, hours| {
            told.until = Some(at() + Duration::from_hours(hours));
            told
        };
        let later = Some("450 4.2.1 later");
        let all = [
            tried(
                ReportedRecipient::delayed(to("x@partner.example", None), later, false),
                48,
            ),
            tried(
                ReportedRecipient::delayed(to("y@partner.example", None), None, false),
                120,
            ),
            ReportedRecipient::delayed(to("z@partner.example", None), later, true),
        ];
        let draft = draft(&message, ReportKind::Delayed, &all, &from);
        check("delayed", &draft);
        let held = [ReportedRecipient::delayed(
            to("z@partner.example", None),
            None,
            true,
        )];
        let draft = ReportDraft {
            recipients: &held,
            ..draft
        };
        check("delayed-held", &draft);
    }

    #[test]
    fn golden_whole() {
        let from = address("postmaster@corp.example");
        let no = Reply::new(550, (5, 0, 0), "no");
        let all = [failure("x@partner.example", no, false, false)];
        for (name, body) in [
            ("whole", "secret\r\n"),
            ("whole-eight-bit", "secret gr\u{fc}n\r\n"),
        ] {
            let message = message(HEADER, None);
            let draft = draft(&message, ReportKind::Failed, &all, &from);
            let whole = Some(Bytes::copy_from_slice(body.as_bytes()));
            let text = check(name, &ReportDraft { whole, ..draft });
            assert!(text.contains("Content-Type: message/rfc822"));
        }
    }

    #[test]
    fn a_message_that_knows_the_boundary_does_not_come_back_whole() {
        let from = address("postmaster@corp.example");
        let no = Reply::new(550, (5, 0, 0), "no");
        let all = [failure("x@partner.example", no, false, false)];
        let id = MessageId::new(at(), 2);
        let message = message(HEADER, None);
        let draft = draft(&message, ReportKind::Failed, &all, &from);
        let whole = Some(Bytes::from(format!("x\r\n--=_{id}--\r\nevil\r\n")));
        let made = ReportDraft { whole, ..draft }.to(&address("a@b.example"), id);
        let Body::Memory(body) = &made.body else {
            panic!("in memory")
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(!text.contains("evil") && text.contains("text/rfc822-headers"));
    }

    #[test]
    fn a_header_cannot_end_its_part_and_is_bounded() {
        let no = Reply::new(550, (5, 0, 0), "no");
        let one = [failure("x@partner.example", no, false, false)];
        let id = MessageId::new(at(), 2);
        let mut header = format!("X: a\r\n --=_{id}--\r\n").into_bytes();
        for _ in 0..2000 {
            header.extend_from_slice(b"Received: from somewhere\r\n\tby somewhere\r\n");
        }
        let message = message(&header, None);
        let from = address("postmaster@corp.example");
        let made = draft(&message, ReportKind::Failed, &one, &from).to(&address("a@b.c"), id);
        assert!(made.body.len() < 40 * 1024);
        let Body::Memory(body) = &made.body else {
            panic!("in memory")
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(text.matches(&format!("--=_{id}--")).count(), 1);
    }
}
