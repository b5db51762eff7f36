//! An upstream that greets nobody: does it wait for TLS? It is asked by the first message of a handshake, which comes to nothing.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    failed::Failed,
    link::Link,
    open::Opener,
    stream::{LinkFault, Stream},
};
use crate::{
    connector::settings::Tls,
    mail::{cause, outcome::Obstacle},
    smtp::client::{Stage, class::Crowding},
};

/// So long it is waited for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first octet of a TLS record that belongs to a handshake, or is an alert (RFC 8446 §5.1).
const RECORDS: [u8; 2] = [22, 21];

impl Opener {
    /// A greeting is waited for a little less, so that there is time to ask why none came.
    pub(super) fn hears_until(&self, stage: Stage, deadline: Instant) -> Instant {
        let is_doubtful = stage == Stage::Greeting && self.settings.tls != Tls::Implicit;
        let is_far = deadline > Instant::now() + PATIENCE * 2;
        let by = deadline.checked_sub(PATIENCE);
        by.filter(|_| is_doubtful && is_far).unwrap_or(deadline)
    }

    /// No reply came.
    pub(super) async fn unheard(&self, link: &mut Link, fault: &LinkFault) -> Failed {
        let is_silent = matches!(fault, LinkFault::Silent(_));
        let mut said = self.name_fault(link, fault);
        if let (LinkFault::Silent(Stage::Greeting), Stream::Plain(stream)) =
            (fault, &mut link.stream)
            && self.settings.tls != Tls::Implicit
        {
            said = if waits_for_tls(stream).await {
                cause::TLS_MODE.at("the upstream greets nobody and answers TLS")
            } else {
                fault.to_string()
            };
        }
        Failed {
            is_silent,
            crowding: matches!(fault, LinkFault::Lost(Stage::Greeting, _))
                .then_some(Crowding::Hinted),
            ..Failed::new(Obstacle::down(said), true)
        }
    }
}

/// Whether TLS is what it answers. The connection is good for nothing after this.
async fn waits_for_tls(stream: &mut TcpStream) -> bool {
    let asking = async {
        stream.write_all(&hello()?).await.ok()?;
        stream.read_u8().await.ok()
    };
    let heard = timeout(PATIENCE, asking).await;
    heard.is_ok_and(|first| first.is_some_and(|first| RECORDS.contains(&first)))
}

fn hello() -> Option<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        // Nothing is trusted, and nothing is said inside.
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("upstream.invalid").ok()?;
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut out = Vec::new();
    connection.write_tls(&mut out).ok()?;
    Some(out)
}
