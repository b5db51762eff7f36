//! From a socket to a session: who is behind a proxy, whether there is a permit for it, TLS from the first octet.
//!
//! The session decides about the client; what is refused here is one connection too many, before anything is said.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{net::TcpStream, time::timeout};
use tracing::{debug, info, warn};

use super::{
    connection::{Connection, UNREAD},
    failed::log_failed_tls,
    permits::{ConnectionPermit, Limit},
    port::{Port, Slot, current},
    settings::TlsMode,
    shared::Shared,
    wire::Wire,
};
use crate::{
    mail::reply::Reply,
    smtp::server::{
        proxy,
        session::{Rejection, Session},
    },
    telemetry::counted,
};

/// How long a proxy may take to say who its client is.
const PROXY_HEADER: Duration = Duration::from_secs(5);

/// Serves one connection until it ends. Nothing is returned: whatever is worth telling is in the log.
pub(super) async fn serve(
    tcp: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    shared: Arc<Shared>,
    permit: ConnectionPermit,
) {
    let _ = tcp.set_nodelay(true);
    // Boxed: an idle connection costs what is in here, and most of it is only needed while something happens.
    let result = Box::pin(admit(tcp, peer, slot, shared, permit)).await;
    if let Err(error) = result {
        // Clients vanish all the time, and that is no error of ours.
        debug!(peer = %peer, error = %error, "connection ended");
    }
}

async fn admit(
    tcp: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    shared: Arc<Shared>,
    mut permit: ConnectionPermit,
) -> io::Result<()> {
    let port = current(&slot);
    let mut wire = Wire::new(tcp);
    let mut input = BytesMut::new();
    let mut peer = canonical(peer);
    if port.is_proxy(peer.ip()) {
        let header = timeout(PROXY_HEADER, proxied(&mut wire, &mut input)).await;
        let header = header.unwrap_or(Err(Unproxied::Bad("no PROXY header within 5 s")));
        match header {
            // The proxy speaks for itself, and is not counted.
            Ok(None) => {}
            Ok(Some(client)) => {
                peer = canonical(client);
                if let Err(limit) = shared.settle(&mut permit, peer.ip()) {
                    turn_away(&wire, peer, limit, &port, &shared);
                    return Ok(());
                }
            }
            Err(Unproxied::Bad(text)) => {
                if let Some(suppressed) = shared.may_log_refusal(peer.ip()) {
                    warn!(event = "proxy header", listener = %port.settings.name, peer = %peer, suppressed, error = text, "bad PROXY header");
                }
                return Ok(());
            }
            Err(Unproxied::Gone(error)) => return Err(error),
        }
    }
    let mut counted = counted::CountedConnection::begin(&port.settings.name);
    counted.of(shared.client_name(peer.ip()));
    let mut certificate = None;
    if port.settings.tls == TlsMode::Implicit {
        let caller = shared.tls_caller(peer);
        let encrypted = match port.encrypt(wire, input.split(), &caller).await {
            Ok(encrypted) => encrypted,
            Err(failure) => {
                counted.encrypted(None);
                log_failed_tls(&failure, &caller, &port, &shared);
                return Ok(());
            }
        };
        wire = encrypted.wire;
        certificate = encrypted.certificate;
        counted.encrypted(wire.version());
    }
    let session = Session::new(
        Arc::clone(&port.rules),
        peer,
        port.settings.tls == TlsMode::Implicit,
        shared.conditions(peer.ip()),
    );
    let mut connection = Connection::new(
        session, wire, input, peer, port, slot, shared, permit, counted,
    );
    connection.has_shown(certificate);
    connection.converse().await
}

/// One connection too many: it is told why, unless it waits for TLS.
pub(super) fn turn_away(wire: &Wire, peer: SocketAddr, limit: Limit, port: &Port, shared: &Shared) {
    let (key, reply) = match limit {
        Limit::Connections => ("connections", Reply::too_many_connections()),
        Limit::ConnectionsPerClient => ("connections_per_client", Reply::too_many_from_address()),
        Limit::UnlistedConnections => ("unlisted_connections", Reply::too_many_unlisted()),
    };
    if port.settings.tls != TlsMode::Implicit {
        wire.tell(&reply);
    }
    let (listener, peer) = (&port.settings.name, canonical(peer));
    counted::refused(listener, "connect", reply.code);
    let rejection = Rejection {
        stage: "connect",
        sender: None,
        recipient: None,
        reply,
    };
    let rules = shared.rules();
    let client = rules.policy.client(peer.ip()).map(|c| c.name.as_str());
    shared
        .devices
        .turned_away((peer.ip(), client, listener), &rejection);
    let Some(suppressed) = shared.may_log_refusal(peer.ip()) else {
        return;
    };
    // That clients are turned away since there are too many of them is for somebody to see.
    if limit == Limit::Connections {
        warn!(event = "rejected", stage = "connect", listener = %listener, peer = %peer, suppressed, "rejected: limits.{key}");
    } else {
        info!(event = "rejected", stage = "connect", listener = %listener, peer = %peer, suppressed, "rejected: limits.{key}");
    }
}

/// `::ffff:a.b.c.d` is `a.b.c.d`.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Why nobody knows who the client is.
enum Unproxied {
    Bad(&'static str),
    Gone(io::Error),
}

/// Reads the PROXY header and says who the client is, `None` when the proxy speaks for itself; what follows it stays in `input`.
async fn proxied(wire: &mut Wire, input: &mut BytesMut) -> Result<Option<SocketAddr>, Unproxied> {
    loop {
        match proxy::parse(input) {
            Ok(Some(header)) => {
                input.advance(header.len.min(input.len()));
                return Ok(header.client);
            }
            Ok(None) if input.len() <= UNREAD => {}
            Ok(None) => return Err(Unproxied::Bad("an endless PROXY header")),
            Err(text) => return Err(Unproxied::Bad(text)),
        }
        match wire.read(input).await {
            Ok(0) => return Err(Unproxied::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(Unproxied::Gone(error)),
        }
    }
}
