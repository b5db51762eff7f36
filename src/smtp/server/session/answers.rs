//! What every part of a session answers with: replies, refusals for the log, counted errors, the end.
//!
//! Counting happens in this one place, so no part can forget it.

use std::time::Duration;

use crate::{
    mail::{address::Address, reply::Reply},
    policy::Who,
};

use super::{Rejection, Session, Step, state::Phase};

/// Commands that send no mail, before 421.
const JUNK_LIMIT: u32 = 100;

impl Session {
    pub(super) fn who(&self) -> Who<'_> {
        Who {
            client: self.client.as_ref(),
            user: self.user.as_ref(),
        }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.pending.push_back(step);
    }

    pub(super) fn say(&mut self, reply: Reply) {
        self.push(Step::Reply(reply));
    }

    pub(super) fn close(&mut self, reply: Option<Reply>) {
        self.phase = Phase::Closed;
        self.transaction = None;
        self.push(Step::Close(reply));
    }

    /// The step after an answer of the driver. There always is one; a driver that answers unasked is told to close.
    pub(super) fn next(&mut self) -> Step {
        self.pending.pop_front().unwrap_or_else(|| {
            self.phase = Phase::Closed;
            Step::Close(None)
        })
    }

    /// A refusal for the log.
    pub(super) fn rejected(
        &mut self,
        stage: &'static str,
        recipient: Option<String>,
        reply: &Reply,
    ) {
        let sender = self.transaction.as_ref().map(|t| named(t.given.as_ref()));
        self.rejected_sender(stage, sender, recipient, reply);
    }

    pub(super) fn rejected_sender(
        &mut self,
        stage: &'static str,
        sender: Option<String>,
        recipient: Option<String>,
        reply: &Reply,
    ) {
        self.push(Step::Rejected(Box::new(Rejection {
            stage,
            sender,
            recipient,
            reply: reply.clone(),
        })));
    }

    /// An error of the client: answered, counted, slowed down, and in the end closed.
    pub(super) fn error(&mut self, reply: Reply) {
        self.errors += 1;
        let most = self.rules.session_errors.max(1);
        if self.errors >= most {
            let reply = Reply::too_many_errors(most);
            self.rejected("connect", None, &reply);
            self.close(Some(reply));
            return;
        }
        let free = (most / 2).max(1);
        if self.errors >= free {
            let steps = self.errors - free + 1;
            self.push(Step::Pause(Duration::from_millis(200) * steps.min(25)));
        }
        self.say(reply);
    }

    /// A command that sends no mail; false when it was one too many.
    pub(super) fn count_command(&mut self) -> bool {
        self.junk += 1;
        if self.junk > JUNK_LIMIT {
            let reply = Reply::too_many_commands();
            self.rejected("connect", None, &reply);
            self.close(Some(reply));
        }
        self.junk <= JUNK_LIMIT
    }
}

/// A sender as the log shows it.
pub(super) fn named(sender: Option<&Address>) -> String {
    sender.map_or_else(|| "<>".into(), ToString::to_string)
}
