//! SENDING: claim, pass the gate, deliver, settle.
//!
//! The loop looks what is due, claims what the lanes have permits for, and starts a task for each job (`attempt`). What
//! follows from a report is decided in `plan`, whether a lane takes jobs in `gate`. Delivery decides neither who may send
//! nor which route is taken, and it is the only caller of connectors.

use std::{fmt, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use self::{
    attempt::Task, clock::Clock, lanes::gate, member::Member, observer::Observer, round::Round,
    setup::Built, shared::DeliveryContext, timekeeper::MachineClock,
};
use crate::{
    queue::{Placement, Queue, Reservation, Reserve, store::Job},
    route::{LaneId, Routed},
};

mod among;
mod attempt;
pub mod clock;
mod expiry;
pub mod joining;
pub mod lanes;
mod learned;
mod login;
mod look;
mod maintenance;
pub mod member;
pub mod members;
pub mod observer;
pub mod plan;
pub mod reports;
mod round;
mod sender;
mod settlement;
mod setup;
mod shared;
mod sweep;
mod timekeeper;
pub mod upstreams;
mod verdict;

pub use setup::{BounceSettings, Settings, Setup};

/// Delivery at work. Dropped, it stops at once; what was under way stays leased until the next start.
pub struct Delivery {
    shared: Arc<DeliveryContext>,
    /// The loop.
    main: JoinSet<()>,
    /// What goes on beside it until the end: the beats of a gateway among others.
    beside: JoinSet<()>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").finish_non_exhaustive()
    }
}

impl Delivery {
    /// Begins to deliver what the queue holds. To be called within a tokio runtime.
    pub fn start(queue: Arc<Queue>, setup: Setup) -> Self {
        Self::start_by(Arc::new(MachineClock), queue, setup)
    }

    /// The same, among other gateways that share the queue.
    pub fn start_among(member: Arc<Member>, queue: Arc<Queue>, setup: Setup) -> Self {
        Self::start_as(Arc::new(MachineClock), queue, setup, Some(member))
    }

    /// The same by other clocks: those of a test.
    #[doc(hidden)]
    pub fn start_by(clock: Arc<dyn Clock>, queue: Arc<Queue>, setup: Setup) -> Self {
        Self::start_as(clock, queue, setup, None)
    }

    /// The same by other clocks, among others.
    #[doc(hidden)]
    pub fn start_as(
        clock: Arc<dyn Clock>,
        queue: Arc<Queue>,
        setup: Setup,
        member: Option<Arc<Member>>,
    ) -> Self {
        let built = Built::new(setup);
        let shared = Arc::new(DeliveryContext::new(queue, built, clock, member.clone()));
        let (mut main, mut beside) = (JoinSet::new(), JoinSet::new());
        if let Some(member) = member {
            beside.spawn(among::run(Arc::clone(&shared), member));
        }
        let round = Round::new(Arc::clone(&shared), reserve_for_queue(&shared));
        main.spawn(round.run());
        Self {
            shared,
            main,
            beside,
        }
    }

    /// For whoever shows what the connectors are doing.
    pub fn observer(&self) -> Observer {
        Observer::of(&self.shared)
    }

    /// Returns when another gateway runs on a copy of this one's directory, if ever: this one has to end.
    pub async fn replaced(&self) {
        let mut replaced = self.shared.is_replaced.subscribe();
        if replaced.wait_for(|is_replaced| *is_replaced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// New routes, connectors and settings. Jobs under way finish with what they began; a lane of the same name keeps its
    /// state, and a paused one is tried at once.
    pub fn reload(&self, setup: Setup) {
        self.shared.rebuild(Built::new(setup));
        self.shared.queue.wake();
    }

    /// Claims nothing more and waits for what is under way, at most for `grace`. What is not finished then stays leased, and
    /// is released by the next start.
    pub async fn drain(mut self, grace: Duration) {
        self.shared.queue.set_reserve(None);
        self.shared.stop();
        self.shared.lanes.wake_all();
        for (_, connector) in self.shared.built().connectors.values() {
            connector.stop();
        }
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
            // Whoever counts on this gateway's silence must not hear that it has ended well.
            return;
        }
        self.beside.shutdown().await;
        among::leave(&self.shared).await;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.shared.queue.set_reserve(None);
        self.shared.stop();
        drop(self.shared.take_tasks());
    }
}

/// How the only job of a message begins.
fn place(shared: &Arc<DeliveryContext>, mail: &Routed) -> Placement {
    match reserve(shared, mail) {
        Some(reserved) => Placement::Now(reserved),
        None => waits_in(shared, mail).map_or(Placement::Anywhere, Placement::In),
    }
}

/// The lane of the mailbox that it goes by, where another gateway may have that: so nobody else claims it in vain.
fn waits_in(shared: &Arc<DeliveryContext>, mail: &Routed) -> Option<LaneId> {
    shared.lanes.member()?;
    let [(name, _)] = mail.jobs.as_slice() else {
        return None;
    };
    let built = shared.built();
    let first = built.routes.get(name)?.connectors.first()?;
    if !shared.lanes.has_mailboxes(first) {
        return None;
    }
    let (_, connector) = built.connectors.get(first)?;
    let lane = sender::lane_of(connector.as_ref(), &mail.message).of_mailbox();
    shared.lanes.unheld(first, Some(&lane)).map(|_| lane)
}

/// Whether the only job of a message can start right now; if so, it holds its permits.
fn reserve(shared: &Arc<DeliveryContext>, mail: &Routed) -> Option<Reservation> {
    let [(name, _)] = mail.jobs.as_slice() else {
        return None;
    };
    if shared.is_stopping()
        || !shared.is_healthy()
        || shared.backlog().contains(&(name.clone(), None))
    {
        return None;
    }
    let built = shared.built();
    let route = Arc::clone(built.routes.get(name)?);
    let candidates = route.connectors.clone();
    let start = candidates
        .iter()
        .position(|c| shared.lanes.ready(c, None) != gate::Ready::Shut)?;
    let first = candidates.get(start)?.clone();
    let mailbox = if shared.lanes.has_mailboxes(&first) {
        let (_, connector) = built.connectors.get(&first)?;
        Some(sender::lane_of(connector.as_ref(), &mail.message))
    } else {
        None
    };
    if let Some(lane) = &mailbox {
        let backlog = shared.backlog();
        let waits = |lane: &LaneId| backlog.contains(&(name.clone(), Some(lane.clone())));
        if waits(lane) || lane.from.is_some() && waits(&lane.of_mailbox()) {
            return None;
        }
    }
    let permits = shared.lanes.take(&first, mailbox.as_ref())?;
    let begun = shared.clock.moment();
    let shared = Arc::clone(shared);
    let hand_over = Box::new(move |job: Job| {
        let task = Task {
            shared: Arc::clone(&shared),
            built,
            route,
            candidates,
            start,
            permits,
            job,
            begun,
        };
        shared.spawn(attempt::run(task));
    });
    Some(Reservation {
        connector: first,
        hand_over,
    })
}

/// The closure that the queue asks.
fn reserve_for_queue(shared: &Arc<DeliveryContext>) -> Arc<Reserve> {
    // Weak: the queue must not keep alive what holds the queue.
    let shared = Arc::downgrade(shared);
    Arc::new(move |mail: &Routed| {
        let shared = shared.upgrade();
        shared.map_or(Placement::Anywhere, |shared| place(&shared, mail))
    })
}
