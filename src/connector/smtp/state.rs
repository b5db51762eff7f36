//! The connections of one connector at a moment, and the messages that wait for one.
//!
//! It opens nothing and waits for nothing; the pool holds the lock around it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    seat::{Group, Lent, Seat, Waiter},
    width::{Others, Width},
};
use crate::{
    connector::interface::{Connections, Learned, Memory},
    smtp::client::capabilities::Capabilities,
};

/// An upstream that a group behind the dot confuses is sent none for so long.
pub(super) const NOT_EARLY: Duration = Duration::from_hours(24);

/// See the module.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) width: Width,
    pub(super) idle: Vec<Seat>,
    pub(super) waiting: VecDeque<Waiter>,
    asked: u64,
    pub(super) opening: usize,
    /// Busy, idle and leaving.
    pub(super) open: usize,
    /// When one was last closed.
    pub(super) closed: Option<Instant>,
    /// When the upstream last answered on one of them.
    pub(super) answered: Option<Instant>,
    /// What the last connection was offered: most likely what the next will be.
    pub(super) offered: Option<Arc<Capabilities>>,
    /// No early groups until then.
    pub(super) not_early: Option<Instant>,
    /// Nothing begins any more.
    pub(super) is_stopping: bool,
    /// Somebody waits for the time at which another connection may be opened.
    pub(super) is_timed: bool,
    /// Somebody closes connections that are idle for too long.
    pub(super) is_tended: bool,
    /// When a number that was learned was last logged.
    pub(super) logged: Option<Instant>,
}

impl PoolState {
    pub(super) fn new(most: usize) -> Self {
        Self {
            width: Width::new(most),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            asked: 0,
            opening: 0,
            open: 0,
            closed: None,
            answered: None,
            offered: None,
            not_early: None,
            is_stopping: false,
            is_timed: false,
            is_tended: false,
            logged: None,
        }
    }

    /// The connections there are.
    pub(super) fn others(&self) -> Others {
        Others {
            opening: self.opening,
            open: self.open,
            answered: self.answered,
            closed: self.closed,
        }
    }

    /// The message that has waited longest.
    pub(super) fn first(&mut self) -> Option<Waiter> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|waiter| !waiter.tell.is_closed())
    }

    /// The message that has waited longest, if what it would write is known and fits.
    pub(super) fn first_that(&mut self, fits: impl FnOnce(&Group) -> bool) -> Option<Waiter> {
        while self.waiting.front().is_some_and(|w| w.tell.is_closed()) {
            self.waiting.pop_front();
        }
        let group = self.waiting.front()?.group.as_ref();
        if group.is_some_and(fits) {
            self.waiting.pop_front()
        } else {
            None
        }
    }

    /// The place of a message that asks now.
    pub(super) fn number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// A message waits in its place.
    pub(super) fn enqueue(&mut self, number: u64, group: Option<Group>) -> oneshot::Receiver<Lent> {
        let (tell, hear) = oneshot::channel();
        let at = self.waiting.partition_point(|other| other.number <= number);
        let waiter = Waiter {
            number,
            group,
            tell,
        };
        self.waiting.insert(at, waiter);
        hear
    }

    /// Those who wait and did not know what would be offered.
    pub(super) fn without_group(&mut self) -> VecDeque<Waiter> {
        let (without, with) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiter| waiter.group.is_none());
        self.waiting = with;
        without
    }

    /// Nothing begins any more; those who wait.
    pub(super) fn stop(&mut self) -> VecDeque<Waiter> {
        self.is_stopping = true;
        std::mem::take(&mut self.waiting)
    }

    /// How many connections there are, for people.
    pub(super) fn connections(&self) -> Connections {
        Connections {
            open: self.open,
            width: self.width.now(),
            most: self.width.most(),
            learned: self.width.learned().map(|learned| learned.connections),
        }
    }

    /// What a restart should know; `now` is this moment.
    pub(super) fn memory(&self, now: SystemTime) -> Memory {
        let monotonic = Instant::now();
        let at = |then: Instant| match then.checked_duration_since(monotonic) {
            Some(ahead) => now + ahead,
            None => now.checked_sub(monotonic - then).unwrap_or(now),
        };
        Memory {
            learned: self.width.learned().map(|learned| Learned {
                connections: learned.connections,
                since: at(learned.since),
            }),
            not_early: self.not_early.filter(|until| *until > monotonic).map(at),
            is_connected: self.open > 0,
        }
    }

    /// What an earlier run, or connector, knew.
    pub(super) fn recall(&mut self, memory: &Memory, now: SystemTime) {
        let monotonic = Instant::now();
        if memory.is_connected {
            // Those of the connector before still count over there.
            self.closed = Some(monotonic);
        }
        if let Some(learned) = &memory.learned {
            let age = now.duration_since(learned.since).unwrap_or_default();
            self.width.recall(learned.connections, age, monotonic);
        }
        let ahead = memory.not_early.and_then(|at| at.duration_since(now).ok());
        self.not_early = ahead.map(|ahead| monotonic + ahead.min(NOT_EARLY));
    }
}
