//! `[[redirect]]`: recipients whose mail goes to somebody else, as all does that a test system sends.
//!
//! It is asked before the recipient lists, which then have nothing to say: what it names was held to the allowlist when the
//! configuration was read, and nobody else gets anything.

use std::{collections::HashSet, fmt::Write as _, sync::Arc};

use super::scope::{Posted, Scope};
use crate::mail::{
    address::Address,
    headers,
    pattern::{Pattern, find},
    recipient::{DsnWish, Recipient},
    xtext,
};

/// So many of the recipients that were replaced are named, in the header and in the log.
const NAMED: usize = 50;
/// So many are named of those that one was replaced by.
const SHOWN: usize = 3;

/// One `[[redirect]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Its name.
    pub name: Arc<str>,
    /// Whose mail, and which recipients.
    pub scope: Scope,
    /// Who gets it in their place; at least one.
    pub to: Vec<Address>,
    /// Recipients that are delivered to as addressed, if the lists let them pass.
    pub except: Vec<Pattern>,
}

/// The first redirect that is for a recipient, and the pattern of its `except`, where that leaves it as addressed.
pub(super) fn first<'a>(
    redirects: &'a [Redirect],
    mail: Posted<'_>,
    recipient: &Address,
) -> Option<(&'a Redirect, Option<&'a Pattern>)> {
    let is_for = |one: &&Redirect| one.scope.takes(mail) && one.scope.takes_recipient(recipient);
    let redirect = redirects.iter().find(is_for)?;
    Some((redirect, find(&redirect.except, Some(recipient))))
}

impl Redirect {
    /// Who gets it in place of this recipient, with what its sender wants to be told. An upstream that is asked for reports is told whom
    /// the sender knows (RFC 3461 §5.2.7.1).
    pub fn instead_of(&self, given: &Recipient) -> Vec<Recipient> {
        let dsn = given.dsn.clone().map(|wish| DsnWish {
            original: wish
                .original
                .or_else(|| wish.notify.and(xtext::original_of(&given.address))),
            notify: wish.notify,
        });
        let to = self.to.iter().cloned();
        to.map(|address| Recipient {
            address,
            dsn: dsn.clone(),
        })
        .collect()
    }

    /// Its `to`, for people.
    pub fn shown(&self) -> String {
        let mut names: Vec<String> = self
            .to
            .iter()
            .take(SHOWN)
            .map(ToString::to_string)
            .collect();
        let more = self.to.len().saturating_sub(SHOWN);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        names.join(", ")
    }
}

/// What redirects have made of the recipients of one message.
#[derive(Debug, Default)]
pub struct Redirected {
    replaced: HashSet<Address>,
    /// The first of them, in their order, each with what became of it.
    named: Vec<(Address, String)>,
    /// By the name of the redirect.
    counts: Vec<(Arc<str>, u64)>,
    /// Recipients that came in their place.
    added: usize,
}

impl Redirected {
    /// One more was replaced, and that brought so many new recipients.
    pub fn add(&mut self, recipient: &Address, by: &Redirect, added: usize) {
        if !self.replaced.insert(recipient.clone()) {
            return;
        }
        self.added += added;
        match self.counts.iter_mut().find(|(name, _)| *name == by.name) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((Arc::clone(&by.name), 1)),
        }
        if self.named.len() < NAMED {
            let words = format!("redirected {recipient} to {} by {}", by.shown(), by.name);
            self.named.push((recipient.clone(), words));
        }
    }

    /// Whether this one was replaced.
    pub fn has(&self, recipient: &Address) -> bool {
        self.replaced.contains(recipient)
    }

    /// Recipients that the client has named, of a message that is for so many now.
    pub fn given(&self, recipients: usize) -> usize {
        recipients.saturating_sub(self.added) + self.replaced.len()
    }

    /// How many were replaced, by which redirect.
    pub fn counts(&self) -> &[(Arc<str>, u64)] {
        &self.counts
    }

    fn unnamed(&self) -> usize {
        self.replaced.len().saturating_sub(self.named.len())
    }

    /// What was done, a line each, for the log and the life of the message.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.named.iter().map(|(_, words)| words.clone()).collect();
        if self.unnamed() > 0 {
            words.push(format!("redirected {} more", self.unnamed()));
        }
        words
    }

    /// The fields that say whom it was for.
    pub(super) fn compose(&self, out: &mut Vec<u8>) {
        const FIELD: &str = "X-Original-To";
        for (address, _) in &self.named {
            // One that is not ASCII must not keep out the servers without SMTPUTF8: nothing of it is sent there.
            let text = address.to_string();
            headers::append(out, FIELD, xtext::embedded(&text).as_bytes());
        }
        if self.unnamed() > 0 {
            let mut more = String::new();
            // Writing to a String cannot fail.
            let _ = write!(more, "and {} more", self.unnamed());
            headers::append(out, FIELD, more.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::address;

    #[test]
    fn whom_it_was_for_is_said_in_ascii() {
        let redirect = Redirect {
            name: "test".into(),
            scope: Scope::default(),
            to: vec![address("dev@corp.com")],
            except: Vec::new(),
        };
        let mut redirected = Redirected::default();
        for given in ["b\u{fc}ro@x.example", "a@x.example"] {
            redirected.add(&address(given), &redirect, 1);
        }
        let mut out = Vec::new();
        redirected.compose(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "X-Original-To: b\\x{FC}ro@x.example\r\nX-Original-To: a@x.example\r\n"
        );
    }
}
