//! What a session and its driver tell each other: the rules and conditions that hold, the steps to take, what became of them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    mail::{
        address::Address,
        health::Health,
        message::{Envelope, MessageId, Origin},
        recipient::Recipient,
        reply::Reply,
    },
    policy::{
        AuthMode, Policy, archive::Archive, certificate::ClientCertificates, client::Client,
        ledger::QuotaView, quota::QuotaTally,
    },
    route::{RouteName, Router},
    secret::Secret,
};

/// All a session asks, of one configuration. A reload makes a new one; a transaction finishes with the one it began with.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Banner, EHLO, Received.
    pub hostname: String,
    /// MAY IT?
    pub policy: Policy,
    /// WHERE TO?
    pub router: Router,
    /// The From that is added to a message from `<>` without one.
    pub bounce_from: Address,
    /// `limits.message_size`, octets.
    pub message_size: u64,
    /// `limits.recipients`.
    pub recipients: usize,
    /// `limits.session_errors`.
    pub session_errors: u32,
}

/// What a session knows of the listener it came in by.
#[derive(Debug, Clone)]
pub struct ListenerRules {
    /// Its name.
    pub name: String,
    /// STARTTLS can be done here.
    pub starttls: bool,
    /// Nothing but greeting commands before TLS.
    pub require_tls: bool,
    /// The listener has a certificate (a ClientHello on a plain port can be served).
    pub certificate: bool,
    /// AUTH.
    pub auth: AuthMode,
    /// AUTH without TLS.
    pub plaintext_auth: bool,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
    /// BDAT is offered.
    pub chunking: bool,
    /// SMTPUTF8 is offered.
    pub smtputf8: bool,
}

impl ListenerRules {
    /// Whether somebody can log in here at all: who shows a certificate can where there is no AUTH.
    pub(super) fn logins(&self) -> AuthMode {
        match (self.auth, self.client_certificates) {
            (AuthMode::Off, ClientCertificates::Optional | ClientCertificates::Required) => {
                AuthMode::Optional
            }
            (auth, _) => auth,
        }
    }
}

/// What came of a certificate that a client has shown, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateLogin {
    /// It is this user's, who is logged in now.
    User(String),
    /// It is nobody's.
    Nobody,
    /// It fits these two, or more, and so it is nobody's.
    Several(String, String),
}

/// How things are outside the session, told before every [`super::Session::feed`].
#[derive(Debug, Clone)]
pub struct Conditions {
    /// The rules in force now.
    pub rules: Arc<Rules>,
    /// Whether the store can take mail.
    pub store: Health,
    /// What an address in no `[[client]]` is for now, since it is learned who there is.
    pub learned: Option<Arc<Client>>,
    /// This address has sent more than `limits.messages_per_minute`.
    pub throttled: bool,
    /// What the quotas have counted. `None`: there is none, or a session is only played.
    pub quotas: Option<QuotaView>,
}

/// A name and password to check against `Rules::policy.users`.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// As the client gave it.
    pub user: String,
    /// As the client gave it.
    pub password: Secret,
}

/// What became of a password check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Right.
    Accepted,
    /// Wrong.
    Refused,
    /// Too many failures from this address: 454 4.7.0.
    Throttled,
}

/// A message whose header and envelope passed every rule; the driver makes it durable.
#[derive(Debug)]
pub struct Accepted {
    /// From [`super::Session::data`].
    pub id: MessageId,
    /// After rewriting.
    pub envelope: Envelope,
    /// Where from.
    pub origin: Origin,
    /// Complete: Received on top, missing fields added, rewritten, Bcc and Return-Path out.
    pub header: Bytes,
    /// The body, or `None` when it went out in [`Step::Spool`] pieces.
    pub body: Option<Bytes>,
    /// Jobs by route.
    pub jobs: Vec<(RouteName, Vec<Recipient>)>,
    /// To be counted once it is on disk.
    pub tally: QuotaTally,
    /// The same: how many recipients each redirect has replaced.
    pub redirected: Vec<(Arc<str>, u64)>,
    /// Who gets a copy.
    pub archives: Vec<Arc<Archive>>,
    /// The routes whose jobs are held, and who holds them.
    pub held: Vec<(RouteName, String)>,
}

/// What the driver does next. Replies are collected and written in one go when [`super::Session::feed`] wants more input or
/// a step needs the peer (TLS, close, enqueue, verify).
#[derive(Debug)]
pub enum Step {
    /// Append the reply to the output.
    Reply(Reply),
    /// Wait, then go on (a growing delay after errors). Flush first.
    Pause(Duration),
    /// Append, flush, then do the TLS handshake and call [`super::Session::tls_started`]. When octets were already there behind
    /// the command the session says `Close` instead.
    StartTls(Reply),
    /// The first octet was 0x16 and that is allowed here: TLS handshake over the untouched input, then [`super::Session::tls_started`]
    /// and its greeting.
    ImplicitTls,
    /// Check, then call [`super::Session::verified`].
    Verify(Credentials),
    /// DATA, or the first chunk, may begin: make an id and call [`super::Session::data`].
    Data,
    /// What comes next is content, not a line: go on feeding.
    Chunk,
    /// Append these octets of the body to the spool file of this message (created at the first piece). If that fails call
    /// [`super::Session::spool_failed`].
    Spool(Bytes),
    /// The message is refused or cut off: remove the spool file if there is one.
    Unspool,
    /// Make it durable, then call [`super::Session::enqueued`].
    Enqueue(Box<Accepted>),
    /// A refusal for the log (`rejected`), with what is known of the transaction. No answer needed.
    Rejected(Box<Rejection>),
    /// Append the reply if any, flush, close.
    Close(Option<Reply>),
}

/// What was refused, for the mail log.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// `connect`, `auth`, `mail`, `rcpt`, `data`.
    pub stage: &'static str,
    /// The sender as given, if known.
    pub sender: Option<String>,
    /// The recipient as given, if it is about one.
    pub recipient: Option<String>,
    /// The reply that the client had.
    pub reply: Reply,
}

/// What the driver's time-outs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputStage {
    /// Waiting for a command: `limits.command_timeout`.
    Command,
    /// Inside DATA, or a chunk: `limits.data_timeout`, and the least rate.
    Data,
}
