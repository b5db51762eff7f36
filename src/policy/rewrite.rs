//! Rewriting of senders: which rule applies, and what a header field becomes by it.
//!
//! A rewrite gives no right: the lists judge what comes out of it. It changes addresses only;
//! names, comments and folding stay. Rewriting twice is rewriting once.

use crate::mail::{
    address::Address,
    mailboxes::{self, Mailbox},
    pattern::Pattern,
};

/// What becomes of Reply-To when a From is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyTo {
    /// Add the replaced From as Reply-To unless there is one or its domain is localhost.
    #[default]
    Original,
    /// Leave it.
    Keep,
}

/// One `[[rewrite]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Which senders.
    pub senders: Vec<Pattern>,
    /// What they become.
    pub to: Address,
    /// What becomes of Reply-To.
    pub reply_to: ReplyTo,
}

impl Rewrite {
    /// Whether this sender gets another address.
    pub fn applies(&self, sender: &Address) -> bool {
        self.senders.iter().any(|p| p.matches(Some(sender)))
    }

    /// Whether a replaced From becomes the Reply-To: nobody can answer to `localhost`, and one that is not ASCII would stand in mail that
    /// leaves without SMTPUTF8.
    pub(super) fn keeps_for_reply(&self, replaced: &Address) -> bool {
        let domain = replaced.domain().as_str();
        self.reply_to == ReplyTo::Original
            && *replaced != self.to
            && (self.to.needs_utf8() || !replaced.needs_utf8())
            && domain != "localhost"
            && domain != "localhost.localdomain"
    }
}

/// The first rewrite that applies, with its place.
pub(super) fn first<'a>(rewrites: &'a [Rewrite], sender: &Address) -> Option<(usize, &'a Rewrite)> {
    let mut all = rewrites.iter().enumerate();
    all.find(|(_, rewrite)| rewrite.applies(sender))
}

/// A field as it leaves: with the address of a rewrite in the place of each that one applies to (each is asked for by
/// itself), and each address in its canonical form, as in the envelope: bare local parts completed, no source route, no dot
/// behind the domain, nothing between its parts. An address that differs from that in case alone stays.
/// The mailboxes afterwards hold what leaves. `None` when the value stays as it is.
pub(super) fn rewrite_value(
    value: &[u8],
    mailboxes: &mut [Mailbox],
    rewrites: &[Rewrite],
) -> Option<Vec<u8>> {
    let mut changes = Vec::new();
    for mailbox in mailboxes {
        let to = first(rewrites, &mailbox.address)
            .map(|(_, rewrite)| &rewrite.to)
            .filter(|to| **to != mailbox.address);
        if let Some(to) = to {
            mailbox.address = to.clone();
        }
        let text = mailbox.address.to_string();
        let given = value.get(mailbox.span.clone()).unwrap_or_default();
        if to.is_some() || !given.eq_ignore_ascii_case(text.as_bytes()) {
            changes.push((mailbox.span.clone(), text));
        }
    }
    mailboxes::substitute(value, &changes)
}
