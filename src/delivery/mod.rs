//! SENDING: claim, pass the gate, deliver, settle.
//!
//! The loop looks what is due, claims what the lanes have permits for, and starts a task for each job (`attempt`). What
//! follows from a report is decided in `plan`, whether a lane takes jobs in `gate`. Delivery decides neither who may send
//! nor which route is taken, and it is the only caller of connectors.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use self::{attempt::Task, lanes::Lanes, round::Round};
use crate::{
    connector::{self, Connector},
    mail::address::Address,
    policy::Policy,
    queue::{Queue, Reserve, Ticket, store::Job},
    route::{ConnectorName, LaneId, Route, RouteName, Routed, Router},
};

mod attempt;
pub mod bounce;
pub mod clock;
pub mod gate;
mod lanes;
pub mod plan;
mod reports;
mod reroute;
mod round;
mod rows;
mod sender;
mod strangers;
mod table;
mod upkeep;
mod verdict;

/// Deliveries that may be done and not written down yet while others take their place: so many more could be sent twice after a
/// crash at that moment.
const UNWRITTEN: usize = 64;

/// What delivery needs of the configuration besides router and connectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Before a message whose outcome is unknown is sent again.
    pub in_doubt_wait: Duration,
    /// `[bounce]`.
    pub bounce: BounceSettings,
}

/// `[bounce]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BounceSettings {
    /// Whether the sender gets one.
    pub to_sender: bool,
    /// The visible From, and the sender where the connector asks for one.
    pub from: Address,
    /// It was written down; otherwise a report is from the mailbox of its route's first connector that has one.
    pub is_from_given: bool,
    /// The administrators.
    pub copy_to: Vec<Address>,
    /// Reporting-MTA.
    pub hostname: String,
}

/// All that delivery works with; replaced as a whole by a reload.
#[derive(Debug)]
pub struct Setup {
    /// The routes, resolved by name at each attempt.
    pub router: Router,
    /// The lists that say whether a report may leave to a sender.
    pub policy: Policy,
    /// The connectors they name.
    pub connectors: Vec<(connector::Settings, Arc<dyn Connector>)>,
    /// In-doubt wait and bounces.
    pub settings: Settings,
    /// How long a message with a failed recipient is kept.
    pub keep_failed: Duration,
    /// How long it is remembered who, when, what became of it.
    pub keep_history: Duration,
}

/// Delivery at work. Dropped, it stops at once; what was under way stays leased until the next start.
pub struct Delivery {
    shared: Arc<Shared>,
    /// The loop.
    main: JoinSet<()>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").finish_non_exhaustive()
    }
}

impl Delivery {
    /// Begins to deliver what the queue holds. To be called within a tokio runtime.
    pub fn start(queue: Arc<Queue>, setup: Setup) -> Self {
        let built = Arc::new(Built::new(setup));
        let lanes = Arc::new(Lanes::default());
        lanes.configure(built.connectors.values().map(|(settings, _)| settings));
        let shared = Arc::new(Shared {
            queue,
            lanes,
            built: RwLock::new(built),
            tasks: Mutex::new(Some(JoinSet::new())),
            runtime: Handle::current(),
            backlog: Mutex::new(HashSet::new()),
            unwritten: Semaphore::new(UNWRITTEN),
            troubled: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
        });
        let mut main = JoinSet::new();
        main.spawn(Round::new(Arc::clone(&shared)).run());
        Self { shared, main }
    }

    /// New routes, connectors and settings. Jobs under way finish with what they began; a lane of the same name keeps its
    /// state, and a paused one is tried at once.
    pub fn reload(&self, setup: Setup) {
        let built = Arc::new(Built::new(setup));
        *self
            .shared
            .built
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&built);
        self.shared
            .lanes
            .configure(built.connectors.values().map(|(settings, _)| settings));
        self.shared.queue.wake();
    }

    /// Claims nothing more and waits for what is under way, at most for `grace`. What is not finished then stays leased, and
    /// is released by the next start.
    pub async fn drain(mut self, grace: Duration) {
        self.shared.queue.set_reserve(None);
        self.shared.stop.send_replace(true);
        self.shared.lanes.stir();
        let tasks = self.shared.take_tasks();
        let all = async {
            while self.main.join_next().await.is_some() {}
            if let Some(mut tasks) = tasks {
                while tasks.join_next().await.is_some() {}
            }
        };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(
                "some deliveries were cut off; they are tried again after the next start"
            );
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.shared.queue.set_reserve(None);
        self.shared.stop.send_replace(true);
        drop(self.shared.take_tasks());
    }
}

/// A setup, by name.
#[derive(Debug)]
struct Built {
    router: Router,
    policy: Policy,
    routes: HashMap<RouteName, Arc<Route>>,
    connectors: HashMap<ConnectorName, (connector::Settings, Arc<dyn Connector>)>,
    /// Of the connectors that have one.
    mailboxes: HashMap<ConnectorName, Address>,
    settings: Settings,
    keep_failed: Duration,
    keep_history: Duration,
}

impl Built {
    fn new(setup: Setup) -> Self {
        Self {
            mailboxes: setup
                .connectors
                .iter()
                .filter_map(|(settings, _)| Some((settings.name.clone(), settings.kind.mailbox()?)))
                .collect(),
            routes: setup
                .router
                .routes
                .iter()
                .map(|route| (route.name.clone(), Arc::new(route.clone())))
                .collect(),
            router: setup.router,
            policy: setup.policy,
            connectors: setup
                .connectors
                .into_iter()
                .map(|(settings, connector)| (settings.name.clone(), (settings, connector)))
                .collect(),
            settings: setup.settings,
            keep_failed: setup.keep_failed,
            keep_history: setup.keep_history,
        }
    }

    /// The longest step of `retry`, drawn at its longest.
    fn longest_step(&self) -> Duration {
        let steps = self.router.routes.iter().flat_map(|route| &route.retry);
        steps
            .max()
            .map_or(gate::PAUSE_PROBE, |step| step.saturating_add(*step / 5))
    }

    /// Nothing waits longer than this before it is looked at again.
    fn longest_wait(&self) -> Duration {
        self.longest_step()
            .max(self.settings.in_doubt_wait)
            .max(gate::LONGEST_WAIT)
    }

    /// The connectors of a job in their order: of a pinned one that alone, if there still is such a connector.
    fn candidates(&self, route: &Route, pinned: Option<&ConnectorName>) -> Vec<ConnectorName> {
        match pinned {
            Some(pin) if self.connectors.contains_key(pin) => vec![pin.clone()],
            _ => route.connectors.clone(),
        }
    }
}

/// Of each route, whether mail that waits for no lane is due, and for which lanes other mail is.
type Backlog = HashSet<(RouteName, Option<LaneId>)>;

/// What the loop, the jobs and the fast path share.
struct Shared {
    queue: Arc<Queue>,
    lanes: Arc<Lanes>,
    built: RwLock<Arc<Built>>,
    /// The jobs under way; `None` from the drain on.
    tasks: Mutex<Option<JoinSet<()>>>,
    runtime: Handle,
    /// Routes, and lanes among their mail, with due work in the store: new mail queues up behind it.
    backlog: Mutex<Backlog>,
    /// For what was delivered and is not written down yet, beyond the permits of the lanes.
    unwritten: Semaphore,
    /// Settlements that the store has not taken yet.
    troubled: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl Shared {
    fn built(&self) -> Arc<Built> {
        Arc::clone(&self.built.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_tasks(&self) -> Option<JoinSet<()>> {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Starts a job. In the drain it is not started and stays leased.
    fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = tasks.as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(job, &self.runtime);
        }
    }

    /// Whether what is sent can be written down as sent.
    fn is_healthy(&self) -> bool {
        self.troubled.load(Ordering::Acquire) == 0 && self.queue.is_healthy()
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        // It fails when the sender is gone, and then it is over as well.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the only job of a message can start right now; if so, its place is kept.
    fn reserve(self: &Arc<Self>, mail: &Routed) -> Option<Ticket> {
        let [(name, _)] = mail.jobs.as_slice() else {
            return None;
        };
        if self.is_stopping()
            || !self.is_healthy()
            || self.backlog().contains(&(name.clone(), None))
        {
            return None;
        }
        let built = self.built();
        let route = Arc::clone(built.routes.get(name)?);
        let candidates = route.connectors.clone();
        let start = candidates
            .iter()
            .position(|c| self.lanes.ready(c, None) != gate::Ready::Shut)?;
        let first = candidates.get(start)?.clone();
        let mailbox = if self.lanes.has_mailboxes(&first) {
            let (_, connector) = built.connectors.get(&first)?;
            Some(sender::lane_of(connector.as_ref(), &mail.message))
        } else {
            None
        };
        if let Some(lane) = &mailbox {
            let backlog = self.backlog();
            let waits = |lane: &LaneId| backlog.contains(&(name.clone(), Some(lane.clone())));
            if waits(lane) || lane.from.is_some() && waits(&lane.of_mailbox()) {
                return None;
            }
        }
        let pass = self.lanes.take(&first, mailbox.as_ref())?;
        let shared = Arc::clone(self);
        let hand_over = Box::new(move |job: Job| {
            let task = Task {
                shared: Arc::clone(&shared),
                built,
                route,
                candidates,
                start,
                pass,
                job,
            };
            shared.spawn(attempt::run(task));
        });
        Some(Ticket {
            connector: first,
            hand_over,
        })
    }

    /// The closure that the queue asks.
    fn reserve_for_queue(self: &Arc<Self>) -> Arc<Reserve> {
        // Weak: the queue must not keep alive what holds the queue.
        let shared = Arc::downgrade(self);
        Arc::new(move |mail: &Routed| shared.upgrade().and_then(|shared| shared.reserve(mail)))
    }
}
