//! Whether the sender's wishes for reports (RFC 3461) are said to this upstream.
//!
//! One that offers DSN and refuses what is said by it refuses no mailbox and no mail: whom that concerns is said once more without, and
//! the reports are ours then.

use crate::{
    mail::{outcome::Onward, reply::Reply},
    smtp::client::command::{ClientCommand, Mail},
};

/// What of them was said in one delivery.
#[derive(Debug)]
pub(super) struct SaidWishes {
    is_offered: bool,
    /// Nothing of them is said any more.
    is_refused: bool,
    /// The last MAIL was said with them.
    is_mail_told: bool,
    /// Recipients that were said without.
    untold: Vec<usize>,
}

impl SaidWishes {
    pub(super) fn new(is_offered: bool) -> Self {
        Self {
            is_offered,
            is_refused: false,
            is_mail_told: false,
            untold: Vec::new(),
        }
    }

    /// Whether they go with a command that is about to be said.
    pub(super) fn go_with(&mut self, command: ClientCommand) -> bool {
        let are_said = self.is_offered && !self.is_refused;
        match command {
            ClientCommand::Mail => self.is_mail_told = are_said,
            ClientCommand::Recipient(index) if !are_said => self.untold.push(index),
            _ => {}
        }
        are_said
    }

    /// Whether a refusal may be about them alone. If so nothing of them is said from then on.
    pub(super) fn are_refused(
        &mut self,
        command: ClientCommand,
        mail: Mail<'_>,
        reply: &Reply,
    ) -> bool {
        let were_said = match command {
            ClientCommand::Mail => self.is_mail_told,
            ClientCommand::Recipient(index) => self.is_offered && !self.untold.contains(&index),
            _ => false,
        };
        let is_so = were_said && command.has_wishes(mail) && is_about_parameters(reply);
        self.is_refused |= is_so;
        is_so
    }

    /// Who tells the sender of what was taken.
    pub(super) fn onward(&self, mail: Mail<'_>) -> Onward {
        if !self.is_offered {
            return Onward::Relayed;
        }
        let untold = self.untold.iter().filter_map(|at| mail.recipients.get(*at));
        Onward::Upstream(untold.map(|one| one.address.clone()).collect())
    }
}

/// Whether a refusal is one of the parameters of a command, by its codes (RFC 5321 §4.1.1.11, RFC 3463 §3.6).
fn is_about_parameters(reply: &Reply) -> bool {
    match (reply.code, reply.enhanced) {
        (501 | 504 | 555, None | Some((5, 5, _))) => true,
        (_, code) => matches!(code, Some((5, 5, 2 | 4))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::address,
        mail::{
            message::Envelope,
            outcome::{Outcome, Report},
            recipient::{DsnWish, Notify, Recipient, ReportWish},
        },
        smtp::client::{
            capabilities::Capabilities,
            dialogue::{Dialogue, DialogueStep},
            reply::Replies,
        },
    };

    /// Recipients; the first two have wishes.
    fn three() -> Vec<Recipient> {
        let wish = |original: Option<&str>| {
            Some(DsnWish {
                notify: Notify::parse("SUCCESS"),
                original: original.map(str::to_owned),
            })
        };
        [
            ("r1@x.example", wish(None)),
            ("r2@x.example", wish(Some("rfc822;o@y.example"))),
            ("r3@x.example", None),
        ]
        .into_iter()
        .map(|(to, dsn)| Recipient {
            address: address(to),
            dsn,
        })
        .collect()
    }

    /// What was written, the outcomes, and who was said without wishes.
    fn play(offered: &str, id: Option<&str>, script: &[&str]) -> (String, String, String) {
        let recipients = three();
        let envelope = Envelope {
            sender: Some(address("s@corp.example")),
            recipients: Vec::new(),
            eight_bit: false,
            dsn: id.map(|id| ReportWish {
                content: None,
                id: Some(id.to_owned()),
            }),
        };
        let offered = Capabilities::parse(&format!("up\n{}", offered.replace(' ', "\n")));
        let mail = Mail {
            envelope: &envelope,
            recipients: &recipients,
            size: 100,
            utf8_header: false,
        };
        let mut out = Vec::new();
        let mut work = Dialogue::new(mail, &offered, &[], 100, false);
        let mut step = work.begin(&mut out);
        for line in script {
            if step == DialogueStep::Content {
                out.extend_from_slice(b"#");
                step = work.content_sent();
            }
            assert_ne!(step, DialogueStep::Done, "{line}");
            let mut replies = Replies::default();
            replies.feed(format!("{line}\r\n").as_bytes());
            let reply = replies.next_reply().unwrap().unwrap();
            step = work.reply(&reply, &mut out);
        }
        assert_eq!(step, DialogueStep::Done);
        let Report::Tried {
            outcomes, onward, ..
        } = work.report(String::new())
        else {
            panic!("tried")
        };
        let told = outcomes.iter().map(|(_, outcome)| match outcome {
            Outcome::Delivered(_) => "ok",
            Outcome::Failed(_) => "failed",
            _ => "other",
        });
        let untold = recipients.iter().filter_map(|one| {
            let ours = onward.is_final_for(&one.address);
            assert_ne!(ours, Some(true));
            ours.map(|_| one.address.local())
        });
        (
            String::from_utf8(out).unwrap().replace("\r\n", "|"),
            told.collect::<Vec<_>>().join(" "),
            untold.collect::<Vec<_>>().join(" "),
        )
    }

    const MAIL: &str = "MAIL FROM:<s@corp.example> ENVID=7|";
    const TOLD: &str = "RCPT TO:<r1@x.example> NOTIFY=SUCCESS ORCPT=rfc822;r1@x.example|RCPT TO:<r2@x.example> NOTIFY=SUCCESS ORCPT=rfc822;o@y.example|RCPT TO:<r3@x.example>|DATA|";

    #[test]
    fn an_upstream_that_refuses_the_wishes_of_mail_is_asked_without_any() {
        let again = "MAIL FROM:<s@corp.example>|RCPT TO:<r1@x.example>|RCPT TO:<r2@x.example>|RCPT TO:<r3@x.example>|DATA|#";
        for refusal in [
            "555 5.5.4 no ENVID",
            "501 syntax",
            "504 5.5.4 x",
            "550 5.5.4 x",
        ] {
            let script = [
                refusal, "503 a", "503 b", "503 c", "503 d", "250 a", "250 b", "250 c", "250 d",
                "354 e", "250 f",
            ];
            let (said, told, untold) = play("PIPELINING DSN", Some("7"), &script);
            assert_eq!(said, format!("{MAIL}{TOLD}{again}"));
            assert_eq!((&told[..], &untold[..]), ("ok ok ok", "r1 r2 r3"));
        }
        let script = [
            "555 5.5.4 no",
            "250 a",
            "250 b",
            "250 c",
            "550 5.1.1 d",
            "354 e",
            "250 f",
        ];
        let (said, told, _) = play("DSN", Some("7"), &script);
        assert_eq!(said, format!("{MAIL}{again}"));
        assert_eq!(told, "ok ok failed");
    }

    #[test]
    fn an_upstream_that_refuses_those_of_a_recipient_is_asked_for_it_without() {
        // One is taken with its wishes, the other without; the upstream tells of the first.
        let script = [
            "250 a",
            "250 b",
            "501 5.5.4 no ORCPT",
            "250 c",
            "354 d",
            "250 e",
            "250 a",
            "250 b",
            "354 c",
            "250 d",
        ];
        let (said, told, untold) = play("PIPELINING DSN", None, &script);
        let first = "MAIL FROM:<s@corp.example>|";
        let rest = "#MAIL FROM:<s@corp.example>|RCPT TO:<r2@x.example>|DATA|#";
        assert_eq!(said, format!("{first}{TOLD}{rest}"));
        assert_eq!((&told[..], &untold[..]), ("ok ok ok", "r2"));
    }

    #[test]
    fn what_is_about_something_else_stays_refused() {
        // A mailbox, the login, or a recipient without a wish; and once is enough.
        for (refusals, expected) in [
            (
                ["501 5.1.3 x", "550 no", "501 5.5.4 x"],
                "failed failed failed",
            ),
            (
                ["550 5.1.1 x", "553 5.1.3 x", "555 x"],
                "failed failed failed",
            ),
        ] {
            let [one, two, three] = refusals;
            let script = ["250 a", one, two, three, "554 none", "250 R"];
            let (_, told, _) = play("PIPELINING DSN", None, &script);
            assert_eq!(told, expected, "{refusals:?}");
        }
        let script = [
            "250 a", "501 x", "501 x", "501 x", "554 none", "250 R", "250 a", "501 x", "501 x",
            "554 none", "250 R",
        ];
        let (_, told, _) = play("PIPELINING DSN", None, &script);
        assert_eq!(told, "failed failed failed");
        // Nothing was said by DSN where it is not offered.
        let script = ["250 a", "501 x", "501 x", "501 x", "554 none", "250 R"];
        let (_, told, untold) = play("PIPELINING", None, &script);
        assert_eq!(
            (&told[..], &untold[..]),
            ("failed failed failed", "r1 r2 r3")
        );
    }
}
