//! TLS sessions that a later connection goes on with (RFC 8446 §2.2, RFC 5077): a round trip and a signature less.
//!
//! They belong to one connector, and are forgotten with it and after a day: a session that goes on looks at no certificate.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_rustls::rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};

/// Sessions that are kept, at most.
const SESSIONS: usize = 256;
/// After this all of them are forgotten.
const LIFE: Duration = Duration::from_hours(24);

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    kept: Mutex<(ClientSessionMemoryCache, Instant)>,
    /// So many were offered.
    offered: AtomicU64,
}

impl Sessions {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new((ClientSessionMemoryCache::new(SESSIONS), Instant::now())),
            offered: AtomicU64::new(0),
        })
    }

    /// A handshake begins; what [`Sessions::are_to_blame`] wants to know of it.
    pub(super) fn begins(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    /// A handshake failed that began with that: whether it may have been for a session that the server has forgotten. (Of several at
    /// once nobody knows which was offered one.) All of them are forgotten here, too.
    pub(super) fn are_to_blame(&self, begun: u64) -> bool {
        let was_offered = self.offered.load(Ordering::Relaxed) != begun;
        if was_offered {
            *self.kept() = (ClientSessionMemoryCache::new(SESSIONS), Instant::now());
        }
        was_offered
    }

    fn kept(&self) -> MutexGuard<'_, (ClientSessionMemoryCache, Instant)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.1.elapsed() >= LIFE {
            *kept = (ClientSessionMemoryCache::new(SESSIONS), Instant::now());
        }
        kept
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.kept().0.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().0.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.kept().0.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let found = self.kept().0.tls12_session(server);
        self.offered
            .fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.kept().0.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.kept().0.insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let found = self.kept().0.take_tls13_ticket(server);
        self.offered
            .fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found
    }
}
