//! What became of a job: the settlement that is written, the lines of its life, and those of the log.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use super::{
    clock::{self, Moment},
    plan::{Attempt, Block, Decision},
    reports::Reports,
    setup::Built,
    shared::DeliveryContext,
};
use crate::{
    mail::{
        address::Address,
        outcome::{Obstacle, ObstacleKind},
    },
    queue::store::{Event, EventKind, Job, Kept, Settled, Settlement},
    route::{ConnectorName, Route, Routed},
    telemetry::{counted, maillog, noticed},
};

/// Between two tries to write a settlement: at first, at most.
pub(super) const SETTLE_PAUSE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(5));

/// An attempt, with what is written down about it.
pub(super) struct Attempted<'a> {
    pub(super) shared: &'a Arc<DeliveryContext>,
    pub(super) built: &'a Built,
    pub(super) route: &'a Route,
    pub(super) job: &'a Job,
    begun: Moment,
    pub(super) attempt: Attempt,
    /// Where the last connector that tried it sent it.
    pub(super) via: String,
    /// The connectors that took nothing, and why.
    pub(super) passed: Vec<(ConnectorName, Block)>,
}

impl<'a> Attempted<'a> {
    /// It began then.
    pub(super) fn new(
        shared: &'a Arc<DeliveryContext>,
        built: &'a Built,
        route: &'a Route,
        job: &'a Job,
        begun: Moment,
    ) -> Self {
        Self {
            shared,
            built,
            route,
            job,
            begun,
            attempt: Attempt::new(job),
            via: String::new(),
            passed: Vec::new(),
        }
    }

    /// Writes down what became of it, however long the store takes, and then says it in the log.
    pub(super) async fn settle(self) {
        let Self {
            shared,
            built,
            route,
            job,
            begun,
            mut attempt,
            via,
            passed,
        } = self;
        let moment = shared.clock.moment();
        let now = moment.wall;
        // Set while it was under way, the clock made it neither older nor younger.
        attempt.accepted_otherwise(clock::between(begun, moment), now);
        let by: Vec<(Address, ConnectorName)> = attempt
            .answered()
            .iter()
            .map(|(recipient, _, connector)| (recipient.address.clone(), connector.clone()))
            .collect();
        let decision = attempt.finish(route, built.settings.in_doubt_wait, now, fastrand::f64());
        let reports = built.reports(&shared.queue, job, &decision, now).await;
        let mut events = events(job, &decision, &by, &via, &reports, now);
        if let Some(withheld) = built.withheld(job, &decision, now) {
            counted::bounced("withheld");
            events.push(withheld);
        }
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
                bounces: reports.bounces.clone(),
                receipts: reports.receipts.iter().map(|(_, r)| r.clone()).collect(),
                events: events.clone(),
            };
            match shared
                .queue
                .store()
                .settle(settlement, shared.clock.wall())
                .await
            {
                Ok(kept) => {
                    tell(kept, job, &decision);
                    break;
                }
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
            shared.lanes.wake_all();
        }
        log(job, &decision, &by, &via, now);
        if log_reports(job, &reports) {
            shared.queue.wake();
        }
    }
}

/// Whether there are any.
fn log_reports(job: &Job, reports: &Reports) -> bool {
    let of = job.message.id;
    for bounce in &reports.bounces {
        maillog::bounced(of, bounce.message.id, &addressee_of(bounce));
    }
    for (kind, report) in &reports.receipts {
        maillog::reported(of, report.message.id, kind.as_str(), &addressee_of(report));
    }
    !reports.bounces.is_empty() || !reports.receipts.is_empty()
}

/// A report has one.
fn addressee_of(report: &Routed) -> String {
    let to = report.message.envelope.recipients.first();
    to.map_or_else(String::new, ToString::to_string)
}

/// What others made of the job while it was under way here.
fn tell(kept: Kept, job: &Job, decision: &Decision) {
    let is_done = |(_, settled): &(Address, Settled)| matches!(settled, Settled::Done(_));
    let is_delivered = decision.recipients.iter().any(is_done);
    match kept {
        Kept::Late => tracing::warn!(
            id = %job.message.id,
            "the others took this gateway for dead while it was sending; what it delivered counts"
        ),
        Kept::Lost if is_delivered => {
            noticed::sent_twice();
            tracing::warn!(event = "sent twice", id = %job.message.id, "sent twice: the others had taken it over");
        }
        Kept::Written | Kept::Lost => {}
    }
}

/// The line that says why it was not the first connector of the route.
fn failover(name: &ConnectorName, block: &Block, taker: &ConnectorName, now: SystemTime) -> Event {
    let why = match block {
        Block::Obstacle(Obstacle { kind, reply, .. }) => {
            let state = match kind {
                ObstacleKind::Down | ObstacleKind::Intercepted => "is closed",
                ObstacleKind::Misconfigured => "is paused",
                ObstacleKind::Stopped => "is stopped",
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
    reports: &Reports,
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
    let reported = |kind, report: &Routed, text| Event {
        at: now,
        kind,
        recipients: vec![addressee_of(report)],
        text,
    };
    for bounce in &reports.bounces {
        let text = format!("report {}", bounce.message.id);
        events.push(reported(EventKind::Bounced, bounce, text));
    }
    for (kind, report) in &reports.receipts {
        let text = format!("{}, report {}", kind.as_str(), report.message.id);
        events.push(reported(EventKind::Reported, report, text));
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
            // It was not tried: the log has why its lane takes nothing.
            Settled::Waiting(_) if connector_of(by, recipient).is_none() => {}
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
