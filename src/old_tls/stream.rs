//! A connection that speaks old TLS, over s2n-tls: the server's side, and what its faults mean. But for the client's side beside it,
//! nothing else names that library.
//!
//! A peer that breaks the rules waits for 10 to 30 s before the connection ends, as the library asks for against whoever measures
//! times; each fault is told only then.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use s2n_tls::{
    config::{Builder, Config},
    enums::Version,
    error::{Error, ErrorType},
    security::Policy,
};
use s2n_tls_tokio::{TlsAcceptor, TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::policy::OldPolicy;
use crate::mail::tls::TlsVersion;

/// The library's names of them, each the least of a load balancer's that has what it should.
pub(super) fn policy_name(policy: OldPolicy) -> &'static str {
    match policy {
        OldPolicy::From12 => "ELBSecurityPolicy-TLS-1-2-Ext-2018-06",
        OldPolicy::From11 => "ELBSecurityPolicy-TLS-1-1-2017-01",
        OldPolicy::From10 => "ELBSecurityPolicy-TLS-1-0-2015-04",
    }
}

/// The server's side: a policy, and a certificate.
pub struct OldServer {
    acceptor: TlsAcceptor<Config>,
}

impl OldServer {
    /// From a chain and its key, in PEM.
    ///
    /// # Errors
    /// The library's words.
    pub fn new(policy: OldPolicy, chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let build = || -> Result<Config, Error> {
            let mut builder = Builder::new();
            builder.with_system_certs(false)?;
            builder.set_security_policy(&Policy::from_version(policy_name(policy))?)?;
            builder.load_pem(chain, key)?;
            builder.build()
        };
        let config = build().map_err(|e| format!("old TLS cannot use it: {}", e.message()))?;
        Ok(Self {
            acceptor: TlsAcceptor::new(config),
        })
    }

    /// A handshake as the server. It has no end of its own, and after a fault lasts for up to 30 s longer.
    ///
    /// # Errors
    /// It failed; [`reason`] has words for it.
    pub async fn accept<S>(&self, stream: S) -> io::Result<OldStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let inner = self.acceptor.accept(stream).await?;
        Ok(OldStream::new(inner))
    }
}

impl fmt::Debug for OldServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldServer").finish_non_exhaustive()
    }
}

/// An encrypted stream.
#[derive(Debug)]
pub struct OldStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    inner: TlsStream<S>,
    /// Why it has ended; told when the waiting is over.
    failed: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> OldStream<S> {
    /// The handshake is done.
    pub(super) fn new(inner: TlsStream<S>) -> Self {
        Self {
            inner,
            failed: None,
        }
    }

    /// What is below.
    pub fn below(&self) -> &S {
        self.inner.get_ref()
    }

    /// `ECDHE-RSA-AES128-SHA`.
    pub fn cipher(&self) -> String {
        let suite = self.inner.as_ref().cipher_suite();
        suite.unwrap_or_default().to_owned()
    }

    /// The server's own certificate, in DER; of a server's side there is none.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        let chain = self.inner.as_ref().peer_cert_chain().ok()?;
        let own = chain.iter().next()?.ok()?;
        Some(own.der().ok()?.to_vec())
    }

    /// What is spoken. Older than every version that a policy has, there is none.
    pub fn version(&self) -> TlsVersion {
        match self.inner.as_ref().actual_protocol_version() {
            Ok(Version::TLS13) => TlsVersion::V1_3,
            Ok(Version::TLS12) => TlsVersion::V1_2,
            Ok(Version::TLS11) => TlsVersion::V1_1,
            _ => TlsVersion::V1_0,
        }
    }

    /// Keeps the fault, waits as long as the library asks for, ends the stream, and tells it.
    fn poll_failed(
        &mut self,
        cx: &mut Context<'_>,
        fault: Option<io::Error>,
    ) -> Poll<io::Result<()>> {
        if fault.is_some() {
            self.failed = fault;
        }
        if self.failed.is_none() {
            return Poll::Ready(Ok(()));
        }
        let _ = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        Poll::Ready(self.failed.take().map_or(Ok(()), Err))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for OldStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return self.poll_failed(cx, None);
        }
        match ready!(Pin::new(&mut self.inner).poll_read(cx, buffer)) {
            // A peer that goes without a word has broken no rule.
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => self.poll_failed(cx, Some(e)),
            other => Poll::Ready(other),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for OldStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Why it failed, for the log. `None`: the error is not of this library.
pub fn reason(error: &io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error.kind() {
        ErrorType::Alert => {
            "the client ended it with an alert: it may not trust our certificate, or take none of what we chose"
        }
        ErrorType::ConnectionClosed | ErrorType::IOError => "the client broke it off",
        ErrorType::ProtocolError => {
            "the client broke the rules of TLS, or has no cipher in common with us"
        }
        _ => "it could not be done",
    })
}
