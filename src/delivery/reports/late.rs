//! Senders who asked to be told when a message takes long: looked for now and then, whatever keeps it waiting, and told once.
//!
//! The store remembers who was told, with the report itself; so neither a restart nor another gateway tells it twice.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{ReportKind, ReportedRecipient, routed, teller};
use crate::{
    delivery::setup::Built,
    mail::{
        message::{Message, MessageId},
        recipient::Recipient,
    },
    queue::{
        Queue,
        store::{Entry, Event, EventKind, Filter, JobState, LateNotice, StoreError},
    },
    telemetry::maillog,
};

/// Messages that are looked at together.
const SOME: usize = 50;
/// Between two looks: at least, at most.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// When it was last looked.
#[derive(Debug, Default)]
pub(in crate::delivery) struct LateLook {
    looked: Option<Instant>,
    failed: bool,
}

impl LateLook {
    /// Tells whoever is to be told by now, when it is time to look.
    pub(in crate::delivery) async fn run(&mut self, queue: &Queue, built: &Built, now: SystemTime) {
        let Some(notice) = built.settings.bounce.delay_notice else {
            return;
        };
        let every = notice.clamp(EVERY.0, EVERY.1);
        if self.looked.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.looked = Some(Instant::now());
        let Some(by) = now.checked_sub(notice) else {
            return;
        };
        match built.tell_late(queue, by, now).await {
            Ok(told) => {
                self.failed = false;
                // There may be more.
                if told >= SOME {
                    self.looked = None;
                }
            }
            // Once: the loop says that the store does not work.
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::error!(%error, "who waits for word of a delay cannot be told");
                }
            }
        }
    }
}

impl Built {
    /// How many messages it told of.
    async fn tell_late(
        &self,
        queue: &Queue,
        by: SystemTime,
        now: SystemTime,
    ) -> Result<usize, StoreError> {
        let store = queue.store();
        let mut count = 0;
        for id in store.late(by, SOME).await? {
            let Some(message) = store.content(id).await? else {
                continue;
            };
            let filter = Filter {
                states: vec![JobState::Waiting, JobState::Sending, JobState::Held],
                ..Filter::of(id)
            };
            let entries = store.list(&filter, now).await?;
            let notice = self.late_notice(queue, &message, &entries, now);
            let told: Vec<(MessageId, String)> = (notice.reports.iter())
                .filter_map(|report| {
                    let to = report.message.envelope.recipients.first()?;
                    Some((report.message.id, to.to_string()))
                })
                .collect();
            if store.tell_late(notice, now).await? {
                count += 1;
                for (report, to) in told {
                    maillog::reported(id, report, ReportKind::Delayed.as_str(), &to);
                    queue.wake();
                }
            }
        }
        Ok(count)
    }

    /// What tells the sender of a message that it takes long: of all who wait for it and of whom the sender wants to hear, by whatever
    /// route.
    fn late_notice(
        &self,
        queue: &Queue,
        message: &Message,
        entries: &[Entry],
        now: SystemTime,
    ) -> LateNotice {
        let by_address: HashMap<String, &Recipient> = (message.envelope.recipients.iter())
            .filter(|recipient| recipient.tells_delay())
            .map(|recipient| (recipient.to_string(), recipient))
            .collect();
        let mut recipients = Vec::new();
        for entry in entries {
            let open = entry.recipients.iter().filter(|one| one.state.is_open());
            for one in open {
                let Some(recipient) = by_address.get(&one.address) else {
                    continue;
                };
                let said = one.last_reply.as_deref();
                let is_held = entry.state == JobState::Held;
                let told = ReportedRecipient::delayed((*recipient).clone(), said, is_held);
                let route = self.routes.get(&entry.route).filter(|_| !is_held);
                let until = route.map(|route| entry.accepted + route.give_up);
                recipients.push(ReportedRecipient { until, ..told });
            }
        }
        let mut notice = LateNotice {
            message: message.id,
            reports: Vec::new(),
            event: None,
        };
        let settings = &self.settings.bounce;
        let sender = teller(message).filter(|_| settings.to_sender);
        let (Some(sender), Some(entry), false) = (sender, entries.first(), recipients.is_empty())
        else {
            return notice;
        };
        if !self.may_be_told(message) {
            notice.event = self.kept_from(message, now);
            return notice;
        }
        let draft = self.draft(&entry.route, message, ReportKind::Delayed, &recipients, now);
        let report = routed(queue, &draft, sender, &entry.route);
        notice.event = Some(Event {
            at: now,
            kind: EventKind::Reported,
            recipients: vec![sender.to_string()],
            text: format!("delayed, report {}", report.message.id),
        });
        notice.reports.push(report);
        notice
    }
}
