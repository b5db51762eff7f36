//! TLS begun on a connection to an upstream.
//!
//! Whom it trusts and in which words a failure is reported, `tls` says.

use std::net::SocketAddr;

use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::pki_types::ServerName;

use super::{
    dial,
    encrypted::{Facts, Towards},
    failed::Failed,
    link::Link,
    stream::Stream,
    tls,
};
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
) -> Result<Facts, Failed> {
    let host = settings.host.trim_matches(['[', ']']);
    let (Some(tls), Ok(name)) = (client, ServerName::try_from(host.to_owned())) else {
        let text = format!("TLS: {host} is no name that a certificate could have");
        return Err(Obstacle::misconfigured(text).into());
    };
    let Stream::Plain(tcp) = std::mem::replace(&mut link.stream, Stream::Gone) else {
        return Err(Obstacle::down("TLS: begun twice").into());
    };
    let until = dial::slice(deadline, link.timeouts.tls);
    let towards = Towards {
        host,
        name,
        implicit: settings.tls == Tls::Implicit,
        proxied: peer.is_none(),
    };
    let (stream, facts) = match timeout_at(until, Box::pin(tls.connect(&towards, tcp))).await {
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
        Ok(Err(no)) => {
            // Met in the handshake, where others meet it before the greeting.
            let is_shut = towards.implicit && no.is_shut;
            return Err(Failed {
                crowding: is_shut.then_some(Crowding::Hinted),
                // A certificate that was looked at and does not do is no reason to do without.
                is_tls: !no.is_of_certificate,
                ..Failed::new(Obstacle::down(no.text), true)
            });
        }
        Ok(Ok(done)) => done,
    };
    link.record(|| format!("* {}", facts.line));
    link.via = format!("{} {}", link.via, facts.version);
    link.stream = Stream::Tls(stream);
    Ok(facts)
}
