//! Users and what they may do; the three lists that every sender and every recipient must pass.
//!
//! Apart from `content`, which finds the addresses of a header and asks here. It knows neither passwords nor networks:
//! who somebody is was settled before.

use std::fmt;

use super::{Policy, Who};
use crate::{
    mail::{
        address::Address,
        pattern::{Pattern, admitting, find},
        reply::Reply,
    },
    secret::Secret,
};

/// One `[[user]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name that SMTP AUTH gives.
    pub name: String,
    /// The argon2id hash, a PHC string that was checked at load.
    pub password: Secret,
    /// Narrows the allowlist.
    pub senders: Option<Vec<Pattern>>,
    /// Narrows the allowlist.
    pub recipients: Option<Vec<Pattern>>,
}

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

#[derive(Debug, Clone, Copy)]
enum List<'a> {
    Allowlist,
    Client(&'a str),
    User(&'a str),
}

/// The first list that does not admit the address; `None` is the null sender.
pub(super) fn refusal<'a>(
    policy: &'a Policy,
    who: Who<'a>,
    party: Party,
    address: Option<&'a Address>,
) -> Option<Refusal<'a>> {
    let pick = |senders: Option<&'a Vec<Pattern>>, recipients| match party {
        Party::Sender => senders,
        Party::Recipient => recipients,
    };
    let lists = [
        Some((
            List::Allowlist,
            pick(
                Some(&policy.allowlist.senders),
                Some(&policy.allowlist.recipients),
            ),
        )),
        who.client.map(|client| {
            (
                List::Client(&client.name),
                pick(client.senders.as_ref(), client.recipients.as_ref()),
            )
        }),
        who.user.map(|user| {
            (
                List::User(&user.name),
                pick(user.senders.as_ref(), user.recipients.as_ref()),
            )
        }),
    ];
    lists
        .into_iter()
        .flatten()
        .filter_map(|(list, patterns)| Some((list, patterns?)))
        .find(|(_, patterns)| admitting(patterns, address).is_none())
        .map(|(list, patterns)| Refusal {
            list,
            address,
            risky: find(patterns, address).is_some(),
        })
}

/// Whether a report about mail of this sender may go to it. A sender that only "anybody" let in may be a stranger's address in
/// somebody else's mouth: its report leaves only where other mail could leave to.
pub(super) fn may_be_told(policy: &Policy, who: Who<'_>, sender: &Address) -> bool {
    let lists = [
        Some(&policy.allowlist.senders),
        who.client.and_then(|client| client.senders.as_ref()),
        who.user.and_then(|user| user.senders.as_ref()),
    ];
    let is_named = lists
        .into_iter()
        .flatten()
        .flatten()
        .any(|pattern| !pattern.is_of_any_domain() && pattern.admits(Some(sender)));
    // The administrator wrote it down as the sender of others.
    let is_ours = policy.rewrites.iter().any(|rewrite| rewrite.to == *sender);
    is_named || is_ours || refusal(policy, who, Party::Recipient, Some(sender)).is_none()
}

impl Refusal<'_> {
    /// The reply to MAIL; 553 where the address is not this user's (RFC 6409 §6.1).
    pub(super) fn at_mail(&self) -> Reply {
        let code = if matches!(self.list, List::User(_)) {
            553
        } else {
            550
        };
        Reply::new(code, (5, 7, 1), format!("sender {self}"))
    }

    /// The reply to RCPT.
    pub(super) fn at_rcpt(&self) -> Reply {
        Reply::new(550, (5, 7, 1), format!("recipient {self}"))
    }

    /// The reply to the end of DATA; `field` holds the address.
    pub(super) fn in_field(&self, field: &str) -> Reply {
        Reply::new(550, (5, 7, 1), format!("{field} {self}"))
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
