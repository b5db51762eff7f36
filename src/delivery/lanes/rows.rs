//! The lanes as rows of the store: what `status` and `queue retry` see, and what a restart remembers.
//!
//! It does not read or write the store; the loop does.

use std::time::{Instant, SystemTime};

use super::{
    Lanes,
    alarms::News,
    entry::LaneEntry,
    gate::{GateState, LONGEST_WAIT, PAUSE_PROBE},
    now,
    others::{others, why_others},
    table::LaneTable,
};
use crate::{
    delivery::clock,
    mail::{outcome::LaneState, reply::Reply},
    queue::store::{LaneRow, NodeId},
    route::{ConnectorName, LaneId},
};

impl Lanes {
    /// What the store remembers, at start or after another process wrote (an operator wants a
    /// probe now). Whatever the clock did meanwhile, no lane waits longer than what can have shut it.
    pub(in crate::delivery) fn read(
        &self,
        rows: &[LaneRow],
        is_at_start: bool,
        system: SystemTime,
    ) {
        let now = now();
        let mut table = self.table();
        let is_among_others = self.member.is_some();
        let node = table.node;
        let known = rows
            .iter()
            .filter(|row| [NodeId::default(), node].contains(&row.node));
        let known = known.map(|row| ((row.lane.clone(), row.node), (row.version, row.state)));
        let before = std::mem::replace(&mut table.known, known.collect());
        for row in rows {
            let lane = row.lane.clone();
            let wanted = row.probe.is_some_and(|probe| probe <= system);
            if row.node != NodeId::default() {
                // What others say of their way there is theirs.
                if row.node == node
                    && wanted
                    && let Some(entry) = table.lanes.get_mut(&lane)
                {
                    entry.gate.probe_now(now);
                    table.dirty.insert(lane);
                }
                continue;
            }
            // Another gateway has written it.
            let seen = before
                .get(&(lane.clone(), row.node))
                .map(|(version, _)| *version);
            let is_news = is_among_others && !is_at_start && seen != Some(row.version);
            if lane == others(&lane.connector) {
                table.dirty.insert(lane.clone());
                if wanted && !is_at_start {
                    table.strangers.forgive();
                    for (other, entry) in &mut table.lanes {
                        if other.connector == lane.connector && entry.is_unlisted() {
                            entry.gate.probe_now(now);
                        }
                    }
                }
                continue;
            }
            let is_stopped = row.state == LaneState::Stopped && lane.mailbox.is_none();
            if is_stopped {
                let reply = Reply::new(451, (4, 3, 2), row.why.clone());
                table.stop(&lane, &reply, row.since.min(system));
                continue;
            }
            if !is_at_start {
                table.start_again(&lane);
            }
            if !is_at_start && !is_news {
                if wanted && let Some(entry) = table.lanes.get_mut(&lane) {
                    entry.gate.probe_now(now);
                    // The row's probe time is old from now on.
                    table.dirty.insert(lane);
                }
                continue;
            }
            if row.state == LaneState::Open {
                if is_news {
                    table.opened_by_another(&lane);
                }
                continue;
            }
            if is_news
                && wanted
                && table
                    .lanes
                    .get(&lane)
                    .is_some_and(|entry| entry.is_shut(row.state))
            {
                // Somebody wants to know.
                if let Some(entry) = table.lanes.get_mut(&lane) {
                    entry.gate.probe_now(now);
                    table.dirty.insert(lane);
                }
                continue;
            }
            let Some(connector) = table.lanes.get(&LaneId::of(&lane.connector)) else {
                continue;
            };
            let until = row
                .probe
                .and_then(|probe| probe.duration_since(system).ok())
                .map_or(now, |wait| {
                    let longest = match row.state {
                        LaneState::Throttled => LONGEST_WAIT,
                        _ if lane.mailbox.is_some() => PAUSE_PROBE,
                        _ => connector.probe_times.most(),
                    };
                    now + wait.min(longest)
                });
            table.restore(row, until, (now, system), is_news);
        }
        self.log_news(table, now);
    }

    /// The wall clock was set: what is said of a lane moves with it, what it waits for does not.
    pub(in crate::delivery) fn step(&self, by: i64, system: SystemTime) {
        let mut table = self.table();
        let LaneTable { lanes, dirty, .. } = &mut *table;
        for (lane, entry) in lanes {
            entry.since = entry.since.map(|since| clock::moved(since, by).min(system));
            if entry.is_held || entry.gate.state() != GateState::Open {
                dirty.insert(lane.clone());
            }
        }
    }

    /// The state of a connector's lane, and the jobs that have a permit of it.
    pub(in crate::delivery) fn now_at(&self, connector: &ConnectorName) -> (LaneState, usize) {
        let now = now();
        let table = self.table();
        let entry = table.lanes.get(&LaneId::of(connector));
        entry.map_or((LaneState::Open, 0), |entry| {
            let (state, _) = entry.state(false, now);
            (state, entry.gate.taken())
        })
    }

    /// Rows that changed since the last call.
    pub(in crate::delivery) fn changed_rows(&self, system: SystemTime) -> Vec<LaneRow> {
        let now = now();
        let mut table = self.table();
        let dirty: Vec<LaneId> = table.dirty.drain().collect();
        let mut rows = Vec::new();
        for lane in dirty {
            let row = match (table.lanes.get(&lane), table.summed(&lane)) {
                (Some(entry), _) if entry.is_unlisted() => continue,
                (Some(entry), _) => entry.row(&lane, now, system),
                (None, Some(count)) => sum_row(&lane, count, system),
                (None, None) => open_row(&lane, system),
            };
            table.said(row, &mut rows);
        }
        rows
    }

    /// One was written: what the store has is this version now, or no row where an open one needs none.
    pub(in crate::delivery) fn written(&self, row: &LaneRow) {
        let mut table = self.table();
        let key = (row.lane.clone(), row.node);
        let is_forgotten = row.lane.mailbox.is_some() || row.node != NodeId::default();
        if row.state == LaneState::Open && is_forgotten {
            table.known.remove(&key);
        } else {
            table.known.insert(key, (row.version + 1, row.state));
        }
    }

    /// This gateway is another node from now on: what it said of its own way goes with the one before.
    pub(in crate::delivery) fn becomes(&self, node: NodeId) {
        let mut table = self.table();
        if table.node == node {
            return;
        }
        table.node = node;
        let LaneTable { lanes, dirty, .. } = &mut *table;
        let is_closed = |entry: &LaneEntry| matches!(entry.gate.state(), GateState::Closed { .. });
        let closed = lanes.iter().filter(|(_, entry)| is_closed(entry));
        dirty.extend(closed.map(|(lane, _)| lane.clone()));
    }

    /// Writing one did not work: again with the next ones.
    pub(in crate::delivery) fn still_dirty(&self, rows: &[LaneRow]) {
        let mut table = self.table();
        for row in rows {
            table.dirty.insert(row.lane.clone());
        }
    }
}

impl LaneTable {
    /// A lane is as its row says: after a start, or since another gateway has written it (`is_news`).
    fn restore(
        &mut self,
        row: &LaneRow,
        until: Instant,
        (now, system): (Instant, SystemTime),
        is_news: bool,
    ) {
        let lane = &row.lane;
        if lane.mailbox.is_some() && !self.add_mailbox(lane, now) {
            return;
        }
        let Some(entry) = self.lanes.get_mut(lane) else {
            return;
        };
        match row.state {
            LaneState::Throttled => {
                entry.restore_held(now, until.saturating_duration_since(now));
            }
            // After a start it is tried at once; what another gateway found out a moment ago need not be found out again.
            LaneState::Paused if lane.mailbox.is_none() => {
                entry.gate.pause(if is_news { until } else { now });
            }
            _ => entry.gate.restore_closed(until),
        }
        entry.since = Some(row.since.min(system));
        entry.why = Some(Reply::new(451, (4, 4, 1), row.why.clone()));
        if is_news {
            self.dirty.remove(lane);
        }
    }

    /// Another gateway has written that it works (again).
    fn opened_by_another(&mut self, lane: &LaneId) {
        let is_own = self.known.contains_key(&(lane.clone(), self.node));
        let Some(entry) = self.lanes.get_mut(lane) else {
            return;
        };
        // Closed by itself, this gateway finds out by itself.
        let is_closed = matches!(entry.gate.state(), GateState::Closed { .. });
        let is_elsewhere = self.node != NodeId::default() && is_own;
        if is_closed && is_elsewhere || !entry.gate.open() {
            return;
        }
        entry.unlisted = false;
        self.news.push((lane.clone(), News::Resumed));
    }

    /// What is written of a lane: by a gateway among others what is so for all, and what is about its own way there.
    fn said(&self, row: LaneRow, rows: &mut Vec<LaneRow>) {
        let lane = row.lane.clone();
        let known = |node| self.known.get(&(lane.clone(), node)).copied();
        let (for_all, own) = (known(NodeId::default()), known(self.node));
        let version = |known: Option<(u64, LaneState)>| known.map_or(0, |(version, _)| version);
        if self.node == NodeId::default() {
            let version = version(for_all);
            rows.push(LaneRow { version, ..row });
            return;
        }
        let is_shared = self
            .lanes
            .get(&lane)
            .is_some_and(|entry| entry.facts.is_shared());
        let is_own = row.state == LaneState::Closed && !is_shared;
        let was_open = for_all.is_none_or(|(_, state)| state == LaneState::Open);
        if is_own {
            let (version, node) = (version(own), self.node);
            rows.push(LaneRow {
                version,
                node,
                ..row.clone()
            });
        } else if own.is_some() {
            let (version, node) = (version(own), self.node);
            rows.push(LaneRow {
                version,
                node,
                ..open_row(&lane, row.since)
            });
        }
        let version = version(for_all);
        if is_own && !was_open {
            rows.push(LaneRow {
                version,
                ..open_row(&lane, row.since)
            });
        } else if !(is_own || was_open && row.state == LaneState::Open) {
            rows.push(LaneRow { version, ..row });
        }
    }
}

impl LaneEntry {
    /// Whether it says so already.
    fn is_shut(&self, state: LaneState) -> bool {
        match state {
            LaneState::Closed => matches!(self.gate.state(), GateState::Closed { .. }),
            LaneState::Paused => !matches!(self.gate.state(), GateState::Open),
            LaneState::Open | LaneState::Throttled | LaneState::Stopped => false,
        }
    }

    /// What is said of it, and until when where it is not open.
    fn state(&self, is_mailbox: bool, now: Instant) -> (LaneState, Option<Instant>) {
        match self.gate.state() {
            GateState::Open => match self.gate.held(now) {
                Some(until) if self.is_held => (LaneState::Throttled, Some(until)),
                _ => (LaneState::Open, None),
            },
            GateState::Closed { until, .. } if is_mailbox => (LaneState::Paused, Some(until)),
            GateState::Closed { until, .. } => (LaneState::Closed, Some(until)),
            GateState::Paused { probe, .. } => (LaneState::Paused, Some(probe)),
            GateState::Stopped => (LaneState::Stopped, None),
        }
    }

    fn row(&self, lane: &LaneId, now: Instant, system: SystemTime) -> LaneRow {
        let since = self.since.unwrap_or(system);
        let (state, Some(probe)) = self.state(lane.mailbox.is_some(), now) else {
            let stopped = self.gate.state() == GateState::Stopped;
            let why = self.why.as_ref().filter(|_| stopped);
            return LaneRow {
                state: if stopped {
                    LaneState::Stopped
                } else {
                    LaneState::Open
                },
                why: why.map(|reply| reply.text.clone()).unwrap_or_default(),
                ..open_row(lane, since)
            };
        };
        LaneRow {
            lane: lane.clone(),
            state,
            since,
            why: self.why.as_ref().map(Reply::to_string).unwrap_or_default(),
            probe: Some(system + probe.saturating_duration_since(now)),
            version: 0,
            node: NodeId::default(),
        }
    }
}

fn sum_row(lane: &LaneId, count: usize, system: SystemTime) -> LaneRow {
    LaneRow {
        lane: lane.clone(),
        state: LaneState::Paused,
        since: system,
        why: why_others(LaneState::Paused, count),
        probe: None,
        version: 0,
        node: NodeId::default(),
    }
}

fn open_row(lane: &LaneId, since: SystemTime) -> LaneRow {
    LaneRow {
        lane: lane.clone(),
        state: LaneState::Open,
        since,
        why: String::new(),
        probe: None,
        version: 0,
        node: NodeId::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        connector::LaneLimits,
        delivery::{lanes::probes::ProbeTimes, timekeeper::MachineClock},
    };

    #[test]
    fn what_was_stopped_is_so_when_it_is_named_again() {
        let lanes = Lanes::new(Arc::new(MachineClock), None);
        let up = LaneId::of(&"up".into());
        let row = LaneRow {
            state: LaneState::Stopped,
            why: "stopped by kim".to_owned(),
            ..open_row(&up, SystemTime::now())
        };
        lanes.read(&[row], true, SystemTime::now());
        let limits = LaneLimits {
            concurrent: 1,
            rate: None,
            upload: None,
        };
        for _ in 0..2 {
            let times = ProbeTimes::default();
            lanes
                .table()
                .limit(up.clone(), limits, None, times, Instant::now());
            assert_eq!(
                lanes.ready(&up.connector, None),
                crate::delivery::lanes::gate::Ready::Shut
            );
            lanes
                .table()
                .limited(&std::collections::HashSet::new(), Instant::now());
        }
        assert!(lanes.changed_rows(SystemTime::now()).is_empty());
        lanes.read(
            &[open_row(&up, SystemTime::now())],
            false,
            SystemTime::now(),
        );
        assert_eq!(
            lanes.ready(&up.connector, None),
            crate::delivery::lanes::gate::Ready::Now(1)
        );
    }

    #[test]
    fn many_refused_mailboxes_have_few_rows_and_a_count() {
        let lanes = Lanes::new(Arc::new(MachineClock), None);
        let limits = LaneLimits {
            concurrent: 4,
            rate: None,
            upload: None,
        };
        let mailbox = |n: usize| LaneId {
            mailbox: Some(format!("m{n}@corp.example").into()),
            ..LaneId::of(&"up".into())
        };
        let why = Reply::new(550, (5, 7, 60), "no such mailbox");
        lanes.table().limit(
            LaneId::of(&"up".into()),
            limits,
            Some(limits),
            ProbeTimes::default(),
            now(),
        );
        for n in 0..1_000 {
            lanes.table().refuse(&mailbox(n), &why, lanes.at(now()));
        }
        lanes.table().pass_time(Instant::now());
        let rows = lanes.changed_rows(SystemTime::now());
        assert_eq!(rows.len(), 101, "a hundred, and one for the others");
        let others = rows
            .iter()
            .find(|row| row.lane == LaneId::parse("up/*"))
            .unwrap();
        assert!(
            others.why.starts_with("900 more mailboxes"),
            "{}",
            others.why
        );
        // The one with a row and one without are mended.
        for n in [0, 999] {
            lanes.table().open(&mailbox(n), now());
        }
        lanes.table().pass_time(Instant::now());
        let rows = lanes.changed_rows(SystemTime::now());
        let state = |lane: &str| {
            rows.iter()
                .find(|r| r.lane == LaneId::parse(lane))
                .map(|r| r.state)
        };
        assert_eq!(state("up/m0@corp.example"), Some(LaneState::Open));
        let others = rows
            .iter()
            .find(|row| row.lane == LaneId::parse("up/*"))
            .unwrap();
        assert!(others.why.starts_with("899 more"), "{}", others.why);
        // What the store remembers of the others is found out again.
        let next = Lanes::new(Arc::new(MachineClock), None);
        next.table().limit(
            LaneId::of(&"up".into()),
            limits,
            Some(limits),
            ProbeTimes::default(),
            now(),
        );
        next.read(&rows, true, SystemTime::now());
        let again = next.changed_rows(SystemTime::now());
        assert!(
            again.iter().all(|row| row.state == LaneState::Open),
            "{again:?}"
        );
    }
}
