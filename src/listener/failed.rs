//! The line about a handshake that came to nothing: what helps, where that is known.

use std::io;

use tracing::{debug, info};

use super::{
    acceptor::{TlsCaller, TlsFailure},
    port::Port,
    shared::Shared,
};
use crate::mail::text::{logged, logged_to};

/// Of what a client offers: eight suites with long names, and how many more.
const OFFERS: usize = 600;

/// A client that only looks whether the port is open (health checks) is not worth a line.
pub(super) fn log_failed_tls(
    failure: &TlsFailure,
    caller: &TlsCaller,
    port: &Port,
    shared: &Shared,
) {
    let (listener, peer) = (&port.settings.name, caller.peer);
    let client = caller.client.as_deref().unwrap_or("-");
    let is_gone = matches!(
        failure.error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    );
    if is_gone && failure.refused.is_none() {
        debug!(peer = %peer, error = %failure.error, "connection ended");
    } else if let Some(suppressed) = shared.may_log_refusal(peer.ip()) {
        match &failure.refused {
            Some((offers, hint)) => {
                info!(event = "tls refused", listener = %listener, client, peer = %peer,
                    offers = %logged_to(offers, OFFERS), hint = %logged(hint), suppressed, "tls refused");
            }
            None => {
                info!(event = "tls failed", listener = %listener, client, peer = %peer,
                    error = %logged(&failure.reason()), suppressed, "tls failed");
            }
        }
    }
}
