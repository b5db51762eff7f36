//! The answers that hyper gives by itself, to what is no request (400, 414, 431): nobody of ours sees them on their way, so they get
//! their headers where they are written.
//!
//! Which octets those are is known without guessing: whatever is written while no answer of ours is on its way.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes},
    http::Response,
};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// No answer of ours is on its way.
const FREE: u8 = 0;
/// One is being made or read.
const BUSY: u8 = 1;
/// It is read to its end, and may not be written yet.
const READ: u8 = 2;

/// Whose answer is written on a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct AnswerTurn(Arc<AtomicU8>);

impl AnswerTurn {
    /// A request has come: what is written now is ours.
    pub(super) fn begin(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// Its answer, which says when it is read.
    pub(super) fn watch(&self, response: Response<Body>) -> Response<Body> {
        response.map(|body| {
            let turn = self.clone();
            Body::new(WatchedBody { body, turn })
        })
    }

    fn is_free(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FREE
    }

    /// All there was is written.
    fn written(&self) {
        let _ = self
            .0
            .compare_exchange(READ, FREE, Ordering::Relaxed, Ordering::Relaxed);
    }
}

struct WatchedBody {
    body: Body,
    turn: AnswerTurn,
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.turn.0.store(READ, Ordering::Relaxed);
    }
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection on which every head has these lines.
#[derive(Debug)]
pub(super) struct Dressed<S> {
    stream: S,
    turn: AnswerTurn,
    /// Lines of a header, each with its end.
    lines: String,
    /// What was taken and is not written.
    left: Vec<u8>,
}

impl<S> Dressed<S> {
    pub(super) fn new(stream: S, turn: AnswerTurn, lines: String) -> Self {
        Self {
            stream,
            turn,
            lines,
            left: Vec::new(),
        }
    }

    /// A head that is not ours, with the lines in it.
    fn dressed(&self, octets: &[u8]) -> Option<Vec<u8>> {
        if !self.turn.is_free() || !octets.starts_with(b"HTTP/1.") {
            return None;
        }
        let end = memchr::memmem::find(octets, b"\r\n\r\n")? + 2;
        let (head, rest) = octets.split_at_checked(end)?;
        Some([head, self.lines.as_bytes(), rest].concat())
    }
}

impl<S: AsyncWrite + Unpin> Dressed<S> {
    fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.left.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.left.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Dressed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

/// It takes one piece at a time: a head comes as a whole.
impl<S: AsyncWrite + Unpin> AsyncWrite for Dressed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_left(context))?;
        let Some(dressed) = self.dressed(octets) else {
            return Pin::new(&mut self.stream).poll_write(context, octets);
        };
        self.left = dressed;
        // It is taken; what does not go out now does at the next write or flush.
        if let Poll::Ready(Err(error)) = self.poll_left(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_left(context))?;
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.turn.written();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_left(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What goes out of these writes, each as a flush.
    async fn out(writes: &[&[u8]], turn: &AnswerTurn) -> String {
        let (near, mut far) = tokio::io::duplex(7);
        let mut dressed = Dressed::new(near, turn.clone(), "a: b\r\n".to_owned());
        let all: Vec<Vec<u8>> = writes.iter().map(|write| write.to_vec()).collect();
        let writing = async move {
            for write in all {
                dressed.write_all(&write).await.unwrap();
                dressed.flush().await.unwrap();
            }
            dressed.shutdown().await.unwrap();
        };
        let mut said = String::new();
        let (read, ()) = tokio::join!(far.read_to_string(&mut said), writing);
        read.unwrap();
        said
    }

    #[tokio::test]
    async fn only_what_nobody_of_ours_says_is_dressed() {
        let head = b"HTTP/1.1 400 Bad Request\r\nx: y\r\n\r\n";
        let free = AnswerTurn::default();
        assert_eq!(
            out(&[head], &free).await,
            "HTTP/1.1 400 Bad Request\r\nx: y\r\na: b\r\n\r\n"
        );
        // Mail that looks like a head is in the body of an answer.
        let busy = AnswerTurn::default();
        busy.begin();
        let said = out(&[b"HTTP/1.1 200 OK\r\n\r\n", head], &busy).await;
        assert!(!said.contains("a: b"), "{said}");
        // Read to its end it is still ours, until it is written.
        let turn = AnswerTurn::default();
        turn.begin();
        drop(turn.watch(Response::new(Body::empty())));
        let said = out(&[b"HTTP/1.1 200 OK\r\n\r\n", head], &turn).await;
        assert_eq!(said.matches("a: b").count(), 1, "{said}");
        assert!(said.ends_with("x: y\r\na: b\r\n\r\n"), "{said}");
    }
}
