//! What of a message this upstream cannot take at all, by what it offers. Nothing is said to it then: the next connector may.

use crate::{
    mail::reply::Reply,
    smtp::client::{capabilities::Capabilities, command::Mail},
};

/// Why it takes the message to nobody.
pub(super) fn to_nobody(mail: Mail<'_>, offered: &Capabilities) -> Option<Reply> {
    if let Some(limit) = offered.size
        && mail.size > limit
    {
        let text = format!(
            "the message has {} octets, the upstream takes {limit}",
            mail.size
        );
        return Some(Reply::new(552, (5, 3, 4), text));
    }
    // RFC 6531 §3.2: nobody turns an address into another.
    (!offered.utf8 && mail.needs_utf8()).then(|| {
        let text = "a sender or a field of the header has an address that is not ASCII, and the upstream does not offer SMTPUTF8";
        Reply::new(550, (5, 6, 7), text)
    })
}

/// The recipients that it cannot take.
pub(super) fn not_to<'a>(
    mail: Mail<'a>,
    offered: &Capabilities,
) -> impl Iterator<Item = (usize, Reply)> + use<'a> {
    let recipients = if offered.utf8 { &[] } else { mail.recipients };
    recipients
        .iter()
        .enumerate()
        .filter(|(_, recipient)| recipient.address.needs_utf8())
        .map(|(index, _)| {
            let text = "the address is not ASCII, and the upstream does not offer SMTPUTF8";
            (index, Reply::new(553, (5, 6, 7), text))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::address,
        mail::{
            message::Envelope,
            outcome::{Outcome, Report},
            recipient::{DsnWish, Notify, Recipient},
        },
        smtp::client::dialogue::{Dialogue, DialogueStep},
    };

    const ASCII: &str = "a@x.example";
    const UTF8: &str = "b\u{fc}ro@x.example";

    fn recipient(text: &str, original: Option<&str>) -> Recipient {
        Recipient {
            address: address(text),
            dsn: Some(DsnWish {
                notify: Some(Notify::NEVER),
                original: original.map(str::to_owned),
            }),
        }
    }

    /// What is written at first, and the outcomes where nothing more is.
    fn begin(
        offered: &str,
        sender: &str,
        recipients: &[Recipient],
        utf8_header: bool,
    ) -> (String, Vec<String>) {
        let envelope = Envelope {
            sender: Some(address(sender)),
            recipients: Vec::new(),
            eight_bit: true,
            dsn: None,
        };
        let offered = Capabilities::parse(&format!("up\nPIPELINING\n{offered}"));
        let mail = Mail {
            envelope: &envelope,
            recipients,
            size: 100,
            utf8_header,
        };
        let mut out = Vec::new();
        let mut work = Dialogue::new(mail, &offered, &[], 100, false);
        if work.begin(&mut out) != DialogueStep::Done {
            work.lost("closed", crate::smtp::client::dialogue::Sent::Commands);
        }
        let Report::Tried { outcomes, .. } = work.report(String::new()) else {
            return (String::new(), Vec::new());
        };
        let told = outcomes.iter().map(|(_, outcome)| match outcome {
            Outcome::Unsuited(reply) => format!("unsuited {}", reply.code),
            _ => "tried".to_owned(),
        });
        let written = String::from_utf8(out).unwrap().replace("\r\n", "|");
        (written, told.collect())
    }

    #[test]
    fn smtputf8_is_asked_for_where_an_address_needs_it() {
        let both = [recipient(ASCII, None), recipient(UTF8, None)];
        for (offered, sender, to, header, written, told) in [
            (
                "SMTPUTF8",
                ASCII,
                &both[..1],
                false,
                "MAIL FROM:<a@x.example>|RCPT TO:<a@x.example>|DATA|",
                &["tried"][..],
            ),
            (
                "8BITMIME\nSMTPUTF8",
                ASCII,
                &both[..],
                false,
                "MAIL FROM:<a@x.example> BODY=8BITMIME SMTPUTF8|RCPT TO:<a@x.example>|RCPT TO:<b\u{fc}ro@x.example>|DATA|",
                &["tried", "tried"],
            ),
            (
                "SMTPUTF8",
                UTF8,
                &both[..1],
                false,
                "MAIL FROM:<b\u{fc}ro@x.example> SMTPUTF8|RCPT TO:<a@x.example>|DATA|",
                &["tried"],
            ),
            (
                "SMTPUTF8",
                ASCII,
                &both[..1],
                true,
                "MAIL FROM:<a@x.example> SMTPUTF8|RCPT TO:<a@x.example>|DATA|",
                &["tried"],
            ),
            // Not offered: that recipient alone, or nobody.
            (
                "8BITMIME",
                ASCII,
                &both[..],
                false,
                "MAIL FROM:<a@x.example> BODY=8BITMIME|RCPT TO:<a@x.example>|DATA|",
                &["tried", "unsuited 553"],
            ),
            ("", ASCII, &both[1..], false, "", &["unsuited 553"]),
            (
                "",
                UTF8,
                &both[..],
                false,
                "",
                &["unsuited 550", "unsuited 550"],
            ),
            ("", ASCII, &both[..1], true, "", &["unsuited 550"]),
        ] {
            let said = begin(offered, sender, to, header);
            assert_eq!(said.0, written, "{offered} {sender}");
            assert_eq!(said.1, told, "{offered} {sender}");
        }
    }

    #[test]
    fn an_original_recipient_is_ascii_to_whoever_was_not_told() {
        for (offered, to, written) in [
            (
                "DSN",
                recipient(ASCII, Some("utf-8;b\u{fc}ro@y.example")),
                "ORCPT=utf-8;b\\x{FC}ro@y.example|",
            ),
            (
                "DSN\nSMTPUTF8",
                recipient(ASCII, Some("utf-8;b\u{fc}ro@y.example")),
                "ORCPT=utf-8;b\\x{FC}ro@y.example|",
            ),
            (
                "DSN\nSMTPUTF8",
                recipient(UTF8, Some("utf-8;b\u{fc}ro@y.example")),
                "ORCPT=utf-8;b\u{fc}ro@y.example|",
            ),
            (
                "DSN\nSMTPUTF8",
                recipient(UTF8, None),
                "ORCPT=utf-8;b\\x{FC}ro@x.example|",
            ),
        ] {
            let (said, _) = begin(offered, ASCII, &[to], false);
            assert!(said.contains(written), "{offered}: {said}");
        }
    }
}
