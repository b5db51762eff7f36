//! One connection to an upstream: octets, limits of time, the record of what was said.
//!
//! Apart from what is said. Any fault makes a link useless; dropping it closes the connection, whatever was under way.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;

use crate::{
    connector::Recorder,
    mail::reply::Reply,
    secret::Secret,
    smtp::client::{
        Stage,
        capabilities::Capabilities,
        class::bounded,
        reply::{Broken, Replies},
    },
};

/// Limits of time, one for every step (RFC 5321 §4.5.3.2); each is also limited by the deadline of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Finding and connecting, all addresses together.
    pub connect: Duration,
    /// One address.
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

/// Why a link is useless.
#[derive(Debug)]
pub(super) enum Fault {
    /// A limit of time has passed.
    Silent(Stage),
    /// The upstream closed, or the network did.
    Lost(Stage, Option<io::Error>),
    /// It said what is no reply.
    Broken(Stage, Broken),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Silent(Stage::Content) => {
                f.write_str("the upstream stopped reading the message")
            }
            Fault::Silent(stage) => write!(f, "no reply in time at {stage}"),
            Fault::Lost(stage, None) => write!(f, "the upstream closed the connection at {stage}"),
            Fault::Lost(stage, Some(e)) => write!(f, "the connection was lost at {stage}: {e}"),
            Fault::Broken(stage, why) => write!(f, "at {stage} came {why}"),
        }
    }
}

/// A plain or an encrypted stream.
pub(super) enum Stream {
    /// Plain.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two, and after a failed handshake.
    Gone,
}

impl Stream {
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
            Stream::Gone => Poll::Ready(Ok(())),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, bytes),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, bytes),
            Stream::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) | Stream::Gone => Poll::Ready(Ok(())),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }
}

/// What became of writing a block of content.
pub(super) enum Wrote {
    /// All of it is on its way.
    All,
    /// A reply came first.
    Reply(Reply),
}

/// One connection.
pub(super) struct Link {
    pub(super) stream: Stream,
    replies: Replies,
    incoming: Box<[u8]>,
    /// What is to be written next; kept for its capacity.
    pub(super) out: Vec<u8>,
    /// What the upstream offers.
    pub(super) offered: Capabilities,
    /// `host[ip]:port TLSv1.3`.
    pub(super) via: String,
    /// Messages sent.
    pub(super) used: u32,
    /// RSET must come first.
    pub(super) reset: bool,
    /// Since when it waits.
    pub(super) idle_since: Instant,
    /// The login ends then, where it ends at all.
    pub(super) good_until: Option<Instant>,
    recorder: Option<Recorder>,
    timeouts: Timeouts,
    /// What replies must not repeat, while logging in.
    hidden: Vec<Secret>,
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
            replies: Replies::default(),
            incoming: vec![0; 4096].into_boxed_slice(),
            out: Vec::new(),
            offered: Capabilities::default(),
            via: String::new(),
            used: 0,
            reset: false,
            idle_since: Instant::now(),
            good_until: None,
            recorder,
            timeouts,
            hidden: Vec::new(),
        }
    }

    /// Replies to AUTH do not repeat these, whole or in part: an upstream that does not understand a line may quote it.
    pub(super) fn hide(&mut self, secrets: Vec<Secret>) {
        self.hidden = secrets;
    }

    /// Puts a line into the record.
    pub(super) fn record(&self, line: impl FnOnce() -> String) {
        if let Some(recorder) = &self.recorder {
            recorder(&line());
        }
    }

    /// Nothing is buffered that came too early.
    pub(super) fn is_drained(&self) -> bool {
        self.replies.is_drained()
    }

    /// Writes what is in `out`; `shown` stands for it in the record.
    pub(super) async fn send(
        &mut self,
        stage: Stage,
        shown: Option<&str>,
        deadline: Instant,
    ) -> Result<(), Fault> {
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
        let Self { stream, out, .. } = self;
        let written: Result<io::Result<()>, _> = timeout_at(until, async {
            let mut rest = out.as_slice();
            while !rest.is_empty() {
                match poll_fn(|cx| stream.write(cx, rest)).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    n => rest = rest.get(n..).unwrap_or_default(),
                }
            }
            poll_fn(|cx| stream.flush(cx)).await
        })
        .await;
        self.out.clear();
        match written {
            Err(_) => Err(Fault::Silent(stage)),
            // After an error too: the upstream may have said why before it closed; the reading that follows will tell.
            Ok(_) => Ok(()),
        }
    }

    /// Reads one reply.
    pub(super) async fn read(&mut self, stage: Stage, deadline: Instant) -> Result<Reply, Fault> {
        let until = self.until(stage, deadline);
        self.read_until(stage, until).await
    }

    /// A fault while writing the content: was there a last word? Waits for it no longer than for a QUIT.
    pub(super) async fn last_word(&mut self, deadline: Instant) -> Option<Reply> {
        let until = deadline.min(Instant::now() + self.timeouts.quit);
        self.read_until(Stage::Content, until).await.ok()
    }

    async fn read_until(&mut self, stage: Stage, until: Instant) -> Result<Reply, Fault> {
        loop {
            match self.replies.next_reply() {
                Ok(Some(mut reply)) => {
                    if stage == Stage::Auth && !self.hidden.is_empty() {
                        reply.text = masked(&reply.text, &self.hidden);
                    }
                    self.record_reply(&reply);
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(broken) => return Err(Fault::Broken(stage, broken)),
            }
            let Self {
                stream, incoming, ..
            } = self;
            let read = timeout_at(
                until,
                poll_fn(|cx| {
                    let mut buf = ReadBuf::new(incoming);
                    stream.read(cx, &mut buf).map_ok(|()| buf.filled().len())
                }),
            )
            .await;
            match read {
                Err(_) => return Err(Fault::Silent(stage)),
                Ok(Ok(0)) => return Err(Fault::Lost(stage, None)),
                Ok(Err(e)) => return Err(Fault::Lost(stage, Some(e))),
                Ok(Ok(n)) => self
                    .replies
                    .feed(self.incoming.get(..n).unwrap_or_default()),
            }
        }
    }

    /// Writes a block of content from `out`, and listens meanwhile: an upstream that has had enough says so and stops
    /// reading. `Ok(All)` only when every octet was handed to the network.
    pub(super) async fn send_block(&mut self, deadline: Instant) -> Result<Wrote, Fault> {
        let until = self.until(Stage::Content, deadline);
        let mut done = 0;
        loop {
            let Self {
                stream,
                incoming,
                out,
                ..
            } = self;
            let rest = out.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            // `Ok` = written, `Err` = read.
            let step = timeout_at(
                until,
                poll_fn(|cx| {
                    let mut buf = ReadBuf::new(incoming);
                    if let Poll::Ready(read) = stream.read(cx, &mut buf) {
                        let count = buf.filled().len();
                        return Poll::Ready(Err(read.map(|()| count)));
                    }
                    stream.write(cx, rest).map(Ok)
                }),
            )
            .await;
            match step {
                Err(_) => return Err(Fault::Silent(Stage::Content)),
                Ok(Ok(Ok(0)) | Err(Ok(0))) => return Err(Fault::Lost(Stage::Content, None)),
                Ok(Ok(Ok(n))) => done += n,
                Ok(Ok(Err(e)) | Err(Err(e))) => return Err(Fault::Lost(Stage::Content, Some(e))),
                Ok(Err(Ok(n))) => {
                    self.replies
                        .feed(self.incoming.get(..n).unwrap_or_default());
                    match self.replies.next_reply() {
                        Ok(None) => {}
                        Ok(Some(reply)) => {
                            self.record_reply(&reply);
                            return Ok(Wrote::Reply(reply));
                        }
                        Err(broken) => return Err(Fault::Broken(Stage::Content, broken)),
                    }
                }
            }
        }
        self.out.clear();
        Ok(Wrote::All)
    }

    /// After the last block: from here on the message may have arrived, whatever comes.
    pub(super) async fn flush(&mut self, deadline: Instant) -> Result<(), Fault> {
        let until = self.until(Stage::Content, deadline);
        let stream = &mut self.stream;
        match timeout_at(until, poll_fn(|cx| stream.flush(cx))).await {
            Err(_) => Err(Fault::Silent(Stage::Dot)),
            // The reply may still be there to be read.
            Ok(_) => Ok(()),
        }
    }

    /// Its login has ended, or is about to.
    pub(super) fn is_too_old(&self) -> bool {
        self.good_until.is_some_and(|until| until <= Instant::now())
    }

    /// Nothing came and nothing closed while the link was idle.
    pub(super) async fn is_quiet(&mut self) -> bool {
        if !self.replies.is_drained() {
            return false;
        }
        let Self {
            stream, incoming, ..
        } = self;
        poll_fn(|cx| {
            let mut buf = ReadBuf::new(incoming);
            Poll::Ready(stream.read(cx, &mut buf).is_pending())
        })
        .await
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

    fn until(&self, stage: Stage, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.timeouts.of(stage))
    }

    fn record_reply(&self, reply: &Reply) {
        if self.recorder.is_none() {
            return;
        }
        let enhanced = reply
            .enhanced
            .map_or_else(String::new, |(a, b, c)| format!("{a}.{b}.{c} "));
        for line in bounded(&reply.text).split('\n') {
            self.record(|| format!("< {} {enhanced}{line}", reply.code));
        }
    }
}

/// Words of the text that are part of a secret become `***`; short ones are words of a language.
fn masked(text: &str, secrets: &[Secret]) -> String {
    /// Of what a secret may be made that is worth one.
    fn is_secret(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_' | '.' | '~')
    }
    /// So many letters of a secret are no accident.
    const LEAST: usize = 8;
    let mut out = text.to_owned();
    for secret in secrets.iter().map(Secret::reveal) {
        if secret.len() >= LEAST {
            out = out.replace(secret, "***");
        }
    }
    let parts: Vec<String> = out
        .split_inclusive(|c| !is_secret(c))
        .map(|part| {
            let word = part.trim_end_matches(|c| !is_secret(c));
            let is_secret =
                |s: &Secret| s.reveal() == word || word.len() >= LEAST && s.reveal().contains(word);
            if !word.is_empty() && secrets.iter().any(is_secret) {
                part.replace(word, "***")
            } else {
                part.to_owned()
            }
        })
        .collect();
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_do_not_repeat_secrets() {
        let secrets = [
            Secret::new("dXNlcj1yZWxheUBleGFtcGxlLmNvbQ=="),
            Secret::new("pass word"),
            Secret::new("p"),
            Secret::new(""),
        ];
        for (text, expected) in [
            (
                "5.7.3 Authentication unsuccessful",
                "5.7.3 Authentication unsuccessful",
            ),
            (
                "Unrecognized command 'dXNlcj1yZWxheUBleGFtcGxlLmNvbQ=='",
                "Unrecognized command '***'",
            ),
            (
                "what is dXNlcj1yZWxheUBl?\nand GxlLmNvbQ==",
                "what is ***?\nand ***",
            ),
            ("pass word is wrong", "*** is wrong"),
            ("pass is wrong", "pass is wrong"),
            ("p is wrong", "*** is wrong"),
            ("dXNlcj0", "dXNlcj0"),
            ("", ""),
        ] {
            assert_eq!(masked(text, &secrets), expected);
        }
    }
}
