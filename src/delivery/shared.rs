//! What the loop, the jobs and the fast path share: the queue, the lanes, what is built and what is under way.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{clock::Clock, lanes::Lanes, member::Member, setup::Built, upstreams};
use crate::{
    queue::Queue,
    route::{ConnectorName, LaneId, RouteName},
};

/// Deliveries that may be done and not written down yet while others take their place: so many more could be sent twice after a
/// crash at that moment.
const UNWRITTEN: usize = 64;

/// Of each route, whether mail that waits for no lane is due, and for which lanes other mail is.
pub(super) type Backlog = HashSet<(RouteName, Option<LaneId>)>;

/// Connections that the upstream of a connector was found to take.
pub(super) type LearnedLimits = HashMap<ConnectorName, usize>;

/// What the loop, the jobs and the fast path share.
pub(super) struct DeliveryContext {
    pub(super) queue: Arc<Queue>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) lanes: Arc<Lanes>,
    built: RwLock<Arc<Built>>,
    /// The jobs under way; `None` from the drain on.
    tasks: Mutex<Option<JoinSet<()>>>,
    runtime: Handle,
    /// Routes, and lanes among their mail, with due work in the store: new mail queues up behind it.
    backlog: Mutex<Backlog>,
    /// For what was delivered and is not written down yet, beyond the permits of the lanes.
    pub(super) unwritten: Semaphore,
    /// Settlements that the store has not taken yet.
    pub(super) troubled: AtomicUsize,
    stop: watch::Sender<bool>,
    /// What is leased from the queue's database may not go on.
    pub(super) is_over: watch::Sender<bool>,
    /// What the other gateways have found upstreams to take.
    learned: Mutex<LearnedLimits>,
    /// Another gateway runs on a copy of this one's directory.
    pub(super) is_replaced: watch::Sender<bool>,
}

impl DeliveryContext {
    /// To be called within a tokio runtime.
    pub(super) fn new(
        queue: Arc<Queue>,
        built: Built,
        clock: Arc<dyn Clock>,
        member: Option<Arc<Member>>,
    ) -> Self {
        let lanes = Arc::new(Lanes::new(Arc::clone(&clock), member));
        lanes.becomes(queue.node());
        lanes.configure(&built);
        Self {
            queue,
            clock,
            lanes,
            built: RwLock::new(Arc::new(built)),
            tasks: Mutex::new(Some(JoinSet::new())),
            runtime: Handle::current(),
            backlog: Mutex::new(HashSet::new()),
            unwritten: Semaphore::new(UNWRITTEN),
            troubled: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
            is_over: watch::Sender::new(false),
            learned: Mutex::default(),
            is_replaced: watch::Sender::new(false),
        }
    }

    /// Jobs that start from now on go by this; a lane of the same name keeps its state.
    pub(super) fn rebuild(&self, built: Built) {
        upstreams::hand_over(&self.built(), &built, self.clock.wall());
        let built = Arc::new(built);
        *self.built.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&built);
        self.lanes.configure(&built);
    }

    pub(super) fn built(&self) -> Arc<Built> {
        Arc::clone(&self.built.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take_tasks(&self) -> Option<JoinSet<()>> {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Starts a job. In the drain it is not started and stays leased.
    pub(super) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = tasks.as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(job, &self.runtime);
        }
    }

    /// Whether what is sent can be written down as sent.
    pub(super) fn is_healthy(&self) -> bool {
        self.troubled.load(Ordering::Acquire) == 0 && self.queue.is_healthy()
    }

    /// Claims and starts nothing more.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub(super) async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        // It fails when the sender is gone, and then it is over as well.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    pub(super) fn learned(&self) -> MutexGuard<'_, LearnedLimits> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
