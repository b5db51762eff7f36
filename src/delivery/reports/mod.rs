//! Who is told of what became of a message, and from whom: reports of four kinds (RFC 3464), as far as the sender asked for them
//! (RFC 3461) and the lists let one leave.
//!
//! `notice` says what a report tells of a recipient, `compose` writes it, `late` looks for what takes long. `settlement` writes the
//! reports down with what they report. Nothing is sent here.

mod compose;
pub(super) mod late;
pub mod notice;

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use self::{
    compose::{ReportDraft, addressee, field},
    notice::{ReportKind, ReportedRecipient},
};
use super::{
    plan::Decision,
    setup::{BounceSettings, Built},
};
use crate::{
    mail::{
        address::Address,
        message::{Message, MessageId},
        recipient::ReturnedContent,
        reply::Reply,
    },
    queue::{
        Queue,
        store::{Event, EventKind, Job},
    },
    route::{RouteName, Routed},
};

/// Octets that a report has around what it brings back, with room to spare.
const AROUND: u64 = 64 * 1024;

/// Reports that are to be written with a settlement.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Of what failed.
    pub(super) bounces: Vec<Routed>,
    /// Of what was taken.
    pub(super) receipts: Vec<(ReportKind, Routed)>,
}

/// The sender, if it may be told anything of this message at all: nobody for `<>`, and nobody for what a machine sent as an answer
/// (RFC 3834 §2), so that two machines never answer each other's reports.
fn teller(message: &Message) -> Option<&Address> {
    let sender = message.envelope.sender.as_ref()?;
    (!is_auto_replied(&message.header)).then_some(sender)
}

/// Who gets the report of these failures, and of which: the sender of those that it wants to hear of, if it is told at all and
/// `admitted` (what a list refuses never leaves, and a report repeats the words of whoever sent the message); the administrators of all.
fn bounced<'a>(
    message: &'a Message,
    failures: &'a [ReportedRecipient],
    settings: &'a BounceSettings,
    admitted: bool,
) -> Vec<(&'a Address, Vec<ReportedRecipient>)> {
    let Some(sender) = teller(message) else {
        return Vec::new();
    };
    let mut to: Vec<(&Address, Vec<ReportedRecipient>)> = Vec::new();
    if settings.to_sender && admitted && !settings.copy_to.contains(sender) {
        let wanted = failures
            .iter()
            .filter(|told| told.recipient.tells_failure());
        to.push((sender, wanted.cloned().collect()));
    }
    for copy in &settings.copy_to {
        if to.iter().all(|(other, _)| *other != copy) {
            to.push((copy, failures.to_vec()));
        }
    }
    to.retain(|(_, told)| !told.is_empty());
    to
}

impl Built {
    /// The reports of what became of a job, by the route of the message.
    pub(super) async fn reports(
        &self,
        queue: &Queue,
        job: &Job,
        decision: &Decision,
        now: SystemTime,
    ) -> Reports {
        let mut reports = Reports::default();
        if decision.failures.is_empty() && decision.receipts.is_empty() {
            return reports;
        }
        let settings = &self.settings.bounce;
        let message = &*job.message;
        let admitted = self.may_be_told(message);
        let told: Vec<_> = (decision.failures.iter().filter(|failure| failure.bounce))
            .map(ReportedRecipient::failed)
            .collect();
        for (to, recipients) in bounced(message, &told, settings, admitted) {
            let is_sender = message.envelope.sender.as_ref() == Some(to);
            // What was too large for the way out would be so on its way back.
            let was_too_large = (decision.failures.iter()).any(|one| is_about_size(&one.reply));
            let whole = if is_sender && !was_too_large {
                whole(message, self.most_that_comes_back(&job.route)).await
            } else {
                None
            };
            let draft = self.draft(&job.route, message, ReportKind::Failed, &recipients, now);
            let draft = ReportDraft { whole, ..draft };
            reports.bounces.push(routed(queue, &draft, to, &job.route));
        }
        let Some(sender) = teller(message).filter(|_| settings.to_sender && admitted) else {
            return reports;
        };
        for kind in [ReportKind::Relayed, ReportKind::Delivered] {
            let of_kind = decision
                .receipts
                .iter()
                .filter(|receipt| ReportKind::of(receipt) == kind);
            let recipients: Vec<_> = of_kind.map(ReportedRecipient::taken).collect();
            if !recipients.is_empty() {
                let draft = self.draft(&job.route, message, kind, &recipients, now);
                let report = routed(queue, &draft, sender, &job.route);
                reports.receipts.push((kind, report));
            }
        }
        reports
    }

    fn draft<'a>(
        &'a self,
        route: &RouteName,
        message: &'a Message,
        kind: ReportKind,
        recipients: &'a [ReportedRecipient],
        now: SystemTime,
    ) -> ReportDraft<'a> {
        ReportDraft {
            message,
            kind,
            recipients,
            by: (&self.settings.bounce.hostname, self.reporter(route)),
            whole: None,
            now,
        }
    }

    /// Octets of the largest message that comes back whole by that route.
    fn most_that_comes_back(&self, route: &RouteName) -> u64 {
        let limit = self.settings.bounce.full_limit;
        let route = self.routes.get(route);
        let most = route.and_then(|route| route.max_size);
        most.map_or(limit, |most| limit.min(most.saturating_sub(AROUND)))
    }

    /// The line that says why the sender gets no report, where the lists are the reason.
    pub(super) fn withheld(
        &self,
        job: &Job,
        decision: &Decision,
        now: SystemTime,
    ) -> Option<Event> {
        let is_wanted = !decision.receipts.is_empty()
            || (decision.failures.iter())
                .any(|failure| failure.bounce && failure.recipient.tells_failure());
        is_wanted
            .then(|| self.kept_from(&job.message, now))
            .flatten()
    }

    /// The same line for any report, where it is so.
    fn kept_from(&self, message: &Message, now: SystemTime) -> Option<Event> {
        let settings = &self.settings.bounce;
        let sender = teller(message).filter(|_| settings.to_sender)?;
        let is_told = self.may_be_told(message) || settings.copy_to.contains(sender);
        (!is_told).then(|| Event {
            at: now,
            kind: EventKind::NotTold,
            recipients: vec![sender.to_string()],
            text: "no report to the sender: nothing narrower than \"anybody\" admits it, and the recipient lists do not".to_owned(),
        })
    }

    /// Who reports about mail of that route are from: what was written down, else the mailbox that will have to send them (a
    /// provider refuses a From that is not the mailbox's).
    fn reporter(&self, route: &RouteName) -> &Address {
        let bounce = &self.settings.bounce;
        if bounce.is_from_given {
            return &bounce.from;
        }
        self.routes
            .get(route)
            .and_then(|route| {
                route
                    .connectors
                    .iter()
                    .find_map(|name| self.mailboxes.get(name))
            })
            .unwrap_or(&bounce.from)
    }

    /// Whether a report may leave to the sender of a message, by the lists of today.
    fn may_be_told(&self, message: &Message) -> bool {
        let origin = &message.origin;
        let who = self
            .policy
            .named(origin.client.as_deref(), origin.user.as_deref());
        let sender = message.envelope.sender.as_ref();
        sender.is_some_and(|sender| self.policy.report(who, sender))
    }
}

/// As the queue takes it.
fn routed(queue: &Queue, draft: &ReportDraft<'_>, to: &Address, route: &RouteName) -> Routed {
    let id: MessageId = queue.next_id(draft.now);
    Routed {
        message: Arc::new(draft.to(to, id)),
        jobs: vec![(route.clone(), vec![addressee(to)])],
        copies: Vec::new(),
    }
}

/// The body, where the sender wants the whole message back and it is not larger than `limit`, in octets. One that cannot be read any
/// more does not keep the report from being made.
async fn whole(message: &Message, limit: u64) -> Option<Bytes> {
    let wish = message.envelope.dsn.as_ref()?;
    if wish.content != Some(ReturnedContent::Full) || message.size() > limit {
        return None;
    }
    let mut reader = message.body.open().await.ok()?;
    let mut body = Vec::new();
    while let Some(piece) = reader.next().await.ok()? {
        body.extend_from_slice(&piece);
        if body.len() as u64 > limit {
            return None;
        }
    }
    Some(Bytes::from(body))
}

/// Whether a refusal says that the message is too large (RFC 3463 §3.4; RFC 1870 §6.1).
fn is_about_size(reply: &Reply) -> bool {
    match reply.enhanced {
        Some(code) => code == (5, 3, 4) || code == (5, 2, 3),
        None => reply.code == 552,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::plan::Failure,
        fixture::{self, address},
        mail::{
            message::{Body, Envelope},
            recipient::{DsnWish, Notify, Recipient, ReportWish},
        },
    };

    fn settings() -> BounceSettings {
        BounceSettings {
            to_sender: true,
            from: address("postmaster@corp.example"),
            is_from_given: true,
            copy_to: vec![address("admin@corp.example")],
            delay_notice: None,
            full_limit: 100,
            hostname: "relay.corp.example".into(),
        }
    }

    fn message(sender: Option<&str>, header: &str) -> Message {
        let at = SystemTime::UNIX_EPOCH;
        Message {
            id: MessageId::new(at, 1),
            envelope: Envelope {
                sender: sender.map(address),
                recipients: Vec::new(),
                eight_bit: true,
                dsn: None,
            },
            origin: fixture::origin(at),
            header: Bytes::copy_from_slice(header.as_bytes()),
            body: Body::Memory(Bytes::from_static(b"secret\r\n")),
        }
    }

    fn failure(to: &str, notify: Option<&str>) -> ReportedRecipient {
        let notify = notify.map(|text| Notify::parse(text).unwrap());
        ReportedRecipient::failed(&Failure {
            recipient: Recipient {
                address: address(to),
                dsn: Some(DsnWish {
                    notify,
                    original: None,
                }),
            },
            reply: Reply::new(550, (5, 0, 0), "no"),
            gave_up: false,
            in_doubt: false,
            bounce: true,
        })
    }

    /// Who gets it, and how many it names.
    fn told(
        message: &Message,
        failures: &[ReportedRecipient],
        settings: &BounceSettings,
        admitted: bool,
    ) -> Vec<String> {
        bounced(message, failures, settings, admitted)
            .iter()
            .map(|(to, of)| format!("{} {}", to.local(), of.len()))
            .collect()
    }

    #[test]
    fn who_is_told() {
        let one = [failure("x@partner.example", None)];
        for (sender, header, expected) in [
            (Some("app@corp.example"), "", &["app 1", "admin 1"][..]),
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
                &["app 1", "admin 1"],
            ),
        ] {
            let message = message(sender, header);
            assert_eq!(
                told(&message, &one, &settings(), true),
                expected,
                "{header}"
            );
            let others = expected.iter().copied().filter(|to| *to != "app 1");
            let others: Vec<_> = others.collect();
            assert_eq!(told(&message, &one, &settings(), false), others, "{header}");
        }
    }

    #[test]
    fn the_sender_hears_what_it_asked_for_and_the_administrators_all() {
        let of = |list: &[Option<&str>]| -> Vec<_> {
            let to = (0..).map(|n| format!("r{n}@partner.example"));
            to.zip(list)
                .map(|(to, notify)| failure(&to, *notify))
                .collect()
        };
        let message = message(Some("app@corp.example"), "");
        for (wishes, expected) in [
            (&[None][..], &["app 1", "admin 1"][..]),
            (&[Some("FAILURE")], &["app 1", "admin 1"]),
            (&[Some("NEVER")], &["admin 1"]),
            (&[Some("SUCCESS,DELAY")], &["admin 1"]),
            (
                &[Some("NEVER"), Some("FAILURE,DELAY"), None],
                &["app 2", "admin 3"],
            ),
        ] {
            let failures = of(wishes);
            assert_eq!(
                told(&message, &failures, &settings(), true),
                expected,
                "{wishes:?}"
            );
            let nobody = BounceSettings {
                to_sender: false,
                copy_to: Vec::new(),
                ..settings()
            };
            assert!(told(&message, &failures, &nobody, true).is_empty());
            // An administrator that is the sender gets all, once, and may get it.
            let both = BounceSettings {
                copy_to: vec![address("app@corp.example")],
                ..settings()
            };
            let all = [format!("app {}", wishes.len())];
            assert_eq!(told(&message, &failures, &both, true), all, "{wishes:?}");
            assert_eq!(told(&message, &failures, &both, false), all, "{wishes:?}");
        }
    }

    #[test]
    fn a_refusal_for_its_size_is_known() {
        for (code, enhanced, expected) in [
            (552, Some((5, 3, 4)), true),
            (550, Some((5, 2, 3)), true),
            (552, None, true),
            (552, Some((5, 2, 2)), false),
            (550, Some((5, 1, 1)), false),
            (550, None, false),
        ] {
            let reply = match enhanced {
                Some(enhanced) => Reply::new(code, enhanced, "no"),
                None => Reply::plain(code, "no"),
            };
            assert_eq!(is_about_size(&reply), expected, "{reply}");
        }
    }

    #[tokio::test]
    async fn the_whole_message_goes_back_where_that_is_asked_and_it_is_small() {
        let mut message = message(Some("app@corp.example"), "Subject: x\r\n");
        for (content, limit, expected) in [
            (None, 100, None),
            (Some(ReturnedContent::Header), 100, None),
            (Some(ReturnedContent::Full), 100, Some("secret\r\n")),
            (Some(ReturnedContent::Full), 22, Some("secret\r\n")),
            (Some(ReturnedContent::Full), 21, None),
            (Some(ReturnedContent::Full), 0, None),
        ] {
            message.envelope.dsn = Some(ReportWish { content, id: None });
            let found = whole(&message, limit).await;
            assert_eq!(
                found.as_deref(),
                expected.map(str::as_bytes),
                "{content:?} {limit}"
            );
        }
    }
}
