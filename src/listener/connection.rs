//! Drives one session: reads, writes, waits, encrypts, and carries out each [`Step`].
//!
//! Apart from the session, which knows the protocol and no socket, and from the sockets that accept. It decides nothing
//! about mail; it keeps the time-outs and the promise that `250` is written only after the store has said yes.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, info, warn};

use super::{
    Port, Slot, TlsMode, current,
    shared::{Place, PlaceOf, Shared},
    wire::Wire,
};
use crate::{
    mail::{
        message::{Body, Message, MessageId},
        reply::Reply,
        text::logged,
    },
    queue::{body::BodyWriter, store::StoreError},
    route::Routed,
    smtp::server::{
        proxy,
        session::{
            Accepted, Authentication, Credentials, Refusal, Session, Stage, Step, StoreState,
        },
    },
    telemetry::maillog,
};

mod acts;
mod transcript;

use acts::{Untold, tell_of_failed_tls};
use transcript::Transcript;

/// Input that the session did not take yet: no more is read above it.
const UNREAD: usize = 64 * 1024;
/// The first pieces of a message are read into so much room.
const PIECE: usize = 16 * 1024;
/// Replies gathered before they are written, whatever follows.
const UNSENT: usize = 64 * 1024;
/// A client must take our replies within this time.
const WRITE: Duration = Duration::from_mins(1);
/// And finish a TLS handshake, or a PROXY header, within this.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long early talk is waited for before the greeting.
const PEEK: Duration = Duration::from_millis(300);
/// A session greeted with 554 ends after this time.
const UNWELCOME: Duration = Duration::from_secs(10);
/// The least rate inside DATA, octets a second over `limits.data_timeout`.
const LEAST_RATE: u64 = 500;
/// Above this the client is told to come back; its own time-out is at least five minutes (RFC 5321 §4.5.3.2.6 says ten).
const STORE: Duration = Duration::from_mins(4);
/// How long and how much is read after our last word, so that a reset does not take it away from the client.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 256 * 1024;

/// Serves one connection until it ends. Nothing is returned: whatever is worth telling is in the log.
pub(crate) async fn serve(
    tcp: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    shared: Arc<Shared>,
    place: Place,
) {
    let _ = tcp.set_nodelay(true);
    // Boxed: an idle connection costs what is in here, and most of it is only needed while something happens.
    let result = Box::pin(admit(tcp, peer, slot, shared, place)).await;
    if let Err(error) = result {
        // Clients vanish all the time, and that is no error of ours.
        debug!(peer = %peer, error = %error, "connection ended");
    }
}

async fn admit(
    tcp: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    shared: Arc<Shared>,
    mut place: Place,
) -> io::Result<()> {
    let port = current(&slot);
    let mut wire = Wire::new(tcp);
    let mut input = BytesMut::new();
    let mut peer = canonical(peer);
    let mut stranger = !shared.is_client(peer.ip());
    if port.is_proxy(peer.ip()) {
        peer = match timeout(HANDSHAKE, proxied(&mut wire, &mut input, peer)).await {
            Ok(client) => canonical(client?),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        stranger = !shared.is_client(peer.ip());
    }
    let place_of = if stranger && !place.is_of_a_stranger() {
        None
    } else {
        shared.place_of(peer.ip(), stranger)
    };
    let Some(place_of) = place_of else {
        if port.settings.tls != TlsMode::Implicit {
            wire.tell(&Reply::too_many_from_address());
        }
        if let Some(suppressed) = shared.may_log_refusal(peer.ip()) {
            info!(event = "rejected", stage = "connect", listener = %port.settings.name, peer = %peer, suppressed,
                "rejected: connections_per_client");
        }
        return Ok(());
    };
    if port.settings.tls == TlsMode::Implicit {
        let head = input.split().freeze();
        wire = match handshake(wire, head, &port).await {
            Ok(wire) => wire,
            Err(error) => {
                tell_of_failed_tls(&error, peer, &port, &shared);
                return Ok(());
            }
        };
    }
    let session = Session::new(
        Arc::clone(&port.rules),
        peer,
        port.settings.tls == TlsMode::Implicit,
        shared.conditions(peer.ip()),
    );
    let drain = shared.drain();
    let mut connection = Connection {
        session,
        wire,
        input,
        output: Vec::new(),
        peer,
        port,
        slot,
        shared,
        spool: None,
        id: None,
        untold: None,
        drain,
        greeted: false,
        transcript: Transcript::default(),
        line_began: None,
        deadline: None,
        data: Rate::default(),
        places: (place, place_of),
    };
    connection.converse().await
}

/// `::ffff:a.b.c.d` is `a.b.c.d`.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Reads the PROXY header and says who the client is; what follows it stays in `input`.
async fn proxied(
    wire: &mut Wire,
    input: &mut BytesMut,
    peer: SocketAddr,
) -> io::Result<SocketAddr> {
    loop {
        match proxy::parse(input) {
            Ok(Some(header)) => {
                input.advance(header.len.min(input.len()));
                return Ok(header.client.unwrap_or(peer));
            }
            Ok(None) if input.len() <= UNREAD => {}
            Ok(None) => return Err(io::Error::other("an endless PROXY header")),
            Err(text) => {
                warn!(event = "proxy header", peer = %peer, error = text, "bad PROXY header");
                return Err(io::Error::other(text));
            }
        }
        if wire.read(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn handshake(wire: Wire, head: Bytes, port: &Port) -> io::Result<Wire> {
    let Some(tls) = &port.tls else {
        return Err(io::Error::other("no certificate"));
    };
    let config = tls.certificate().config;
    match timeout(HANDSHAKE, Box::pin(wire.encrypt(head, config))).await {
        Ok(encrypted) => encrypted,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

struct Connection {
    session: Session,
    wire: Wire,
    input: BytesMut,
    output: Vec<u8>,
    peer: SocketAddr,
    port: Arc<Port>,
    /// Where a reload puts the listener's new settings.
    slot: Slot,
    shared: Arc<Shared>,
    spool: Option<Box<BodyWriter>>,
    id: Option<MessageId>,
    /// Accepted, and not in the log yet: the client's 250 goes first.
    untold: Option<Untold>,
    drain: watch::Receiver<bool>,
    greeted: bool,
    transcript: Transcript,
    /// When the line began that is not complete yet.
    line_began: Option<Instant>,
    /// The session ends then, whatever happens.
    deadline: Option<Instant>,
    data: Rate,
    /// Its places among all and among those of its network.
    places: (Place, PlaceOf),
}

/// How fast the client is inside DATA; only time spent waiting for it counts.
#[derive(Debug, Default)]
struct Rate {
    waited: Duration,
    octets: u64,
}

impl Rate {
    /// Adds one wait; false when a whole `window` was slower than [`LEAST_RATE`].
    fn keeps_up(&mut self, waited: Duration, octets: usize, window: Duration) -> bool {
        self.waited += waited;
        self.octets += octets as u64;
        if self.waited < window {
            return true;
        }
        let enough = self.octets as f64 >= LEAST_RATE as f64 * self.waited.as_secs_f64();
        *self = Self::default();
        enough
    }
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
    async fn converse(&mut self) -> io::Result<()> {
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
        let step = if self.session.wants_transcript() && self.session.stage() == Stage::Command {
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
        let inside = self.session.stage() == Stage::Data;
        let silence = if inside {
            limits.data_timeout
        } else {
            self.data = Rate::default();
            limits.command_timeout
        };
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
        if inside
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
                self.say(&reply);
                if self.output.len() > UNSENT {
                    self.flush().await?;
                }
            }
            Step::Pause(time) => {
                self.flush().await?;
                sleep(time).await;
            }
            Step::StartTls(reply) => {
                self.say(&reply);
                self.flush().await?;
                return self.encrypt(Bytes::new()).await;
            }
            Step::ImplicitTls => {
                self.flush().await?;
                let head = self.input.split().freeze();
                return self.encrypt(head).await;
            }
            Step::Verify(credentials) => {
                self.flush().await?;
                return Ok(Next::Step(self.verify(&credentials).await));
            }
            Step::Data => {
                let now = SystemTime::now();
                let id = self.shared.queue.next_id(now);
                self.id = Some(id);
                return Ok(Next::Step(self.session.data(id, now)));
            }
            Step::Spool(piece) => self.spool(&piece).await,
            Step::Unspool => self.spool = None,
            Step::Enqueue(accepted) => {
                self.flush().await?;
                let result = Box::pin(self.enqueue(*accepted)).await;
                return Ok(Next::Step(self.session.enqueued(result)));
            }
            Step::Rejected(refusal) => self.log_refusal(&refusal),
            Step::Close(reply) => {
                if let Some(reply) = reply {
                    self.say(&reply);
                }
                self.close().await?;
                return Ok(Next::End);
            }
        }
        Ok(Next::Feed)
    }

    fn say(&mut self, reply: &Reply) {
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
    }

    fn transcribe_command(&mut self, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let line = self.transcript.shown(octets);
        info!(event = "transcript", peer = %self.peer, from = "client", line = %line, "transcript");
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let written = timeout(WRITE, self.wire.write(&output))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.untold = None;
        written
    }

    async fn encrypt(&mut self, head: Bytes) -> io::Result<Next> {
        let wire = std::mem::replace(&mut self.wire, Wire::Gone);
        match handshake(wire, head, &self.port).await {
            Ok(wire) => self.wire = wire,
            Err(error) => {
                tell_of_failed_tls(&error, self.peer, &self.port, &self.shared);
                return Ok(Next::End);
            }
        }
        // Nothing said in the clear counts any more.
        self.input = BytesMut::new();
        Ok(self.session.tls_started().map_or(Next::Feed, Next::Step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_rate() {
        let window = Duration::from_secs(10);
        let second = Duration::from_secs(1);
        let mut rate = Rate::default();
        for _ in 0..9 {
            assert!(rate.keeps_up(second, 1, window));
        }
        assert!(!rate.keeps_up(second, 1, window));
        for _ in 0..50 {
            assert!(rate.keeps_up(second, 500, window));
        }
    }
}
