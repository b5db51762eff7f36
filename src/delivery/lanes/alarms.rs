//! How many lines of the log the lanes may write: of each kind ten a minute for each connector, then one that counts the others.
//!
//! The number of mailboxes is up to the senders, and an upstream may come and go all night: the log must stay readable.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    mail::{outcome::LaneState, reply::Reply},
    route::{ConnectorName, LaneId},
};

/// Lines in [`WINDOW`] of one kind.
const LINES: usize = 10;
const WINDOW: Duration = Duration::from_mins(1);

/// A kind of alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::delivery) enum Alarm {
    /// A connector is in that state now.
    Connector(LaneState),
    /// A mailbox of it is, or a From in one.
    Mailbox(LaneState),
    /// It broke off in the middle of a delivery.
    Broken,
}

impl Alarm {
    /// What the log calls it.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Connector(LaneState::Open) => ("connector resumed", "open"),
            Self::Mailbox(LaneState::Open) => ("connector resumed", "mailbox open"),
            Self::Connector(state) => ("connector paused", state.as_str()),
            Self::Mailbox(LaneState::Throttled) => ("connector paused", "mailbox throttled"),
            Self::Mailbox(_) => ("connector paused", "mailbox paused"),
            Self::Broken => ("delivery broken off", "broken off"),
        }
    }
}

/// What is to be logged of a lane.
#[derive(Debug)]
pub(super) enum News {
    /// Closed or paused.
    Shut(LaneState, Reply),
    /// The upstream wants nothing for that long.
    Throttled(Duration, Reply),
    /// It works again.
    Resumed,
    /// So many of that kind in the last minute had no line of their own.
    More(Alarm, usize),
}

impl News {
    /// The kind of alarm it is in that lane; `None`: it is no alarm by itself.
    pub(super) fn alarm(&self, lane: &LaneId) -> Option<Alarm> {
        let state = match self {
            Self::Shut(state, _) => *state,
            Self::Throttled(..) => LaneState::Throttled,
            Self::Resumed => LaneState::Open,
            Self::More(..) => return None,
        };
        Some(match lane.mailbox {
            Some(_) => Alarm::Mailbox(state),
            None => Alarm::Connector(state),
        })
    }
}

/// The lines that were written of each kind.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    minutes: HashMap<(ConnectorName, Alarm), Minute>,
}

#[derive(Debug)]
struct Minute {
    since: Instant,
    lines: usize,
    left_out: usize,
    /// Left out of the minute before, and not said yet.
    owed: usize,
}

impl Minute {
    fn new(since: Instant, owed: usize) -> Self {
        Self {
            since,
            lines: 0,
            left_out: 0,
            owed,
        }
    }
}

impl Alarms {
    /// Whether one of that kind has a line of its own; if not it is counted.
    pub(super) fn has_line(
        &mut self,
        connector: &ConnectorName,
        alarm: Alarm,
        now: Instant,
    ) -> bool {
        let minute = self
            .minutes
            .entry((connector.clone(), alarm))
            .or_insert(Minute::new(now, 0));
        if now.saturating_duration_since(minute.since) >= WINDOW {
            let owed = minute.owed + minute.left_out;
            *minute = Minute::new(now, owed);
        }
        let has = minute.lines < LINES;
        minute.lines += usize::from(has);
        minute.left_out += usize::from(!has);
        has
    }

    /// What was left out of the minutes that are over.
    pub(super) fn left_out(&mut self, now: Instant) -> Vec<(ConnectorName, Alarm, usize)> {
        let mut out = Vec::new();
        self.minutes.retain(|(connector, alarm), minute| {
            let is_over = now.saturating_duration_since(minute.since) >= WINDOW;
            let mut count = std::mem::take(&mut minute.owed);
            if is_over {
                count += minute.left_out;
            }
            if count > 0 {
                out.push((connector.clone(), *alarm, count));
            }
            !is_over
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_minute_of_a_kind_and_a_count_of_the_others() {
        let mut alarms = Alarms::default();
        let (now, up, other) = (Instant::now(), "up".into(), "other".into());
        let paused = Alarm::Mailbox(LaneState::Paused);
        let mut lines = |connector, alarm, at| {
            let has = (0..1_000).filter(|_| alarms.has_line(connector, alarm, at));
            (has.count(), alarms.left_out(at + WINDOW / 2).len())
        };
        assert_eq!(lines(&up, paused, now), (LINES, 0));
        // Neither another kind nor another connector has to do with it.
        assert_eq!(
            lines(&up, Alarm::Connector(LaneState::Paused), now),
            (LINES, 0)
        );
        assert_eq!(lines(&other, paused, now), (LINES, 0));
        let left_out = alarms.left_out(now + WINDOW);
        assert_eq!(left_out.len(), 3);
        assert!(left_out.contains(&(up.clone(), paused, 990)));
        assert!(alarms.has_line(&up, paused, now + WINDOW));
        assert!(alarms.left_out(now + WINDOW * 2).is_empty());
        assert!(alarms.minutes.is_empty());
        // A minute that is over is counted by itself, also where the next begins before anybody has looked.
        for _ in 0..LINES + 5 {
            alarms.has_line(&up, paused, now + WINDOW * 3);
        }
        let next = now + WINDOW * 4;
        assert!(alarms.has_line(&up, paused, next));
        assert_eq!(alarms.left_out(next), [(up, paused, 5)]);
        assert!(alarms.left_out(next + WINDOW).is_empty());
    }
}
