//! The three lists that every sender and every recipient must pass: of all, of the client, of the user.
//!
//! `content` finds the addresses of a header and asks here. It knows neither passwords nor networks:
//! who somebody is was settled before.

use std::fmt;

use super::rules::{Policy, Who};
use crate::mail::{
    address::Address,
    pattern::{Pattern, admitting, find},
    reply::Reply,
};

/// Which half of the lists is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    Sender,
    Recipient,
}

/// The list that does not admit an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal<'a> {
    list: List<'a>,
    address: Option<&'a Address>,
    /// A pattern matches, but the local part is one that a next hop may read a route out of.
    risky: bool,
}

/// One of the three lists.
#[derive(Debug, Clone, Copy)]
pub(super) enum List<'a> {
    Allowlist,
    Client(&'a str),
    User(&'a str),
}

impl List<'_> {
    /// As it is known to the administrator.
    pub(super) fn named(self, party: Party) -> String {
        match self {
            List::Allowlist => format!("allowlist.{}s", party.as_str()),
            List::Client(name) => format!("client {name}"),
            List::User(name) => format!("user {name}"),
        }
    }
}

impl Party {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Party::Sender => "sender",
            Party::Recipient => "recipient",
        }
    }
}

/// The lists that there are for this half, in the order they are asked.
pub(super) fn lists<'a>(
    policy: &'a Policy,
    who: Who<'a>,
    party: Party,
) -> impl Iterator<Item = (List<'a>, &'a Vec<Pattern>)> {
    let pick = move |senders: Option<&'a Vec<Pattern>>, recipients| match party {
        Party::Sender => senders,
        Party::Recipient => recipients,
    };
    let allowlist = &policy.allowlist;
    let of_all = pick(Some(&allowlist.senders), Some(&allowlist.recipients));
    let of_client = who.client.and_then(|client| {
        let patterns = pick(client.senders.as_ref(), client.recipients.as_ref())?;
        Some((List::Client(&client.name), patterns))
    });
    let of_user = who.user.and_then(|user| {
        let patterns = pick(user.senders.as_ref(), user.recipients.as_ref())?;
        Some((List::User(&user.name), patterns))
    });
    let of_all = of_all.map(|patterns| (List::Allowlist, patterns));
    [of_all, of_client, of_user].into_iter().flatten()
}

/// The first list that does not admit the address; `None` is the null sender.
pub(super) fn refusal<'a>(
    policy: &'a Policy,
    who: Who<'a>,
    party: Party,
    address: Option<&'a Address>,
) -> Option<Refusal<'a>> {
    lists(policy, who, party)
        .find(|(_, patterns)| admitting(patterns, address).is_none())
        .map(|(list, patterns)| Refusal {
            list,
            address,
            risky: find(patterns, address).is_some(),
        })
}

/// Whether it is a recipient that can be dealt with at all, whoever gets its mail: none whose local part a next hop may read a route out
/// of, unless the lists let it pass.
pub(super) fn is_any_mailbox(policy: &Policy, who: Who<'_>, recipient: &Address) -> bool {
    !recipient.is_risky() || refusal(policy, who, Party::Recipient, Some(recipient)).is_none()
}

/// Whether a report about mail of this sender may go to it. A sender that only "anybody" let in may be a stranger's address in
/// somebody else's mouth: its report leaves only where other mail could leave to.
pub(super) fn may_be_told(policy: &Policy, who: Who<'_>, sender: &Address) -> bool {
    let is_named = lists(policy, who, Party::Sender)
        .flat_map(|(_, patterns)| patterns)
        .any(|pattern| !pattern.is_of_any_domain() && pattern.admits(Some(sender)));
    // The administrator wrote it down as the sender of others.
    let is_ours = policy.rewrites.iter().any(|rewrite| rewrite.to == *sender);
    is_named || is_ours || refusal(policy, who, Party::Recipient, Some(sender)).is_none()
}

impl Refusal<'_> {
    /// The reply to MAIL; 553 where the address is not this user's (RFC 6409 §6.1).
    pub(super) fn at_mail(&self) -> Reply {
        if matches!(self.list, List::User(_)) {
            Reply::sender_of_another(self)
        } else {
            Reply::not_admitted("sender", self)
        }
    }

    /// The reply to RCPT.
    pub(super) fn at_rcpt(&self) -> Reply {
        Reply::not_admitted("recipient", self)
    }

    /// The reply to the end of DATA; `field` holds the address.
    pub(super) fn in_field(&self, field: &str) -> Reply {
        Reply::not_admitted(field, self)
    }
}

/// `<x@y> is not in the allowlist`.
impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "<{address}> ")?,
            None => f.write_str("<> ")?,
        }
        match self.list {
            List::Allowlist => f.write_str("is not in the allowlist")?,
            List::Client(name) => write!(f, "is not allowed for client {name}")?,
            List::User(name) => write!(f, "is not allowed for user {name}")?,
        }
        if self.risky {
            f.write_str(": such a local part must be listed literally")?;
        }
        Ok(())
    }
}
