//! The rules as they are configured, and whose mail they are asked about.
//!
//! What every file in here needs to know of the others; the answers are given in `judge`.

use std::{net::IpAddr, sync::Arc};

use super::{
    alter::HeaderRule,
    archive::Archive,
    client::{self, Client, User},
    quota::Quota,
    redirect::{Redirect, Redirected},
    rewrite::Rewrite,
    scope::Posted,
};
use crate::mail::{
    address::{Address, Domain},
    message::{MessageId, Origin},
    pattern::Pattern,
    recipient::Recipient,
};

/// Whether a listener asks for SMTP AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// Not offered.
    #[default]
    Off,
    /// Offered.
    Optional,
    /// Nothing but greeting commands before it.
    Required,
}

/// Both lists of `[allowlist]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist {
    /// Who may send.
    pub senders: Vec<Pattern>,
    /// To whom.
    pub recipients: Vec<Pattern>,
    /// The recipients in the header (To, Cc, Bcc, their Resent forms, Apparently-To) are held to the recipient list too.
    pub header_recipients: bool,
}

/// All rules of one configuration.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `[[client]]`; when none is configured, config puts one for loopback here, named `loopback`.
    pub clients: Vec<Client>,
    /// `[[user]]`.
    pub users: Vec<User>,
    /// `[allowlist]`.
    pub allowlist: Allowlist,
    /// `[[rewrite]]`, first match wins.
    pub rewrites: Vec<Rewrite>,
    /// `[[redirect]]`, first match wins.
    pub redirects: Vec<Redirect>,
    /// `[[archive]]`, all that are for a message get a copy.
    pub archives: Vec<Arc<Archive>>,
    /// `[[header]]`, all that are for a message, in order.
    pub header_rules: Vec<HeaderRule>,
    /// `[[quota]]`, all that are for a recipient count it.
    pub quotas: Vec<Quota>,
    /// `limits.received_headers`.
    pub received_headers: usize,
    /// `default_domain`.
    pub default_domain: Option<Domain>,
}

/// Whose transaction it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// The `[[client]]` of the connection.
    pub client: Option<&'a Client>,
    /// The `[[user]]` that logged in.
    pub user: Option<&'a User>,
}

/// What the judgement of a header needs to know of its message.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Whose transaction it is.
    pub who: Who<'a>,
    /// For Received and a missing Message-ID.
    pub id: MessageId,
    /// For Received and a missing Date.
    pub origin: &'a Origin,
    /// The envelope sender as the client gave it; `None` is `<>`.
    pub sender_given: Option<&'a Address>,
    /// The envelope sender after rewriting.
    pub sender: Option<&'a Address>,
    /// The index of the rewrite that applied.
    pub rewrite: Option<usize>,
    /// The envelope recipients (Received names it when there is one).
    pub recipients: &'a [Recipient],
    /// Those that others stand for.
    pub redirected: &'a Redirected,
    /// For Received and a missing Message-ID.
    pub hostname: &'a str,
    /// The From that is added to a message from `<>` without one.
    pub bounce_from: &'a Address,
    /// A name whose quotes were left out gets them (`From: Doe, Jane <a@b>`).
    pub unquoted_names: bool,
}

impl<'a> About<'a> {
    /// Whose mail it is.
    pub(super) fn posted(&self) -> Posted<'a> {
        Posted {
            sender: self.sender,
            client: self.origin.client.as_deref(),
            user: self.origin.user.as_deref(),
            listener: &self.origin.listener,
        }
    }
}

impl Policy {
    /// The `[[client]]` with the longest prefix over the address (`::ffff:a.b.c.d` equals `a.b.c.d`).
    pub fn client(&self, ip: IpAddr) -> Option<&Client> {
        client::longest(&self.clients, ip)
    }

    /// The `[[user]]` of that name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The client and the user of these names, as far as they are still configured.
    pub fn named(&self, client: Option<&str>, user: Option<&str>) -> Who<'_> {
        Who {
            client: client.and_then(|name| self.clients.iter().find(|known| known.name == name)),
            user: user.and_then(|name| self.user(name)),
        }
    }
}
