//! SOCKETS IN: binds or inherits, accepts, limits, drains.
//!
//! Apart from the session, which knows the protocol and no socket. It judges no mail; what it refuses by itself is only
//! one connection too many.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tracing::{error, info, warn};

use crate::{mail::reply::Reply, policy::AuthMode, smtp::server::session::ListenerRules, systemd};

pub mod auth;
mod bind;
pub(crate) mod connection;
mod owner;
mod shared;
pub mod tls;
mod wire;

use bind::bind;
pub use shared::Shared;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// An address of this machine; port 0 takes a free one and the log says which.
    Address(SocketAddr),
    /// A socket handed over by systemd under this name (`FileDescriptorName=`).
    Inherited(String),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Address(address) => address.fmt(f),
            Bind::Inherited(name) => write!(f, "socket:{name}"),
        }
    }
}

/// TLS of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// None.
    #[default]
    Off,
    /// Offered.
    StartTls,
    /// From the first octet.
    Implicit,
}

/// One `[[listener]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Where.
    pub bind: Bind,
    /// TLS.
    pub tls: TlsMode,
    /// STARTTLS before anything else.
    pub require_tls: bool,
    /// PEM files of the chain and the key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// AUTH.
    pub auth: AuthMode,
    /// AUTH without TLS.
    pub plaintext_auth: bool,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
}

impl Settings {
    /// What a session needs to know of the listener it came in by.
    pub(crate) fn rules(&self) -> ListenerRules {
        ListenerRules {
            name: self.name.clone(),
            starttls: self.tls == TlsMode::StartTls,
            require_tls: self.require_tls,
            certificate: self.certificate.is_some(),
            auth: self.auth,
            plaintext_auth: self.plaintext_auth,
        }
    }
}

/// The part of `[limits]` that concerns connections; the rest is in `smtp::server::session::Rules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// From one address.
    pub connections_per_client: usize,
    /// From one address; 0 = no limit.
    pub messages_per_minute: u32,
    /// Without an octet, outside DATA.
    pub command_timeout: Duration,
    /// Without an octet, inside DATA.
    pub data_timeout: Duration,
    /// Below this many free octets no mail is taken.
    pub free_disk: u64,
}

/// Why listeners could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenerError {
    /// The address cannot be had; the text says who has it.
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

/// A listener as it stands, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Where it really listens.
    pub addresses: Vec<SocketAddr>,
    /// Its TLS.
    pub tls: TlsMode,
    /// The certificate's file and end, if there is one.
    pub certificate: Option<(PathBuf, SystemTime)>,
}

/// What connections of one listener know of it; a reload puts another one in place.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) settings: Settings,
    pub(crate) rules: Arc<ListenerRules>,
    pub(crate) tls: Option<Arc<tls::Tls>>,
}

impl Port {
    /// Whether connections from there begin with a PROXY header.
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.settings
            .proxy_protocol
            .iter()
            .any(|network| network.contains(&peer))
    }

    fn standing(&self, addresses: Vec<SocketAddr>) -> Standing {
        Standing {
            name: self.settings.name.clone(),
            addresses,
            tls: self.settings.tls,
            certificate: self
                .tls
                .as_ref()
                .map(|tls| (tls.path().to_owned(), tls.certificate().not_after)),
        }
    }
}

type Slot = Arc<RwLock<Arc<Port>>>;

/// Sockets that are open. Two listeners at port 0 are told apart by name.
type Key = (Bind, Option<String>);

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
    running: HashMap<Key, Running>,
    /// Kept for good, so that a reload can come back to one.
    inherited: HashMap<String, Vec<StdListener>>,
}

/// A reload that can no longer fail: everything new is bound and loaded.
#[derive(Debug)]
pub struct Prepared(Vec<(Key, Port, Option<Vec<TcpListener>>)>);

impl Prepared {
    /// What is new of it, as it will stand.
    pub fn standing(&self) -> Vec<Standing> {
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

    /// Opens all listeners and accepts from now on.
    ///
    /// # Errors
    /// The first listener that cannot be opened; then none is.
    pub fn start(shared: Arc<Shared>, settings: &[Settings]) -> Result<Self, ListenerError> {
        let mut listeners = Self::new(shared).map_err(|e| ListenerError::Bind {
            name: "socket".to_owned(),
            text: format!("the sockets handed over by systemd cannot be used: {e}"),
        })?;
        let prepared = listeners.prepare(settings)?;
        listeners.commit(prepared);
        Ok(listeners)
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
            let port = port(
                one,
                running.and_then(|running| current(&running.slot).tls.clone()),
            )?;
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

    /// [`Listeners::prepare`] and [`Listeners::commit`].
    ///
    /// # Errors
    /// As `prepare`; then nothing has changed.
    pub fn reload(&mut self, settings: &[Settings]) -> Result<(), ListenerError> {
        let prepared = self.prepare(settings)?;
        self.commit(prepared);
        Ok(())
    }

    /// Every listener as it stands, by name.
    pub fn standing(&self) -> Vec<Standing> {
        let mut all: Vec<Standing> = self
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
            warn_of_end(&current(&running.slot));
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

fn key(settings: &Settings) -> Key {
    let any_port = matches!(&settings.bind, Bind::Address(a) if a.port() == 0);
    (
        settings.bind.clone(),
        any_port.then(|| settings.name.clone()),
    )
}

fn current(slot: &Slot) -> Arc<Port> {
    Arc::clone(&slot.read().unwrap_or_else(PoisonError::into_inner))
}

/// `known` stays in use where its files are the same and have not changed.
fn port(settings: &Settings, known: Option<Arc<tls::Tls>>) -> Result<Port, ListenerError> {
    let broken = |text: String| ListenerError::Certificate {
        name: settings.name.clone(),
        text,
    };
    let tls = match &settings.certificate {
        Some((chain, key)) => Some(match known.filter(|tls| tls.is_still(chain, key)) {
            Some(tls) => tls,
            None => Arc::new(tls::Tls::open(chain, key).map_err(broken)?),
        }),
        None if settings.tls == TlsMode::Off => None,
        None => return Err(broken("TLS needs `certificate` and `key`".to_owned())),
    };
    Ok(Port {
        rules: Arc::new(settings.rules()),
        settings: settings.clone(),
        tls,
    })
}

fn warn_of_end(port: &Port) {
    let Some(tls) = &port.tls else { return };
    let end = tls.certificate().not_after;
    let Ok(left) = end.duration_since(SystemTime::now()) else {
        error!(event = "certificate expired", listener = %port.settings.name, file = %tls.path().display(),
            at = %crate::mail::time::logged(end), "certificate expired: clients that check it send nothing");
        return;
    };
    if left < tls::EXPIRES_SOON {
        warn!(event = "certificate ends", listener = %port.settings.name, file = %tls.path().display(),
            at = %crate::mail::time::logged(end), days = left.as_secs() / 86_400, "certificate ends soon");
    }
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
        // Of a proxy's connections the client is not known yet.
        let stranger = !port.is_proxy(peer.ip()) && !shared.is_client(peer.ip());
        let Some(place) = shared.place(stranger) else {
            if port.settings.tls != TlsMode::Implicit {
                wire::Wire::new(tcp).tell(&Reply::too_many_connections());
            }
            if let Some(suppressed) = shared.may_log_refusal(peer.ip()) {
                warn!(event = "rejected", stage = "connect", listener = %port.settings.name, peer = %peer, suppressed,
                    stranger, "rejected: limits.connections");
            }
            continue;
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
        connections.spawn(connection::serve(
            tcp,
            peer,
            Arc::clone(&slot),
            Arc::clone(&shared),
            place,
        ));
    }
}
