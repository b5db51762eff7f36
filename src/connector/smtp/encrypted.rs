//! What a handshake with an upstream is told and what it comes to, whichever library does it.

use std::io::{
    self,
    ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::mail::time::{at, day};

/// An encrypted stream.
pub(super) trait EncryptedStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// The socket below.
    fn tcp(&self) -> &TcpStream;
}

/// With whom.
pub(super) struct Towards<'a> {
    /// The name or the address that was asked for.
    pub(super) host: &'a str,
    /// The same, for the library.
    pub(super) name: ServerName<'static>,
    /// TLS from the first octet.
    pub(super) implicit: bool,
    /// A proxy is in between.
    pub(super) proxied: bool,
}

/// There is no encrypted stream.
pub(super) struct NoTls {
    /// Why, for people.
    pub(super) text: String,
    /// A certificate was looked at and does not do.
    pub(super) is_of_certificate: bool,
    /// The connection was closed without a word.
    pub(super) is_shut: bool,
}

impl NoTls {
    /// `error` is `None` where it is told by nothing but `text`.
    pub(super) fn new(text: &str, is_of_certificate: bool, error: Option<&io::Error>) -> Self {
        let ends = [UnexpectedEof, ConnectionReset, BrokenPipe];
        Self {
            text: format!("TLS: {text}"),
            is_of_certificate,
            is_shut: error.is_some_and(|error| ends.contains(&error.kind())),
        }
    }
}

/// TLS from the first octet was not answered with TLS.
pub(super) const PLAIN: &str = "the port answered in plain text; it is not a port for tls = \"implicit\": try tls = \"starttls\", or port 465 [tls-mode]";
pub(super) const CLOSED: &str = "the upstream closed the connection during the handshake";

/// What is said of an encrypted line.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// `TLSv1.3`.
    pub(super) version: String,
    /// Version, cipher, subject, issuer, expiry, on one line.
    pub(super) line: String,
    /// The last day of the certificate, RFC 3339.
    pub(super) expires: Option<String>,
}

impl Facts {
    /// `own` is the server's certificate, in DER.
    pub(super) fn new(version: &str, cipher: &str, own: Option<&[u8]>) -> Self {
        let version = version.to_owned();
        let mut line = format!("{version} {cipher}");
        let mut expires = None;
        if let Some(Ok((_, parsed))) = own.map(x509_parser::parse_x509_certificate) {
            let until = day(at(parsed.validity().not_after.timestamp()));
            line = format!(
                "{line}, certificate of {}, issued by {}, valid until {until}",
                parsed.subject(),
                parsed.issuer(),
            );
            expires = Some(until);
        }
        Self {
            version,
            line,
            expires,
        }
    }
}
