//! `[[archive]]`: which messages are copied for whom, and the small message that a copy is attached to.
//!
//! A copy is a message like any other from there on; that nobody bounces, redirects or copies one follows from what it is: it is from
//! `<>`, and comes by no session. Nothing is stored here.

use std::{fmt::Write as _, io::Write as _, sync::Arc};

use bytes::Bytes;

use super::scope::{Posted, Scope};
use crate::mail::{
    address::Address,
    headers::{self, fields},
    message::{Body, Envelope, Message, MessageId},
    recipient::{DsnWish, Notify, Recipient},
    text::{encoded_words, quoted_printable},
    time,
};

/// A message that is to be copied and has been here so often is in a loop, and each copy may be in it too.
pub const LOOP: usize = 5;

/// What a copy looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// As the message itself leaves.
    Copy,
    /// Attached to a small message that says what the envelope was.
    Attached,
}

impl ArchiveForm {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Attached => "attached",
        }
    }
}

/// One `[[archive]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its name.
    pub name: Arc<str>,
    /// Whose mail; one recipient that it is for is enough.
    pub scope: Scope,
    /// Who gets the copies.
    pub to: Address,
    /// How they look.
    pub form: ArchiveForm,
    /// The From of a message that a copy is attached to, and the host that it is named by.
    pub by: (Address, String),
}

/// Those that take a copy of this mail.
pub(super) fn taking<'a>(
    archives: &'a [Arc<Archive>],
    mail: Posted<'_>,
    recipients: &[Recipient],
) -> impl Iterator<Item = &'a Arc<Archive>> {
    archives.iter().filter(move |archive| {
        let is_for = |to: &Recipient| archive.scope.takes_recipient(&to.address);
        archive.scope.takes(mail) && recipients.iter().any(is_for)
    })
}

/// How often a message has been here, by the Received fields that it came with.
pub(super) fn passes(raw: &[u8], hostname: &str) -> usize {
    let is_ours = |value: &[u8]| {
        let value = headers::unfold(value);
        let words = value.split(u8::is_ascii_whitespace);
        let words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
        // Whoever sent it may have said "by" as its name: any of them may be the one that counts.
        words.array_windows().any(|[by, host]| {
            let host = host.strip_suffix(b";").unwrap_or(host);
            by.eq_ignore_ascii_case(b"by") && host.eq_ignore_ascii_case(hostname.as_bytes())
        })
    };
    fields(raw)
        .filter(|field| field.is("Received") && is_ours(field.value))
        .count()
}

/// What is written around a message that is attached: a header, what stands before it in the body, and what stands behind.
#[derive(Debug)]
pub struct Wrapping {
    /// Of the message that it is attached to.
    pub header: Bytes,
    /// Up to the first octet of the message.
    pub before: Vec<u8>,
    /// From its last octet on.
    pub after: Vec<u8>,
    /// It may hold octets above 127.
    pub eight_bit: bool,
}

impl Archive {
    /// Who gets a copy; nobody is told of what becomes of it.
    pub fn recipient(&self) -> Recipient {
        Recipient {
            address: self.to.clone(),
            dsn: Some(DsnWish {
                notify: Some(Notify::NEVER),
                original: None,
            }),
        }
    }

    /// The envelope of a copy.
    pub fn envelope(&self, eight_bit: bool) -> Envelope {
        Envelope {
            sender: None,
            recipients: vec![self.recipient()],
            eight_bit,
            dsn: None,
        }
    }

    /// What a copy of this message is attached to. `id`: of the copy; a body cannot be made to hold what its parts are told apart by, since
    /// nobody outside knows it before.
    pub fn wrapping(&self, message: &Message, id: MessageId) -> Wrapping {
        let (from, hostname) = &self.by;
        let boundary = format!("=_{id}");
        let eight_bit = !message.header.is_ascii()
            || match &message.body {
                Body::Memory(octets) => !octets.is_ascii(),
                // It is not read for this.
                Body::Stored(_) => true,
            };
        let encoding = if eight_bit {
            "Content-Transfer-Encoding: 8bit\r\n"
        } else {
            ""
        };
        let origin = &message.origin;
        let sender = match named(message.envelope.sender.as_ref()) {
            sender if sender.is_ascii() => sender,
            sender => encoded_words(&sender),
        };
        // RFC 6532 §3.7: addresses in it may be other than ASCII.
        let kind = if origin.utf8 && !message.header.is_ascii() {
            "global"
        } else {
            "rfc822"
        };
        // Where the message has been, its copy has been: else nobody could see that they go round in a circle.
        let mut header: Vec<u8> = fields(&message.header)
            .filter(|field| field.is("Received"))
            .flat_map(|field| field.raw)
            .copied()
            .collect();
        if passes(&header, hostname) == 0 {
            let date = time::rfc5322(origin.at);
            let _ = write!(header, "Received: by {hostname} id {id};\r\n\t{date}\r\n");
        }
        let _ = write!(
            header,
            "From: Mail archive <{from}>\r\nTo: undisclosed-recipients:;\r\nSubject: Copy of mail from {sender}\r\n\
             Date: {date}\r\nMessage-ID: <{id}@{hostname}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n{encoding}",
            date = time::rfc5322(origin.at),
        );
        // The name of a user may be any text.
        let (text, coding) = match envelope(message) {
            text if text.is_ascii() => (text, ""),
            text => (
                quoted_printable(text.as_bytes()),
                "Content-Transfer-Encoding: quoted-printable\r\n",
            ),
        };
        let mut before = format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n{coding}\r\n{text}\r\n\
             --{boundary}\r\nContent-Type: message/{kind}\r\nContent-Disposition: attachment; filename=\"{}.eml\"\r\n{encoding}\r\n",
            message.id,
        )
        .into_bytes();
        before.extend_from_slice(&message.header);
        before.extend_from_slice(b"\r\n");
        Wrapping {
            header: Bytes::from(header),
            before,
            after: format!("\r\n--{boundary}--\r\n").into_bytes(),
            eight_bit,
        }
    }
}

fn named(sender: Option<&Address>) -> String {
    sender.map_or_else(|| "<>".to_owned(), ToString::to_string)
}

/// What the header of a message does not say of it, a line each.
fn envelope(message: &Message) -> String {
    let origin = &message.origin;
    let mut out = format!("Sender: {}\r\n", named(message.envelope.sender.as_ref()));
    // Writing to a String cannot fail.
    for recipient in &message.envelope.recipients {
        let _ = write!(out, "Recipient: {recipient}");
        let original = recipient.dsn.as_ref().and_then(|dsn| dsn.original.as_ref());
        if let Some(original) = original {
            let _ = write!(out, " ORCPT={original}");
        }
        out.push_str("\r\n");
    }
    if let Some(client) = &origin.client {
        let _ = write!(out, "Client: {client}\r\n");
    }
    let _ = write!(out, "Address: {}\r\n", origin.peer.ip().to_canonical());
    if let Some(user) = &origin.user {
        let _ = write!(out, "User: {user}\r\n");
    }
    let _ = write!(
        out,
        "Time: {}\r\nID: {}\r\n",
        time::rfc5322(origin.at),
        message.id
    );
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::fixture::{self, address};

    fn archive() -> Archive {
        Archive {
            name: "journal".into(),
            scope: Scope::default(),
            to: address("archive@corp.com"),
            form: ArchiveForm::Attached,
            by: (address("postmaster@corp.com"), "gw.corp.com".to_owned()),
        }
    }

    fn message(user: Option<&str>, body: &'static [u8]) -> Message {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let wish = DsnWish {
            notify: Some(Notify::NEVER),
            original: Some("rfc822;c+2Bd@x.com".to_owned()),
        };
        let second = Recipient {
            address: address("b@x.com"),
            dsn: Some(wish),
        };
        let mut origin = fixture::origin(at);
        (origin.user, origin.client) = (user.map(str::to_owned), Some("erp".to_owned()));
        Message {
            id: MessageId::new(at, 1),
            envelope: Envelope {
                sender: None,
                recipients: vec![address("a@x.com").into(), second],
                eight_bit: false,
                dsn: None,
            },
            origin,
            header: Bytes::from_static(b"From: a@corp.com\r\n"),
            body: Body::Memory(Bytes::from_static(body)),
        }
    }

    #[test]
    fn the_envelope_stands_beside_what_is_attached() {
        let message = message(None, b"text\r\n");
        let copy = MessageId::new(message.origin.at, 2);
        let wrapping = archive().wrapping(&message, copy);
        assert!(!wrapping.eight_bit);
        let header = String::from_utf8(wrapping.header.to_vec()).unwrap();
        assert_eq!(passes(header.as_bytes(), "GW.corp.com"), 1, "{header}");
        // Where the message has been, the copy has been.
        let been = b"Received: from a by gw.corp.com with ESMTP\r\n\tid 2; date\r\nFrom: a@corp.com\r\nReceived: from b\r\n by\r\n gw.corp.com; date\r\nReceived: by other\r\n";
        let looped = Message {
            header: Bytes::from_static(been),
            ..message.clone()
        };
        let wrapped = archive().wrapping(&looped, copy).header;
        assert_eq!(passes(&wrapped, "gw.corp.com"), 2);
        assert_eq!(fields(&wrapped).filter(|one| one.is("Received")).count(), 3);
        assert!(!header.contains("archive@"), "{header}");
        assert!(header.contains("From: Mail archive <postmaster@corp.com>\r\n"));
        let before = String::from_utf8(wrapping.before).unwrap();
        let expected = format!(
            "--=_{copy}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
             Sender: <>\r\nRecipient: a@x.com\r\nRecipient: b@x.com ORCPT=rfc822;c+2Bd@x.com\r\nClient: erp\r\nAddress: 127.0.0.1\r\n\
             Time: Tue, 14 Nov 2023 22:13:20 +0000\r\nID: {id}\r\n\r\n\
             --=_{copy}\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"{id}.eml\"\r\n\r\n\
             From: a@corp.com\r\n\r\n",
            id = message.id
        );
        assert_eq!(before, expected);
        assert_eq!(wrapping.after, format!("\r\n--=_{copy}--\r\n").as_bytes());
    }

    #[test]
    fn what_is_no_ascii_is_said_to_be_none() {
        let message = message(Some("\u{fc}nal"), b"\xe4\r\n");
        let wrapping = archive().wrapping(&message, message.id);
        assert!(wrapping.eight_bit);
        let before = String::from_utf8(wrapping.before).unwrap();
        for part in [
            "Content-Transfer-Encoding: quoted-printable\r\n\r\n",
            "User: =C3=BCnal\r\n",
            ".eml\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\nFrom: ",
        ] {
            assert!(before.contains(part), "{part}: {before}");
        }
    }

    #[test]
    fn addresses_that_are_not_ascii() {
        let mut message = message(None, b"x\r\n");
        message.envelope.sender = Some(address("b\u{fc}ro@corp.com"));
        message.origin.utf8 = true;
        message.header = Bytes::from("From: b\u{fc}ro@corp.com\r\n");
        let wrapping = archive().wrapping(&message, message.id);
        assert!(wrapping.header.is_ascii() && wrapping.eight_bit);
        let before = String::from_utf8(wrapping.before).unwrap();
        assert!(
            before.contains("Sender: b=C3=BCro@corp.com\r\n"),
            "{before}"
        );
        assert!(
            before.contains("Content-Type: message/global\r\n"),
            "{before}"
        );
    }

    #[test]
    fn whose_received_fields_are_ours() {
        for (header, expected) in [
            ("", 0),
            (
                "Received: from a by gw.corp.com with SMTP id x; date\r\n",
                1,
            ),
            ("received: from a\r\n\tBY\r\n\tGW.CORP.COM; date\r\n", 1),
            ("Received: from gw.corp.com by mx.corp.com; date\r\n", 0),
            ("Received: by gw.corp.com.evil; date\r\n", 0),
            // Whoever sent it has said "by" for its name.
            (
                "Received: from by (x [127.0.0.1]) by gw.corp.com; date\r\n",
                1,
            ),
            (
                "Received: by\r\nReceived:\r\nX-Received: by gw.corp.com\r\n",
                0,
            ),
            (
                "Received: by gw.corp.com x\r\nReceived: by gw.corp.com y\r\n",
                2,
            ),
        ] {
            assert_eq!(
                passes(header.as_bytes(), "gw.corp.com"),
                expected,
                "{header}"
            );
        }
    }
}
