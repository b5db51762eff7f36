//! Rewriting of senders: which rule applies, and what a header field becomes by it.
//!
//! Apart from `grants`: a rewrite gives no right, the lists judge what comes out of it. It changes addresses only;
//! names, comments and folding stay. Rewriting twice is rewriting once.

use crate::mail::{address::Address, mailboxes::Mailbox, pattern::Pattern};

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

    /// Whether a replaced From becomes the Reply-To: nobody can answer to `localhost`.
    pub(super) fn keeps_for_reply(&self, replaced: &Address) -> bool {
        let domain = replaced.domain().as_str();
        self.reply_to == ReplyTo::Original
            && *replaced != self.to
            && domain != "localhost"
            && domain != "localhost.localdomain"
    }
}

/// The addresses of a field that change: with another rule's address in their place, or without their source route.
/// The mailboxes afterwards hold what leaves. `None` when the value stays as it is.
pub(super) fn rewrite_value(
    value: &[u8],
    mailboxes: &mut [Mailbox],
    rewrite: Option<&Rewrite>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut copied = 0;
    for mailbox in mailboxes {
        let to = rewrite
            .filter(|r| mailbox.address != r.to && r.applies(&mailbox.address))
            .map(|r| &r.to);
        if to.is_none() && !mailbox.routed {
            continue;
        }
        if let Some(to) = to {
            mailbox.address = to.clone();
        }
        out.extend_from_slice(value.get(copied..mailbox.span.start).unwrap_or_default());
        out.extend_from_slice(mailbox.address.to_string().as_bytes());
        copied = mailbox.span.end;
    }
    (copied > 0).then(|| {
        out.extend_from_slice(value.get(copied..).unwrap_or_default());
        out
    })
}
