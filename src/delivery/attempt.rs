//! One job, from the claim to the settlement: through the gates, to the connectors, into the store.
//!
//! Apart from the loop, which starts it and never waits for it: every job settles in a task of its own, so that the store
//! can put many settlements into one sync.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use super::{
    clock::{self, Moment},
    lanes::{Own, Pass},
    plan::{Attempt, Block, Decision},
    sender::lane_of,
    setup::Built,
    shared::Shared,
    timekeeper,
};
use crate::{
    connector::{Connector, Settings},
    mail::{
        address::Address,
        message::Message,
        outcome::{Obstacle, ObstacleKind, Outcome, Report},
        recipient::Recipient,
        reply::Reply,
    },
    queue::store::{Event, EventKind, Job, Settled, Settlement},
    route::{ConnectorName, LaneId, Route, Routed},
    telemetry::maillog,
};

/// A connector keeps its deadline itself; one that does not is cut off this much later.
const OVERRUN: Duration = Duration::from_secs(30);
/// Between two tries to write a settlement: at first, at most.
const SETTLE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is needed for the job besides itself. `start` is the connector of `pass` in `candidates`; those before it were shut.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) built: Arc<Built>,
    pub(super) route: Arc<Route>,
    pub(super) candidates: Vec<ConnectorName>,
    pub(super) start: usize,
    pub(super) pass: Pass,
    pub(super) job: Job,
}

/// The connectors that took nothing of a job, and why.
type Passed = Vec<(ConnectorName, Block)>;

/// Delivers and settles it.
#[expect(
    clippy::too_many_lines,
    reason = "one attempt from its lane to its settlement"
)]
pub(super) async fn run(task: Task) {
    let Task {
        shared,
        built,
        route,
        candidates,
        start,
        pass,
        job,
    } = task;
    let begun = timekeeper::moment();
    let mut attempt = Attempt::new(&job);
    let mut via = String::new();
    let mut reserved = Some(pass);
    let mut passed: Passed = Vec::new();
    // The lanes that refuse it, of which it waits in one.
    let mut refused: Vec<Option<LaneId>> = Vec::new();
    for name in candidates.iter().take(start) {
        let lane = built
            .connectors
            .get(name)
            .map(|(_, connector)| lane_of(connector.as_ref(), &job.message));
        let block = shared.lanes.why(name, lane.as_ref());
        if let (true, Some(lane)) = (block.is_of_sender(), &lane) {
            refused.push(shared.lanes.refused(lane));
        }
        passed.push((name.clone(), block.clone()));
        attempt.skip(block);
    }
    for name in candidates.iter().skip(start) {
        let open = attempt.open();
        let Some((settings, connector)) = built.connectors.get(name) else {
            reserved = None;
            continue;
        };
        if open.is_empty() {
            break;
        }
        let lane = lane_of(connector.as_ref(), &job.message);
        let octets = connector.upload(&job.message, &open);
        let entered = tokio::select! {
            entered = enter(&shared, name, &lane, reserved.take(), octets) => entered,
            () = shared.stopping() => {
                attempt.skip(Block::Stopping);
                break;
            }
        };
        let pass = match entered {
            Ok(pass) => pass,
            Err(block) if block.is_wait() => {
                attempt.skip(block);
                attempt.queue_up(shared.lanes.turn_in(&lane));
                break;
            }
            Err(block) => {
                if block.is_of_sender() {
                    refused.push(shared.lanes.refused(&lane));
                }
                passed.push((name.clone(), block.clone()));
                attempt.skip(block);
                continue;
            }
        };
        let report = call(connector.as_ref(), settings, &job.message, &open).await;
        if let Report::Tried { via: where_to, .. } = &report {
            via.clone_from(where_to);
        }
        let heard = attempt.take(name, report);
        shared
            .lanes
            .apply(&pass, &lane, &heard, &route.retry, fastrand::f64());
        let kind = heard.as_ref().err().map(|obstacle| obstacle.kind);
        if kind.is_some_and(ObstacleKind::is_of_sender) {
            refused.push(shared.lanes.refused(&lane));
        }
        let throttled = kind == Some(ObstacleKind::Throttled);
        if throttled {
            attempt.queue_up(shared.lanes.turn_in(&lane));
        } else if let Err(obstacle) = heard {
            passed.push((name.clone(), Block::Obstacle(obstacle)));
        }
        // The next job need not wait until this one is on disk, as long as not too many are not. And the next connector must
        // not be waited for with the permit of this one.
        if throttled || attempt.open().is_empty() {
            let slip = shared.unwritten.try_acquire();
            let kept = if slip.is_ok() {
                drop(pass);
                None
            } else {
                Some(pass)
            };
            settle(
                (&shared, &built),
                &route,
                (&job, begun),
                attempt,
                &via,
                &passed,
            )
            .await;
            drop((slip, kept));
            return;
        }
    }
    match refused.as_mut_slice() {
        [] => {}
        [one] => attempt.queue_up_in_refused(one.take()),
        // It cannot wait in two.
        _ => attempt.queue_up_in_refused(None),
    }
    settle(
        (&shared, &built),
        &route,
        (&job, begun),
        attempt,
        &via,
        &passed,
    )
    .await;
}

/// Puts back a job that no connector would take, or gives it up when its time is over.
pub(super) async fn pass_over(
    shared: Arc<Shared>,
    built: Arc<Built>,
    route: Arc<Route>,
    blocks: Vec<Block>,
    job: Job,
) {
    let begun = timekeeper::moment();
    let mut attempt = Attempt::new(&job);
    for block in blocks {
        attempt.skip(block);
    }
    let (both, job) = ((&*shared, &*built), (&job, begun));
    settle(both, &route, job, attempt, "", &Vec::new()).await;
}

/// Through the gates of connector and mailbox, and when the store allows.
async fn enter(
    shared: &Arc<Shared>,
    name: &ConnectorName,
    lane: &LaneId,
    reserved: Option<Pass>,
    octets: u64,
) -> Result<Pass, Block> {
    let (connector, own) = match reserved.map(|pass| pass.split(lane)) {
        Some((connector, own)) => (Some(connector), own),
        None => (None, Own::default()),
    };
    let own = shared.lanes.own(lane, own)?;
    let connector = match connector {
        Some(permit) => permit,
        None => shared.lanes.enter(name).await?,
    };
    let mut pass = Pass::of(connector, own);
    // What cannot be recorded as sent would be sent again.
    while !shared.is_healthy() {
        tokio::time::sleep(SETTLE_PAUSE.0).await;
    }
    shared.lanes.start(&mut pass, octets)?;
    Ok(pass)
}

/// Calls the connector; one that panics or overruns its deadline leaves every recipient in doubt.
async fn call(
    connector: &dyn Connector,
    settings: &Settings,
    message: &Message,
    recipients: &[Recipient],
) -> Report {
    let deadline = Instant::now() + settings.timeout;
    let mut delivery = connector.deliver(message, recipients, deadline);
    let guarded = poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| delivery.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => std::task::Poll::Ready(None),
        }
    });
    let text = match tokio::time::timeout_at((deadline + OVERRUN).into(), guarded).await {
        Ok(Some(report)) => return report,
        Ok(None) => "the connector broke off in the middle of the delivery",
        Err(_) => "the connector did not come back in time",
    };
    tracing::error!(id = %message.id, connector = %settings.name, "{text}");
    let outcome = Outcome::InDoubt(Reply::new(451, (4, 3, 0), text));
    Report::all(recipients, &outcome, "")
}

/// Writes down what became of it, however long the store takes, and then says it in the log.
async fn settle(
    (shared, built): (&Shared, &Built),
    route: &Route,
    (job, begun): (&Job, Moment),
    mut attempt: Attempt,
    via: &str,
    passed: &Passed,
) {
    let moment = timekeeper::moment();
    let now = moment.wall;
    // Set while it was under way, the clock made it neither older nor younger.
    attempt.accepted_otherwise(clock::between(begun, moment), now);
    let by: Vec<(Address, ConnectorName)> = attempt
        .answered()
        .iter()
        .map(|(recipient, _, connector)| (recipient.clone(), connector.clone()))
        .collect();
    let decision = attempt.finish(route, built.settings.in_doubt_wait, now, fastrand::f64());
    let bounces = built.reports(&shared.queue, job, &decision, now);
    let mut events = events(job, &decision, &by, via, &bounces, now);
    events.extend(built.withheld(job, &decision, now));
    if let Some((_, taker)) = by.first() {
        events.splice(
            0..0,
            passed
                .iter()
                .map(|(name, block)| failover(name, block, taker, now)),
        );
    }
    let mut pause = SETTLE_PAUSE.0;
    let mut troubled = false;
    loop {
        let settlement = Settlement {
            job: job.id,
            lease: job.lease,
            message: job.message.id,
            recipients: decision.recipients.clone(),
            attempted: decision.attempted,
            next: decision.next,
            lane: decision.lane.clone(),
            apart: decision.apart.clone(),
            in_doubt: decision.in_doubt.clone(),
            bounces: bounces.clone(),
            events: events.clone(),
        };
        match shared
            .queue
            .store()
            .settle(settlement, SystemTime::now())
            .await
        {
            Ok(_) => break,
            Err(error) => {
                if !troubled {
                    troubled = true;
                    shared.troubled.fetch_add(1, Ordering::AcqRel);
                    tracing::error!(id = %job.message.id, %error, "what became of a message cannot be written down; trying until it can");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(SETTLE_PAUSE.1);
            }
        }
    }
    if troubled && shared.troubled.fetch_sub(1, Ordering::AcqRel) == 1 {
        shared.lanes.stir();
    }
    log(job, &decision, &by, via, now);
    for bounce in &bounces {
        if let Some(to) = bounce.message.envelope.recipients.first() {
            maillog::bounced(job.message.id, bounce.message.id, &to.to_string());
        }
    }
    if !bounces.is_empty() {
        shared.queue.wake();
    }
}

/// The line that says why it was not the first connector of the route.
fn failover(name: &ConnectorName, block: &Block, taker: &ConnectorName, now: SystemTime) -> Event {
    let why = match block {
        Block::Obstacle(Obstacle { kind, reply, .. }) => {
            let state = match kind {
                ObstacleKind::Down | ObstacleKind::Intercepted => "is closed",
                ObstacleKind::Misconfigured => "is paused",
                ObstacleKind::MailboxRefused | ObstacleKind::FromRefused => {
                    "refuses the sending mailbox, or this From in it"
                }
                ObstacleKind::Throttled => "wants nothing for now",
            };
            format!("{state}: {reply}")
        }
        Block::Shut => "is closed".to_owned(),
        Block::Stopping => "is paused".to_owned(),
        Block::Turn(_) => "wants nothing for now".to_owned(),
        Block::Crowded(_) => "has too many mailboxes".to_owned(),
    };
    Event {
        at: now,
        kind: EventKind::PassedOver,
        recipients: Vec::new(),
        text: format!("{name} {why}; it went to {taker}"),
    }
}

/// A line in the life of the message for each kind of thing that happened.
fn events(
    job: &Job,
    decision: &Decision,
    by: &[(Address, ConnectorName)],
    via: &str,
    bounces: &[Routed],
    now: SystemTime,
) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for (recipient, settled) in &decision.recipients {
        let (kind, outcome) = match settled {
            Settled::Done(outcome) => (EventKind::Delivered, outcome),
            Settled::Failed(outcome) => (EventKind::Failed, outcome),
            Settled::Waiting(outcome) => (EventKind::Deferred, outcome),
            Settled::InDoubt(outcome) => (EventKind::InDoubt, outcome),
        };
        let mut text = connector_of(by, recipient).map_or_else(
            || format!("route {}: {}", job.route, outcome.reply()),
            |name| format!("{name} {via}: {}", outcome.reply()).replace(" :", ":"),
        );
        if let Settled::InDoubt(_) = settled {
            text.push_str("; it may have arrived, and is sent again by the same connector");
        }
        match events.iter_mut().find(|e| e.kind == kind && e.text == text) {
            Some(event) => event.recipients.push(recipient.to_string()),
            None => events.push(Event {
                at: now,
                kind,
                recipients: vec![recipient.to_string()],
                text,
            }),
        }
    }
    for bounce in bounces {
        events.push(Event {
            at: now,
            kind: EventKind::Bounced,
            recipients: bounce
                .message
                .envelope
                .recipients
                .iter()
                .map(ToString::to_string)
                .collect(),
            text: format!("report {}", bounce.message.id),
        });
    }
    events
}

fn log(
    job: &Job,
    decision: &Decision,
    by: &[(Address, ConnectorName)],
    via: &str,
    now: SystemTime,
) {
    let id = job.message.id;
    let route = job.route.as_str();
    let number = job.attempts.saturating_add(u32::from(decision.attempted));
    for (recipient, settled) in &decision.recipients {
        let connector = connector_of(by, recipient).map_or("-", ConnectorName::as_str);
        match settled {
            Settled::Done(outcome) => {
                let delay = now.duration_since(job.accepted).unwrap_or_default();
                maillog::delivered(
                    id,
                    recipient,
                    route,
                    connector,
                    via,
                    outcome.reply(),
                    number,
                    delay,
                );
            }
            Settled::Failed(outcome) => {
                maillog::failed(id, recipient, route, connector, outcome.reply(), number);
            }
            Settled::Waiting(outcome) => maillog::deferred(
                id,
                recipient,
                route,
                connector,
                outcome.reply(),
                number,
                decision.next,
                job.pinned.is_some(),
            ),
            Settled::InDoubt(outcome) => {
                let next = decision.in_doubt.as_ref().map_or(decision.next, |d| d.1);
                maillog::deferred(
                    id,
                    recipient,
                    route,
                    connector,
                    outcome.reply(),
                    number,
                    next,
                    true,
                );
            }
        }
    }
}

fn connector_of<'a>(
    by: &'a [(Address, ConnectorName)],
    recipient: &Address,
) -> Option<&'a ConnectorName> {
    by.iter()
        .find_map(|(address, connector)| (address == recipient).then_some(connector))
}
