//! SOCKETS IN: binds or inherits, accepts, limits, drains.
//!
//! It judges no mail; what it refuses by itself is only one connection too many.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tracing::{error, info};

use crate::systemd;

pub mod acceptor;
mod admission;
pub mod auth;
pub(crate) mod bind;
pub mod captures;
mod connection;
mod copies;
pub mod devices;
mod failed;
mod intake;
pub mod learning;
pub(crate) mod limits;
mod owner;
mod permits;
mod port;
mod presented;
pub mod quotas;
mod rate;
pub mod refused;
mod settings;
mod shared;
mod wire;

pub use acceptor::{CertificateEnd, ClientTrustPaths, look_at_client_trust};
use bind::bind;
pub use port::ListenerStatus;
use port::{Port, Slot, current};
pub use settings::{Bind, Limits, Settings, TlsMode};
pub use shared::Shared;

/// Why listeners could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenerError {
    /// The address cannot be bound; the text says who has it.
    #[error("listener \"{name}\": {text}")]
    Bind {
        /// Of the listener.
        name: String,
        /// For people.
        text: String,
    },
    /// Its certificate or key cannot be used.
    #[error("listener \"{name}\": {text}")]
    Certificate {
        /// Of the listener.
        name: String,
        /// For people.
        text: String,
    },
}

/// Sockets that are open. Two listeners at port 0 are told apart by name.
type SocketKey = (Bind, Option<String>);

#[derive(Debug)]
struct Running {
    slot: Slot,
    addresses: Vec<SocketAddr>,
    /// Dropping it closes the sockets.
    accepting: JoinSet<()>,
}

/// All listeners of the gateway.
#[derive(Debug)]
pub struct Listeners {
    shared: Arc<Shared>,
    running: HashMap<SocketKey, Running>,
    /// Kept for good, so that a reload can come back to one.
    inherited: HashMap<String, Vec<StdListener>>,
}

/// A reload that can no longer fail: everything new is bound and loaded.
#[derive(Debug)]
pub struct Prepared(Vec<(SocketKey, Port, Option<Vec<TcpListener>>)>);

impl Prepared {
    /// What is new of it, as it will stand.
    pub fn standing(&self) -> Vec<ListenerStatus> {
        self.0
            .iter()
            .map(|(_, port, sockets)| {
                let addresses = sockets.iter().flatten().filter_map(|s| s.local_addr().ok());
                port.standing(addresses.collect())
            })
            .collect()
    }
}

impl Listeners {
    /// Takes what systemd handed over. Nothing listens yet. Call once.
    ///
    /// # Errors
    /// What was handed over cannot be used.
    pub fn new(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            shared,
            running: HashMap::new(),
            inherited: systemd::inherited_sockets()?,
        })
    }

    /// Loads every certificate and binds what is new. Nothing changes before [`Listeners::commit`].
    ///
    /// # Errors
    /// The first listener that cannot be opened.
    pub fn prepare(&self, settings: &[Settings]) -> Result<Prepared, ListenerError> {
        let mut prepared = Vec::with_capacity(settings.len());
        for one in settings {
            let key = key(one);
            let running = self.running.get(&key);
            let known = running.and_then(|running| current(&running.slot).acceptor.clone());
            let port = Port::load(one, known).map_err(|text| ListenerError::Certificate {
                name: one.name.clone(),
                text,
            })?;
            let sockets = if running.is_some() {
                None
            } else {
                Some(self.open(one).map_err(|text| ListenerError::Bind {
                    name: one.name.clone(),
                    text,
                })?)
            };
            prepared.push((key, port, sockets));
        }
        Ok(Prepared(prepared))
    }

    /// Swaps: sockets that stay get their new settings, new ones accept, and the rest closes. Connections go on.
    pub fn commit(&mut self, prepared: Prepared) {
        let mut old = std::mem::take(&mut self.running);
        for (key, port, sockets) in prepared.0 {
            let name = port.settings.name.clone();
            if let Some(running) = old.remove(&key) {
                *running.slot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(port);
                self.running.insert(key, running);
                continue;
            }
            let slot: Slot = Arc::new(RwLock::new(Arc::new(port)));
            let mut running = Running {
                slot: Arc::clone(&slot),
                addresses: Vec::new(),
                accepting: JoinSet::new(),
            };
            for socket in sockets.unwrap_or_default() {
                if let Ok(address) = socket.local_addr() {
                    info!(event = "listening", listener = %name, address = %address, "listening");
                    running.addresses.push(address);
                }
                let (slot, shared) = (Arc::clone(&slot), Arc::clone(&self.shared));
                running.accepting.spawn(accept(socket, slot, shared));
            }
            self.running.insert(key, running);
        }
        for running in old.into_values() {
            let port = current(&running.slot);
            info!(event = "closed", listener = %port.settings.name, "closed");
        }
    }

    /// What systemd handed over by that name.
    pub fn inherited(&self, name: &str) -> Vec<StdListener> {
        let sockets = self.inherited.get(name).into_iter().flatten();
        sockets
            .filter_map(|socket| socket.try_clone().ok())
            .collect()
    }

    /// Every listener as it stands, by name.
    pub fn standing(&self) -> Vec<ListenerStatus> {
        let mut all: Vec<ListenerStatus> = self
            .running
            .values()
            .map(|running| current(&running.slot).standing(running.addresses.clone()))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Where the listener of that name really listens.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.standing()
            .into_iter()
            .find(|s| s.name == name)
            .and_then(|s| s.addresses.first().copied())
    }

    /// Logs every certificate that has expired or ends soon. To be called at the start, daily, and when they are loaded again.
    pub fn warn_of_expiry(&self) {
        for running in self.running.values() {
            current(&running.slot).warn_of_end();
        }
    }

    /// Stops accepting, tells idle sessions to come back, and waits for the others, `grace` at most; the rest is cut off.
    /// Returns how many were.
    pub async fn drain(&mut self, grace: Duration) -> usize {
        self.running.clear();
        self.shared.start_drain();
        let mut connections = std::mem::take(
            &mut *self
                .shared
                .connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_ok() {
            return 0;
        }
        let left = connections.len();
        connections.shutdown().await;
        left
    }

    fn open(&self, settings: &Settings) -> Result<Vec<TcpListener>, String> {
        match &settings.bind {
            Bind::Address(address) => bind(*address).map(|socket| vec![socket]),
            Bind::Inherited(name) => {
                let Some(sockets) = self.inherited.get(name) else {
                    return Err(format!(
                        "systemd handed over no socket named \"{name}\" (FileDescriptorName= in the socket unit)"
                    ));
                };
                sockets
                    .iter()
                    .map(|socket| {
                        let socket = socket.try_clone()?;
                        socket.set_nonblocking(true)?;
                        TcpListener::from_std(socket)
                    })
                    .collect::<io::Result<_>>()
                    .map_err(|e| format!("the socket \"{name}\" cannot be used: {e}"))
            }
        }
    }
}

fn key(settings: &Settings) -> SocketKey {
    let any_port = matches!(&settings.bind, Bind::Address(a) if a.port() == 0);
    (
        settings.bind.clone(),
        any_port.then(|| settings.name.clone()),
    )
}

async fn accept(socket: TcpListener, slot: Slot, shared: Arc<Shared>) {
    loop {
        let (tcp, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that was gone before it was taken is not ours to wait for; anything else (EMFILE, ENFILE,
                // ENOBUFS, ENOMEM) comes back at once until something is freed.
                if !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) {
                    error!(event = "accept failed", listener = %current(&slot).settings.name, error = %error, "accept failed");
                    sleep(Duration::from_millis(500)).await;
                }
                continue;
            }
        };
        let port = current(&slot);
        // The client behind a proxy is not known yet.
        let permit = if port.is_proxy(peer.ip()) {
            shared.permits.of_proxy(&shared.limits())
        } else {
            shared.permit(peer.ip())
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(limit) => {
                admission::turn_away(&wire::Wire::new(tcp), peer, limit, &port, &shared);
                continue;
            }
        };
        let mut connections = shared
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = connections.try_join_next() {
            if ended.is_err_and(|e| e.is_panic()) {
                error!(event = "panic", "a connection ended in a panic");
            }
        }
        connections.spawn(admission::serve(
            tcp,
            peer,
            Arc::clone(&slot),
            Arc::clone(&shared),
            permit,
        ));
    }
}
