//! Drives one session: reads, writes, waits, encrypts, and carries out each [`Step`].
//!
//! It decides nothing about mail, which is the session's; it keeps the time-outs. What becomes of a message on its way to the
//! queue is in `intake`.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::info;

use super::{
    acceptor::{Encrypted, ShownCertificate},
    captures::escaped,
    failed::log_failed_tls,
    intake::{Intake, Unlogged},
    permits::ConnectionPermit,
    port::{Port, Slot, current},
    presented,
    rate::InputRate,
    shared::Shared,
    wire::Wire,
};
use crate::{
    mail::{reply::Reply, text::logged},
    smtp::server::session::{Authentication, Credentials, InputStage, Rejection, Session, Step},
    telemetry::{
        counted::{self, CheckedLogin},
        maillog, noticed,
    },
};

mod transcript;
mod witness;

use transcript::Transcript;
use witness::Witness;

/// Input that the session did not take yet: no more is read above it.
pub(super) const UNREAD: usize = 64 * 1024;
/// The first pieces of a message are read into so much room.
const PIECE: usize = 16 * 1024;
/// Replies gathered before they are written, whatever follows.
const UNSENT: usize = 64 * 1024;
/// A client must take our replies within this time.
const WRITE: Duration = Duration::from_mins(1);
/// How long early talk is waited for before the greeting.
const PEEK: Duration = Duration::from_millis(300);
/// A session greeted with 554 ends after this time.
const UNWELCOME: Duration = Duration::from_secs(10);
/// How long and how much is read after our last word, so that a reset does not take it away from the client.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 256 * 1024;

pub(super) struct Connection {
    session: Session,
    wire: Wire,
    input: BytesMut,
    output: Vec<u8>,
    peer: SocketAddr,
    port: Arc<Port>,
    /// Where a reload puts the listener's new settings.
    slot: Slot,
    shared: Arc<Shared>,
    intake: Intake,
    /// Accepted, and not in the log yet: the client's 250 goes first.
    unlogged: Option<Unlogged>,
    drain: watch::Receiver<bool>,
    greeted: bool,
    transcript: Transcript,
    witness: Witness,
    /// When the line began that is not complete yet.
    line_began: Option<Instant>,
    /// The session ends then, whatever happens.
    deadline: Option<Instant>,
    data: InputRate,
    permit: ConnectionPermit,
    counted: counted::CountedConnection,
}

/// What came of waiting for the client.
enum Got {
    Octets,
    End,
    Silence,
    Drain,
}

/// What follows a step.
enum Next {
    Feed,
    Step(Step),
    End,
}

impl Connection {
    #[expect(clippy::too_many_arguments, reason = "all that came before it")]
    pub(super) fn new(
        mut session: Session,
        wire: Wire,
        input: BytesMut,
        peer: SocketAddr,
        port: Arc<Port>,
        slot: Slot,
        shared: Arc<Shared>,
        permit: ConnectionPermit,
        counted: counted::CountedConnection,
    ) -> Self {
        let drain = shared.drain();
        let by = (shared.as_ref(), port.settings.name.as_str());
        let witness = Witness::new(peer.ip(), &mut session, wire.version(), by);
        Self {
            session,
            wire,
            input,
            output: Vec::new(),
            peer,
            port,
            slot,
            shared,
            intake: Intake::default(),
            unlogged: None,
            drain,
            greeted: false,
            transcript: Transcript::default(),
            witness,
            line_began: None,
            deadline: None,
            data: InputRate::default(),
            permit,
            counted,
        }
    }

    /// Until it ends, and tells of it then.
    pub(super) async fn converse(&mut self) -> io::Result<()> {
        let result = self.talk().await;
        let tls = self.wire.version();
        self.witness.tell(&self.shared, &self.session, tls);
        result
    }

    async fn talk(&mut self) -> io::Result<()> {
        let mut next = self.begin().await?;
        loop {
            let step = match next {
                Next::End => return Ok(()),
                Next::Step(step) => Some(step),
                Next::Feed => self.feed(),
            };
            let step = match step {
                Some(step) => Some(step),
                None => self.wait().await?,
            };
            let Some(step) = step else {
                next = Next::Feed;
                continue;
            };
            next = self.carry_out(step).await?;
        }
    }

    /// The greeting, after a look at whether the client talks first, where that is looked at. Anybody else is greeted at once,
    /// and what has come already is read then: whether it was there before the greeting or behind it is chance.
    async fn begin(&mut self) -> io::Result<Next> {
        if !self.session.looks_before_greeting() {
            return Ok(Next::Step(self.session.greet()));
        }
        if self.input.is_empty()
            && let Ok(read) = timeout(PEEK, self.wire.read(&mut self.input)).await
            && read? == 0
        {
            return Ok(Next::End);
        }
        if self.input.is_empty() {
            return Ok(Next::Step(self.session.greet()));
        }
        Ok(Next::Feed)
    }

    fn feed(&mut self) -> Option<Step> {
        self.session.refresh(self.shared.conditions(self.peer.ip()));
        let port = current(&self.slot);
        if !Arc::ptr_eq(&port, &self.port) && self.session.adopt_listener(&port.rules) {
            self.port = port;
        }
        let is_shown = self.session.wants_transcript() || self.witness.is_recording();
        let step = if is_shown && self.session.stage() == InputStage::Command {
            let before = self.input.clone();
            let step = self.session.feed(&mut self.input);
            let taken = before.len().saturating_sub(self.input.len());
            self.transcribe_command(before.get(..taken).unwrap_or_default());
            step
        } else {
            self.session.feed(&mut self.input)
        };
        if step.is_some() {
            self.line_began = None;
        }
        self.witness.fed(&self.shared, &mut self.session);
        step
    }

    /// Writes what is there, then waits for more input. `Some`: the session is over.
    async fn wait(&mut self) -> io::Result<Option<Step>> {
        self.flush().await?;
        if self.input.len() > UNREAD {
            return Err(io::Error::other("the session takes no more input"));
        }
        if self.input.is_empty() {
            // An idle connection holds no buffer.
            self.input = BytesMut::new();
            if *self.drain.borrow() && self.session.is_idle() {
                return Ok(Some(Step::Close(Some(Reply::shutting_down()))));
            }
        }
        Ok(match self.read().await? {
            // Nobody is there to read a reply.
            Got::End => Some(Step::Close(None)),
            Got::Silence => Some(self.timed_out()),
            Got::Drain if self.session.is_idle() && self.input.is_empty() => {
                Some(Step::Close(Some(Reply::shutting_down())))
            }
            Got::Octets | Got::Drain => None,
        })
    }

    async fn read(&mut self) -> io::Result<Got> {
        let limits = self.shared.limits();
        let inside = self.session.stage() == InputStage::Data;
        // Between two chunks a message is under way as well: many small ones are no way to be slow.
        let is_message = inside || self.session.has_chunks();
        if !is_message {
            self.data = InputRate::default();
        }
        let [of_data, of_commands] = [limits.data_timeout, limits.command_timeout];
        let silence = if inside { of_data } else { of_commands };
        let began = Instant::now();
        let mut until = began + silence;
        if !inside && (!self.input.is_empty() || self.session.is_within_line()) {
            // An octet now and then does not keep a connection: a command has as long as silence has.
            until = until.min(*self.line_began.get_or_insert(began) + silence);
        } else {
            self.line_began = None;
        }
        if let Some(deadline) = self.deadline {
            until = until.min(deadline);
        }
        let before = self.input.len();
        if inside && self.input.capacity() - before < PIECE {
            // Most messages are small.
            let large = self.session.received() > PIECE as u64;
            self.input.reserve(if large { UNREAD } else { PIECE });
        }
        let draining = *self.drain.borrow_and_update();
        let read = tokio::select! {
            read = timeout_at(until, self.wire.read(&mut self.input)) => read,
            _ = self.drain.changed(), if !draining => return Ok(Got::Drain),
        };
        let Ok(read) = read else {
            return Ok(Got::Silence);
        };
        let octets = read?;
        if octets == 0 {
            return Ok(Got::End);
        }
        if is_message
            && !self
                .data
                .keeps_up(began.elapsed(), octets, limits.data_timeout)
        {
            return Ok(Got::Silence);
        }
        Ok(Got::Octets)
    }

    async fn carry_out(&mut self, step: Step) -> io::Result<Next> {
        match step {
            Step::Reply(reply) => {
                self.say(reply);
                if self.output.len() > UNSENT {
                    self.flush().await?;
                }
            }
            Step::Pause(time) => {
                self.flush().await?;
                sleep(time).await;
            }
            Step::StartTls(reply) => {
                self.say(reply);
                self.flush().await?;
                return self.encrypt(BytesMut::new()).await;
            }
            Step::ImplicitTls => {
                self.flush().await?;
                let head = self.input.split();
                return self.encrypt(head).await;
            }
            Step::Verify(credentials) => {
                self.flush().await?;
                return Ok(Next::Step(self.verify(&credentials).await));
            }
            Step::Data => {
                let now = SystemTime::now();
                let id = self.intake.begin(&self.shared.queue, now);
                return Ok(self.session.data(id, now).map_or(Next::Feed, Next::Step));
            }
            Step::Spool(piece) => {
                if let Err(state) = self.intake.spool(&self.shared.queue, &piece).await {
                    self.session.spool_failed(state);
                }
            }
            Step::Chunk => {}
            Step::Unspool => self.intake.discard(),
            Step::Enqueue(mut accepted) => {
                self.flush().await?;
                let tally = std::mem::take(&mut accepted.tally);
                let sender = accepted.envelope.sender.clone();
                let enqueued = self.intake.enqueue(&self.shared.queue, *accepted);
                let result = Box::pin(enqueued).await.map(|unlogged| {
                    self.shared.count_message(self.peer.ip(), &tally);
                    self.unlogged = Some(unlogged);
                    let tls = self.wire.version();
                    self.witness.accepted(sender.as_ref());
                    self.witness.pause(&self.shared, &self.session, tls);
                });
                return Ok(Next::Step(self.session.enqueued(result)));
            }
            Step::Rejected(refusal) => self.log_rejection(&refusal),
            Step::Close(reply) => {
                if let Some(reply) = reply {
                    self.say(reply);
                }
                self.close().await?;
                return Ok(Next::End);
            }
        }
        Ok(Next::Feed)
    }

    fn say(&mut self, reply: Reply) {
        if !self.greeted {
            self.greeted = true;
            if reply.code == 554 {
                self.deadline = Some(Instant::now() + UNWELCOME);
            }
        }
        self.transcript.answered(reply.code);
        if self.session.wants_transcript() {
            info!(event = "transcript", peer = %self.peer, from = "us", line = %logged(&reply.to_string()), "transcript");
        }
        reply.write_to(&mut self.output);
        self.witness.said(&self.shared, reply);
    }

    fn transcribe_command(&mut self, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let is_recording = self.witness.is_recording();
        let line = if is_recording {
            self.transcript.shown_by(octets, escaped)
        } else {
            self.transcript.shown(octets)
        };
        if self.session.wants_transcript() {
            info!(event = "transcript", peer = %self.peer, from = "client", line = %line, "transcript");
        }
        if is_recording {
            self.witness.heard(&self.shared, line);
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let written = timeout(WRITE, self.wire.write(&output))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.unlogged = None;
        written
    }

    async fn encrypt(&mut self, head: BytesMut) -> io::Result<Next> {
        let wire = std::mem::replace(&mut self.wire, Wire::Gone);
        let caller = self.shared.tls_caller(self.peer);
        match self.port.encrypt(wire, head, &caller).await {
            Ok(Encrypted { wire, certificate }) => {
                let version = wire.version();
                self.counted.encrypted(version);
                self.witness.encrypted(&self.shared, version);
                self.wire = wire;
                self.has_shown(certificate);
            }
            Err(failure) => {
                self.counted.encrypted(None);
                self.witness
                    .note(&self.shared, || format!("no TLS: {}", failure.reason()));
                self.witness.tls_failed();
                log_failed_tls(&failure, &caller, &self.port, &self.shared);
                return Ok(Next::End);
            }
        }
        // Nothing said in the clear counts any more.
        self.input = BytesMut::new();
        Ok(self.session.tls_started().map_or(Next::Feed, Next::Step))
    }

    /// What the client has shown in the handshake: is it somebody's?
    pub(super) fn has_shown(&mut self, certificate: Option<ShownCertificate>) {
        let (listener, peer) = (&self.port.settings.name, self.peer);
        if presented::is_login(certificate, &mut self.session, listener, peer, &self.shared) {
            self.permit.logged_in();
        }
    }

    async fn verify(&mut self, credentials: &Credentials) -> Step {
        let rules = self.shared.rules();
        let result = self
            .shared
            .auth
            .check(credentials, &rules.policy.users, self.peer.ip())
            .await;
        let login = match result {
            Authentication::Accepted => {
                self.permit.logged_in();
                CheckedLogin::Accepted
            }
            Authentication::Refused => CheckedLogin::Refused,
            Authentication::Throttled => CheckedLogin::Throttled,
        };
        counted::login(&self.port.settings.name, login);
        noticed::logged_in(login == CheckedLogin::Accepted, self.peer.ip());
        self.session.verified(result)
    }

    /// The end of an idle session is not worth a line; one inside a line or a message is.
    fn timed_out(&mut self) -> Step {
        let reply = Reply::timed_out();
        let inside = self.session.stage() == InputStage::Data;
        if inside || self.line_began.is_some() {
            self.log_rejection(&Rejection {
                stage: if inside { "data" } else { "connect" },
                sender: None,
                recipient: None,
                reply: reply.clone(),
            });
        }
        Step::Close(Some(reply))
    }

    fn log_rejection(&mut self, rejection: &Rejection) {
        let listener = &self.port.settings.name;
        counted::refused(listener, rejection.stage, rejection.reply.code);
        self.witness
            .refused(&self.shared, &mut self.session, listener, rejection);
        let Some(suppressed) = self.shared.may_log_refusal(self.peer.ip()) else {
            return;
        };
        maillog::rejected(&maillog::Rejected {
            peer: self.peer,
            client: self.session.client(),
            listener,
            stage: rejection.stage,
            sender: rejection.sender.as_deref(),
            recipient: rejection.recipient.as_deref(),
            reply: &rejection.reply,
            suppressed,
        });
    }

    async fn close(&mut self) -> io::Result<()> {
        self.intake.discard();
        self.flush().await?;
        let _ = timeout(LINGER, async {
            self.wire.shutdown().await?;
            let mut read = 0;
            while read < LINGER_OCTETS {
                self.input.clear();
                match self.wire.read(&mut self.input).await? {
                    0 => break,
                    octets => read += octets,
                }
            }
            io::Result::Ok(())
        })
        .await;
        Ok(())
    }
}
