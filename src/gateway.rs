//! Builds everything from a [`Config`]: run, reload, drain.
//!
//! The order of things stands on this page: what is opened first, what may fail, who is told what. It knows every module and holds
//! no rule of its own.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use window::WindowSide;

use crate::{
    config::{self, Config, Diagnostic, Secrets, Severity},
    delivery::{Delivery, member::Member},
    listener::{ListenerStatus, Listeners, Shared, auth::Authenticator},
    mail::time,
    queue::{Queue, lock, store::Store},
    systemd,
    telemetry::{self, metrics::Metrics},
    view::{Readiness, Reload, ReloadCause, STATUS_ROW},
    watch::Files,
};

pub use error::RunError;

mod built;
mod changes;
pub mod cluster;
pub mod company;
mod credentials;
pub mod database;
mod desk;
pub mod ends;
mod error;
pub mod handover;
pub mod health;
mod host;
pub mod instruments;
mod letter;
mod process;
pub mod pulse;
mod quotas;
pub mod report;
pub mod rotated;
pub mod rotation;
pub mod rules;
mod sealing;
mod signals;
mod status_row;
pub mod tokens;
pub mod watcher;
mod window;

use built::{BuiltConnector, connectors, setup};
use process::{raise_files, threads};
use rules::rules;
use signals::Signals;

use instruments::Instruments;
use pulse::Pulse;

/// What is in flight has so long to finish.
const GRACE: Duration = Duration::from_secs(30);
/// How often the files that the configuration names are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Runs the gateway until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
/// Why it could not start.
#[allow(clippy::needless_pass_by_value)] // called once, with a path made for it
pub fn run(path: PathBuf) -> Result<(), RunError> {
    raise_files();
    let (config, notes) =
        config::load(&path, Secrets::Resolve).map_err(|e| RunError::new(78, e))?;
    let metrics = Arc::new(Metrics::default());
    let log = telemetry::init(&config.log, &metrics).map_err(|e| RunError::new(78, e))?;
    log_notes(&notes);
    let no_threads = |e| RunError::system(format!("no runtime: {e}"));
    let inwards = threads("listener").map_err(no_threads)?;
    let outwards = threads("delivery").map_err(no_threads)?;
    // Until the last delivery has ended nobody else may begin with what it holds.
    let lock = lock::take(&config.data_dir)?;
    // What the one before left there is not true any more.
    if let Err(error) = health::write(&config.data_dir, Readiness::default()) {
        warn!(event = "health not written", error = %error, "health not written");
    }
    let pulse = Pulse::of(&[inwards.handle().clone(), outwards.handle().clone()]);
    let serving = serve(Arc::new(config), outwards.handle().clone(), metrics, pulse);
    let result = inwards.block_on(Box::pin(serving));
    // A blocked disk must not keep the process.
    outwards.shutdown_timeout(Duration::from_secs(2));
    inwards.shutdown_timeout(Duration::from_secs(2));
    drop((lock, log));
    result
}

fn log_notes(notes: &[Diagnostic]) {
    for note in notes {
        if note.severity == Severity::Note {
            info!(event = "configuration", "{note}");
        } else {
            warn!(event = "configuration", "{note}");
        }
    }
}

/// What runs.
struct Gateway {
    config: Arc<Config>,
    connectors: Vec<BuiltConnector>,
    files: Files,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    listeners: Listeners,
    delivery: Delivery,
    /// This gateway among those that share the queue.
    member: Option<Arc<Member>>,
    window: WindowSide,
    instruments: Arc<Instruments>,
    /// Those in force, for who looks after credentials.
    told: watch::Sender<Arc<Config>>,
    /// Who keeps the health file, credentials, and what is said of the other gateways; dropped, nobody does.
    _health: JoinSet<()>,
    started: SystemTime,
    /// What became of the last reload.
    reload: Option<Reload>,
}

async fn serve(
    config: Arc<Config>,
    outwards: Handle,
    metrics: Arc<Metrics>,
    pulse: Arc<Pulse>,
) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(|e| RunError::system(format!("signals: {e}")))?;
    let store = cluster::open(&config).await?;
    let member = cluster::join(&config, &store).await?;
    let queue = Arc::new(match &member {
        Some(member) => {
            let queue = Queue::new(Arc::clone(&store));
            queue.becomes(member.node().unwrap_or_default());
            queue
        }
        None => Queue::start(Arc::clone(&store)).await?,
    });
    let connectors = connectors(&config, &[], &store)?;
    let shared = Shared::new(
        Arc::clone(&queue),
        rules(&config),
        config.limits,
        Authenticator::default(),
    );
    quotas::recall(store.as_ref(), &shared).await;
    let window = window::open(&config).await;
    // Everything is bound before anything is accepted: `commit` comes when delivery is ready to take it.
    let listeners = Listeners::new(Arc::clone(&shared))
        .map_err(|e| RunError::system(format!("sockets from systemd: {e}")))?;
    let prepared = listeners.prepare(&config.listeners)?;
    let prepared_window = window::prepare(config.window.as_ref())?;
    let bound = window::bind(config.window.as_ref(), &listeners)?;
    let delivery = {
        let _within = outwards.enter();
        let setup = setup(&config, &connectors);
        match &member {
            Some(member) => Delivery::start_among(Arc::clone(member), Arc::clone(&queue), setup),
            None => Delivery::start(Arc::clone(&queue), setup),
        }
    };
    let observer = delivery.observer();
    let instruments = Instruments::new(
        metrics,
        Arc::clone(&queue),
        Arc::clone(&shared),
        observer,
        pulse,
    );
    let instruments = Arc::new(instruments);
    let mut health = JoinSet::new();
    health.spawn(health::keep(
        Arc::clone(&instruments),
        config.data_dir.clone(),
    ));
    health.spawn(quotas::keep(Arc::clone(&store), Arc::clone(&shared)));
    match &member {
        Some(member) => {
            let (member, store) = (Arc::clone(member), Arc::clone(&store));
            health.spawn(company::keep(member, store, config.data_dir.clone()));
        }
        None => company::remove(&config.data_dir),
    }
    let (told, heard) = watch::channel(Arc::clone(&config));
    health.spawn(credentials::keep(
        heard,
        Arc::clone(&store),
        Arc::clone(&instruments),
    ));
    let window = WindowSide::start(
        &config,
        (&queue, &shared),
        &instruments,
        window,
        prepared_window,
        bound,
    );
    let mut gateway = Gateway {
        window,
        files: Files::of(&config.files),
        connectors,
        config,
        store,
        shared,
        listeners,
        delivery,
        member,
        instruments,
        told,
        _health: health,
        started: SystemTime::now(),
        reload: None,
    };
    // A client that is greeted finds this gateway in `status`.
    gateway.write_status_row(&prepared.standing()).await;
    gateway.listeners.commit(prepared);
    gateway.listeners.warn_of_expiry();
    let standing = gateway.listeners.standing();
    gateway.instruments.took(&gateway.config, &standing);
    info!(event = "ready", version = env!("CARGO_PKG_VERSION"), config = %gateway.config.path.display(), "ready");
    systemd::ready(&gateway.status());
    let end = gateway.wait(&mut signals).await;
    gateway.stop(&mut signals).await;
    end
}

impl Gateway {
    /// Until it is told to stop.
    async fn wait(&mut self, signals: &mut Signals) -> Result<(), RunError> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut daily = interval(Duration::from_hours(24));
        daily.reset();
        let watched = systemd::watchdog_interval();
        let mut watchdog = interval(watched.unwrap_or(Duration::from_hours(1)));
        loop {
            tokio::select! {
                _ = signals.term.recv() => return Ok(()),
                _ = signals.int.recv() => return Ok(()),
                () = self.delivery.replaced() => {
                    return Err(RunError::new(75, "another gateway runs on a copy of this data_dir"));
                }
                Some(()) = signals.hup.recv() => {
                    let _ = self.reload(ReloadCause::Asked).await;
                }
                Some(answer) = self.window.reloads.recv() => {
                    let result = self.reload(ReloadCause::Asked).await;
                    // Whoever asked may have gone.
                    let _ = answer.send(result);
                }
                Some(()) = self.window.told.recv() => {
                    self.write_status_row(&self.listeners.standing()).await;
                }
                _ = look.tick() => {
                    let changed = tokio::task::block_in_place(|| Files::of(&self.config.files) != self.files);
                    if changed {
                        info!(event = "file changed", "a secret, certificate or key has changed; taking the new one");
                        let _ = self.reload(ReloadCause::Files).await;
                    }
                }
                _ = daily.tick() => {
                    self.listeners.warn_of_expiry();
                    tokio::task::block_in_place(|| ends::log(&self.instruments.ends.of(&self.config.connectors)));
                }
                () = self.instruments.ends.changed.notified() => {
                    tokio::task::block_in_place(|| self.instruments.look_at_ends(&self.config));
                    self.write_status_row(&self.listeners.standing()).await;
                }
                _ = watchdog.tick() => if watched.is_some() { systemd::watchdog() },
            }
        }
    }

    /// All or nothing.
    async fn reload(&mut self, cause: ReloadCause) -> Result<(), String> {
        systemd::reloading();
        let at = time::logged(SystemTime::now());
        let result = tokio::task::block_in_place(|| self.try_reload(cause));
        match &result {
            Ok(()) => {
                info!(event = "reloaded", config = %self.config.path.display(), "reloaded");
            }
            Err(error) => {
                self.instruments.kept();
                error!(event = "not reloaded", error = %error, "not reloaded; the old settings stay");
            }
        }
        // A reload that a person asked for and that failed stays in `status`, though a changed file was taken since.
        let result = result.map_err(|error| error.text);
        let is_news = cause == ReloadCause::Asked
            || result.is_err()
            || self
                .reload
                .as_ref()
                .is_none_or(|last| last.cause == ReloadCause::Files);
        if is_news {
            let error = result.clone().err();
            self.reload = Some(Reload { at, cause, error });
        }
        self.write_status_row(&self.listeners.standing()).await;
        systemd::ready(&self.status());
        result
    }

    fn try_reload(&mut self, cause: ReloadCause) -> Result<(), RunError> {
        // Looked at before they are read: what changes in between is seen at the next look.
        let files = Files::of(&self.config.files);
        let loaded = match cause {
            ReloadCause::Asked => config::load(&self.config.path, Secrets::Resolve),
            ReloadCause::Files => {
                // Once for each change, whatever becomes of it.
                self.files = files.clone();
                config::again(&self.config)
            }
        };
        let (mut config, notes) = loaded.map_err(|e| RunError::new(78, e))?;
        let connectors = connectors(&config, &self.connectors, &self.store)?;
        let prepared = self.listeners.prepare(&config.listeners)?;
        let prepared_window = window::prepare(config.window.as_ref())?;
        // From here on nothing fails.
        if cause == ReloadCause::Asked {
            log_notes(&notes);
        }
        if config.data_dir != self.config.data_dir {
            warn!(
                event = "restart needed",
                key = "data_dir",
                "data_dir has changed; that needs a restart, the old one stays"
            );
            config.data_dir.clone_from(&self.config.data_dir);
            config
                .queue
                .data_dir
                .clone_from(&self.config.queue.data_dir);
        }
        if config.log != self.config.log {
            warn!(
                event = "restart needed",
                key = "log",
                "[log] has changed; that needs a restart"
            );
            config.log.clone_from(&self.config.log);
        }
        let place = self.config.store.with_keys_of(&config.store);
        if config.store != place {
            warn!(
                event = "restart needed",
                key = "store",
                "where the queue is has changed; that needs a restart, the old place stays"
            );
            config.store = place;
        }
        if let (Some(member), Some(settings)) = (&self.member, cluster::settings(&config)) {
            member.set(settings);
        }
        self.shared.swap(rules(&config), config.limits);
        let is_same = |(one, other): (&BuiltConnector, &BuiltConnector)| {
            Arc::ptr_eq(&one.connector, &other.connector)
        };
        let all_same = connectors.len() == self.connectors.len()
            && connectors.iter().zip(&self.connectors).all(is_same);
        // A listener's new certificate does not concern delivery.
        if cause == ReloadCause::Asked || !all_same {
            self.delivery.reload(setup(&config, &connectors));
        }
        self.listeners.commit(prepared);
        self.listeners.warn_of_expiry();
        if config.files == self.config.files {
            self.files = files;
        } else {
            self.files = Files::of(&config.files);
        }
        self.connectors = connectors;
        self.config = Arc::new(config);
        self.told.send_replace(Arc::clone(&self.config));
        self.window.configure(&self.config, prepared_window);
        let standing = self.listeners.standing();
        self.instruments.took(&self.config, &standing);
        Ok(())
    }

    fn status(&self) -> String {
        let listeners = self.listeners.standing();
        let at: Vec<String> = listeners
            .iter()
            .flat_map(|l| l.addresses.iter().map(ToString::to_string))
            .collect();
        format!("listening on {}", at.join(", "))
    }

    /// Writes down what `postern status` and `postern reload` want to know.
    async fn write_status_row(&self, standing: &[ListenerStatus]) {
        let row = status_row::of(
            &self.config,
            self.started,
            standing,
            &self.instruments.ends,
            self.reload.clone(),
            self.shared.learning.view(),
        );
        if let Err(error) = self.store.set_note(STATUS_ROW, row.written()).await {
            warn!(event = "status not written", error = %error, "status not written");
        }
    }

    /// Drains; a second signal ends it at once.
    async fn stop(self, signals: &mut Signals) {
        systemd::stopping();
        self.instruments.drain();
        info!(
            event = "stopping",
            connections = self.shared.open_connections(),
            "stopping"
        );
        let Self {
            mut listeners,
            delivery,
            window,
            store,
            shared,
            ..
        } = self;
        let drain = async {
            let (cut, ()) = tokio::join!(listeners.drain(GRACE), delivery.drain(GRACE));
            cut
        };
        tokio::select! {
            cut = drain => {
                quotas::write(store.as_ref(), &shared).await;
                window.finish().await;
                info!(event = "stopped", cut, "stopped");
            }
            () = signals.stop() => warn!(event = "stopped", "stopped at once, by a second signal"),
        }
    }
}
