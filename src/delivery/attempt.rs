//! One job, from the claim to the settlement: through the gates, to the connectors, into the store.
//!
//! Every job has a task of its own, which the loop does not wait for, so that the store can put many settlements into one sync.

use std::{
    future::poll_fn,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    among,
    clock::Moment,
    lanes::{LanePermits, SenderPermits, alarms::Alarm},
    plan::Block,
    sender::lane_of,
    settlement::{Attempted, SETTLE_PAUSE},
    setup::Built,
    shared::DeliveryContext,
};
use crate::{
    connector::{Connector, Deadline, Settings},
    mail::{
        message::Message,
        outcome::{ObstacleKind, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    queue::store::{Job, Lease},
    route::{ConnectorName, LaneId, Route},
    telemetry::counted,
};

/// A delivery that is cut off is looked at once more for so long: what has happened may be there to be read.
const LAST_LOOK: Duration = Duration::from_millis(100);
/// The store says within this time that a job goes on to another connector, or it does not.
const GOES_BY: Duration = Duration::from_secs(5);
/// A connector keeps its deadline itself; one that does not is cut off this much later.
const OVERRUN: Duration = Duration::from_secs(30);

/// A job that starts.
pub(super) struct Task {
    pub(super) shared: Arc<DeliveryContext>,
    pub(super) built: Arc<Built>,
    pub(super) route: Arc<Route>,
    /// The connectors that may take it, in their order.
    pub(super) candidates: Vec<ConnectorName>,
    /// Which of them the permits are for; those before it were shut.
    pub(super) start: usize,
    pub(super) permits: LanePermits,
    pub(super) job: Job,
    /// By the clock that it was claimed by.
    pub(super) begun: Moment,
}

/// Delivers and settles it.
pub(super) async fn run(task: Task) {
    let mut run = Run {
        done: Attempted::new(
            &task.shared,
            &task.built,
            &task.route,
            &task.job,
            task.begun,
        ),
        claimed: task.candidates.get(task.start).cloned(),
        refused: Vec::new(),
    };
    let (shut, others) = task.candidates.split_at(task.start);
    for name in shut {
        run.pass_by(name);
    }
    let mut permits = Some(task.permits);
    for name in others {
        match run.call_at(name, permits.take()).await {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(None) => break,
            ControlFlow::Break(Some(permits)) => return run.settle_with(permits).await,
        }
    }
    run.settle().await;
}

/// Puts back a job that no connector would take, or gives it up when its time is over.
pub(super) async fn put_back(
    shared: Arc<DeliveryContext>,
    built: Arc<Built>,
    route: Arc<Route>,
    blocks: Vec<Block>,
    job: Job,
    begun: Moment,
) {
    let mut done = Attempted::new(&shared, &built, &route, &job, begun);
    for block in blocks {
        done.attempt.skip(block);
    }
    done.settle().await;
}

/// A job under way.
struct Run<'a> {
    done: Attempted<'a>,
    /// The connector that the job was claimed for, as the store knows.
    claimed: Option<ConnectorName>,
    /// The lanes that refuse it, `None` for one that nothing waits in. It can wait in one of them.
    refused: Vec<Option<LaneId>>,
}

impl Run<'_> {
    /// A connector that was shut when the job was claimed.
    fn pass_by(&mut self, name: &ConnectorName) {
        let Attempted {
            shared, built, job, ..
        } = self.done;
        let connector = built.connectors.get(name);
        let lane = connector.map(|(_, connector)| lane_of(connector.as_ref(), &job.message));
        let block = shared.lanes.why(name, lane.as_ref());
        self.skip(name, lane.as_ref(), block);
    }

    fn skip(&mut self, name: &ConnectorName, lane: Option<&LaneId>, block: Block) {
        if let (true, Some(lane)) = (block.is_of_sender(), lane) {
            self.refused.push(self.done.shared.lanes.refused(lane));
        }
        self.done.passed.push((name.clone(), block.clone()));
        self.done.attempt.skip(block);
    }

    /// Calls a connector for whoever is not answered yet, once its lanes allow it. Says whether the next one is asked; when it is over,
    /// the permits are still held.
    async fn call_at(
        &mut self,
        name: &ConnectorName,
        permits: Option<LanePermits>,
    ) -> ControlFlow<Option<LanePermits>> {
        let Attempted {
            shared, built, job, ..
        } = self.done;
        let Some((settings, connector)) = built.connectors.get(name) else {
            return ControlFlow::Continue(());
        };
        let open = self.done.attempt.open();
        if open.is_empty() {
            return ControlFlow::Break(None);
        }
        let lane = lane_of(connector.as_ref(), &job.message);
        let octets = connector.upload(&job.message, &open);
        let entered = tokio::select! {
            entered = enter(shared, name, &lane, permits, octets) => entered,
            () = shared.stopping() => {
                self.done.attempt.skip(Block::Stopping);
                return ControlFlow::Break(None);
            }
        };
        let permits = match entered {
            Ok(permits) => permits,
            Err(block) if block.is_wait() => {
                self.done.attempt.skip(block);
                self.done.attempt.queue_up(shared.lanes.queue_of(&lane));
                return ControlFlow::Break(None);
            }
            Err(block) => {
                self.skip(name, Some(&lane), block);
                return ControlFlow::Continue(());
            }
        };
        if !self.goes_by(name).await {
            self.done.attempt.skip(Block::Turn(Duration::ZERO));
            return ControlFlow::Break(None);
        }
        if !self.done.passed.is_empty() {
            counted::failed_over(self.done.route.name.as_str());
        }
        let began = Instant::now();
        let called = Called {
            connector: connector.as_ref(),
            settings,
            lease: job.lease,
            permits: &permits,
        };
        let report = call(shared, called, &job.message, &open).await;
        let waited = shared.clock.wall().duration_since(job.accepted);
        counted::attempted(
            name.as_str(),
            &report,
            began.elapsed(),
            waited.unwrap_or_default(),
        );
        if let Report::Tried { via, .. } = &report {
            self.done.via.clone_from(via);
        }
        let heard = self.done.attempt.take(name, report);
        shared.lanes.apply(&permits, &lane, &heard, fastrand::f64());
        if let Err(obstacle) = heard {
            if obstacle.kind.is_of_sender() {
                self.refused.push(shared.lanes.refused(&lane));
            }
            if obstacle.kind == ObstacleKind::Throttled {
                self.done.attempt.queue_up(shared.lanes.queue_of(&lane));
                return ControlFlow::Break(Some(permits));
            }
            let block = Block::Obstacle(obstacle);
            self.done.passed.push((name.clone(), block));
        }
        // The next connector is not waited for with the permits of this one.
        if self.done.attempt.is_over() {
            ControlFlow::Break(Some(permits))
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Where other gateways would take it over they have to know by which connector it may have gone. Whether they do.
    async fn goes_by(&mut self, name: &ConnectorName) -> bool {
        let Attempted { shared, job, .. } = self.done;
        if shared.lanes.member().is_none() || self.claimed.as_ref() == Some(name) {
            return true;
        }
        self.claimed = Some(name.clone());
        let said = shared.queue.store().goes_by(job, name);
        matches!(tokio::time::timeout(GOES_BY, said).await, Ok(Ok(())))
    }

    /// The next job need not wait until this one is on disk, unless too many are not.
    async fn settle_with(self, permits: LanePermits) {
        let unwritten = self.done.shared.unwritten.try_acquire();
        let kept = unwritten.is_err().then_some(permits);
        self.done.settle().await;
        drop((unwritten, kept));
    }

    async fn settle(mut self) {
        match self.refused.as_mut_slice() {
            [] => {}
            [one] => self.done.attempt.queue_up_in_refused(one.take()),
            // It cannot wait in two.
            _ => self.done.attempt.queue_up_in_refused(None),
        }
        self.done.settle().await;
    }
}

/// Through the gates of connector and mailbox, and when the store allows.
async fn enter(
    shared: &Arc<DeliveryContext>,
    name: &ConnectorName,
    lane: &LaneId,
    reserved: Option<LanePermits>,
    octets: u64,
) -> Result<LanePermits, Block> {
    let (connector, sender) = match reserved.map(|permits| permits.split(lane)) {
        Some((connector, sender)) => (Some(connector), sender),
        None => (None, SenderPermits::default()),
    };
    // The lane of the connector, and that of the mailbox.
    for _ in 0..2 {
        let Some(unheld) = shared.lanes.unheld(name, Some(lane)) else {
            break;
        };
        if !among::hold(shared, &unheld).await {
            return Err(Block::Turn(Duration::ZERO));
        }
    }
    let sender = shared.lanes.sender_permits(lane, sender)?;
    let connector = match connector {
        Some(permit) => permit,
        None => shared.lanes.enter(name).await?,
    };
    let mut permits = LanePermits::of(connector, sender);
    // What cannot be recorded as sent would be sent again.
    while !shared.is_healthy() {
        tokio::time::sleep(SETTLE_PAUSE.0).await;
    }
    shared.lanes.start(&mut permits, lane, octets)?;
    Ok(permits)
}

/// What [`call`] needs besides the message.
struct Called<'a> {
    connector: &'a dyn Connector,
    settings: &'a Settings,
    lease: Lease,
    permits: &'a LanePermits,
}

/// This gateway may not go on with it: the others may send it, or are about to count on what it leaves them.
fn cut_off(recipients: &[Recipient], deadline: &Deadline) -> Report {
    let text = "cut off by this gateway, which the others do not hear of any more";
    let reply = Reply::new(451, (4, 3, 2), text);
    let outcome = if deadline.may_have_arrived() {
        Outcome::InDoubt(reply)
    } else {
        Outcome::deferred(reply)
    };
    Report::all(recipients, &outcome, "")
}

/// Calls the connector; one that panics or overruns its deadline leaves every recipient in doubt.
async fn call(
    shared: &Arc<DeliveryContext>,
    Called {
        connector,
        settings,
        lease,
        permits,
    }: Called<'_>,
    message: &Message,
    recipients: &[Recipient],
) -> Report {
    let until = Instant::now() + settings.timeout;
    let deadline = if shared.lanes.member().is_some() {
        let shared = Arc::clone(shared);
        Deadline::asking(until.into_std(), Arc::new(move || shared.may_begin(lease)))
    } else {
        Deadline::from(until.into_std())
    };
    let mut delivery = connector.deliver(message, recipients, &deadline);
    let guarded = poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| delivery.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => std::task::Poll::Ready(None),
        }
    });
    let cut = async {
        tokio::select! {
            () = permits.cut() => {}
            () = shared.over(lease) => {}
        }
    };
    tokio::pin!(guarded);
    let ended = tokio::select! {
        biased;
        ended = tokio::time::timeout_at(until + OVERRUN, &mut guarded) => ended,
        () = cut => {
            // An answer that lies there already says more than a doubt.
            match tokio::time::timeout(LAST_LOOK, guarded).await {
                Ok(heard) => Ok(heard),
                Err(_) => return cut_off(recipients, &deadline),
            }
        }
    };
    let text = match ended {
        Ok(Some(report)) => return report,
        Ok(None) => "the connector broke off in the middle of the delivery",
        Err(_) => "the connector did not come back in time",
    };
    if shared.lanes.has_line(&settings.name, Alarm::Broken) {
        tracing::error!(id = %message.id, connector = %settings.name, "{text}");
    }
    let outcome = Outcome::InDoubt(Reply::new(451, (4, 3, 0), text));
    Report::all(recipients, &outcome, "")
}
