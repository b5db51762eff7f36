//! The lanes as rows of the store: what `status` and `queue retry` see, and what a restart remembers.
//!
//! Apart from the gates, which know nothing of rows. It does not read or write the store; the loop does.

use std::time::{Instant, SystemTime};

use super::{
    gate::{LONGEST_WAIT, State},
    lanes::Lanes,
    table::Entry,
};
use crate::{connector::Lane, mail::reply::Reply, queue::store::LaneRow};

impl Lanes {
    /// What the store remembers, at start (`at_start`) or after another process wrote (an operator wants a probe now).
    pub(super) fn read(&self, rows: &[LaneRow], at_start: bool, system: SystemTime) {
        let now = Instant::now();
        let mut table = self.table();
        for row in rows {
            let lane = Lane::parse(&row.lane);
            let wanted = row.probe.is_some_and(|probe| probe <= system);
            if !at_start {
                if wanted && let Some(entry) = table.lanes.get_mut(&lane) {
                    entry.gate.probe_now(now);
                    // The row's probe time is old from now on.
                    table.dirty.insert(lane);
                }
                continue;
            }
            if row.state == "open" || !table.lanes.contains_key(&Lane::of(&lane.connector)) {
                continue;
            }
            let until = row
                .probe
                .and_then(|probe| probe.duration_since(system).ok())
                .map_or(now, |wait| now + wait.min(LONGEST_WAIT));
            if lane.mailbox.is_some() && !table.add_mailbox(&lane, now) {
                continue;
            }
            if let Some(entry) = table.lanes.get_mut(&lane) {
                match row.state.as_str() {
                    "throttled" => entry.restore_held(now, until.saturating_duration_since(now)),
                    "paused" if lane.mailbox.is_none() => {
                        entry.gate.pause(now);
                    }
                    _ => entry.gate.restore_closed(until),
                }
                entry.since = row.since;
                entry.why = Some(Reply::new(451, (4, 4, 1), row.why.clone()));
            }
        }
    }

    /// Rows that changed since the last call.
    pub(super) fn changed_rows(&self, system: SystemTime) -> Vec<LaneRow> {
        let now = Instant::now();
        let mut table = self.table();
        let dirty: Vec<Lane> = table.dirty.drain().collect();
        dirty
            .into_iter()
            .map(|lane| match table.lanes.get(&lane) {
                Some(entry) => entry.row(&lane, now, system),
                None => open_row(&lane, system),
            })
            .collect()
    }

    /// Writing one did not work: again with the next ones.
    pub(super) fn still_dirty(&self, rows: &[LaneRow]) {
        let mut table = self.table();
        for row in rows {
            table.dirty.insert(Lane::parse(&row.lane));
        }
    }

    /// All lanes as they are now.
    pub(super) fn snapshot(&self, system: SystemTime) -> Vec<LaneRow> {
        let now = Instant::now();
        let table = self.table();
        let mut rows: Vec<LaneRow> = table
            .lanes
            .iter()
            .map(|(lane, entry)| entry.row(lane, now, system))
            .collect();
        rows.sort_by(|a, b| a.lane.cmp(&b.lane));
        rows
    }
}

impl Entry {
    fn row(&self, lane: &Lane, now: Instant, system: SystemTime) -> LaneRow {
        let (state, probe) = match self.gate.state() {
            State::Open => match self.gate.held(now) {
                Some(until) if self.held => ("throttled", until),
                _ => return open_row(lane, self.since),
            },
            State::Closed { until, .. } if lane.mailbox.is_some() => ("paused", until),
            State::Closed { until, .. } => ("closed", until),
            State::Paused { probe, .. } => ("paused", probe),
        };
        LaneRow {
            lane: lane.to_string(),
            state: state.to_owned(),
            since: self.since,
            why: self.why.as_ref().map(Reply::to_string).unwrap_or_default(),
            probe: Some(system + probe.saturating_duration_since(now)),
        }
    }
}

fn open_row(lane: &Lane, since: SystemTime) -> LaneRow {
    LaneRow {
        lane: lane.to_string(),
        state: "open".to_owned(),
        since,
        why: String::new(),
        probe: None,
    }
}
