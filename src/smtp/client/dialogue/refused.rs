//! What becomes of recipients, and of the lane, when the upstream refuses.
//!
//! Apart from the order of commands and replies. What a refusal means, `class` says; here it is given to those whom it concerns.

use super::Delivery;
use crate::{
    mail::{outcome::Outcome, reply::Reply, text::bounded},
    smtp::client::{
        class::{Class, Narrow, Place, is_out_of_step, weigh},
        command::Command,
    },
};

impl Delivery<'_> {
    pub(super) fn refuse_accepted(&mut self, reply: &Reply, place: Place) {
        let outcome = self.judge(reply, place);
        for index in std::mem::take(&mut self.accepted) {
            self.set(index, outcome.clone());
        }
    }

    pub(super) fn refuse_rest(&mut self, reply: &Reply, command: Command) {
        let outcome = match self.judge(reply, command.place()) {
            // A refused RSET says nothing about the message.
            Outcome::Failed(reply) if command == Command::Reset => Outcome::deferred(reply),
            outcome => outcome,
        };
        self.later.clear();
        self.accepted.clear();
        self.fill(&outcome);
    }

    /// The outcome that a refusal is; a refusal that concerns the lane is remembered as such.
    pub(super) fn judge(&mut self, reply: &Reply, place: Place) -> Outcome {
        let verdict = weigh(reply, place, self.overrides, self.is_quotable());
        let shown = self.mask.reply(reply);
        let said = verdict.explain(&shown, place);
        match verdict.obstacle(said.clone()) {
            Some(obstacle) => {
                // Accepted at RCPT and then refused: that was no welcome.
                self.welcome &= !matches!(place, Place::Data | Place::Content);
                // What is ours for whatever mail outweighs what may be about one recipient.
                if self.obstacle.is_none() || verdict.narrow.is_none() && self.narrow.is_some() {
                    self.narrow = verdict.narrow;
                    self.obstacle = Some(obstacle);
                }
                Outcome::deferred(said)
            }
            // The upstream lost the thread: no verdict on the message.
            None if is_out_of_step(reply, self.overrides) => Outcome::deferred(short(&shown)),
            None if verdict.class == Class::Failed => Outcome::Failed(short(&shown)),
            None => Outcome::deferred(short(&shown)),
        }
    }

    /// The lane stops: not for one recipient that an upstream does not relay for, while it takes others.
    pub(super) fn is_stopped(&self) -> bool {
        self.obstacle.is_some() && !(self.welcome && self.narrow == Some(Narrow::Recipient))
    }

    /// An address of this delivery has a blank in it, and so could be read as a sentence where a reply repeats it.
    fn is_quotable(&self) -> bool {
        let sender = self.mail.envelope.sender.iter();
        sender
            .chain(self.mail.recipients.iter().map(|r| &r.address))
            .any(|address| address.local().contains(' '))
    }
}

/// As said, but not at any length: the queue keeps it for every recipient.
pub(super) fn short(reply: &Reply) -> Reply {
    Reply {
        code: reply.code,
        enhanced: reply.enhanced,
        text: bounded(&reply.text).to_owned(),
    }
}
