//! Failed recipients to a delivery status notification (RFC 3464), as octets.
//!
//! It is what a person reads on their worst day, so it has exact tests. `plan` decides who gets one, and nothing is sent here: a
//! bounce is a message that goes through the queue like any other.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::SystemTime,
};

use bytes::Bytes;

use super::{plan::Failure, setup::BounceSettings};
use crate::mail::{
    address::Address,
    headers,
    message::{Body, Envelope, Message, MessageId, Origin},
    text::{ascii, quoted_printable},
    time::rfc5322,
};

/// So much of the original header is sent back.
const MOST_HEADER: usize = 16 * 1024;
/// So much of an upstream's reply is repeated.
const MOST_REPLY: usize = 400;

/// Who gets a report about this message: the sender, if wanted and `admitted` (what a list refuses never leaves, and a report
/// repeats the words of whoever sent the message), and the administrators. Nobody for `<>`, and nobody for what a machine sent
/// as an answer (RFC 3834 §2), so that two machines never answer each other's reports.
pub fn addressees(message: &Message, settings: &BounceSettings, admitted: bool) -> Vec<Address> {
    let Some(sender) = &message.envelope.sender else {
        return Vec::new();
    };
    if is_auto_replied(&message.header) {
        return Vec::new();
    }
    let mut to: Vec<Address> = Vec::new();
    if settings.to_sender && admitted {
        to.push(sender.clone());
    }
    for copy in &settings.copy_to {
        if !to.contains(copy) {
            to.push(copy.clone());
        }
    }
    to
}

/// The report to one of them. `id` names it.
pub fn bounce(
    message: &Message,
    failures: &[Failure],
    (hostname, from): (&str, &Address),
    to: &Address,
    id: MessageId,
    now: SystemTime,
) -> Message {
    let boundary = format!("=_{id}");
    let host = hostname;
    let subject = match failures {
        [one] if !one.in_doubt => format!("Not delivered to {}", one.recipient),
        [one] => format!("Perhaps not delivered to {}", one.recipient),
        many => format!("Not delivered to {} recipients", many.len()),
    };
    let mut header = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        header,
        "From: Mail delivery <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <{id}@{host}>\r\n",
        date = rfc5322(now),
    );
    if let Some(original) = field(&message.header, "message-id").filter(|v| is_plain_id(v)) {
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

    let mut body = String::new();
    let _ = write!(
        body,
        "--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{}\r\n\
         --{boundary}\r\nContent-Type: message/delivery-status\r\n\r\n{}\r\n",
        people(message, failures, host),
        machines(message, failures, host, now),
    );
    let (original, eight_bit) = original(&message.header);
    let _ = write!(
        body,
        "--{boundary}\r\nContent-Type: text/rfc822-headers\r\n{}\r\n{original}\r\n--{boundary}--\r\n",
        if eight_bit {
            "Content-Transfer-Encoding: quoted-printable\r\n"
        } else {
            ""
        }
    );

    Message {
        id,
        envelope: Envelope {
            sender: None,
            recipients: vec![to.clone().into()],
            eight_bit: false,
        },
        origin: Origin {
            listener: "bounce".to_owned(),
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            client: None,
            helo: host.to_owned(),
            tls: false,
            esmtp: true,
            user: None,
            at: now,
        },
        header: Bytes::from(header),
        body: Body::Memory(Bytes::from(body)),
    }
}

/// What failed, in whose words, and what to do about it.
fn people(message: &Message, failures: &[Failure], host: &str) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "This is the mail relay {host}.\r\n\r\n\
         Your message of {} could not be delivered to:\r\n",
        rfc5322(message.origin.at)
    );
    for failure in failures {
        let _ = write!(out, "\r\n  {}\r\n", failure.recipient);
        let _ = write!(
            out,
            "    {}\r\n",
            match (failure.gave_up, failure.in_doubt) {
                (false, false) => "It was refused:",
                (false, true) =>
                    "An earlier attempt got no answer and may have arrived. A later one was refused:",
                (true, false) => "It was tried until the time for it was over. The last answer:",
                (true, true) =>
                    "It may have arrived: the connection was lost after it was sent. The last answer:",
            }
        );
        for line in said(failure).split('\n').take(10) {
            let _ = write!(out, "    > {line}\r\n");
        }
    }
    let _ = write!(
        out,
        "\r\nCheck the addresses and what the answers say. Then send it again{},\r\n\
         or ask whoever looks after this relay: the number of the message is\r\n{}.\r\n",
        if failures.iter().any(|f| f.in_doubt) {
            " if it did not arrive"
        } else {
            ""
        },
        message.id
    );
    out
}

/// RFC 3464 §2.2 and §2.3: the fields for the message, then a group for each recipient.
fn machines(message: &Message, failures: &[Failure], host: &str, now: SystemTime) -> String {
    let mut out = format!(
        "Reporting-MTA: dns; {host}\r\nX-Postern-Queue-ID: {}\r\nArrival-Date: {}\r\n",
        message.id,
        rfc5322(message.origin.at)
    );
    for failure in failures {
        // RFC 3463: a code that says «not now» would contradict the action (RFC 3464 §2.3.4); after giving up it is
        // 5.4.7, delivery time expired.
        let status = match failure.reply.status() {
            (5, b, c) => format!("5.{b}.{c}"),
            _ if failure.gave_up => "5.4.7".to_owned(),
            _ => "5.0.0".to_owned(),
        };
        let _ = write!(
            out,
            "\r\nFinal-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {status}\r\n\
             Diagnostic-Code: smtp; {}\r\nLast-Attempt-Date: {}\r\n",
            failure.recipient,
            said(failure).replace('\n', "\r\n  "),
            rfc5322(now),
        );
    }
    out
}

/// The reply as the upstream said it, bounded, a line each, printable ASCII.
fn said(failure: &Failure) -> String {
    let reply = &failure.reply;
    let mut out = reply.code.to_string();
    if let Some((a, b, c)) = reply.enhanced {
        let _ = write!(out, " {a}.{b}.{c}");
    }
    out.push(' ');
    let shown = |c| if c == '\n' { c } else { ascii(c) };
    out.extend(reply.text.chars().take(MOST_REPLY).map(shown));
    // An empty line would end the group of fields (RFC 3464 §2.1).
    out.split('\n')
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The original header up to a whole field within the bound, and whether it had to be encoded to be 7-bit with lines of
/// bearable length (RFC 2045 §6.7).
fn original(header: &[u8]) -> (String, bool) {
    let mut end = header.len();
    if end > MOST_HEADER {
        let cut = header.get(..MOST_HEADER).unwrap_or_default();
        end = cut
            .windows(3)
            .rposition(|w| matches!(w, [b'\r', b'\n', next] if *next != b' ' && *next != b'\t'))
            .map_or(0, |at| at + 2);
    }
    let header = header.get(..end).unwrap_or_default();
    let plain = header
        .split(|b| *b == b'\n')
        .all(|line| line.len() <= 998 && line.iter().all(|b| *b < 128 && *b != 0));
    // A boundary in it would end the part early; encoded, a line cannot begin with `--=_`.
    if plain && !header.windows(4).any(|w| w == b"--=_") {
        return (String::from_utf8_lossy(header).into_owned(), false);
    }
    (quoted_printable(header), true)
}

/// RFC 3834 §5: `auto-replied` with or without parameters. What is merely generated (monitoring, cron) does want to know.
fn is_auto_replied(header: &[u8]) -> bool {
    field(header, "auto-submitted").is_some_and(|value| {
        value
            .split([';', ' ', '('])
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("auto-replied"))
    })
}

/// The unfolded value of the first field of that name; ASCII only.
fn field(header: &[u8], name: &str) -> Option<String> {
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
        fixture::{self, address},
        mail::reply::Reply,
    };

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn settings() -> BounceSettings {
        BounceSettings {
            to_sender: true,
            from: address("postmaster@corp.example"),
            is_from_given: true,
            copy_to: vec![address("admin@corp.example"), address("app@corp.example")],
            hostname: "relay.corp.example".into(),
        }
    }

    fn message(sender: Option<&str>, header: &[u8]) -> Message {
        Message {
            id: MessageId::new(at(), 1),
            envelope: Envelope {
                sender: sender.map(address),
                recipients: vec![address("x@partner.example").into()],
                eight_bit: true,
            },
            origin: fixture::origin(at()),
            header: Bytes::copy_from_slice(header),
            body: Body::Memory(Bytes::from_static(b"secret\r\n")),
        }
    }

    fn failure(recipient: &str, reply: Reply, gave_up: bool, in_doubt: bool) -> Failure {
        Failure {
            recipient: address(recipient),
            reply,
            gave_up,
            in_doubt,
            bounce: true,
        }
    }

    const HEADER: &[u8] = b"From: App <app@corp.example>\r\nTo: x@partner.example\r\nSubject: Report\r\n of the day\r\nMessage-ID:\r\n <1@corp.example>\r\n";

    /// The octets against the file of that name; `POSTERN_BLESS=1` writes the files anew.
    fn check(name: &str, header: &[u8], failures: &[Failure]) -> String {
        let message = message(Some("app@corp.example"), header);
        let id = MessageId::new(at(), 2);
        let to = address("app@corp.example");
        let later = at() + Duration::from_hours(2);
        let from = address("postmaster@corp.example");
        let by = ("relay.corp.example", &from);
        let made = bounce(&message, failures, by, &to, id, later);
        assert_eq!(
            made.envelope.sender, None,
            "<>, so that it never comes back"
        );
        assert_eq!(made.envelope.recipients, [to]);
        let Body::Memory(body) = &made.body else {
            panic!("in memory")
        };
        let octets = [&made.header[..], b"\r\n", &body[..]].concat();
        let text = String::from_utf8(octets).unwrap();
        assert!(text.is_ascii());
        assert!(text.lines().all(|line| line.len() <= 998));
        assert!(
            text.split("\r\n").all(|l| !l.contains(['\r', '\n'])),
            "CRLF only"
        );
        assert!(!text.contains("secret"), "no body goes back");
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

    #[test]
    fn golden_refused() {
        check(
            "refused",
            HEADER,
            &[failure(
                "x@partner.example",
                Reply::new(
                    550,
                    (5, 1, 1),
                    "no such user\nsee https://partner.example/5.1.1",
                ),
                false,
                false,
            )],
        );
    }

    #[test]
    fn golden_mixed() {
        check(
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
        let text = check(
            "eight-bit",
            "Subject: Gr\u{fc}\u{df}e \u{202e}\r\nX: trailing \r\n".as_bytes(),
            &[failure(
                "x@partner.example",
                Reply::new(550, (5, 0, 0), "no"),
                false,
                false,
            )],
        );
        assert!(text.contains("quoted-printable"));
    }

    #[test]
    fn a_header_cannot_end_its_part_and_is_bounded() {
        let one = [failure(
            "x@partner.example",
            Reply::new(550, (5, 0, 0), "no"),
            false,
            false,
        )];
        let id = MessageId::new(at(), 2);
        let mut header = format!("X: a\r\n --=_{id}--\r\n").into_bytes();
        for _ in 0..2000 {
            header.extend_from_slice(b"Received: from somewhere\r\n\tby somewhere\r\n");
        }
        let message = message(Some("app@corp.example"), &header);
        let from = address("postmaster@corp.example");
        let by = ("relay.corp.example", &from);
        let made = bounce(&message, &one, by, &address("a@b.c"), id, at());
        assert!(made.body.len() < 40 * 1024);
        let Body::Memory(body) = &made.body else {
            panic!("in memory")
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(text.matches(&format!("--=_{id}--")).count(), 1);
    }

    #[test]
    fn who_is_told() {
        for (sender, header, expected) in [
            (
                Some("app@corp.example"),
                "",
                &["app@corp.example", "admin@corp.example"][..],
            ),
            (None, "", &[]),
            (
                Some("app@corp.example"),
                "Auto-Submitted: auto-replied\r\n",
                &[],
            ),
            (
                Some("app@corp.example"),
                "A: b\r\nauto-submitted:\r\n Auto-Replied; x=y\r\n",
                &[],
            ),
            (
                Some("app@corp.example"),
                "Auto-Submitted: auto-generated\r\n",
                &["app@corp.example", "admin@corp.example"],
            ),
        ] {
            let told = |admitted| -> Vec<String> {
                addressees(&message(sender, header.as_bytes()), &settings(), admitted)
                    .iter()
                    .map(Address::to_string)
                    .collect()
            };
            assert_eq!(told(true), expected, "{header}");
            // The administrators always; here the sender is one of them.
            let mut others = told(false);
            others.sort_by(|a, b| b.cmp(a));
            assert_eq!(others, expected, "{header}");
        }
    }
}
