//! How a gateway is, whether it needs somebody, and what is wrong with its file.

use std::time::{Duration, SystemTime};

use rustix::process::Pid;

use super::site::{Site, status_row_of};
use crate::{
    config::{
        Config,
        cluster::StoreSettings,
        diagnostic::{Diagnostic, Diagnostics},
    },
    delivery::upstreams::{self, UPSTREAMS_ROW, UpstreamsRow},
    gateway::company,
    incident::shown::counts,
    mail::{outcome::LaneState, time::since},
    queue::{
        lock::Holder,
        store::{LaneRow, NodeId, Stats, Store, StoreError},
    },
    route::LaneId,
    view::{
        CheckedCertificate, ClusterView, CredentialView, FullQuota, Lane, Messages, OldTlsView,
        OpenIncidents, QUOTAS_ROW, Status, StatusRow, StoreView, listed,
    },
    window::{WindowDb, devices, incidents},
};

/// Mail that waits longer needs somebody.
const OLD: Duration = Duration::from_hours(1);
/// Who spoke old TLS is shown for so long, and so many of them.
const OLD_TLS: Duration = Duration::from_hours(24);
const OLD_TLS_SHOWN: usize = 10;
/// A credential that ends in fewer days needs somebody.
const NEAR: i64 = 7;

/// All that is known of a gateway.
#[derive(Debug)]
pub struct StatusReport<'a> {
    /// Where it was looked.
    pub site: Site<'a>,
    /// Empty unless the gateway runs.
    pub row: StatusRow,
    /// `None`: there is no queue yet.
    pub stats: Option<Stats>,
    /// Every connector, and each mailbox that is not open.
    pub lanes: Vec<LaneRow>,
    /// The connections that are known.
    pub upstreams: UpstreamsRow,
    /// The quotas that somebody has overrun.
    pub quotas: Vec<FullQuota>,
    /// How many incidents are open. `None`: nobody has looked.
    pub incidents: Option<OpenIncidents>,
    /// Addresses that speak TLS below 1.2.
    pub old_tls: Vec<OldTlsView>,
    /// The gateways that share the queue. `None`: it is alone, or does not run.
    pub cluster: Option<ClusterView>,
}

/// How many incidents are open. `None`: that cannot be read.
pub async fn open_incidents(window: &WindowDb) -> Option<OpenIncidents> {
    let open = window.read(incidents::open).await.ok()?;
    Some(counts(&open))
}

/// Addresses that have spoken TLS below 1.2 in the last 24 hours. None where that cannot be read.
pub async fn with_old_tls(window: &WindowDb, now: SystemTime) -> Vec<OldTlsView> {
    let since = now.checked_sub(OLD_TLS).unwrap_or(SystemTime::UNIX_EPOCH);
    let found = window.read(move |tx| devices::with_old_tls(tx, since, OLD_TLS_SHOWN));
    let found = found.await.unwrap_or_default();
    found
        .into_iter()
        .map(|(address, client, seen)| OldTlsView {
            address,
            client,
            tls: seen.version,
            at: seen.at,
        })
        .collect()
}

impl<'a> StatusReport<'a> {
    /// As it is now. `store`: `None` where there is none yet.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(site: Site<'a>, store: Option<&dyn Store>) -> Result<Self, StoreError> {
        let (row, stats, lanes, upstreams) = match store {
            None => (StatusRow::default(), None, Vec::new(), UpstreamsRow::new()),
            Some(store) => (
                status_row_of(store, site.running.as_ref()).await?,
                Some(store.stats().await?),
                store.lanes_here().await?,
                upstreams::read(store.note(UPSTREAMS_ROW).await?.as_deref()),
            ),
        };
        let running = site.running;
        let quotas = match store.filter(|_| running.is_some()) {
            Some(store) => store.note(QUOTAS_ROW).await?,
            None => None,
        };
        let quotas = quotas.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Self {
            quotas: quotas.unwrap_or_default(),
            lanes: all_lanes(site.config, &row, lanes),
            upstreams,
            incidents: None,
            old_tls: Vec::new(),
            cluster: running.and_then(|_| company::read(site.data_dir, site.now)),
            site,
            row,
            stats,
        })
    }

    /// How long the oldest message waits.
    pub fn waits(&self) -> Option<Duration> {
        let oldest = self.stats.as_ref()?.oldest?;
        Some(since(oldest, self.site.now))
    }

    /// Whether a connector is paused, a credential is no good or ends within days, or mail waits for long.
    pub fn needs_somebody(&self) -> bool {
        let is_paused = |lane: &LaneRow| lane.state == LaneState::Paused;
        self.lanes.iter().any(is_paused)
            || self.row.credentials.iter().any(|credential| {
                let left = credential.days(self.site.now);
                let near = if credential.is_list() { 0 } else { NEAR };
                left.is_some_and(|left| left < near) || credential.is_early(self.site.now)
            })
            || self.waits().is_some_and(|waits| waits > OLD)
            || self
                .cluster
                .as_ref()
                .is_some_and(ClusterView::needs_somebody)
    }

    /// Where the queue is. `None`: there is none yet.
    fn store(&self) -> Option<StoreView> {
        self.stats.as_ref()?;
        let said = self.cluster.as_ref().map(|said| said.store.clone());
        Some(
            said.unwrap_or_else(|| match self.site.config.map(|config| &config.store) {
                Some(StoreSettings::Postgres(..)) => StoreView {
                    kind: "postgres".to_owned(),
                    ..StoreView::alone()
                },
                _ => StoreView::alone(),
            }),
        )
    }

    /// As it is shown.
    pub fn view(&self) -> Status {
        let Site {
            data_dir,
            running,
            problems,
            ..
        } = self.site;
        let is_running = running.is_some();
        let pid = running.and_then(|Holder { pid, .. }| pid);
        let row = self.row.clone();
        Status {
            running: is_running,
            pid: pid.map(Pid::as_raw_nonzero).map(Into::into),
            data_dir: data_dir.display().to_string(),
            store: self.store(),
            members: self
                .cluster
                .as_ref()
                .map(|said| said.members.clone())
                .unwrap_or_default(),
            ok: is_running && !self.needs_somebody(),
            started: row.started,
            config: row.config,
            problems: problems
                .into_iter()
                .flat_map(Diagnostics::iter)
                .map(Diagnostic::problem)
                .collect(),
            listeners: row.listeners,
            connectors: listed(&self.lanes)
                .iter()
                .map(|lane| Lane::new(lane, is_running, &self.upstreams))
                .collect(),
            messages: self.stats.as_ref().map(Messages::from),
            oldest_seconds: self.waits().map(|w| w.as_secs()),
            certificates: row
                .credentials
                .iter()
                .filter_map(|one| CheckedCertificate::of(one, self.site.now))
                .collect(),
            credentials: row
                .credentials
                .iter()
                .map(|one| CredentialView::of(one, self.site.now))
                .collect(),
            reload: row.reload,
            learning: row.learning,
            old_tls: self.old_tls.clone(),
            quotas: self.quotas.clone(),
            incidents: self.incidents,
        }
    }
}

/// A row for every connector there is, and for each mailbox that is not open.
fn all_lanes(config: Option<&Config>, row: &StatusRow, mut rows: Vec<LaneRow>) -> Vec<LaneRow> {
    let mut connectors = row.connectors.clone();
    if let (true, Some(config)) = (connectors.is_empty(), config) {
        connectors = config
            .connectors
            .iter()
            .map(|c| c.name.to_string())
            .collect();
    }
    for name in &connectors {
        let lane = LaneId::of(&name.as_str().into());
        if !rows.iter().any(|row| row.lane == lane) {
            rows.push(LaneRow {
                lane,
                state: LaneState::Open,
                since: SystemTime::UNIX_EPOCH,
                why: String::new(),
                probe: None,
                version: 0,
                node: NodeId::default(),
            });
        }
    }
    // A connector that is no longer configured holds nothing up.
    rows.retain(|row| {
        let name = row.lane.connector.as_str();
        connectors.is_empty() || connectors.iter().any(|connector| connector == name)
    });
    rows.sort_by_cached_key(|row| row.lane.to_string());
    rows
}
