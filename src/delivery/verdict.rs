//! What becomes of one recipient, answered or not: by the times, and by what keeps the job from its connectors.
//!
//! `plan` draws the sum of them. No clock, no dice, no store.

use std::time::{Duration, SystemTime};

use super::lanes::gate::LONGEST_WAIT;
use crate::{
    mail::{
        outcome::{Obstacle, ObstacleKind, Outcome},
        reply::Reply,
    },
    route::Route,
};

/// What keeps a job from a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// As it said just now, or to another job before. A [`ObstacleKind::Throttled`] one sends nobody to the next connector.
    Obstacle(Obstacle),
    /// It is not there, or just shut.
    Shut,
    /// The gateway stops: neither refused nor given up, and put back as it was.
    Stopping,
    /// It has to wait about that long, by its own limits. No other connector is asked in its place.
    Turn(Duration),
    /// There are more mailboxes than are remembered: after this. No other connector is asked in its place.
    Crowded(Duration),
}

impl Block {
    /// A wait is no reason to go elsewhere.
    pub fn is_wait(&self) -> bool {
        matches!(self, Block::Turn(_) | Block::Crowded(_)) || self.is(ObstacleKind::Throttled)
    }

    /// It is an obstacle of that kind.
    pub fn is(&self, kind: ObstacleKind) -> bool {
        self.obstacle()
            .is_some_and(|obstacle| obstacle.kind == kind)
    }

    /// It is the sender's, and not the connector's.
    pub fn is_of_sender(&self) -> bool {
        self.obstacle()
            .is_some_and(|obstacle| obstacle.kind.is_of_sender())
    }

    fn obstacle(&self) -> Option<&Obstacle> {
        match self {
            Block::Obstacle(obstacle) => Some(obstacle),
            _ => None,
        }
    }

    /// The same, where nothing was said of this very job.
    #[must_use]
    pub fn unsaid(self) -> Self {
        match self {
            Block::Obstacle(Obstacle {
                kind: ObstacleKind::Throttled,
                retry_after,
                ..
            }) => Block::Turn(retry_after.unwrap_or_default()),
            block => block,
        }
    }
}

/// The times that decide.
pub(super) struct Time {
    pub(super) now: SystemTime,
    /// When it is given up.
    pub(super) end: SystemTime,
    pub(super) is_over: bool,
    /// As `is_over`, for what got a 4xx. A pause for our own credentials may have eaten the time: what had fewer attempts than its
    /// first steps allow is not given up before it had them.
    pub(super) is_over_for_deferred: bool,
    /// The retry step that is next.
    pub(super) step: Duration,
}

impl Time {
    pub(super) fn of(
        (accepted, attempts): (SystemTime, u32),
        route: &Route,
        now: SystemTime,
        jitter: f64,
    ) -> Self {
        let end = accepted + route.give_up;
        let is_held_back = attempts.saturating_add(1) < attempts_within(route);
        Self {
            now,
            end,
            is_over: now >= end,
            is_over_for_deferred: now >= end && !is_held_back,
            step: step(&route.retry, attempts as usize, jitter),
        }
    }
}

/// What the connectors that could still take them keep the rest waiting for.
pub(super) struct Held<'a> {
    /// Our own configuration, credentials or end: nothing is given up for these.
    pub(super) by_us: bool,
    /// The mailbox, or the From in it, is refused.
    pub(super) by_sender: bool,
    /// Our own limits: nothing is given up for these either.
    pub(super) by_limits: bool,
    /// It has to wait for a time rather than for a connector.
    pub(super) is_by_time: bool,
    /// At least so long.
    pub(super) wait: Duration,
    /// For a place among the mailboxes that are remembered.
    pub(super) crowded: Option<Duration>,
    /// What the last of them said.
    pub(super) said: Option<&'a Reply>,
    pub(super) is_any: bool,
}

impl<'a> Held<'a> {
    pub(super) fn by(blocks: &'a [Block]) -> Self {
        let mut held = Self {
            by_us: false,
            by_sender: false,
            by_limits: false,
            is_by_time: blocks.iter().any(Block::is_wait),
            wait: Duration::ZERO,
            crowded: None,
            said: None,
            is_any: !blocks.is_empty(),
        };
        for block in blocks {
            match block {
                Block::Obstacle(obstacle) => {
                    held.said = Some(&obstacle.reply);
                    held.by_us |= obstacle.kind.is_ours();
                    held.by_sender |= obstacle.kind.is_of_sender();
                    if obstacle.kind == ObstacleKind::Throttled {
                        let asked = obstacle.retry_after.unwrap_or_default();
                        held.wait = held.wait.max(asked.min(LONGEST_WAIT));
                    }
                }
                Block::Turn(asked) => {
                    held.by_limits = true;
                    held.wait = held.wait.max((*asked).min(LONGEST_WAIT));
                }
                Block::Crowded(asked) => {
                    held.by_limits = true;
                    held.crowded = Some(*asked);
                }
                Block::Stopping => held.by_us = true,
                Block::Shut => {}
            }
        }
        held
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.is_any
    }
}

/// What of an attempt says when it is this job's turn again.
pub(super) struct NextTurn {
    pub(super) wait: Duration,
    /// Somebody was deferred.
    pub(super) is_answered: bool,
    /// Nobody has said anything to any of those who are open.
    pub(super) is_untouched: bool,
    /// It is tried again at once, in smaller sets.
    pub(super) is_smaller: bool,
}

/// What becomes of one recipient.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Done,
    /// Not before that long.
    Later(Duration),
    /// At once, among fewer.
    Smaller,
    /// With the same connector.
    Doubt,
    /// As in [`Failure`].
    Failed {
        gave_up: bool,
        in_doubt: bool,
        bounce: bool,
    },
}

/// Of one that was answered. `is_set`: it is not the only one that is to be tried apart.
pub(super) fn answered(outcome: &Outcome, is_set: bool, is_pinned: bool, time: &Time) -> Verdict {
    let failed = |gave_up, in_doubt| Verdict::Failed {
        gave_up,
        in_doubt,
        bounce: true,
    };
    match outcome {
        Outcome::Delivered(_) => Verdict::Done,
        Outcome::Apart(_) if is_set => Verdict::Smaller,
        Outcome::Failed(_) | Outcome::Apart(_) | Outcome::Unsuited(_) => failed(false, is_pinned),
        Outcome::Deferred { .. } if time.is_over_for_deferred => failed(true, is_pinned),
        Outcome::Deferred { retry_after, .. } => {
            Verdict::Later(retry_after.unwrap_or_default().min(LONGEST_WAIT))
        }
        Outcome::InDoubt(_) if time.is_over => failed(true, true),
        Outcome::InDoubt(_) => Verdict::Doubt,
    }
}

/// Of one that nobody has answered, and that some connectors were perhaps not suited to. `is_for_nobody`: nothing kept the others
/// from it. `None`: it waits, and there is nothing to be said about it.
pub(super) fn unanswered(
    unsuited: Option<&Reply>,
    is_for_nobody: bool,
    held: &Held<'_>,
    is_pinned: bool,
    time: &Time,
) -> Option<(Outcome, Verdict)> {
    if let (Some(reply), true) = (unsuited, is_for_nobody) {
        let refused = Verdict::Failed {
            gave_up: false,
            in_doubt: false,
            bounce: true,
        };
        return Some((Outcome::Failed(reply.clone()), refused));
    }
    let said = held.said.or(unsuited).cloned();
    // Never because of our own configuration or credentials, nor for our own limits.
    if time.is_over && held.is_any && !held.by_us && !held.by_limits {
        let nobody = "the connector is closed; nobody answers there";
        let reply = said.unwrap_or_else(|| Reply::new(451, (4, 4, 1), nobody));
        let given_up = Verdict::Failed {
            gave_up: true,
            in_doubt: is_pinned,
            bounce: !held.by_sender,
        };
        return Some((Outcome::Failed(reply), given_up));
    }
    said.map(|reply| (Outcome::deferred(reply), Verdict::Later(Duration::ZERO)))
}

/// The retry step of that number (the last one repeats), up to a fifth shorter or longer. `jitter` is in 0..1.
pub(super) fn step(retry: &[Duration], number: usize, jitter: f64) -> Duration {
    let step = retry
        .get(number)
        .or(retry.last())
        .copied()
        .unwrap_or(Duration::from_mins(1));
    step.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

/// The attempts that a message gets before `give_up` when nothing holds it back, each configured step counted once and at its
/// longest.
fn attempts_within(route: &Route) -> u32 {
    let mut at = Duration::ZERO;
    let fitting = route.retry.iter().take_while(|step| {
        at = at.saturating_add(step.saturating_add(**step / 5));
        at < route.give_up
    });
    1 + fitting.count() as u32
}
