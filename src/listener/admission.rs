//! From a socket to a session: who the client is, whether there is a permit for it, TLS from the first octet.
//!
//! The session decides about the client; what is refused here is one connection too many.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Buf, BytesMut};
use tokio::{net::TcpStream, time::timeout};
use tracing::{debug, info, warn};

use super::{
    acceptor::HANDSHAKE,
    connection::{Connection, UNREAD, log_failed_tls},
    limits::ConnectionPermit,
    port::{Slot, current},
    settings::TlsMode,
    shared::Shared,
    wire::Wire,
};
use crate::{
    mail::reply::Reply,
    smtp::server::{proxy, session::Session},
};

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
    let mut stranger = !shared.is_client(peer.ip());
    if port.is_proxy(peer.ip()) {
        peer = match timeout(HANDSHAKE, proxied(&mut wire, &mut input, peer)).await {
            Ok(client) => canonical(client?),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        stranger = !shared.is_client(peer.ip());
    }
    let limits = shared.limits();
    let of_network = if stranger && !permit.make_strangers(limits) {
        None
    } else {
        shared.permits.among_network(peer.ip(), limits, stranger)
    };
    let Some(of_network) = of_network else {
        if port.settings.tls != TlsMode::Implicit {
            wire.tell(&Reply::too_many_from_address());
        }
        if let Some(suppressed) = shared.may_log_refusal(peer.ip()) {
            info!(event = "rejected", stage = "connect", listener = %port.settings.name, peer = %peer, suppressed,
                "rejected: connections_per_client");
        }
        return Ok(());
    };
    if port.settings.tls == TlsMode::Implicit {
        let head = input.split().freeze();
        wire = match port.encrypt(wire, head).await {
            Ok(wire) => wire,
            Err(error) => {
                log_failed_tls(&error, peer, &port, &shared);
                return Ok(());
            }
        };
    }
    let session = Session::new(
        Arc::clone(&port.rules),
        peer,
        port.settings.tls == TlsMode::Implicit,
        shared.conditions(peer.ip()),
    );
    let permits = (permit, of_network);
    let mut connection = Connection::new(session, wire, input, peer, port, slot, shared, permits);
    connection.converse().await
}

/// `::ffff:a.b.c.d` is `a.b.c.d`.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Reads the PROXY header and says who the client is; what follows it stays in `input`.
async fn proxied(
    wire: &mut Wire,
    input: &mut BytesMut,
    peer: SocketAddr,
) -> io::Result<SocketAddr> {
    loop {
        match proxy::parse(input) {
            Ok(Some(header)) => {
                input.advance(header.len.min(input.len()));
                return Ok(header.client.unwrap_or(peer));
            }
            Ok(None) if input.len() <= UNREAD => {}
            Ok(None) => return Err(io::Error::other("an endless PROXY header")),
            Err(text) => {
                warn!(event = "proxy header", peer = %peer, error = text, "bad PROXY header");
                return Err(io::Error::other(text));
            }
        }
        if wire.read(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
