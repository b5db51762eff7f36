//! The client's side, over the same library: whose certificate is trusted, and why there is no handshake.
//!
//! The library holds a chain to the roots, and looks at its dates; the name in the certificate is left to the caller, who is given
//! it when the handshake is done and before anything is said.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use s2n_tls::{
    callbacks::VerifyHostNameCallback,
    config::{Builder, Config},
    error::{Error, ErrorType},
    security::Policy,
};
use s2n_tls_tokio::TlsConnector;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    policy::OldPolicy,
    stream::{OldStream, policy_name},
};
use crate::mail::text::pem;

/// After a fault of the peer's the library keeps the connection for two to so many seconds, so that times tell little. Its own 30 would be
/// longer than a handshake may take, and nobody would learn what is wrong. An upstream that is down is asked again seldom enough: an
/// attack of this kind wants millions of attempts.
const PENANCE: u32 = 6;

/// Why there is no encrypted stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldFault {
    /// No chain from the server's certificate to a root. A common name that is an address counts as this, too.
    Untrusted,
    /// A certificate has expired.
    Expired,
    /// A certificate is not valid yet.
    NotYet,
    /// A certificate has a critical extension that is not known.
    Critical,
    /// A certificate is not made for servers.
    Purpose,
    /// A certificate cannot be read.
    Unreadable,
    /// The server chose a version that is older than the policy's.
    Version,
    /// It chose a cipher that was not offered.
    Cipher,
    /// It ended the handshake with an alert; the library does not say which.
    Alert,
    /// The connection was closed or lost.
    Closed,
    /// Its first octet is not of TLS: it speaks in the clear.
    Plain,
    /// What it sent breaks the rules of TLS.
    Broken,
}

impl OldFault {
    /// Whether a certificate was looked at and does not do.
    pub fn is_of_certificate(self) -> bool {
        matches!(
            self,
            Self::Untrusted
                | Self::Expired
                | Self::NotYet
                | Self::Critical
                | Self::Purpose
                | Self::Unreadable
        )
    }

    /// What an error of a stream was. `None`: it is not of this library.
    pub fn of(error: &io::Error) -> Option<Self> {
        Some(Self::from(error.get_ref()?.downcast_ref::<Error>()?))
    }
}

impl From<&Error> for OldFault {
    fn from(error: &Error) -> Self {
        match error.name() {
            "S2N_ERR_CERT_EXPIRED" => Self::Expired,
            "S2N_ERR_CERT_NOT_YET_VALID" => Self::NotYet,
            "S2N_ERR_CERT_UNHANDLED_CRITICAL_EXTENSION" => Self::Critical,
            "S2N_ERR_CERT_INTENT_INVALID" => Self::Purpose,
            "S2N_ERR_DECODE_CERTIFICATE"
            | "S2N_ERR_CERT_INVALID"
            | "S2N_ERR_CERT_TYPE_UNSUPPORTED" => Self::Unreadable,
            "S2N_ERR_PROTOCOL_VERSION_UNSUPPORTED"
            | "S2N_ERR_UNKNOWN_PROTOCOL_VERSION"
            | "S2N_ERR_SERVER_PROTOCOL_VERSION" => Self::Version,
            "S2N_ERR_CIPHER_NOT_SUPPORTED" => Self::Cipher,
            // Whatever else is wrong with one: it is not trusted.
            name if name.starts_with("S2N_ERR_CERT_") || name == "S2N_ERR_NO_CERT_FOUND" => {
                Self::Untrusted
            }
            _ => match error.kind() {
                ErrorType::Alert => Self::Alert,
                ErrorType::ConnectionClosed | ErrorType::IOError => Self::Closed,
                _ => Self::Broken,
            },
        }
    }
}

/// The name is looked at later, where people are told which it should have been.
struct AnyName;

impl VerifyHostNameCallback for AnyName {
    fn verify_host_name(&self, _: &str) -> bool {
        true
    }
}

/// A policy, and the roots.
pub struct OldClient {
    connector: TlsConnector<Config>,
}

impl OldClient {
    /// From roots in DER. One that cannot be read is left out; a server's own certificate is a root of itself alone.
    ///
    /// # Errors
    /// The library's words, or that there is no root among them.
    pub fn new<'a>(
        policy: OldPolicy,
        roots: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, String> {
        let build = |mut builder: Builder| -> Result<Config, Error> {
            builder.set_security_policy(&Policy::from_version(policy_name(policy))?)?;
            builder.set_verify_host_callback(AnyName)?;
            builder.set_max_blinding_delay(PENANCE)?;
            builder.build()
        };
        let fault = |e: Error| format!("old TLS cannot be set up: {}", e.message());
        let mut builder = Builder::new();
        builder.with_system_certs(false).map_err(fault)?;
        let mut trusted = 0_usize;
        for root in roots {
            trusted += usize::from(
                builder
                    .trust_pem(pem("CERTIFICATE", root).as_bytes())
                    .is_ok(),
            );
        }
        if trusted == 0 {
            return Err("none of its certificates can be used as a root".to_owned());
        }
        let config = build(builder).map_err(fault)?;
        Ok(Self {
            connector: TlsConnector::new(config),
        })
    }

    /// A handshake as the client. `name` is said to the server (SNI), so it is none where the host is an address. It has no end of its
    /// own. The name in [`OldStream::certificate`] has to be looked at before anything is said.
    ///
    /// # Errors
    /// Why there is none; after a fault of the peer's some seconds later.
    pub async fn connect<S>(
        &self,
        name: Option<&str>,
        stream: S,
    ) -> Result<OldStream<FirstOctet<S>>, OldFault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let is_other = Arc::new(AtomicBool::new(false));
        let stream = FirstOctet {
            inner: stream,
            is_due: true,
            is_other: Arc::clone(&is_other),
        };
        match self.connector.connect(name.unwrap_or(""), stream).await {
            Ok(inner) => Ok(OldStream::new(inner)),
            Err(_) if is_other.load(Ordering::Relaxed) => Err(OldFault::Plain),
            Err(error) => Err(OldFault::from(&error)),
        }
    }
}

impl fmt::Debug for OldClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldClient").finish_non_exhaustive()
    }
}

/// A stream whose first octet is looked at. The library would take text for the beginning of a long record, and wait for the rest of it.
#[derive(Debug)]
pub struct FirstOctet<S> {
    inner: S,
    is_due: bool,
    is_other: Arc<AtomicBool>,
}

impl<S> FirstOctet<S> {
    /// What is below.
    pub fn below(&self) -> &S {
        &self.inner
    }
}

/// Records that a server begins with: an alert, a message of the handshake.
const RECORDS: [u8; 2] = [21, 22];

impl<S: AsyncRead + Unpin> AsyncRead for FirstOctet<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if let (true, Some(octet)) = (self.is_due, buffer.filled().get(before)) {
            let is_record = RECORDS.contains(octet);
            self.is_due = false;
            if !is_record {
                self.is_other.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstOctet<S> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_counted() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let der = made.cert.der().to_vec();
        for policy in OldPolicy::ALL {
            // What cannot be read takes nothing from the others.
            let roots = [b"rubbish".as_slice(), &der];
            assert!(OldClient::new(policy, roots.into_iter()).is_ok());
            assert!(OldClient::new(policy, [b"rubbish".as_slice()].into_iter()).is_err());
            assert!(OldClient::new(policy, std::iter::empty()).is_err());
        }
    }
}
