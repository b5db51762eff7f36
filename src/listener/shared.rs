//! What all connections share: the rules and limits in force, the queue, the password check, what is counted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Instant,
};

use tokio::{sync::watch, task::JoinSet};

use super::{
    acceptor::TlsCaller,
    auth::Authenticator,
    captures::Captures,
    devices::Devices,
    learning::Learning,
    limits::{MessageRate, RefusalLog},
    permits::{ConnectionPermit, Limit, Permits},
    quotas::QuotaDesk,
    settings::Limits,
};
use crate::{
    policy::quota::QuotaTally,
    queue::Queue,
    smtp::server::session::{Conditions, Rules},
};

/// One for the whole gateway.
#[derive(Debug)]
pub struct Shared {
    pub(super) queue: Arc<Queue>,
    pub(super) auth: Authenticator,
    pub(super) permits: Arc<Permits>,
    pub(super) connections: Mutex<JoinSet<()>>,
    rules: RwLock<Arc<Rules>>,
    limits: RwLock<Limits>,
    messages: MessageRate,
    refusals: RefusalLog,
    /// Who connects.
    pub devices: Devices,
    /// Conversations that somebody wants to see.
    pub captures: Captures,
    /// Whether it is learned who there is.
    pub learning: Learning,
    /// What the quotas have counted.
    pub quotas: QuotaDesk,
    drain: watch::Sender<bool>,
}

impl Shared {
    /// For mail that goes to `queue`.
    pub fn new(queue: Arc<Queue>, rules: Rules, limits: Limits, auth: Authenticator) -> Arc<Self> {
        let quotas = QuotaDesk::default();
        quotas.adopt(&rules.policy.quotas);
        Arc::new(Self {
            queue,
            auth,
            permits: Arc::default(),
            connections: Mutex::default(),
            rules: RwLock::new(Arc::new(rules)),
            limits: RwLock::new(limits),
            messages: MessageRate::default(),
            refusals: RefusalLog::default(),
            devices: Devices::default(),
            captures: Captures::default(),
            learning: Learning::default(),
            quotas,
            drain: watch::Sender::new(false),
        })
    }

    /// From the next MAIL on these rules judge; the limits hold from now on.
    pub fn swap(&self, rules: Rules, limits: Limits) {
        self.quotas.adopt(&rules.policy.quotas);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.permits.open()
    }

    /// Tells every connection to close at its next pause.
    pub(super) fn start_drain(&self) {
        self.drain.send_replace(true);
    }

    pub(super) fn drain(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }

    /// How things are, for this address.
    pub(super) fn conditions(&self, peer: IpAddr) -> Conditions {
        let limits = self.limits();
        let now = Instant::now();
        let rules = self.rules();
        let has_quotas = !rules.policy.quotas.is_empty();
        Conditions {
            learned: self.learning.client(peer, &rules.policy, &self.devices),
            quotas: has_quotas.then(|| self.quotas.view()),
            rules,
            store: self.queue.health(limits.free_disk),
            throttled: self
                .messages
                .is_reached(peer, limits.messages_per_minute, now),
        }
    }

    /// One more message from this address, and what it holds of the quotas.
    pub(super) fn count_message(&self, peer: IpAddr, tally: &QuotaTally) {
        self.quotas.count(tally);
        let limit = self.limits().messages_per_minute;
        self.messages.count(peer, limit, Instant::now());
    }

    /// Whether a refusal of this address may be logged, and how many were not since the last one.
    pub(super) fn may_log_refusal(&self, peer: IpAddr) -> Option<u64> {
        self.refusals.may_log(peer, Instant::now())
    }

    /// A permit for a connection of this peer, looked up among the clients.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn permit(&self, peer: IpAddr) -> Result<ConnectionPermit, Limit> {
        self.permits.of(peer, self.is_listed(peer), &self.limits())
    }

    /// The same for the client that a proxy has named on a connection that has one.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn settle(&self, permit: &mut ConnectionPermit, peer: IpAddr) -> Result<(), Limit> {
        permit.settle(peer, self.is_listed(peer), &self.limits())
    }

    /// The `[[client]]` that an address is in.
    pub(super) fn client_name(&self, peer: IpAddr) -> Option<String> {
        let rules = self.rules();
        rules.policy.client(peer).map(|client| client.name.clone())
    }

    /// Whose handshake a connection of this peer would be.
    pub(super) fn tls_caller(&self, peer: SocketAddr) -> TlsCaller {
        let rules = self.rules();
        let client = rules.policy.client(peer.ip());
        TlsCaller {
            peer,
            client: client.map(|client| client.name.clone()),
            floor: client.map(|client| client.tls).unwrap_or_default(),
        }
    }

    fn is_listed(&self, peer: IpAddr) -> bool {
        self.rules().policy.client(peer).is_some()
    }
}
