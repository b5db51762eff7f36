//! The state machine of one SMTP session: bytes in, [`Step`]s out.
//!
//! No socket and no clock, so every dialogue can be played in memory, cut at any octet. It asks `policy` and the router and carries
//! out nothing itself: TLS, password checks, files and the queue are the driver's. What the two tell each other is in `interface`.
//! Octets become lines in `lines`; the commands are in `commands`, AUTH in `login`, the content in `receive`
//! and `chunk`.

mod answers;
mod chunk;
mod commands;
mod interface;
mod lines;
mod login;
mod quotas;
mod receive;
mod state;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::SystemTime};

use bytes::BytesMut;

use crate::{
    mail::{
        health::Health,
        message::{MessageId, Origin},
        reply::Reply,
    },
    policy::{
        certificate::CertificateNames,
        client::{Client, ToleranceLevel, User},
        judge::Findings,
        owner::CertificateOwner,
    },
};

use super::tolerance::{Forgiven, Tolerance};
use crate::smtp::data::{Decoder, Leniency};
use state::{ChunkGoal, Incoming, Phase, Transaction};

pub use interface::{
    Accepted, Authentication, CertificateLogin, Conditions, Credentials, InputStage, ListenerRules,
    Rejection, Rules, Step,
};

/// One session.
#[derive(Debug)]
pub struct Session {
    listener: Arc<ListenerRules>,
    peer: SocketAddr,
    tls: bool,
    conditions: Conditions,
    /// The rules that the last MAIL was judged by.
    rules: Arc<Rules>,
    client: Option<Client>,
    /// It is in no `[[client]]`; one that it has is that of `Conditions::learned`.
    is_learned: bool,
    tolerance: Tolerance,
    /// What was needed of it.
    forgiven: Forgiven,
    /// `lf_only` would have ended a message that was refused.
    wants_lf_only: bool,
    /// Octets of header and body of the last message that came to its end.
    content: Option<(u64, u64)>,
    /// The argument of HELO or EHLO.
    helo: Option<String>,
    esmtp: bool,
    logged_in: bool,
    user: Option<User>,
    /// What the client has shown in the handshake, and was verified.
    certificate: Option<CertificateNames>,
    /// The login rests on the certificate.
    is_by_certificate: bool,
    /// AUTH has succeeded. Without it somebody may be logged in by the certificate alone, and AUTH follow.
    has_authenticated: bool,
    phase: Phase,
    transaction: Option<Box<Transaction>>,
    /// Steps that are decided but not taken yet.
    pending: VecDeque<Step>,
    errors: u32,
    junk: u32,
    auth_failures: u32,
    /// Octets of an overlong line that were thrown away so far.
    skipped: Option<usize>,
    /// DATA was just refused: what comes next may be the message all the same.
    data_refused: bool,
    /// A chunk was refused, and those behind it may be on their way: until the next MAIL they are no errors.
    chunks_refused: bool,
    /// Why it answered as it did, where somebody wants to know.
    findings: Findings,
}

impl Session {
    /// A session that has just been accepted. `tls` when the socket is already encrypted (implicit TLS).
    pub fn new(
        listener: Arc<ListenerRules>,
        peer: SocketAddr,
        tls: bool,
        conditions: Conditions,
    ) -> Self {
        let rules = Arc::clone(&conditions.rules);
        let known = rules.policy.client(peer.ip()).cloned();
        let is_learned = known.is_none();
        let client = known.or_else(|| conditions.learned.as_deref().cloned());
        let level = client.as_ref().map(|c| c.tolerance).unwrap_or_default();
        Self {
            listener,
            peer,
            tls,
            conditions,
            rules,
            client,
            is_learned,
            tolerance: Tolerance::of(level),
            forgiven: Forgiven::default(),
            wants_lf_only: false,
            content: None,
            helo: None,
            esmtp: false,
            logged_in: false,
            user: None,
            certificate: None,
            is_by_certificate: false,
            has_authenticated: false,
            phase: Phase::Fresh,
            transaction: None,
            pending: VecDeque::new(),
            errors: 0,
            junk: 0,
            auth_failures: 0,
            skipped: None,
            data_refused: false,
            chunks_refused: false,
            findings: Findings::default(),
        }
    }

    /// Keeps from now on why it answers as it does (`postern explain`).
    pub fn keep_findings(&mut self) {
        self.findings = Findings::kept();
    }

    /// Why it answered as it did, since this was last called.
    pub fn take_findings(&mut self) -> Vec<(&'static str, String)> {
        self.findings.take()
    }

    /// The greeting: 220, or 554 for an address that could never send here. Call once, before any `feed`, unless the session
    /// wants to look at the first octets (see [`Session::looks_before_greeting`]).
    pub fn greet(&mut self) -> Step {
        let rules = Arc::clone(&self.rules);
        let (ip, auth) = (self.peer.ip(), self.listener.logins());
        let allowed = rules.policy.connect(ip, auth, &mut self.findings);
        match allowed {
            Err(reply) if self.client.is_none() => {
                self.phase = Phase::Refused(0);
                self.rejected("connect", None, &reply);
                Step::Reply(reply)
            }
            // One that is learned is in no [[client]] and served all the same.
            Ok(()) | Err(_) => {
                self.phase = Phase::Command;
                Step::Reply(Reply::greeting(&rules.hostname))
            }
        }
    }

    /// Whether the driver shall wait up to 300 ms for a first octet before it greets: talk before the greeting is refused with 554
    /// or forgiven, and a ClientHello on a plain port is served. Not for a known `[[client]]` for which it makes no difference:
    /// each of its connections would pay for the wait. What that client sends is read after the greeting, whenever it came.
    pub fn looks_before_greeting(&self) -> bool {
        if self.tls {
            return false;
        }
        match &self.client {
            None => true,
            Some(_) if self.tolerance.tls_on_plain_port => self.listener.certificate,
            Some(client) => client.tolerance == ToleranceLevel::Strict,
        }
    }

    /// How things are now; cheap, called before every `feed`.
    pub fn refresh(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// The listener has new settings; they are taken between transactions, and false says not yet.
    pub fn adopt_listener(&mut self, listener: &Arc<ListenerRules>) -> bool {
        let idle = self.is_idle();
        if idle {
            self.listener = Arc::clone(listener);
        }
        idle
    }

    /// Takes octets from the front of `input` and says what to do; `None`: wants more input.
    pub fn feed(&mut self, input: &mut BytesMut) -> Option<Step> {
        loop {
            if let Some(step) = self.pending.pop_front() {
                return Some(step);
            }
            match self.phase {
                Phase::Closed => {
                    input.clear();
                    return None;
                }
                Phase::Data(_) | Phase::Fresh if input.is_empty() => return None,
                Phase::Chunk(ref chunk) if chunk.left > 0 && input.is_empty() => return None,
                Phase::Verifying(_)
                | Phase::Opening(_)
                | Phase::Storing { .. }
                | Phase::Handshake { .. } => return None,
                Phase::Data(_) => self.receive(input),
                Phase::Chunk(_) => self.receive_chunk(input),
                Phase::Fresh => self.first_octets(input),
                Phase::Command | Phase::Refused(_) | Phase::Auth(_) => {
                    if !self.line(input) {
                        return None;
                    }
                }
            }
        }
    }

    /// The client has shown a certificate, and it was verified: who it is one user's is logged in. Called right after the handshake, before
    /// [`Session::greet`] or [`Session::tls_started`].
    pub fn shown(&mut self, names: CertificateNames) -> CertificateLogin {
        let rules = Arc::clone(&self.conditions.rules);
        let found = match rules.policy.owner(&names) {
            CertificateOwner::Nobody => CertificateLogin::Nobody,
            CertificateOwner::User(user) => CertificateLogin::User(user.name.clone()),
            CertificateOwner::Several(one, two) => {
                CertificateLogin::Several(one.name.clone(), two.name.clone())
            }
        };
        self.certificate = Some(names);
        if self.tls {
            self.log_in_by_certificate();
        }
        found
    }

    /// After [`Step::StartTls`] (`None`) or [`Step::ImplicitTls`] (the greeting). Everything said before is forgotten, but for the
    /// certificate that was shown in the handshake.
    pub fn tls_started(&mut self) -> Option<Step> {
        let greet = matches!(self.phase, Phase::Handshake { greet: true });
        // RFC 3207 §4.2: nothing from before the handshake counts.
        self.tls = true;
        self.helo = None;
        self.esmtp = false;
        self.logged_in = false;
        self.user = None;
        self.is_by_certificate = false;
        self.has_authenticated = false;
        self.transaction = None;
        self.pending.clear();
        self.phase = Phase::Command;
        self.log_in_by_certificate();
        greet.then(|| self.greet())
    }

    /// After [`Step::Verify`].
    pub fn verified(&mut self, authentication: Authentication) -> Step {
        self.login_result(authentication);
        self.next()
    }

    /// After [`Step::Data`]: the 354. `None` for a chunk, which comes unasked.
    pub fn data(&mut self, id: MessageId, now: SystemTime) -> Option<Step> {
        let origin = Origin {
            listener: self.listener.name.clone(),
            peer: self.peer,
            client: self.client().map(str::to_owned),
            helo: self.helo.clone().unwrap_or_else(|| "unknown".into()),
            tls: self.tls,
            esmtp: self.esmtp,
            utf8: self.transaction.as_ref().is_some_and(|t| t.utf8),
            user: self.user.as_ref().map(|u| u.name.clone()),
            at: now,
            rules: Vec::new(),
            copy_of: None,
        };
        if let Phase::Opening(Some(head)) = self.phase {
            let decoder = Decoder::of_chunks(Leniency {
                lf_only: false,
                ..self.leniency()
            });
            let incoming = Incoming::new(id, origin, decoder);
            self.open_chunk(head, ChunkGoal::Message(Box::new(incoming)));
            return None;
        }
        let decoder = Decoder::new(self.leniency());
        self.phase = Phase::Data(Box::new(Incoming::new(id, origin, decoder)));
        Some(Step::Reply(Reply::go_ahead()))
    }

    /// The spool file could not be written: the rest of the message is read and dropped, the answer is 452 or 451.
    pub fn spool_failed(&mut self, store: Health) {
        let reply = match store {
            Health::Full => Reply::storage_full(),
            Health::Fine | Health::Failing => Reply::storage_failing(),
        };
        self.cannot_spool(reply);
    }

    /// After [`Step::Enqueue`]: `Ok` when it is on disk, else the reply to give.
    pub fn enqueued(&mut self, result: Result<(), Reply>) -> Step {
        if let Phase::Storing { id, close } = self.phase {
            let reply = match result {
                Ok(()) => {
                    self.errors = 0;
                    self.junk = 0;
                    Reply::queued(id)
                }
                Err(reply) => {
                    self.rejected("data", None, &reply);
                    reply
                }
            };
            self.finish(reply, close);
        }
        self.next()
    }

    /// Which time-out applies.
    pub fn stage(&self) -> InputStage {
        match self.phase {
            Phase::Data(_) | Phase::Chunk(_) => InputStage::Data,
            _ => InputStage::Command,
        }
    }

    /// Octets of the message, or the chunk, that is coming in; 0 outside both.
    pub fn received(&self) -> u64 {
        match &self.phase {
            Phase::Data(incoming) => incoming.size(),
            Phase::Chunk(chunk) => chunk.head.size - chunk.left,
            _ => 0,
        }
    }

    /// Between transactions: the driver may close with 421 now (drain).
    pub fn is_idle(&self) -> bool {
        matches!(
            self.phase,
            Phase::Fresh | Phase::Command | Phase::Refused(_) | Phase::Closed
        ) && self.transaction.is_none()
            && self.pending.is_empty()
    }

    /// Inside a line that is too long, whose beginning was thrown away.
    pub fn is_within_line(&self) -> bool {
        self.skipped.is_some()
    }

    /// Whether commands and replies of this session go to the log (`transcript = true`).
    pub fn wants_transcript(&self) -> bool {
        self.client.as_ref().is_some_and(|c| c.transcript)
    }

    /// Name of the client section, for the log.
    pub fn client(&self) -> Option<&str> {
        let known = self.client.as_ref().filter(|_| !self.is_learned);
        known.map(|c| c.name.as_str())
    }

    /// Whether it is in no `[[client]]` and served since it is learned who there is.
    pub fn is_learned(&self) -> bool {
        self.is_learned && self.client.is_some()
    }

    /// What was forgiven so far.
    pub fn forgiven(&self) -> Forgiven {
        self.forgiven
    }

    /// Whether `lf_only` would have ended a message that was refused, or that is still waited for.
    pub fn wants_lf_only(&self) -> bool {
        let is_waiting = match &self.phase {
            Phase::Data(incoming) => incoming.decoder.had_loose_dot(),
            _ => false,
        };
        is_waiting || self.wants_lf_only
    }

    /// Octets of header and body of the last message that came to its end, once.
    pub fn take_content(&mut self) -> Option<(u64, u64)> {
        self.content.take()
    }

    /// The argument of HELO or EHLO.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_deref()
    }

    /// Who has logged in.
    pub fn user(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.name.as_str())
    }
}
