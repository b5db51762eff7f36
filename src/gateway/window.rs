//! The window beside the mail: opened with the gateway, told when the settings change. Mail never waits for it, and goes on without it.

use std::{path::PathBuf, sync::Arc};

use rustls::ServerConfig;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::{
    RunError, changes,
    desk::Desk,
    host::{AskedReload, GatewayHost},
    instruments::Instruments,
    watcher::{Watched, Watcher},
};
use crate::{
    admin::{
        self, App, Bound, Feed,
        settings::{WindowPlace, WindowSettings},
    },
    config::Config,
    listener::{Listeners, Shared, acceptor},
    queue::Queue,
    telemetry::metrics::Metrics,
    window::{WindowDb, proposals::CutOff},
};

/// What is kept of it while the gateway runs.
#[derive(Debug)]
pub(super) struct WindowSide {
    host: Arc<GatewayHost>,
    window: Option<Arc<WindowDb>>,
    app: Option<Arc<App>>,
    /// What is done for commands, and for the devices; dropped, it is not.
    desk: Option<Desk>,
    /// What `status` shows has changed.
    pub(super) told: mpsc::Receiver<()>,
    /// Dropped, it looks no more.
    watcher: Option<Watcher>,
    /// Reloads that the page asks for.
    pub(super) reloads: mpsc::Receiver<AskedReload>,
}

/// What of the settings can fail, done before anything changes.
#[derive(Debug)]
pub(super) struct PreparedWindow(Option<Arc<ServerConfig>>);

/// Loads the certificate.
///
/// # Errors
/// It cannot be used.
pub(super) fn prepare(settings: Option<&WindowSettings>) -> Result<PreparedWindow, RunError> {
    let pair = settings.and_then(|settings| settings.certificate.as_ref());
    let load = |(chain, key): &(PathBuf, PathBuf)| {
        let loaded =
            acceptor::load(chain, key).map_err(|e| RunError::new(78, format!("[admin]: {e}")))?;
        Ok(loaded.config)
    };
    pair.map(load).transpose().map(PreparedWindow)
}

/// Binds it, where it is to be.
///
/// # Errors
/// The address is taken, or is none of ours.
pub(super) fn bind(
    settings: Option<&WindowSettings>,
    listeners: &Listeners,
) -> Result<Option<Bound>, RunError> {
    let Some(settings) = settings else {
        return Ok(None);
    };
    let inherited = match &settings.place {
        WindowPlace::Inherited(name) => listeners.inherited(name),
        WindowPlace::Tcp(_) | WindowPlace::Unix(_) => Vec::new(),
    };
    let bound = admin::bind(&settings.place, inherited);
    bound
        .map(Some)
        .map_err(|e| RunError::new(71, format!("[admin]: {e}")))
}

/// Opens `window.db`. To be done before anything is bound: whoever connects then finds this gateway in `status` at once.
pub(super) async fn open(config: &Config) -> Option<Arc<WindowDb>> {
    match WindowDb::make(&config.data_dir) {
        Ok(window) => {
            // The file that was read just now is what a gateway that was killed has left.
            changes::settle(&window, &config.path, CutOff::All).await;
            Some(Arc::new(window))
        }
        Err(error) => {
            error!(event = "window failed", error = %error, "window.db cannot be used: there is no page; mail goes on");
            None
        }
    }
}

impl WindowSide {
    /// Opens the window where it is bound. `window`: its file.
    pub(super) fn start(
        config: &Arc<Config>,
        (queue, shared): (&Arc<Queue>, &Arc<Shared>),
        instruments: &Arc<Instruments>,
        window: Option<Arc<WindowDb>>,
        prepared: PreparedWindow,
        bound: Option<Bound>,
    ) -> Self {
        let (ask, reloads) = mpsc::channel(8);
        let (tell, told) = mpsc::channel(1);
        let host = GatewayHost::new(
            Arc::clone(queue),
            Arc::clone(instruments),
            Arc::clone(shared),
            Arc::clone(config),
            window.clone(),
            ask,
        );
        let mut side = Self {
            host: Arc::new(host),
            window,
            app: None,
            desk: None,
            told,
            watcher: None,
            reloads,
        };
        if let Some(window) = &side.window {
            side.desk = Some(Desk::start(window, shared, instruments, tell));
        }
        let feed = Arc::new(Feed::default());
        if let (Some(bound), Some(window), Some(settings)) = (bound, &side.window, &config.window) {
            let host = Arc::clone(&side.host);
            let app = App::new(
                settings.clone(),
                prepared.0,
                host,
                Arc::clone(window),
                Arc::clone(&feed),
            );
            match admin::serve(Arc::clone(&app), bound) {
                Ok(()) => side.app = Some(app),
                Err(error) => {
                    error!(event = "window failed", error = %error, "there is no thread for the window; mail goes on");
                }
            }
        }
        side.watch(feed, instruments.metrics());
        side
    }

    /// Writes down who was seen since that was done last.
    pub(super) async fn finish(self) {
        if let Some(desk) = self.desk {
            desk.finish().await;
        }
    }

    fn watch(&mut self, feed: Arc<Feed>, metrics: &Arc<Metrics>) {
        let Some(window) = &self.window else {
            return;
        };
        let watched = Watched {
            host: Arc::clone(&self.host),
            window: Arc::clone(window),
            feed,
            metrics: Arc::clone(metrics),
            app: self.app.clone(),
        };
        match Watcher::start(watched) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                error!(event = "watcher failed", error = %error, "there is no thread to look for incidents; mail goes on");
            }
        }
    }

    /// From now on these are in force.
    pub(super) fn configure(&self, config: &Arc<Config>, prepared: PreparedWindow) {
        self.host.configure(Arc::clone(config));
        let is_in_its_place = match (&self.app, &config.window) {
            (Some(app), Some(settings)) => app.configure(settings.clone(), prepared.0),
            (Some(app), None) => {
                app.shut();
                false
            }
            (None, settings) => settings.is_none(),
        };
        if !is_in_its_place {
            warn!(
                event = "restart needed",
                key = "admin.address",
                "where the window listens has changed; that needs a restart"
            );
        }
    }
}
