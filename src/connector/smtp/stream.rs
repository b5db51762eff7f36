//! Octets of one connection, plain or encrypted, and the reader that hears what comes before it is written.
//!
//! No write of any step of a conversation can go round the reader. It knows no time.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{encrypted::EncryptedStream, tls};
use crate::smtp::client::{
    Stage,
    reply::BadReply,
    turns::{TurnError, Turns, Unasked},
};

/// Why a link is useless.
#[derive(Debug)]
pub(super) enum LinkFault {
    /// A limit of time has passed.
    Silent(Stage),
    /// The upstream closed, or the network did.
    Lost(Stage, Option<io::Error>),
    /// It said what is no reply: this.
    Broken(Stage, BadReply, String),
    /// It said something that nobody had asked for.
    Unasked(Stage, Unasked),
}

impl LinkFault {
    pub(super) fn wrong(stage: Stage, wrong: TurnError) -> Self {
        match wrong {
            TurnError::Broken(why, said) => LinkFault::Broken(stage, why, said),
            TurnError::Unasked(what) => LinkFault::Unasked(stage, what),
        }
    }
}

impl std::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkFault::Silent(Stage::Content) => {
                f.write_str("the upstream stopped reading the message")
            }
            LinkFault::Silent(stage) => write!(f, "no reply in time at {stage}"),
            LinkFault::Lost(stage, None) => {
                write!(f, "the upstream closed the connection at {stage}")
            }
            LinkFault::Lost(stage, Some(e)) => {
                write!(f, "the connection was lost at {stage}: {}", tls::said(e))
            }
            LinkFault::Broken(stage, why, said) if said.is_empty() || *why == BadReply::Tls => {
                write!(f, "at {stage} came {why}")
            }
            LinkFault::Broken(stage, why, said) => write!(f, "at {stage} came {why}: {said}"),
            LinkFault::Unasked(stage, what) if what.is_farewell() => {
                write!(
                    f,
                    "the upstream closed the connection before {stage}: {}",
                    what.said
                )
            }
            LinkFault::Unasked(stage, what) => write!(
                f,
                "at {stage} the upstream said what nobody had asked for: {}",
                what.said
            ),
        }
    }
}

/// A plain or an encrypted stream.
pub(super) enum Stream {
    /// Plain.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<dyn EncryptedStream>),
    /// Between the two, and after a failed handshake.
    Gone,
}

impl Stream {
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Gone => Poll::Ready(Ok(())),
        }
    }

    pub(super) fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, bytes),
            Stream::Tls(s) => Pin::new(s).poll_write(cx, bytes),
            Stream::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) | Stream::Gone => Poll::Ready(Ok(())),
            Stream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    /// What comes next is acknowledged at once: an upstream that writes small replies one by one (RFC 896) would wait for that. The
    /// system forgets it, so it is said before each wait.
    fn acknowledge_at_once(&self) {
        let tcp = match self {
            Stream::Plain(s) => s,
            Stream::Tls(s) => s.tcp(),
            Stream::Gone => return,
        };
        let _ = tcp.set_quickack(true);
    }

    /// Octets lie in the socket, or its end. The system is asked itself: what the runtime knows may be of its last look. (`poll` takes
    /// no lock of the socket, which a peek would: it is asked before every write.)
    fn has_octets(&self) -> io::Result<bool> {
        let tcp = match self {
            Stream::Plain(s) => s,
            Stream::Tls(s) => s.tcp(),
            Stream::Gone => return Ok(false),
        };
        let at_once = Timespec::default();
        let mut asked = [PollFd::new(tcp, PollFlags::IN)];
        Ok(poll(&mut asked, Some(&at_once))? > 0)
    }
}

/// The side that listens.
pub(super) struct ReplyReader {
    pub(super) turns: Turns,
    incoming: Box<[u8]>,
    /// For an answer, since the last octet that came.
    is_waiting: bool,
}

impl ReplyReader {
    /// At the beginning the greeting is due.
    pub(super) fn new() -> Self {
        Self {
            turns: Turns::new(),
            incoming: vec![0; 4096].into_boxed_slice(),
            is_waiting: false,
        }
    }

    /// One read.
    pub(super) fn read(
        &mut self,
        stream: &mut Stream,
        stage: Stage,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LinkFault>> {
        let mut buf = ReadBuf::new(&mut self.incoming);
        let read = stream.read(cx, &mut buf);
        if read.is_pending() && self.turns.is_asked() && !self.is_waiting {
            self.is_waiting = true;
            stream.acknowledge_at_once();
        }
        match ready!(read) {
            Ok(()) if buf.filled().is_empty() => Poll::Ready(Err(LinkFault::Lost(stage, None))),
            Ok(()) => {
                self.is_waiting = false;
                self.turns.feed(buf.filled());
                Poll::Ready(Ok(()))
            }
            Err(e) => Poll::Ready(Err(LinkFault::Lost(stage, Some(e)))),
        }
    }

    /// Ready when it is our turn: before every write, whatever is written. An error when something is here that nobody
    /// asked for, buffered, encrypted or still in the socket.
    pub(super) fn our_turn(
        &mut self,
        stream: &mut Stream,
        stage: Stage,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LinkFault>> {
        loop {
            if let Some(what) = self.turns.unasked() {
                return Poll::Ready(Err(LinkFault::Unasked(stage, what)));
            }
            if let Poll::Ready(read) = self.read(stream, stage, cx) {
                match read {
                    Ok(()) => continue,
                    Err(fault) => return Poll::Ready(Err(fault)),
                }
            }
            return match stream.has_octets() {
                Ok(false) => Poll::Ready(Ok(())),
                // The runtime is about to learn of them, and wakes us.
                Ok(true) => Poll::Pending,
                Err(e) => Poll::Ready(Err(LinkFault::Lost(stage, Some(e)))),
            };
        }
    }
}

pub(super) async fn write_all(stream: &mut Stream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match poll_fn(|cx| stream.write(cx, rest)).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => rest = rest.get(n..).unwrap_or_default(),
        }
    }
    poll_fn(|cx| stream.flush(cx)).await
}
