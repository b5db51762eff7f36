//! The state machine of one SMTP session: bytes in, [`Step`]s out.
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};

use crate::{
    mail::{
        address::Address,
        message::{Envelope, MessageId, Origin},
        reply::Reply,
    },
    policy::{AuthMode, Policy},
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
pub struct Door {
    /// The listener's name.
    pub listener: String,
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
}

/// How the world outside the session is, told before every [`Session::feed`].
#[derive(Debug, Clone)]
pub struct Weather {
    /// The rules in force now.
    pub rules: Arc<Rules>,
    /// Whether the store can take mail.
    pub store: StoreWeather,
    /// This address has sent more than `limits.messages_per_minute`.
    pub throttled: bool,
}

/// Whether the store can take mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreWeather {
    /// Yes.
    Fine,
    /// Less than `limits.free_disk`: 452 4.3.1 at MAIL.
    Full,
    /// It fails: 451 4.3.0 at MAIL.
    Failing,
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
    /// From [`Session::data`].
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
    pub jobs: Vec<(RouteName, Vec<Address>)>,
}

/// What the driver does next. Replies are collected and written in one go when [`Session::feed`] wants more input or
/// a step needs the peer (TLS, close, enqueue, verify).
#[derive(Debug)]
pub enum Step {
    /// Append the reply to the output.
    Reply(Reply),
    /// Wait, then go on (a growing delay after errors). Flush first.
    Pause(Duration),
    /// Append, flush, then do the TLS handshake and call [`Session::tls_started`]. When octets were already there behind
    /// the command the session says `Close` instead.
    StartTls(Reply),
    /// The first octet was 0x16 and that is allowed here: TLS handshake over the untouched input, then [`Session::tls_started`]
    /// and its greeting.
    ImplicitTls,
    /// Check, then call [`Session::verified`].
    Verify(Credentials),
    /// DATA may begin: make an id and call [`Session::data`].
    Data,
    /// Append these octets of the body to the spool file of this message (created at the first piece). If that fails call
    /// [`Session::spool_failed`].
    Spool(Bytes),
    /// The message is refused or cut off: remove the spool file if there is one.
    Unspool,
    /// Make it durable, then call [`Session::enqueued`].
    Enqueue(Box<Accepted>),
    /// A refusal for the log (`rejected`), with what is known of the transaction. No answer needed.
    Rejected(Box<Refusal>),
    /// Append the reply if any, flush, close.
    Close(Option<Reply>),
}

/// What was refused, for the mail log.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// `connect`, `auth`, `mail`, `rcpt`, `data`.
    pub stage: &'static str,
    /// The sender as given, if known.
    pub sender: Option<String>,
    /// The recipient as given, if it is about one.
    pub recipient: Option<String>,
    /// What the client was told.
    pub reply: Reply,
}

/// What the driver's time-outs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a command: `limits.command_timeout`.
    Command,
    /// Inside DATA: `limits.data_timeout`, and the least rate.
    Data,
}

/// One session.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// A session that has just been accepted. `tls` when the socket is already encrypted (implicit TLS).
    pub fn new(door: Arc<Door>, peer: SocketAddr, tls: bool, weather: Weather) -> Self {
        let _ = (door, peer, tls, weather);
        Self {}
    }

    /// The greeting: 220, or 554 for an address that could never send here. Call once, before any `feed`, unless the session
    /// wants to look at the first octets (see [`Session::peeks`]).
    pub fn greet(&mut self) -> Step {
        todo!()
    }

    /// The driver shall wait up to 300 ms for a first octet before greeting: early talk is looked at (554, or forgiven), and a
    /// ClientHello on a plain port is served. False for a client that need not be looked at.
    pub fn peeks(&self) -> bool {
        todo!()
    }

    /// How things are now; cheap, called before every `feed`.
    pub fn refresh(&mut self, weather: Weather) {
        let _ = weather;
    }

    /// Takes octets from the front of `input` and says what to do; `None`: wants more input.
    pub fn feed(&mut self, input: &mut BytesMut) -> Option<Step> {
        let _ = input;
        todo!()
    }

    /// After [`Step::StartTls`] (`None`) or [`Step::ImplicitTls`] (the greeting). Everything said before is forgotten.
    pub fn tls_started(&mut self) -> Option<Step> {
        todo!()
    }

    /// After [`Step::Verify`].
    pub fn verified(&mut self, authentication: Authentication) -> Step {
        let _ = authentication;
        todo!()
    }

    /// After [`Step::Data`]: the 354.
    pub fn data(&mut self, id: MessageId, now: SystemTime) -> Step {
        let _ = (id, now);
        todo!()
    }

    /// The spool file could not be written: the rest of the message is read and dropped, the answer is 452 or 451.
    pub fn spool_failed(&mut self, store: StoreWeather) {
        let _ = store;
    }

    /// After [`Step::Enqueue`]: `Ok` when it is on disk, else the reply to give.
    pub fn enqueued(&mut self, result: Result<(), Reply>) -> Step {
        let _ = result;
        todo!()
    }

    /// Which time-out applies.
    pub fn stage(&self) -> Stage {
        todo!()
    }

    /// Between transactions: the driver may close with 421 now (drain).
    pub fn is_idle(&self) -> bool {
        todo!()
    }

    /// Whether commands and replies of this session go to the log (`transcript = true`).
    pub fn wants_transcript(&self) -> bool {
        todo!()
    }

    /// Name of the client section, for the log.
    pub fn client(&self) -> Option<&str> {
        todo!()
    }
}
