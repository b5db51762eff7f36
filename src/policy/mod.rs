//! MAY IT? Who may send as whom, to whom; pure functions over settings that were checked at load.
//!
//! Apart so that the session and `postern explain` ask the same judge. It opens nothing, waits for nothing and knows
//! neither TOML nor sockets. The order of the rules is the order of the methods: connect, mail, rcpt, content.

pub mod content;
pub mod grants;
pub mod network;
pub mod rewrite;

use std::net::IpAddr;

use crate::mail::{
    address::{Address, Domain},
    message::{MessageId, Origin},
    pattern::Pattern,
    reply::Reply,
};
use grants::{Party, User};
use network::Client;
use rewrite::Rewrite;

/// The answer of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Accept,
    /// It may not; the reply names the rule.
    Reject(Reply),
}

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
    /// To, Cc and Bcc are held to the recipient list too.
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
    pub recipients: &'a [Address],
    /// For Received and a missing Message-ID.
    pub hostname: &'a str,
    /// The From that is added to a message from `<>` without one.
    pub bounce_from: &'a Address,
}

impl Policy {
    /// The `[[client]]` with the longest prefix over the address (`::ffff:a.b.c.d` equals `a.b.c.d`).
    pub fn client(&self, ip: IpAddr) -> Option<&Client> {
        network::longest(&self.clients, ip)
    }

    /// The `[[user]]` of that name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// At the greeting: whether a connection from there could ever send (554 5.7.1 ADDRESS is in no [[client]]).
    pub fn connect(&self, ip: IpAddr, auth: AuthMode) -> Verdict {
        if auth == AuthMode::Off && self.client(ip).is_none() {
            return Verdict::Reject(Reply::no_client(ip.to_canonical()));
        }
        Verdict::Accept
    }

    /// At MAIL, first: whether a login is still missing (530 5.7.0). `logged_in` is true after any accepted AUTH,
    /// `who.user` is set only when it was a `[[user]]`.
    pub fn login(&self, who: Who<'_>, auth: AuthMode, logged_in: bool) -> Verdict {
        // Any login will do for a client with `any_credentials`, and for nobody else.
        let known = who.user.is_some()
            || logged_in && who.client.is_some_and(|client| client.any_credentials);
        if known {
            return Verdict::Accept;
        }
        match who.client {
            None => Verdict::Reject(Reply::login_needed("your address is in no [[client]]")),
            Some(_) if auth == AuthMode::Required => {
                Verdict::Reject(Reply::login_needed("this listener asks for it"))
            }
            Some(client) if client.require_auth => Verdict::Reject(Reply::login_needed(format!(
                "client {} asks for it",
                client.name
            ))),
            Some(_) => Verdict::Accept,
        }
    }

    /// The rewrite that applies to this envelope sender, never for `<>`.
    pub fn rewrite(&self, sender: Option<&Address>) -> Option<(usize, &Rewrite)> {
        let sender = sender?;
        self.rewrites
            .iter()
            .enumerate()
            .find(|(_, rewrite)| rewrite.applies(sender))
    }

    /// At MAIL: the sender after rewriting against allowlist, client and user.
    pub fn mail(&self, who: Who<'_>, sender: Option<&Address>) -> Verdict {
        grants::refusal(self, who, Party::Sender, sender).map_or(Verdict::Accept, |refusal| {
            Verdict::Reject(refusal.at_mail())
        })
    }

    /// At RCPT: the recipient against allowlist, client and user.
    pub fn rcpt(&self, who: Who<'_>, recipient: &Address) -> Verdict {
        grants::refusal(self, who, Party::Recipient, Some(recipient))
            .map_or(Verdict::Accept, |refusal| {
                Verdict::Reject(refusal.at_rcpt())
            })
    }

    /// At the end of the header: repaired, rewritten, judged, with Received on top and Bcc and Return-Path out. `raw` is
    /// complete lines ending in CRLF, without the empty line.
    ///
    /// # Errors
    /// The reply that names the rule.
    pub fn header(&self, raw: &[u8], about: &About<'_>) -> Result<Vec<u8>, Reply> {
        content::header(self, raw, about)
    }
}
