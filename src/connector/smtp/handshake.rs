//! TLS begun on a connection to an upstream.
//!
//! Whom it trusts and in which words a failure is reported, `tls` says.

use std::{
    io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof},
    net::SocketAddr,
};

use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsConnector, rustls};

use super::{dial, failed::Failed, link::Link, stream::Stream, tls};
use crate::{
    connector::settings::{SmtpSettings, Tls},
    mail::outcome::Obstacle,
    smtp::client::class::Crowding,
};

/// Encrypts what follows on the link. `peer`: where it leads, if not to a proxy.
pub(super) async fn handshake(
    client: Option<&tls::TlsClient>,
    settings: &SmtpSettings,
    link: &mut Link,
    peer: Option<SocketAddr>,
    deadline: Instant,
) -> Result<tls::Facts, Failed> {
    let host = settings.host.trim_matches(['[', ']']);
    let (Some(tls), Ok(name)) = (
        client,
        rustls::pki_types::ServerName::try_from(host.to_owned()),
    ) else {
        let text = format!("TLS: {host} is no name that a certificate could have");
        return Err(Obstacle::misconfigured(text).into());
    };
    let Stream::Plain(tcp) = std::mem::replace(&mut link.stream, Stream::Gone) else {
        return Err(Obstacle::down("TLS: begun twice").into());
    };
    let until = dial::slice(deadline, link.timeouts.tls);
    let connector = TlsConnector::from(tls.config.clone());
    tls.begins();
    let implicit = settings.tls == Tls::Implicit;
    let stream = match timeout_at(until, connector.connect(name, tcp)).await {
        Err(_) => {
            return Err(Failed {
                is_silent: true,
                is_tls: true,
                ..Failed::new(
                    Obstacle::down("TLS: no answer to the handshake in time"),
                    true,
                )
            });
        }
        Ok(Err(e)) => {
            let inner = e.get_ref().and_then(|e| e.downcast_ref());
            // A certificate that was looked at and does not do is no reason to do without.
            let is_refused = matches!(inner, Some(rustls::Error::InvalidCertificate(_)));
            // Met in the handshake, where others meet it before the greeting.
            let ends = [UnexpectedEof, ConnectionReset, BrokenPipe];
            let is_shut = implicit && ends.contains(&e.kind());
            return Err(Failed {
                crowding: is_shut.then_some(Crowding::Hinted),
                is_tls: !is_refused,
                ..Failed::new(
                    Obstacle::down(tls.explain(&e, host, implicit, peer.is_none())),
                    true,
                )
            });
        }
        Ok(Ok(stream)) => stream,
    };
    let facts = tls::facts(stream.get_ref().1);
    link.record(|| format!("* {}", facts.line));
    link.via = format!("{} {}", link.via, facts.version);
    link.stream = Stream::Tls(Box::new(stream));
    Ok(facts)
}
