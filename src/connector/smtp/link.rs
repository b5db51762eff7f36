//! One connection to an upstream: octets, limits of time, the record of what was said.
//!
//! What is said is no matter here. Any fault makes a link useless; dropping it closes the connection, whatever was under way.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, error::Elapsed, timeout_at},
};

use super::stream::{LinkFault, ReplyReader, Stream, write_all};
use crate::{
    connector::interface::Recorder,
    mail::{reply::Reply, text::bounded},
    smtp::client::{Stage, capabilities::Capabilities, mask::Mask},
};

/// Limits of time, one for every step (RFC 5321 §4.5.3.2); each is also limited by the deadline of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Finding and connecting, all addresses together.
    pub connect: Duration,
    /// Connecting to one address; and each step up to the login, as long as other addresses are left.
    pub connect_each: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// The greeting.
    pub greeting: Duration,
    /// EHLO, STARTTLS, AUTH, MAIL, RCPT, RSET.
    pub command: Duration,
    /// The reply to DATA.
    pub data: Duration,
    /// Writing one block of the content.
    pub block: Duration,
    /// The reply to the final dot.
    pub dot: Duration,
    /// The reply to QUIT.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            connect: Duration::from_secs(30),
            connect_each: Duration::from_secs(10),
            tls: Duration::from_secs(30),
            greeting: minutes(5),
            command: minutes(5),
            data: minutes(2),
            block: minutes(3),
            dot: minutes(10),
            quit: Duration::from_secs(5),
        }
    }
}

impl Timeouts {
    /// Where another address is left: a silent one does not use up the time of those behind it.
    pub(super) fn hurried(self) -> Self {
        let most = |time: Duration| time.min(self.connect_each);
        Self {
            tls: most(self.tls),
            // A server that looks up who we are may take its time.
            greeting: self.greeting.min(self.connect_each * 3),
            command: self.command.min(self.connect_each * 3),
            ..self
        }
    }

    /// The limit of a stage.
    pub fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Greeting => self.greeting,
            Stage::Hello | Stage::StartTls | Stage::Auth | Stage::Envelope => self.command,
            Stage::Data => self.data,
            Stage::Content => self.block,
            Stage::Dot => self.dot,
            Stage::Quit => self.quit,
        }
    }
}

/// One connection.
pub(super) struct Link {
    pub(super) stream: Stream,
    reader: ReplyReader,
    /// What is to be written next; kept for its capacity.
    pub(super) out: Vec<u8>,
    /// What the upstream offers.
    pub(super) offered: Arc<Capabilities>,
    /// `host[ip]:port TLSv1.3`.
    pub(super) via: String,
    /// Messages sent.
    pub(super) used: u32,
    /// RSET must come first.
    pub(super) reset: bool,
    /// It has been idle: whatever it is found to be, an upstream that is down it is not.
    pub(super) was_idle: bool,
    /// A final dot was answered with 2xx.
    pub(super) is_proven: bool,
    is_dot_sent: bool,
    /// What stands behind the dot was not written whole: it is closed once the dot is answered.
    pub(super) is_spoilt: bool,
    /// What is read next answers a group that was written early, and is not waited for longer than this.
    pub(super) hurry: Option<Duration>,
    /// Since when it waits.
    pub(super) idle_since: Instant,
    /// When the login ends, if it does.
    pub(super) good_until: Option<Instant>,
    recorder: Option<Recorder>,
    pub(super) timeouts: Timeouts,
    /// Hides the credentials in whatever is kept or shown of this connection.
    pub(super) mask: Arc<Mask>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.via)
    }
}

impl Link {
    /// A connection just made.
    pub(super) fn new(stream: TcpStream, timeouts: Timeouts, recorder: Option<Recorder>) -> Self {
        Self {
            stream: Stream::Plain(stream),
            reader: ReplyReader::new(),
            out: Vec::new(),
            offered: Arc::default(),
            via: String::new(),
            used: 0,
            reset: false,
            was_idle: false,
            is_proven: false,
            is_dot_sent: false,
            is_spoilt: false,
            hurry: None,
            idle_since: Instant::now(),
            good_until: None,
            recorder,
            timeouts,
            mask: Arc::default(),
        }
    }

    /// Puts a line into the record.
    pub(super) fn record(&self, line: impl FnOnce() -> String) {
        if let Some(recorder) = &self.recorder {
            recorder(&line());
        }
    }

    /// Nothing is buffered that came too early.
    pub(super) fn is_drained(&self) -> bool {
        self.reader.turns.is_drained()
    }

    /// An error when something is here that nobody asked for. It waits only for the runtime to read what has arrived.
    pub(super) async fn our_turn(&mut self, stage: Stage) -> Result<(), LinkFault> {
        let until = Instant::now() + self.timeouts.quit;
        let Self { stream, reader, .. } = self;
        timeout_at(until, poll_fn(|cx| reader.our_turn(stream, stage, cx)))
            .await
            .unwrap_or(Err(LinkFault::Silent(stage)))
    }

    /// Writes what is in `out`, where it is our turn; `shown` stands for it in the record.
    ///
    /// # Errors
    /// With [`LinkFault::Silent`] it may have been written; with any other it was not.
    pub(super) async fn send(
        &mut self,
        stage: Stage,
        shown: Option<&str>,
        deadline: Instant,
    ) -> Result<(), LinkFault> {
        if self.out.is_empty() {
            return Ok(());
        }
        if self.recorder.is_some() {
            match shown {
                Some(text) => self.record(|| format!("> {text}")),
                None => {
                    for line in String::from_utf8_lossy(&self.out).lines() {
                        self.record(|| format!("> {line}"));
                    }
                }
            }
        }
        let until = self.until(stage, deadline);
        let Self {
            stream,
            out,
            reader,
            ..
        } = self;
        let written = within(until, async {
            poll_fn(|cx| reader.our_turn(stream, stage, cx)).await?;
            // Every line has its reply (RFC 5321 §4.2).
            reader.turns.ask(memchr::memchr_iter(b'\n', out).count());
            // After an error the upstream may have said why before it closed; the reading that follows will tell.
            let _ = write_all(stream, out).await;
            Ok(())
        })
        .await;
        self.out.clear();
        written.unwrap_or(Err(LinkFault::Silent(stage)))
    }

    /// Reads one reply.
    pub(super) async fn read(
        &mut self,
        stage: Stage,
        deadline: Instant,
    ) -> Result<Reply, LinkFault> {
        let until = self.until(stage, deadline);
        // One limit for the whole of it, however many pieces it comes in.
        let mut limit = None;
        loop {
            let found = self.reader.turns.next_reply();
            if let Some(reply) = found.map_err(|wrong| LinkFault::wrong(stage, wrong))? {
                self.record_reply(&reply);
                return Ok(reply);
            }
            self.more(stage, || *limit.get_or_insert_with(&until))
                .await?;
        }
    }

    /// The content was not written to its end: was there a last word? Waits for it no longer than for a QUIT.
    pub(super) async fn last_word(&mut self, deadline: Instant) -> Option<Reply> {
        let until = deadline.min(Instant::now() + self.timeouts.quit);
        let reply = loop {
            if let Some(reply) = self.reader.turns.last_word() {
                break reply;
            }
            self.more(Stage::Content, || until).await.ok()?;
        };
        self.record_reply(&reply);
        Some(reply)
    }

    async fn more(
        &mut self,
        stage: Stage,
        until: impl FnOnce() -> Instant,
    ) -> Result<(), LinkFault> {
        let Self { stream, reader, .. } = self;
        within(until, poll_fn(|cx| reader.read(stream, stage, cx)))
            .await
            .unwrap_or(Err(LinkFault::Silent(stage)))
    }

    /// Writes a block of content from `out`, and listens meanwhile: an upstream that has had enough says so and stops
    /// reading. `Ok` only when every octet was handed to the network. `begun` says that octets of this content were.
    pub(super) async fn send_block(
        &mut self,
        begun: &mut bool,
        deadline: Instant,
    ) -> Result<(), LinkFault> {
        self.write_block(None, begun, deadline).await
    }

    /// Writes the last block, whose final dot ends at `dot`, and behind it the commands of the next message, with so many questions.
    /// `Ok` when the dot was handed to the network: from here on the message may have arrived, whatever comes.
    pub(super) async fn send_last(
        &mut self,
        dot: usize,
        questions: usize,
        begun: &mut bool,
        deadline: Instant,
    ) -> Result<(), LinkFault> {
        let last = Some((dot, questions));
        let written = self.write_block(last, begun, deadline).await;
        if written.is_err() && self.is_dot_sent {
            // The next message was not begun; of this one the answer may be there to be read.
            self.is_spoilt = true;
            self.out.clear();
            return Ok(());
        }
        written
    }

    async fn write_block(
        &mut self,
        last: Option<(usize, usize)>,
        begun: &mut bool,
        deadline: Instant,
    ) -> Result<(), LinkFault> {
        self.is_dot_sent = false;
        let until = self.until(Stage::Content, deadline)();
        let mut done = 0;
        loop {
            let Self {
                stream,
                reader,
                out,
                ..
            } = self;
            let rest = out.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let step = within(
                || until,
                poll_fn(|cx| {
                    ready!(reader.our_turn(stream, Stage::Content, cx))?;
                    let lost = |e| LinkFault::Lost(Stage::Content, Some(e));
                    stream.write(cx, rest).map_err(lost)
                }),
            )
            .await;
            match step {
                Err(_) => return Err(LinkFault::Silent(Stage::Content)),
                Ok(Ok(0)) => return Err(LinkFault::Lost(Stage::Content, None)),
                Ok(Ok(n)) => {
                    done += n;
                    *begun = true;
                    if let Some((dot, questions)) = last
                        && done >= dot
                        && !std::mem::replace(&mut self.is_dot_sent, true)
                    {
                        self.reader.turns.ask(1 + questions);
                    }
                }
                Ok(Err(fault)) => return Err(fault),
            }
        }
        self.out.clear();
        Ok(())
    }

    /// After the last block.
    pub(super) async fn flush(&mut self, deadline: Instant) -> Result<(), LinkFault> {
        let until = self.until(Stage::Content, deadline);
        let stream = &mut self.stream;
        match within(until, poll_fn(|cx| stream.flush(cx))).await {
            Err(_) => Err(LinkFault::Silent(Stage::Dot)),
            // The reply may still be there to be read.
            Ok(_) => Ok(()),
        }
    }

    /// Its login has ended, or is about to.
    pub(super) fn is_too_old(&self) -> bool {
        self.good_until.is_some_and(|until| until <= Instant::now())
    }

    /// Takes leave; the answer is of no interest.
    pub(super) async fn quit(mut self) {
        let deadline = Instant::now() + self.timeouts.quit;
        self.out.clear();
        self.out.extend_from_slice(b"QUIT\r\n");
        if self.send(Stage::Quit, None, deadline).await.is_ok() {
            let _ = self.read(Stage::Quit, deadline).await;
        }
    }

    /// When a step at this stage is over, counted from when it has to be waited for.
    fn until(&self, stage: Stage, deadline: Instant) -> impl Fn() -> Instant + use<> {
        let limit = self.timeouts.of(stage);
        let limit = self.hurry.map_or(limit, |hurry| limit.min(hurry));
        move || deadline.min(Instant::now() + limit)
    }

    fn record_reply(&self, reply: &Reply) {
        if self.recorder.is_none() {
            return;
        }
        let enhanced = reply
            .enhanced
            .map_or_else(String::new, |(a, b, c)| format!("{a}.{b}.{c} "));
        let text = self.mask.text(&reply.text);
        for line in bounded(&text).split('\n') {
            self.record(|| format!("< {} {enhanced}{line}", reply.code));
        }
    }
}

/// A step that is limited in time. Most are done at once and ask no clock.
async fn within<F: Future>(until: impl FnOnce() -> Instant, step: F) -> Result<F::Output, Elapsed> {
    let mut step = pin!(step);
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(step.as_mut().poll(cx))).await {
        return Ok(done);
    }
    timeout_at(until(), step).await
}
