//! One lane of the table: its gate, and what is known of it besides.

use std::{
    sync::Weak,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use super::{
    alarms::News,
    gate::{Gate, GateState, Ready},
    probes::ProbeTimes,
};
use crate::{
    connector::LaneLimits,
    delivery::{members::parts::LaneFacts, plan::Block},
    mail::{
        outcome::{LaneState, Obstacle, ObstacleKind},
        reply::Reply,
    },
    route::LaneId,
};

/// A lane.
#[derive(Debug)]
pub(super) struct LaneEntry {
    pub(super) gate: Gate,
    /// Of all gateways together.
    pub(super) limits: LaneLimits,
    /// How it is shared with other gateways.
    pub(super) facts: LaneFacts,
    /// It is being given back: nothing starts any more.
    pub(super) is_leaving: bool,
    /// The last probe of this gateway came to nothing: another may try.
    pub(super) is_vain: bool,
    /// Deliveries that may be cut off, the newest last.
    pub(super) running: Vec<Weak<Notify>>,
    /// Those of them that began without the queue's database.
    pub(super) alone: usize,
    /// When one last ended.
    pub(super) ended: Option<Instant>,
    /// Of a connector: the limits of each mailbox, where it has several.
    pub(super) per_mailbox: Option<LaneLimits>,
    /// Of a connector.
    pub(super) probe_times: ProbeTimes,
    /// Closed, it was asked for no probe before that.
    pub(super) asked: Option<Instant>,
    /// The upstream asked it to wait, and its row says so or will.
    pub(super) is_held: bool,
    /// The log says that it waits, and does not say yet that the wait is over.
    pub(super) is_wait_logged: bool,
    /// It is refused, and one too many of its connector's to have a row of its own.
    pub(super) unlisted: bool,
    /// When it was shut last.
    pub(super) since: Option<SystemTime>,
    /// What shut it, with the remedy.
    pub(super) why: Option<Reply>,
}

impl LaneEntry {
    pub(super) fn new(limits: LaneLimits) -> Self {
        Self {
            gate: Gate::new(limits),
            limits,
            facts: LaneFacts::default(),
            is_leaving: false,
            is_vain: false,
            running: Vec::new(),
            alone: 0,
            ended: None,
            per_mailbox: None,
            probe_times: ProbeTimes::default(),
            asked: None,
            is_held: false,
            is_wait_logged: false,
            unlisted: false,
            since: None,
            why: None,
        }
    }

    /// Other limits: from now on.
    pub(super) fn set_limits(&mut self, limits: LaneLimits) {
        self.limits = limits;
        self.gate.set_limits(limits);
    }

    /// As the store remembers it: the upstream wants nothing for that long.
    pub(super) fn restore_held(&mut self, now: Instant, wait: Duration) {
        self.gate.hold(now, wait);
        (self.is_held, self.is_wait_logged) = (true, true);
    }

    /// Whether its row is left to that of the others.
    pub(super) fn is_unlisted(&self) -> bool {
        self.unlisted
    }

    pub(super) fn is_refused_or_asked(&self) -> bool {
        matches!(self.gate.state(), GateState::Closed { .. })
    }

    /// Refused, and nobody asks at the moment.
    pub(super) fn is_refused(&self) -> bool {
        self.gate.taken() == 0 && matches!(self.gate.state(), GateState::Closed { .. })
    }

    /// Why a lane takes nothing now.
    pub(super) fn block(&mut self, lane: &LaneId, now: Instant) -> Block {
        let (kind, wait) = match (self.gate.state(), self.gate.held(now)) {
            (GateState::Stopped, _) => (ObstacleKind::Stopped, None),
            (GateState::Paused { .. }, _) => (ObstacleKind::Misconfigured, None),
            (GateState::Closed { .. }, _) if lane.mailbox.is_some() => {
                (ObstacleKind::MailboxRefused, None)
            }
            (GateState::Closed { .. }, _) => (ObstacleKind::Down, None),
            (GateState::Open, Some(at)) => (
                ObstacleKind::Throttled,
                Some(at.saturating_duration_since(now)),
            ),
            (GateState::Open, None) => {
                return Block::Turn(match self.gate.ready(now) {
                    Ready::At(at) => at.saturating_duration_since(now),
                    _ => Duration::ZERO,
                });
            }
        };
        match &self.why {
            Some(reply) => Block::Obstacle(Obstacle::new(kind, reply.clone()).after(wait)),
            None => Block::Shut,
        }
    }

    pub(super) fn shut(&mut self, state: LaneState, reply: &Reply, wall: SystemTime) -> News {
        self.since = Some(wall);
        self.why = Some(reply.clone());
        News::Shut(state, reply.clone())
    }
}
