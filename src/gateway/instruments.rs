//! What is asked of a gateway that runs, by whoever shows it: what it has counted, what there is at this moment, whether it lives and
//! whether it takes mail.
//!
//! The gateway tells it what is configured; everything else is read when somebody asks. Nothing of it is on the way of a message.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::Notify;

use super::{
    ends::{self, KnownEnds},
    pulse::Pulse,
};
use crate::{
    config::Config,
    delivery::observer::Observer,
    listener::{ListenerStatus, Shared},
    policy::ledger::QuotaStanding,
    queue::{
        Queue,
        store::{Health, Stats, StoreError},
    },
    telemetry::{
        gauges::{ConnectorGauges, Gauges, QueueGauges, QuotaGauges},
        metrics::{LabelNames, Metrics},
    },
    view::{Readiness, ReadyChecks},
};

/// See the module. One for each gateway, shared by whoever shows it.
#[derive(Debug)]
pub struct Instruments {
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    observer: Observer,
    /// The ticks of the runtimes.
    pulse: Arc<Pulse>,
    configured: Mutex<Configured>,
    is_listening: AtomicBool,
    is_draining: AtomicBool,
    /// What the store remembers of credentials.
    pub(super) ends: KnownEnds,
    /// Wakes whoever keeps the health file.
    pub(super) changed: Notify,
}

/// What the gateway last said of its configuration.
#[derive(Debug, Default)]
struct Configured {
    is_reloaded: bool,
    reloaded_at: Option<SystemTime>,
    /// When the certificate of a listener ends.
    certificates: Vec<(String, SystemTime)>,
    /// When the first credential of a connector ends.
    credentials: BTreeMap<String, SystemTime>,
}

impl Instruments {
    /// Of a gateway that does not listen yet.
    pub fn new(
        metrics: Arc<Metrics>,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
        observer: Observer,
        pulse: Arc<Pulse>,
    ) -> Self {
        Self {
            metrics,
            queue,
            shared,
            observer,
            pulse,
            configured: Mutex::default(),
            is_listening: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            ends: KnownEnds::default(),
            changed: Notify::new(),
        }
    }

    fn configured(&self) -> MutexGuard<'_, Configured> {
        self.configured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// New settings are in force, with these listeners. Reads the certificates of connectors.
    pub fn took(&self, config: &Config, standing: &[ListenerStatus]) {
        self.metrics.know(&names(config));
        let credentials = ends::first(&self.ends.of(&config.connectors));
        let certificate = |listener: &ListenerStatus| {
            let own = listener.certificates.iter();
            let own = own.filter(|end| end.kind == "listener");
            let first = own.map(|end| end.ends).min()?;
            Some((listener.name.clone(), first))
        };
        *self.configured() = Configured {
            is_reloaded: true,
            reloaded_at: Some(SystemTime::now()),
            certificates: standing.iter().filter_map(certificate).collect(),
            credentials,
        };
        self.is_listening.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Credentials end at other times than before.
    pub(super) fn look_at_ends(&self, config: &Config) {
        let credentials = ends::first(&self.ends.of(&config.connectors));
        self.configured().credentials = credentials;
    }

    /// New settings were refused.
    pub fn kept(&self) {
        self.configured().is_reloaded = false;
    }

    /// The end begins: nothing more is taken in.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// What was counted, for those who count more.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What there is at this moment, but for the incidents.
    ///
    /// # Errors
    /// The queue cannot be counted.
    pub async fn gauges(&self) -> Result<Gauges, StoreError> {
        let queue = of_queue(&self.queue.store().stats().await?);
        let configured = self.configured();
        let connectors = self.observer.connectors().into_iter().map(|connector| {
            let name = connector.name.to_string();
            ConnectorGauges {
                credential_ends: configured.credentials.get(&name).copied(),
                name,
                state: connector.state,
                in_flight: connector.in_flight,
            }
        });
        Ok(Gauges {
            is_reloaded: configured.is_reloaded,
            reloaded_at: configured.reloaded_at,
            queue,
            connectors: connectors.collect(),
            certificates: configured.certificates.clone(),
            is_store_healthy: self.queue.is_healthy(),
            free_octets: self.queue.free_octets(),
            quotas: self
                .shared
                .quotas
                .standing()
                .into_iter()
                .map(|quota| of_quota(&quota))
                .collect(),
            incidents: [0; 3],
        })
    }

    /// Whether the runtimes that carry mail do their work: `/livez`.
    pub fn is_alive(&self) -> bool {
        self.pulse.is_felt()
    }

    /// Whether mail is taken in: `/readyz`, and the health file.
    pub fn readiness(&self) -> Readiness {
        let health = self.queue.store().health();
        let free = self.queue.free_octets();
        let is_draining = self.is_draining.load(Ordering::Acquire);
        Readiness::of(ReadyChecks {
            listeners: self.is_listening.load(Ordering::Acquire) && !is_draining,
            store: health != Health::Failing,
            space: health != Health::Full
                && free.is_none_or(|free| free >= self.shared.limits().free_disk),
            draining: is_draining,
        })
    }
}

fn of_quota(quota: &QuotaStanding) -> QuotaGauges {
    QuotaGauges {
        name: quota.name.to_string(),
        counted: quota.counted,
        beyond: quota.beyond,
        forgotten: quota.forgotten,
        keys: quota.keys,
        full: quota.full,
    }
}

fn of_queue(stats: &Stats) -> QueueGauges {
    QueueGauges {
        waiting: stats.waiting.saturating_sub(stats.in_doubt),
        sending: stats.sending,
        held: stats.held,
        failed: stats.failed,
        in_doubt: stats.in_doubt,
        oldest: stats.oldest,
    }
}

/// The names that labels may have.
fn names(config: &Config) -> LabelNames {
    let connectors = &config.connectors;
    let channels = config.incidents.channels.iter();
    let with_tokens = connectors.iter().filter(|c| c.kind.oauth().is_some());
    let clients = config.policy.clients.iter();
    let old = clients.filter(|client| client.tls.is_old());
    let that_sign = connectors.iter().filter(|c| c.kind.dkim().is_some());
    LabelNames {
        listeners: config.listeners.iter().map(|l| l.name.clone()).collect(),
        clients: config
            .policy
            .clients
            .iter()
            .map(|c| c.name.clone())
            .collect(),
        old_clients: old.map(|client| client.name.clone()).collect(),
        routes: config.router.all().map(|r| r.name.to_string()).collect(),
        connectors: connectors.iter().map(|c| c.name.to_string()).collect(),
        token_connectors: with_tokens.map(|c| c.name.to_string()).collect(),
        signing_connectors: that_sign.map(|c| c.name.to_string()).collect(),
        archives: (config.policy.archives.iter())
            .map(|one| one.name.to_string())
            .collect(),
        redirects: (config.policy.redirects.iter())
            .map(|one| one.name.to_string())
            .collect(),
        channels: channels.map(|channel| channel.name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests;
