//! What has become of each recipient, and of the lane, so far.
//!
//! What a refusal means, `class` says; here it is given to those whom it concerns. Of the order of commands and replies nothing is
//! known here.

use std::sync::Arc;

use crate::{
    mail::{
        outcome::{Obstacle, Onward, Outcome, Report},
        reply::Reply,
        text::bounded,
    },
    smtp::client::{
        class::{Class, Crowding, Narrow, Override, Place, crowding, diagnose, is_out_of_step},
        command::Mail,
        mask::Mask,
    },
};

/// The outcomes of one delivery.
#[derive(Debug)]
pub(super) struct Outcomes<'a> {
    mail: Mail<'a>,
    overrides: &'a [Override],
    /// In the order of `mail.recipients`.
    found: Vec<Option<Outcome>>,
    /// Why the lane stops, if no outcome forbids saying so.
    obstacle: Option<Obstacle>,
    /// Whom alone that concerns, if the upstream takes other mail of ours.
    narrow: Option<Narrow>,
    /// A recipient was accepted: our standing is good.
    is_welcome: bool,
    /// The upstream said that it has too many connections.
    crowded: Option<Reply>,
    /// No outcome repeats what it hides.
    pub(super) mask: Arc<Mask>,
}

impl<'a> Outcomes<'a> {
    pub(super) fn new(mail: Mail<'a>, overrides: &'a [Override]) -> Self {
        Self {
            mail,
            overrides,
            found: vec![None; mail.recipients.len()],
            obstacle: None,
            narrow: None,
            is_welcome: false,
            crowded: None,
            mask: Arc::default(),
        }
    }

    /// The recipient has its outcome.
    pub(super) fn is_settled(&self, index: usize) -> bool {
        self.found.get(index).is_some_and(Option::is_some)
    }

    pub(super) fn is_failed(&self, index: usize) -> bool {
        matches!(self.found.get(index), Some(Some(Outcome::Failed(_))))
    }

    /// A recipient's outcome, unless it has one.
    pub(super) fn set(&mut self, index: usize, outcome: Outcome) {
        if let Some(slot @ None) = self.found.get_mut(index) {
            *slot = Some(outcome);
        }
    }

    /// Another outcome than the one that was set.
    pub(super) fn replace(&mut self, index: usize, outcome: Outcome) {
        if let Some(slot) = self.found.get_mut(index) {
            *slot = Some(outcome);
        }
    }

    /// The outcome of all who have none yet.
    pub(super) fn fill(&mut self, outcome: &Outcome) {
        for slot in self.found.iter_mut().filter(|o| o.is_none()) {
            *slot = Some(outcome.clone());
        }
    }

    /// These recipients keep nothing of what was said of them, nor does the lane.
    pub(super) fn forget(&mut self, recipients: impl IntoIterator<Item = usize>) {
        self.obstacle = None;
        for index in recipients {
            if let Some(slot) = self.found.get_mut(index) {
                *slot = None;
            }
        }
    }

    /// The upstream accepted a recipient.
    pub(super) fn welcome(&mut self) {
        self.is_welcome = true;
    }

    pub(super) fn is_welcome(&self) -> bool {
        self.is_welcome
    }

    /// See [`super::Dialogue::narrow`].
    pub(super) fn narrow(&self) -> Option<Narrow> {
        self.narrow
    }

    pub(super) fn is_taken(&self) -> bool {
        let mut found = self.found.iter().flatten();
        found.any(|o| matches!(o, Outcome::Delivered(_)))
    }

    /// See [`super::Dialogue::crowded`].
    pub(super) fn crowded(&self) -> Option<&Reply> {
        let is_taken = |o: &Outcome| matches!(o, Outcome::Delivered(_) | Outcome::InDoubt(_));
        let crowded = self.crowded.as_ref();
        crowded.filter(|_| !self.found.iter().flatten().any(is_taken))
    }

    /// There was no attempt for the message, unless another reason is known already.
    pub(super) fn not_tried(&mut self, obstacle: Obstacle) {
        self.obstacle.get_or_insert(obstacle);
    }

    /// Why those who follow need not be tried. What may be one recipient's alone says nothing of them.
    pub(super) fn ends_all(&self) -> Option<&Obstacle> {
        let obstacle = self.obstacle.as_ref();
        obstacle.filter(|_| self.narrow != Some(Narrow::Recipient))
    }

    /// A reply as it is kept.
    pub(super) fn kept(&self, reply: &Reply) -> Reply {
        short(&self.mask.reply(reply))
    }

    /// The outcome that a refusal is; a refusal that concerns the lane is remembered as such.
    pub(super) fn judge(&mut self, reply: &Reply, place: Place) -> Outcome {
        let diagnosis = diagnose(reply, place, self.overrides, self.is_quotable());
        let shown = self.mask.reply(reply);
        let said = diagnosis.explain(&shown, place);
        if crowding(reply, place, self.overrides) == Some(Crowding::Said) {
            self.crowded.get_or_insert_with(|| said.clone());
        }
        match diagnosis.obstacle(said.clone()) {
            Some(obstacle) => {
                // Accepted at RCPT and then refused: that was no welcome.
                self.is_welcome &= !matches!(place, Place::Data | Place::Content);
                // What is ours for whatever mail outweighs what may be about one recipient.
                if self.obstacle.is_none() || diagnosis.narrow.is_none() && self.narrow.is_some() {
                    self.narrow = diagnosis.narrow;
                    self.obstacle = Some(obstacle);
                }
                Outcome::deferred(said)
            }
            // The upstream lost the thread: that says nothing of the message.
            None if is_out_of_step(reply, self.overrides) => Outcome::deferred(short(&shown)),
            None if diagnosis.class == Class::Failed => Outcome::Failed(short(&shown)),
            None => Outcome::deferred(short(&shown)),
        }
    }

    /// The report; `via` says where it went. A recipient without an outcome is deferred.
    pub(super) fn report(self, via: String, onward: Onward) -> Report {
        let is_settled = self
            .found
            .iter()
            .flatten()
            .any(|o| matches!(o, Outcome::Delivered(_) | Outcome::InDoubt(_)));
        if !is_settled
            && self.is_stopped()
            && let Some(obstacle) = self.obstacle
        {
            return obstacle.into();
        }
        let early =
            || Outcome::deferred(Reply::new(451, (4, 4, 2), "the conversation ended early"));
        let outcomes = self
            .mail
            .recipients
            .iter()
            .zip(self.found)
            .map(|(to, outcome)| (to.address.clone(), outcome.unwrap_or_else(early)))
            .collect();
        Report::Tried {
            outcomes,
            via,
            pause: None,
            onward,
        }
    }

    /// The lane stops: not for one recipient that an upstream does not relay for, while it takes others.
    fn is_stopped(&self) -> bool {
        self.obstacle.is_some() && !(self.is_welcome && self.narrow == Some(Narrow::Recipient))
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
fn short(reply: &Reply) -> Reply {
    Reply {
        code: reply.code,
        enhanced: reply.enhanced,
        text: bounded(&reply.text).to_owned(),
    }
}
