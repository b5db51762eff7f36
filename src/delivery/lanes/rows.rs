//! The lanes as rows of the store: what `status` and `queue retry` see, and what a restart remembers.
//!
//! It does not read or write the store; the loop does.

use std::time::{Instant, SystemTime};

use super::{
    Lanes,
    entry::LaneEntry,
    gate::{GateState, LONGEST_WAIT, PAUSE_PROBE},
    now,
    others::{others, why_others},
    table::LaneTable,
};
use crate::{
    delivery::clock,
    mail::{outcome::LaneState, reply::Reply},
    queue::store::LaneRow,
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
        table.versions = rows.iter().map(|r| (r.lane.clone(), r.version)).collect();
        for row in rows {
            let lane = row.lane.clone();
            let wanted = row.probe.is_some_and(|probe| probe <= system);
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
                if wanted && let Some(entry) = table.lanes.get_mut(&lane) {
                    entry.gate.probe_now(now);
                    // The row's probe time is old from now on.
                    table.dirty.insert(lane);
                }
                continue;
            }
            if row.state == LaneState::Open {
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
            if lane.mailbox.is_some() && !table.add_mailbox(&lane, now) {
                continue;
            }
            if let Some(entry) = table.lanes.get_mut(&lane) {
                match row.state {
                    LaneState::Throttled => {
                        entry.restore_held(now, until.saturating_duration_since(now));
                    }
                    LaneState::Paused if lane.mailbox.is_none() => {
                        entry.gate.pause(now);
                    }
                    _ => entry.gate.restore_closed(until),
                }
                entry.since = Some(row.since.min(system));
                entry.why = Some(Reply::new(451, (4, 4, 1), row.why.clone()));
            }
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
        dirty
            .into_iter()
            .filter_map(|lane| match (table.lanes.get(&lane), table.summed(&lane)) {
                (Some(entry), _) if entry.is_unlisted() => None,
                (Some(entry), _) => Some(entry.row(&lane, now, system)),
                (None, Some(count)) => Some(sum_row(&lane, count, system)),
                (None, None) => Some(open_row(&lane, system)),
            })
            .map(|row| LaneRow {
                version: table.versions.get(&row.lane).copied().unwrap_or(0),
                ..row
            })
            .collect()
    }

    /// One was written: what the store has is this version now, or no row where an open mailbox needs none.
    pub(in crate::delivery) fn written(&self, row: &LaneRow) {
        let mut table = self.table();
        if row.state == LaneState::Open && row.lane.mailbox.is_some() {
            table.versions.remove(&row.lane);
        } else {
            table.versions.insert(row.lane.clone(), row.version + 1);
        }
    }

    /// Writing one did not work: again with the next ones.
    pub(in crate::delivery) fn still_dirty(&self, rows: &[LaneRow]) {
        let mut table = self.table();
        for row in rows {
            table.dirty.insert(row.lane.clone());
        }
    }
}

impl LaneEntry {
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
