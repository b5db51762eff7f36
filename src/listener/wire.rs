//! The octets of one connection, plain or encrypted.
//!
//! Idle connections stay cheap: a read borrows the stack and the buffer grows only by what came.

use std::{
    fmt, io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use crate::mail::reply::Reply;

/// Octets of one read where the buffer has no room.
const PIECE: usize = 8 * 1024;

/// What an acceptor makes of a socket.
pub(super) trait SecureStream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {
    /// `1.2`, `1.3`.
    fn version(&self) -> &'static str;
}

/// Plain or encrypted.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<dyn SecureStream>),
    /// While a handshake is under way, and after one that failed.
    Gone,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }

    /// Appends what has come to `input`; 0 is the end. Safe to cancel.
    pub(super) async fn read(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        if input.capacity() - input.len() < PIECE {
            return std::future::poll_fn(|cx| self.poll_append(cx, input)).await;
        }
        match self {
            Self::Plain(tcp) => tcp.read_buf(input).await,
            Self::Tls(tls) => or_end(tls.read_buf(input).await),
            Self::Gone => Ok(0),
        }
    }

    fn poll_append(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut piece = [const { MaybeUninit::uninit() }; PIECE];
        let mut buffer = ReadBuf::uninit(&mut piece);
        ready!(self.poll_read(cx, &mut buffer))?;
        input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer).map(or_end),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    /// Writes all of it.
    pub(super) async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(octets).await,
            Self::Tls(tls) => {
                tls.write_all(octets).await?;
                tls.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Says a last word without waiting, on a plain connection.
    pub(super) fn tell(&self, reply: &Reply) {
        if let Self::Plain(tcp) = self {
            let mut line = Vec::new();
            reply.write_to(&mut line);
            let _ = tcp.try_write(&line);
        }
    }

    /// The version of TLS. `None`: it is not encrypted.
    pub(super) fn version(&self) -> Option<&'static str> {
        match self {
            Self::Tls(tls) => Some(tls.version()),
            Self::Plain(_) | Self::Gone => None,
        }
    }

    /// Ends our direction.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown().await,
            Self::Tls(tls) => tls.shutdown().await,
            Self::Gone => Ok(()),
        }
    }
}

/// A peer that goes without close_notify is gone all the same.
fn or_end<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(T::default()),
        other => other,
    }
}

/// A stream whose first octets were read already.
#[derive(Debug)]
pub(super) struct Prefixed {
    pub(super) head: Bytes,
    pub(super) tcp: TcpStream,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buffer);
        }
        let octets = self.head.len().min(buffer.remaining());
        if let Some(head) = self.head.get(..octets) {
            buffer.put_slice(head);
        }
        self.head.advance(octets);
        if self.head.is_empty() {
            self.head = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
