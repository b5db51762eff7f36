//! What every request is answered from: settings, logins, audit, and the gateway behind it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    audit::Auditor, feed::Feed, host::Host, login::LoginGuard, sessions::WindowSessions,
    settings::WindowSettings, typed::TypedSecrets, watching::Watching,
};
use crate::{
    incident::shown,
    window::{
        WindowDb,
        incidents::{self, IncidentRow},
        proposals::{self, ProposalState},
    },
};

/// Streams at once.
const STREAMS: usize = 50;
/// How often it is looked for what commands have written.
const LOOK: Duration = Duration::from_secs(1);
/// Proposals and incidents that are looked at for what commands did to them.
const WATCHED: usize = 100;

/// State, number of the last transition and note, by the number of the incident.
type KnownIncidents = BTreeMap<i64, (String, u32, Option<String>)>;

/// See the module.
#[derive(Debug)]
pub struct App {
    settings: RwLock<(Arc<WindowSettings>, Option<Arc<ServerConfig>>)>,
    is_shut: AtomicBool,
    pub(super) host: Arc<dyn Host>,
    pub(super) window: Arc<WindowDb>,
    pub(super) sessions: WindowSessions,
    pub(super) audit: Auditor,
    pub(super) guard: LoginGuard,
    pub(super) typed: TypedSecrets,
    pub(super) feed: Arc<Feed>,
    pub(super) streams: Arc<Semaphore>,
    failures: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
}

impl App {
    /// One for the life of a gateway. `tls`: of the settings' certificate.
    pub fn new(
        settings: WindowSettings,
        tls: Option<Arc<ServerConfig>>,
        host: Arc<dyn Host>,
        window: Arc<WindowDb>,
        feed: Arc<Feed>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings: RwLock::new((Arc::new(settings), tls)),
            is_shut: AtomicBool::new(false),
            host,
            sessions: WindowSessions::new(Arc::clone(&window)),
            audit: Auditor::new(Arc::clone(&window)),
            window,
            guard: LoginGuard::default(),
            typed: TypedSecrets::default(),
            feed,
            streams: Arc::new(Semaphore::new(STREAMS)),
            failures: AtomicU64::new(0),
            tasks: Mutex::default(),
        })
    }

    /// Those in force.
    pub fn settings(&self) -> Arc<WindowSettings> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&settings.0)
    }

    /// For the next handshake. `None`: it is plain HTTP.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        let settings = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        settings.1.clone()
    }

    /// From now on these. Where it listens stays; `false`: that should be another place now, which needs a restart.
    pub fn configure(&self, settings: WindowSettings, tls: Option<Arc<ServerConfig>>) -> bool {
        let mut current = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let place = current.0.place.clone();
        let is_same = place == settings.place;
        *current = (Arc::new(WindowSettings { place, ..settings }), tls);
        self.is_shut.store(false, Ordering::Relaxed);
        is_same
    }

    /// There is no window in the configuration any more: nobody is answered.
    pub fn shut(&self) {
        self.is_shut.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Relaxed)
    }

    /// Goes on by itself, also when whoever asked for it has gone.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// The window has died; it is started again.
    pub(super) fn has_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Sees what commands write. Never ends.
    pub(super) async fn look(self: Arc<Self>) {
        let mut version = None;
        let mut watching = Watching::default();
        let (mut known, mut incidents) = (None, None);
        loop {
            let now = self.window.version().await.ok();
            if now != version || version.is_none() {
                version = now;
                // Read again in a second.
                let _ = self.sessions.look(SystemTime::now()).await;
                known = self.proposals(known).await;
                incidents = self.incidents(incidents).await;
            }
            watching.look(self.host.as_ref(), &self.feed).await;
            self.audit.settle().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells what commands did to proposals since they were `known`.
    async fn proposals(
        &self,
        known: Option<BTreeMap<i64, ProposalState>>,
    ) -> Option<BTreeMap<i64, ProposalState>> {
        let newest = |tx: &rusqlite::Transaction<'_>| proposals::list(tx, None, WATCHED);
        let Ok(rows) = self.window.read(newest).await else {
            return known;
        };
        let now: BTreeMap<_, _> = rows.iter().map(|row| (row.number, row.state)).collect();
        for (number, state) in &now {
            let before = known.as_ref().map(|known| known.get(number));
            if before.is_some_and(|before| before != Some(state)) {
                let id = format!("p{number}");
                let data = json!({ "id": id, "state": state });
                self.feed.tell("proposal", &id, data);
            }
        }
        Some(now)
    }

    /// Tells what became of incidents since they were `known`: a command may have acknowledged one.
    async fn incidents(&self, known: Option<KnownIncidents>) -> Option<KnownIncidents> {
        let newest = |tx: &rusqlite::Transaction<'_>| incidents::list(tx, None, None, WATCHED);
        let Ok(rows) = self.window.read(newest).await else {
            return known;
        };
        let mark = |row: &IncidentRow| (row.state.clone(), row.number, row.note.clone());
        let now: KnownIncidents = rows.iter().map(|row| (row.id, mark(row))).collect();
        let before = known.as_ref();
        let has_changed = |row: &&IncidentRow| {
            before.is_some_and(|before| before.get(&row.id) != Some(&mark(row)))
        };
        for row in rows.iter().filter(has_changed) {
            let incident = shown::view(row, &[]);
            let data = serde_json::to_value(&incident).unwrap_or_default();
            self.feed.tell("incident", &incident.id, data);
        }
        Some(now)
    }
}
