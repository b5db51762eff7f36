//! Watches what may need somebody, and has it told: on a thread of its own that yields to the mail, which never waits for it.
//!
//! Every two seconds it looks (`sight`), judges (`conditions`, then `incident::book`) and writes; what is due is told by a task for
//! each channel (`post` has the mail).

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use self::{
    conditions::conditions,
    post::{AlarmPost, teller},
    sight::Eyes,
};
use super::{changes, host::GatewayHost};
use crate::{
    admin::{App, Feed, host::Host as _},
    config::Config,
    delivery::clock::Moment,
    incident::{
        book::Book,
        channels::{AlarmMessage, Teller},
        outbox::{self, Looked},
        settings::{Channel, ChannelWay},
        shown,
    },
    mail::text::logged,
    telemetry::metrics::Metrics,
    view::IncidentView,
    window::{WindowDb, incidents, proposals::CutOff},
};

mod conditions;
pub mod post;
mod sight;
mod tidy;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Mail goes first.
const NICE: i32 = 10;
/// Between a death and the next start.
const AGAIN: Duration = Duration::from_secs(5);
/// Looks between two times at which old rows are deleted.
const TIDY: u64 = 1_800;
/// Looks between two times at which it is asked what became of changes whose writing was cut off.
const SETTLE: u64 = 15;

/// What it looks at, and with.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) host: Arc<GatewayHost>,
    pub(super) window: Arc<WindowDb>,
    pub(super) feed: Arc<Feed>,
    pub(super) metrics: Arc<Metrics>,
    /// The page, where there is one.
    pub(super) app: Option<Arc<App>>,
}

/// Dropped, it looks no more.
#[derive(Debug)]
pub(super) struct Watcher {
    _stop: watch::Sender<()>,
}

/// Both clocks of the machine.
fn moment() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    Moment {
        wall: SystemTime::now(),
        boot: Duration::new(
            time.tv_sec.unsigned_abs(),
            time.tv_nsec.unsigned_abs() as u32,
        ),
    }
}

impl Watcher {
    /// Begins.
    pub(super) fn start(watched: Watched) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        thread::Builder::new().name("watcher".to_owned()).spawn(move || {
            // Of this thread alone, on Linux.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            // A fault in it takes neither mail nor the next look.
            while stopped.has_changed().is_ok() {
                let run = || run(watched.clone(), stopped.clone());
                match std::panic::catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error!(event = "watcher failed", error = %error, "nobody looks for incidents; it is started again"),
                    Err(_) => error!(event = "watcher failed", "a fault in the look for incidents; it is started again"),
                }
                thread::sleep(AGAIN);
            }
        })?;
        Ok(Self { _stop: stop })
    }
}

fn run(watched: Watched, mut stopped: watch::Receiver<()>) -> std::io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()?;
    runtime.block_on(async {
        let mut round = WatchRound::new(watched);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // The other end is gone.
                _ = stopped.changed() => return,
                Some(ended) = round.telling.join_next() => {
                    if let Ok(name) = ended {
                        round.busy.remove(&name);
                    }
                }
                _ = look.tick() => round.look().await,
            }
        }
    });
    runtime.shutdown_background();
    Ok(())
}

/// One look after the other.
struct WatchRound {
    watched: Watched,
    eyes: Eyes,
    book: Book,
    /// The channels that are telling something.
    busy: BTreeSet<String>,
    telling: JoinSet<String>,
    /// When a heart beats next.
    beats: BTreeMap<String, Duration>,
    /// The failures of the page that are known.
    failures: u64,
    /// The highest number that was given; a new file does not begin below.
    highest: i64,
    looks: u64,
    is_troubled: bool,
}

impl WatchRound {
    fn new(watched: Watched) -> Self {
        Self {
            watched,
            eyes: Eyes::new(moment()),
            book: Book::default(),
            busy: BTreeSet::new(),
            telling: JoinSet::new(),
            beats: BTreeMap::new(),
            failures: 0,
            highest: 0,
            looks: 0,
            is_troubled: false,
        }
    }

    async fn look(&mut self) {
        let now = moment();
        let config = self.watched.host.current();
        self.look_at_window(now);
        let noticed = self.watched.metrics.noticed().take();
        self.watched.metrics.day().put_aside(Instant::now());
        let store = self.watched.host.store();
        let listeners = self.watched.host.listeners();
        let of_listeners = (&listeners.devices, &listeners.quotas);
        let eyes = &mut self.eyes;
        let mut sight = eyes.look(&config, &store, of_listeners, noticed, now).await;
        let failing = self.watched.window.read(incidents::failing).await;
        let failing = failing.unwrap_or_default();
        let is_known = |(name, _): &(String, String)| config.incidents.channel(name).is_some();
        sight.failing = failing.into_iter().filter(is_known).collect();
        let seen = conditions(&sight);
        let (book, settings, floor) = (self.book.clone(), config.incidents.clone(), self.highest);
        let names: Vec<String> = settings
            .channels
            .iter()
            .map(|one| one.name.clone())
            .collect();
        let looked = self.watched.window.run(move |tx| {
            incidents::keep_channels(tx, &names)?;
            outbox::look(tx, book, &seen, now, &settings, floor)
        });
        match looked.await {
            Ok(looked) => self.has_looked(looked),
            Err(error) => {
                if !std::mem::replace(&mut self.is_troubled, true) {
                    error!(event = "incidents not written", error = %error, "incidents cannot be written down; it is tried again");
                }
                self.eyes.window_failed("window.db could not be written");
            }
        }
        self.tell(&config, now.wall).await;
        self.beat(&config, now.boot).await;
        self.tidy(&config, now.wall).await;
    }

    fn has_looked(&mut self, looked: Looked) {
        self.is_troubled = false;
        self.book = looked.book;
        self.eyes.written();
        for incident in looked.news {
            self.highest = self.highest.max(shown::number(&incident.id).unwrap_or(0));
            say(&incident);
            let data = serde_json::to_value(&incident).unwrap_or_default();
            self.watched.feed.tell("incident", &incident.id, data);
        }
    }

    fn look_at_window(&mut self, now: Moment) {
        if self.watched.window.was_mended() {
            self.eyes.window_failed(
                "window.db was damaged, and is kept as window.db.bad, or was taken away; a new one is in use",
            );
            // A receiver knows the numbers of the old one.
            let since = now
                .wall
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            self.highest = self.highest.max((since.as_secs() / 60) as i64);
            self.book = Book::default();
        }
        let failures = self.watched.app.as_ref().map_or(0, |app| app.failures());
        if failures > self.failures {
            self.failures = failures;
            self.eyes
                .window_failed("the thread of the page had a fault and was started again");
        }
    }

    /// Begins to tell what is due, in each channel that is not telling yet.
    async fn tell(&mut self, config: &Arc<Config>, now: SystemTime) {
        let due = self
            .watched
            .window
            .read(move |tx| incidents::channels_due(tx, now))
            .await;
        for name in due.unwrap_or_default() {
            let Some(channel) = config.incidents.channel(&name) else {
                continue;
            };
            if !self.busy.insert(name.clone()) {
                continue;
            }
            let (channel, window, teller) = (
                channel.clone(),
                Arc::clone(&self.watched.window),
                self.teller(config),
            );
            self.telling.spawn(async move {
                let told = outbox::tell(&window, &channel, &teller, SystemTime::now).await;
                if let Err(error) = told {
                    warn!(event = "notification not written", channel = %name, error = %error, "what came of a notification could not be written down");
                }
                name
            });
        }
    }

    fn teller(&self, config: &Arc<Config>) -> Teller {
        let store = self.watched.host.store();
        teller(AlarmPost::of(config, &store, &self.watched.metrics))
    }

    /// Lets hearts beat, as long as mail is taken in and nobody is needed at once.
    async fn beat(&mut self, config: &Arc<Config>, now: Duration) {
        let hearts: Vec<(&Channel, Duration)> = config
            .incidents
            .channels
            .iter()
            .filter_map(|channel| match &channel.way {
                ChannelWay::Heartbeat { every, .. } => Some((channel, *every)),
                _ => None,
            })
            .collect();
        if hearts.is_empty() {
            return;
        }
        let open = self.watched.window.read(incidents::open).await;
        let is_well = open.is_ok_and(|open| shown::counts(&open).critical == 0);
        if !is_well || !self.watched.host.ready().ready {
            return;
        }
        for (channel, every) in hearts {
            let next = self.beats.get(&channel.name).copied().unwrap_or_default();
            // A shorter `every` counts from now on.
            let is_due = now >= next || next > now + every;
            if !is_due || !self.busy.insert(channel.name.clone()) {
                continue;
            }
            self.beats.insert(channel.name.clone(), now + every);
            let (channel, teller) = (channel.clone(), self.teller(config));
            self.telling.spawn(async move {
                let message = AlarmMessage::test(&channel.name, SystemTime::now(), 0);
                if let Err(fault) = teller.tell(&channel, &message).await {
                    warn!(event = "heartbeat failed", channel = %channel.name, error = %fault, "a heartbeat was not taken");
                }
                channel.name
            });
        }
    }

    async fn tidy(&mut self, config: &Config, now: SystemTime) {
        if self.looks.is_multiple_of(SETTLE) {
            changes::settle(&self.watched.window, &config.path, CutOff::Gone).await;
        }
        if self.looks.is_multiple_of(TIDY) {
            tidy::tidy(&self.watched.window, &self.watched.host, config, now).await;
        }
        self.looks += 1;
    }
}

/// A line of the log for each that has changed.
fn say(incident: &IncidentView) {
    let IncidentView {
        id,
        kind,
        severity,
        state,
        ..
    } = incident;
    let (object, title) = (logged(&incident.object), logged(&incident.title));
    if severity == "critical" && state == "open" {
        error!(event = "incident", id = %id, kind = %kind, object = %object, severity = %severity, state = %state, "{title}");
    } else if state == "open" {
        warn!(event = "incident", id = %id, kind = %kind, object = %object, severity = %severity, state = %state, "{title}");
    } else {
        info!(event = "incident", id = %id, kind = %kind, object = %object, severity = %severity, state = %state, "{title}");
    }
}
