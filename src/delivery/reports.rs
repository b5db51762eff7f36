//! Who is told of what failed, and from whom.
//!
//! `bounce` words it, and `settlement` writes it down with the failure. Nothing is sent here.

use std::{sync::Arc, time::SystemTime};

use super::{bounce, plan::Decision, setup::Built};
use crate::{
    mail::{address::Address, message::Message},
    queue::{
        Queue,
        store::{Event, EventKind, Job},
    },
    route::{RouteName, Routed},
};

impl Built {
    /// The reports for those who were given up, by the route of the message.
    pub(super) fn reports(
        &self,
        queue: &Queue,
        job: &Job,
        decision: &Decision,
        now: SystemTime,
    ) -> Vec<Routed> {
        let told: Vec<_> = decision
            .failures
            .iter()
            .filter(|failure| failure.bounce)
            .cloned()
            .collect();
        if told.is_empty() {
            return Vec::new();
        }
        let settings = &self.settings.bounce;
        let by = (settings.hostname.as_str(), self.reporter(&job.route));
        bounce::addressees(&job.message, settings, self.may_be_told(&job.message))
            .into_iter()
            .map(|to| {
                let id = queue.next_id(now);
                let message = bounce::bounce(&job.message, &told, by, &to, id, now);
                Routed {
                    message: Arc::new(message),
                    jobs: vec![(job.route.clone(), vec![to.into()])],
                }
            })
            .collect()
    }

    /// The line that says why the sender gets no report, where the lists are the reason.
    pub(super) fn withheld(
        &self,
        job: &Job,
        decision: &Decision,
        now: SystemTime,
    ) -> Option<Event> {
        let sender = job.message.envelope.sender.as_ref()?;
        let settings = &self.settings.bounce;
        let is_told =
            |admitted| bounce::addressees(&job.message, settings, admitted).contains(sender);
        let is_withheld = decision.failures.iter().any(|failure| failure.bounce)
            && is_told(true)
            && !is_told(self.may_be_told(&job.message));
        is_withheld.then(|| Event {
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
