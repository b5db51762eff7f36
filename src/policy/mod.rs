//! MAY IT? Who may send as whom, to whom; pure functions over settings that were checked at load.
//!
//! Apart so that the session and `postern explain` ask the same judge. It opens nothing, waits for nothing and knows
//! neither TOML nor sockets. The order of the rules is the order of the methods: connect, mail, rcpt, content.

pub mod content;
pub mod grants;
pub mod network;
pub mod rewrite;


use crate::mail::{
    address::Domain,
    pattern::Pattern,
    reply::Reply,
};
use grants::User;
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
